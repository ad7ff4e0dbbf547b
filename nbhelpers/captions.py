"""Captions: a picture put into words by BLIP."""

import re

import torch
from PIL import Image

from nbhelpers.datasets.pictures import Picture, as_image
from nbhelpers.errors import refused
from nbhelpers.models import Captioner

# The openings that captions of this kind start with; what follows them is what is in the picture.
LOOKS = r"(?:(?:black|white|colou?r|close-?up|high|low|quality|resolution|blurry|and)\s+)*"
OPENING = re.compile(
    rf"\s*(?:(?:this|here|it)\s+is\s+)?(?:(?:an?|the)\s+(?:\w+\s+)?)?{LOOKS}"
    r"(?:photograph|photography|photo|picture|pic|image|snapshot|drawing|close[- ]?up)\s+of\s+",
    re.IGNORECASE,
)


@torch.no_grad()
def caption(
    image: Picture,
    captioner: Captioner,
    *,
    about: str | None = None,
    prefix: str = "a photograph of",
    max_tokens: int = 40,
) -> str:
    """Writes a sentence about a picture, or about one thing in it.

    Section 3.1: "the target object and the image are given to a BLIP model, which outputs a prompt
    describing the target object". BLIP is conditioned by letting it go on from a beginning;
    DiffSegmenter's is "a photograph of {class}".

    Args:
        image: uint8 ``(h, w, 3)``, or what `as_image` takes.
        captioner: From `load_models`, ``models.captioner``.
        about: The thing to describe: the caption goes on from ``{prefix} {about}``. A free
            caption when None.
        prefix: The beginning, used only together with `about`.
        max_tokens: The most tokens to be written, between 1 and 500.

    Returns:
        The caption, written greedily, so that the same picture has the same caption each time.
        It begins with the prefix and what it is about, letter for letter as they were given.

    Raises:
        ValueError: There is no picture, `about` is empty, or `max_tokens` is out of range.
    """
    if about is not None and not about.strip():
        raise refused("caption", "about names the thing to describe, None for all", about=about)
    if not 1 <= max_tokens <= 500:
        raise refused("caption", "max_tokens lies between 1 and 500", max_tokens=max_tokens)
    start = None if about is None else f"{prefix} {' '.join(about.split())}"
    picture = Image.fromarray(as_image(image))
    inputs = captioner.processor(images=picture, text=start, return_tensors="pt")
    dtype = next(captioner.model.parameters()).dtype
    words = {} if start is None else {"input_ids": inputs["input_ids"].to(captioner.device)}
    tokens = captioner.model.generate(
        pixel_values=inputs["pixel_values"].to(captioner.device, dtype),
        max_new_tokens=max_tokens,
        do_sample=False,
        num_beams=1,
        **words,
    )
    if start is None:
        return tidy(captioner.processor.decode(tokens[0], skip_special_tokens=True))
    # The tokens of the beginning lack their end mark, which generate has taken off.
    own = inputs["input_ids"].shape[1] - 1
    written = captioner.processor.decode(tokens[0, own:], skip_special_tokens=True)
    return tidy(f"{start} {written}", keep=len(start))


def tidy(written: str, keep: int = 0) -> str:
    """Tidies BLIP's words: its decoder sets a space on both sides of every sign.

    Args:
        written: The decoder's text.
        keep: As many characters at the beginning are someone else's and stay as they are.

    Example:
        >>> tidy("a dog ' s t - shirt , and a hat .")
        "a dog's t-shirt, and a hat."
    """
    rest = " ".join(written[keep:].split())
    rest = re.sub(r"(^|\w) (['’]) (s|t|d|m|re|ve|ll)\b", r"\1\2\3", f" {rest}" if keep else rest)
    rest = re.sub(r"(\w) - (?=\w)", r"\1-", rest)
    rest = re.sub(r" ([,.!?;:])", r"\1", rest)
    return (written[:keep] + rest).rstrip() if keep else rest.strip()


def opening(caption: str) -> int:
    """Counts the characters with which a caption only says that it is a picture, 0 if it doesn't.

    Example:
        >>> text = "a photograph of a black horse"
        >>> text[opening(text):]
        'a black horse'
    """
    found = OPENING.match(caption)
    return found.end() if found else 0
