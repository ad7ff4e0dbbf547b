"""The stages composed: a picture and a phrase in, a mask out."""

import html
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, overload

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from nbhelpers.attention import Layer, Recording, record_attention
from nbhelpers.captions import caption as write_caption
from nbhelpers.captions import opening
from nbhelpers.chunks import Chunk, find_head, find_phrase, find_target, is_thing, noun_chunks
from nbhelpers.completion import complete
from nbhelpers.datasets import Picture, as_image
from nbhelpers.denoising import add_noise, encode_image, predict_noise
from nbhelpers.display import as_drawing, overlay
from nbhelpers.embeddings import Prompt, embed
from nbhelpers.errors import quoted, refused
from nbhelpers.masks import to_pixels
from nbhelpers.models import Models
from nbhelpers.scores import score_maps, select_layers
from nbhelpers.settings import DEFAULT, OF_THE_PROMPT, resolve
from nbhelpers.settings import SETTINGS as SETTINGS
from nbhelpers.settings import Settings as Settings
from nbhelpers.tokens import Spans, reach
from nbhelpers.words import check_text, is_latin

OPENING = "a photograph of "  # figures 2 to 8
THING = "'the black horse'"


@dataclass(frozen=True, repr=False)
class Segmentation:
    """A mask, and all that led to it.

    There is a mask whether or not the thing is in the picture, and `peak` doesn't tell: see
    `segment`.

    Attributes:
        mask: The pixels that the phrase means.
        map: The completed map in [0, 1], as large as the picture; the mask is where it reaches the
            threshold.
        score: The score map before completion, on its own grid.
        peak: The highest value of the completed map before it was stretched to [0, 1].
        image: The picture, uint8.
        phrase: What was asked for.
        prompt: The prompt with its chunks (those after "a photograph of") and edited embedding.
        target: The index of the chunk that was segmented.
        settings: The settings as they were used, nothing left open.
        method: The name of the settings; "custom" for settings of one's own.
        model: The model's name.
        revision: Its commit on the Hub, None for a folder.
    """

    mask: Bool[np.ndarray, "h w"]
    map: Float[np.ndarray, "h w"]
    score: Float[np.ndarray, "h_grid w_grid"]
    peak: float
    image: UInt8[np.ndarray, "h w 3"]
    phrase: str
    prompt: Prompt
    target: int
    settings: Settings
    method: str
    model: str
    revision: str | None

    def __repr__(self) -> str:
        chunk = "" if self.chunk.text == self.phrase else f" as {quoted(self.chunk.text)}"
        return (
            f"<Segmentation: {quoted(self.phrase)}{chunk}, {self.mask.mean():.1%} of the picture, "
            f"by {self.method} of {quoted(self.model)[1:-1]}>"
        )

    def _repr_html_(self) -> str:
        """Draws the overlay, with the short form under it."""
        drawing = as_drawing(overlay(self.image, self.mask), repr(self)[1:-1])
        words = f"<figcaption>{html.escape(drawing.alt)}</figcaption>"
        return f"<figure>{drawing.as_html()}{words}</figure>"

    @property
    def caption(self) -> str:
        """The text of the prompt."""
        return self.prompt.text

    @property
    def chunk(self) -> Chunk:
        """The chunk that was segmented."""
        return self.prompt.chunks[self.target]

    def record(self) -> dict[str, Any]:
        """Returns all of it but the arrays in plain numbers and words, ready for JSON."""

        def spread(values: np.ndarray) -> dict[str, float]:
            named = {"min": values.min(), "mean": values.mean(), "max": values.max()}
            return {name: round(float(value), 6) for name, value in named.items()}

        settings = asdict(self.settings)
        if isinstance(settings["weights"], Mapping):
            settings["weights"] = {str(f): w for f, w in settings["weights"].items()}
        return {
            "phrase": self.phrase,
            "prompt": self.caption,
            "chunks": [chunk.text for chunk in self.prompt.chunks],
            "chunk": self.chunk.text,
            "target": self.chunk.noun,
            "method": self.method,
            "settings": settings,
            "model": self.model,
            "revision": self.revision,
            "seed": self.settings.seed,
            "size": list(self.mask.shape),
            "score": {"grid": list(self.score.shape), **spread(self.score)},
            "map": {**spread(self.map), "peak": round(self.peak, 6)},
            "mask": {
                "pixels": int(self.mask.sum()),
                "fraction": round(float(self.mask.mean()), 6),
            },
        }


@overload
def segment(image: Picture, phrase: str, models: Models, **more: Any) -> Segmentation: ...


@overload
def segment(
    image: Picture, phrase: Sequence[str], models: Models, **more: Any
) -> list[Segmentation]: ...


