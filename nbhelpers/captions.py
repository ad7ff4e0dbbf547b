"""A picture put into words by BLIP."""

import re

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image

from nbhelpers.models import Captioner

# The openings that captions of this kind start with; what follows them is what is in the picture.
OPENING = re.compile(
    r"\s*(?:an?|the)\s+(?:\w+\s+)?(?:photograph|photography|photo|picture|image|drawing)\s+of\s+",
    re.IGNORECASE,
)


@torch.no_grad()
def caption(
    image: UInt8[np.ndarray, "h w 3"],
    captioner: Captioner,
    *,
    about: str | None = None,
    prefix: str = "a photograph of",
    max_tokens: int = 40,
) -> str:
    """A sentence about a picture, or about one thing in it.

    Section 3.1: "the target object and the image are given to a BLIP model, which outputs a prompt
    describing the target object". BLIP is conditioned by letting it go on from a beginning;
    DiffSegmenter's is "a photograph of {class}".

    Args:
        image: uint8 ``(h, w, 3)``.
        captioner: From `load_models`, ``models.captioner``.
        about: What the caption is to be about: it goes on from ``{prefix} {about}``. A free
            caption when None.
        prefix: The beginning, used only together with `about`.
        max_tokens: The most tokens to be written, between 1 and 500.

    Returns:
        The caption, written greedily, so that the same picture has the same caption each time.

    Raises:
        ValueError: `about` is empty, or `max_tokens` out of range.
    """
    if about is not None and not about.strip():
        raise ValueError("about names the thing to describe; it is empty. Leave it out for None")
    if not 1 <= max_tokens <= 500:
        raise ValueError(f"max_tokens lies between 1 and 500; got {max_tokens}")
    start = None if about is None else f"{prefix} {about.strip()}"
    inputs = captioner.processor(images=Image.fromarray(image), text=start, return_tensors="pt")
    dtype = next(captioner.model.parameters()).dtype
    words = {} if start is None else {"input_ids": inputs["input_ids"].to(captioner.device)}
    tokens = captioner.model.generate(
        pixel_values=inputs["pixel_values"].to(captioner.device, dtype),
        max_new_tokens=max_tokens,
        do_sample=False,
        num_beams=1,
        **words,
    )
    written = captioner.processor.decode(tokens[0], skip_special_tokens=True)
    return " ".join(written.split())


def opening(caption: str) -> int:
    """How many characters of a caption only say that it is a picture.

    Args:
        caption: Any text.

    Returns:
        The place where the rest starts; 0 where there is no such opening.

    Example:
        >>> text = "a photograph of a striped red ring"
        >>> text[opening(text):]
        'a striped red ring'
    """
    found = OPENING.match(caption)
    return found.end() if found else 0