def segment(
    image: Picture,
    phrase: str | Sequence[str],
    models: Models,
    *,
    method: str | None = None,
    settings: Settings | None = None,
    target: str | None = None,
    caption: str | None = None,
    latent: Float[Tensor, "1 channel h_latent w_latent"] | None = None,
    progress: Callable[[str], None] | None = None,
    **overrides: Any,
) -> Segmentation | list[Segmentation]:
    """Segments the pixels of a picture that a phrase means.

    All of section 3, one stage after the other. A mask comes back for things that aren't there,
    too: the map is stretched before it is cut, so its highest point always passes.
    `Segmentation.peak` is the map's highest value before that; it says how far the attention
    gathered, and not whether the thing is there, which `nbhelpers.family.diffusion_classifier`
    measures. A phrase that names no thing, such as "second from left", gets a mask of its last
    resort, "left", and a warning.

    Args:
        image: uint8 ``(h, w, 3)`` of any size, a Pillow picture, or a path.
        phrase: What to look for: "the black horse". Or several such, which share one encoded
            picture and one pass of the UNet; for very many see `segment_batch`.
        models: From `load_models`.
        method: A name in `SETTINGS`; "sealed" when None.
        settings: Settings of one's own instead of the named ones; `method` then only says
            whose calibration fills what they leave open, see `resolve`.
        target: A word of the prompt whose chunk is meant; when None, the chunk that the phrase is
            about (`find_head`).
        caption: The prompt, where it is to be another than "a photograph of {phrase}".
        latent: From `encode_image`, so that many calls share one encoded picture.
        progress: Called with the name of each stage before it starts.
        **overrides: Single settings, by name: ``alpha=0.7``, or ``prompt_from="blip"`` to let
            BLIP go on from "a photograph of {phrase}".

    Returns:
        The mask with its map, prompt and settings; a list of them for several phrases, equal to
        those of single calls but for rounding.

    Raises:
        ValueError: There is no picture, method or setting of that name; the phrase is empty,
            isn't English or holds no noun; the target isn't there; or a stage refuses something.

    Example:
        >>> import nbhelpers as nb
        >>> models = nb.load_models("stickers")
        >>> path = nb.weights.data_folder() / "stickers" / "images" / "000149.png"
        >>> nb.segment(path, "the black horse", models, method="paper")
        <Segmentation: 'the black horse', ...% of the picture, by paper of stickers>
        >>> black, cup = nb.segment(path, ["a photo of a black horse", "the orange cup"], models)
        >>> black.chunk.text, black.method
        ('a black horse', 'sealed')
        >>> nb.segment(path, "horse", models, settings=Settings(alpha=0.9)).record()["method"]
        'custom'
        >>> nb.segment(path, "horse", models, caption="a black horse and a cup").chunk.text
        'a black horse'
    """
    tell = progress or (lambda stage: None)
    pixels = as_image(image)
    chosen = resolve(models, method, settings, **overrides)
    phrases = [phrase] if isinstance(phrase, str) else list(phrase)
    if target is not None and not isinstance(phrase, str):
        wanted = "a target belongs to one phrase; give one, or leave target out"
        raise refused("segment", wanted, phrase=phrase, target=target)
    prompts = [
        make_prompt(one, models, chosen, image=pixels, target=target, caption=caption, tell=tell)
        for one in phrases
    ]
    if not prompts:
        return []
    for one, prompt in zip(phrases, prompts, strict=True):
        if target is None and not is_thing(noun := prompt.chunks[prompt.target or 0].noun):
            taken = f"{quoted(one)} names no thing, and the mask is of the word {quoted(noun)}"
            warnings.warn(f"{taken}; say what is there, as in {THING}", stacklevel=2)
    tell("attention")
    if latent is None:
        latent = encode_image(pixels, models, seed=chosen.seed, size=chosen.size)
    size = tuple(side * models.latent_factor for side in latent.shape[-2:])
    if chosen.size is not None and size != chosen.size:
        wanted = f"the latent is of a picture of size {size}, and size is {chosen.size}"
        raise ValueError(f"segment(size={chosen.size}): {wanted}")
    noised = add_noise(latent, chosen.timesteps or (), models, seed=chosen.seed)
    attention = attend([noised] * len(prompts), prompts, chosen.timesteps or (), models)
    scores, completed = target_maps(attention, prompts, chosen, tell)
    tell("mask")
    name = "custom" if settings is not None else method or DEFAULT
    found = [
        binarize(maps, score, pixels, one, prompt, chosen, models, name)
        for maps, score, one, prompt in zip(completed, scores, phrases, prompts, strict=True)
    ]
    return found[0] if isinstance(phrase, str) else found


def make_prompt(
    phrase: str,
    models: Models,
    settings: Settings,
    *,
    image: Picture | None = None,
    target: str | None = None,
    caption: str | None = None,
    before: str = "",
    after: str = "",
    tell: Callable[[str], None] = lambda stage: None,
) -> Prompt:
    """Makes the prompt that asks for a phrase, its target the chunk that is meant.

    Args:
        phrase: As in `segment`. An opening such as "a photo of" is taken off: the prompt has one.
        models: From `load_models`.
        settings: From `resolve`.
        image: The picture, for the captioner alone.
        target: As in `segment`; so is `caption`.
        before: What stands before the phrase in the prompt, after "a photograph of".
        after: What stands behind it.
        tell: Called with the name of each stage before it starts.

    Raises:
        ValueError: A text is empty or isn't English, the phrase has no noun, or the target isn't
            there or lies beyond the tokens that the text encoder reads.
    """
    words = check_text(phrase)
    target = None if target is None else check_text(target, "target")
    if target is None or target.lower() not in words[: opening(words)].lower():
        words = words[opening(words) :]
    text = f"{OPENING}{before}{words}{after}"
    start = len(OPENING + before)
    span: tuple[int, int] | None = (start, start + len(words))
    tell("caption")
    own: tuple[Chunk, ...] = ()
    if caption is not None:
        text = check_text(caption, "caption")
    elif settings.prompt_from == "blip":
        if image is None:
            raise ValueError("BLIP needs the picture; give it, or use prompt_from='phrase'")
        # Whatever BLIP goes on with, the phrase's chunks are those that it has by itself.
        own = noun_chunks(text, models.parser)
        text = write_caption(image, models.captioner, about=words)
    tell("chunks")
    no_noun = ValueError(
        f"no noun chunk was found in {quoted(words)}; name a thing, as in {THING}"
    )
    end = start + len(words)
    found = (c for c in noun_chunks(text, models.parser) if not own or c.start >= end)
    chunks = [c for c in (*own, *found) if c.start >= opening(text)]
    if not chunks:
        raise no_noun
    if caption is not None:
        span = find_phrase(words, text, chunks)
    if target is None and span is not None:
        index = find_head(chunks, text, *span)
    else:
        index = find_target(chunks, target or words, caption=text)
    meant = chunks[index]
    if caption is None and target is None and meant.noun_start >= end:
        raise no_noun
    if not is_latin(meant.noun) and any(c.isalpha() for c in meant.noun):
        raise ValueError(f"{quoted(meant.noun)} is no English noun; name a thing, as in {THING}")
    tell("embedding")
    read = reach(text, models.text)
    kept = [c for c in chunks if c is meant or c.noun_end <= read]  # what isn't read isn't edited
    edits = {name: getattr(settings, name) for name in OF_THE_PROMPT}
    return embed(text, kept, models.text, target=kept.index(meant), **edits)


def attend(
    noised: Sequence[Float[Tensor, "timestep channel h_latent w_latent"]],
    prompts: Sequence[Prompt],
    timesteps: Sequence[int],
    models: Models,
) -> Recording:
    """Records the attention of one pass of the UNet for several prompts, from `make_prompt`.

    `noised` are for each prompt the latents of its picture, one a timestep, from `add_noise`.
    """
    with record_attention(models.unet) as attention:
        predict_noise(torch.cat(list(noised)), timesteps, prompts, models)
    return attention


def target_maps(
    attention: Recording,
    prompts: Sequence[Prompt],
    settings: Settings,
    tell: Callable[[str], None] = lambda stage: None,
) -> tuple[Float[Tensor, "prompt 1 h_grid w_grid"], Float[Tensor, "prompt 1 h_grid w_grid"]]:
    """Returns the score map of each prompt's target, and that map completed.

    `attention` is what `attend` recorded of these prompts; `tell` is called before each stage.
    """
    tell("score map")
    scores = torch.stack(
        [
            score_target(attention.part(i, len(prompts)).cross_layers, prompt, settings)
            for i, prompt in enumerate(prompts)
        ]
    )
    tell("completion")
    completed = complete(
        scores, attention.self_layers, transpose=settings.transpose, steps=settings.steps
    )
    return scores, completed


def score_target(
    layers: Sequence[Layer], prompt: Prompt, settings: Settings
) -> Float[Tensor, "1 h w"]:
    """Returns the score map of the prompt's target alone."""
    weights = settings.weights if isinstance(settings.weights, Mapping) else None
    return score_maps(
        select_layers(layers, settings.layers or "all"),
        target_spans(prompt),
        softmax_over=settings.softmax_over or "all",
        weights=weights,
        normalize=settings.normalize or "min-max",
        subtokens=settings.subtokens,
    )


def target_spans(prompt: Prompt) -> Spans:
    """Returns where the tokens of the prompt's target stand."""
    spans, index = prompt.spans, prompt.target or 0
    return replace(spans, nouns=(spans.nouns[index],), chunks=(spans.chunks[index],))


def binarize(
    completed: Float[Tensor, "1 h_grid w_grid"],
    score: Float[Tensor, "1 h_grid w_grid"],
    image: UInt8[np.ndarray, "h w 3"],
    phrase: str,
    prompt: Prompt,
    settings: Settings,
    models: Models,
    method: str,
) -> Segmentation:
    """Returns the last stage of `segment`: the map as large as the picture, and its mask."""
    pixels = to_pixels(completed, (image.shape[0], image.shape[1]))[0]
    return Segmentation(
        mask=pixels >= settings.threshold,
        map=pixels,
        score=score[0].cpu().numpy(),
        peak=float(completed.max()),
        image=image,
        phrase=" ".join(phrase.split()),
        prompt=prompt,
        target=prompt.target or 0,
        settings=settings,
        method=method,
        model=models.name,
        revision=models.revision,
    )
