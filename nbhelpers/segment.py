"""The whole way: a picture and a phrase in, a mask out."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from nbhelpers.attention import Layer, denoise_once, record_attention
from nbhelpers.captions import caption as write_caption
from nbhelpers.captions import opening
from nbhelpers.chunks import Chunk, find_target, noun_chunks
from nbhelpers.completion import complete
from nbhelpers.embeddings import Prompt, embed
from nbhelpers.masks import to_pixels
from nbhelpers.models import Models
from nbhelpers.scores import score_maps


@dataclass(frozen=True)
class Settings:
    """Every knob of the method. What is None is read as the model is best read (`Reading`).

    The defaults are the plain baseline with the paper's choices where it makes them; `SETTINGS`
    names the combinations.
    """

    isolate: Literal["none", "target", "others", "every"] = "none"  # table 4, baseline
    by: Literal["encoding", "masking"] = "encoding"  # eq. 3: the chunk encoded by itself
    tail: Literal["prompt", "empty", "empty-eos", "empty-padding"] = "prompt"  # eq. 3 leaves it
    alpha: float = 1.0  # eq. 4 without effect
    unconditional: Literal["row", "pooled", "masked"] = "row"  # ours; the paper doesn't say
    into: Literal["keys", "values", "both"] = "both"  # one embedding feeds both in the paper
    timesteps: tuple[int, ...] | None = None  # DiffSegmenter's code: (100,)
    seed: int = 0  # ours; neither paper nor code names one
    keys: Literal["all", "words"] = "all"  # DiffSegmenter's code: the model's own softmax
    weights: Mapping[int, float] | Literal["equal"] | None = None  # DiffSegmenter: .3 .5 .1 .1
    subtokens: Literal["all", "last"] = "all"  # ours; "last" in DiffSegmenter's code
    transpose: bool = False  # DiffSegmenter's code: A S
    steps: int = 1  # DiffSegmenter's code: once
    threshold: float | None = None  # table 2: 0.5
    caption: Literal["phrase", "blip"] = "phrase"  # figures 2 to 8: "a photograph of {phrase}"
    size: tuple[int, int] | None = None  # DiffSegmenter's code: the model's own, 512 x 512


SETTINGS: Mapping[str, Settings] = {
    "plain": Settings(),
    "chunk": Settings(isolate="target"),  # eq. 3; table 4, "Noun chunk replacement"
    "paper": Settings(isolate="target", alpha=0.9),  # eq. 3 and 4; table 3's best alpha
    # The class word carries Compel's "++", a weight of 1.1 ** 2, and its last token scores it.
    "diffsegmenter": Settings(alpha=1.21, subtokens="last"),
    "sealed": Settings(isolate="every", tail="empty"),  # ours: the three leaks closed
}
OF_THE_PROMPT = ("isolate", "by", "tail", "alpha", "unconditional", "into")


@dataclass(frozen=True)
class Segmentation:
    """A mask, and all that led to it.

    Attributes:
        mask: The pixels that the phrase means.
        map: The completed map in [0, 1], as large as the picture; the mask is where it reaches the
            threshold.
        score: The score map before completion, on its own grid.
        phrase: What was asked for.
        prompt: The prompt with its chunks (those after "a photograph of") and edited embedding.
        target: The index of the chunk that was segmented.
        settings: As they were used, nothing left open.
        method: The name of the settings.
        model: The model's name.
        revision: Its commit on the Hub, None for a folder.
    """

    mask: Bool[np.ndarray, "h w"]
    map: Float[np.ndarray, "h w"]
    score: Float[np.ndarray, "h_grid w_grid"]
    phrase: str
    prompt: Prompt
    target: int
    settings: Settings
    method: str
    model: str
    revision: str | None

    @property
    def caption(self) -> str:
        """The text of the prompt."""
        return self.prompt.text

    @property
    def chunk(self) -> Chunk:
        """The chunk that was segmented."""
        return self.prompt.chunks[self.target]

    def record(self) -> dict[str, Any]:
        """What there is to say about it in plain numbers and words, ready for JSON."""

        def spread(values: np.ndarray) -> dict[str, float]:
            """The least, the mean and the largest value."""
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
            "map": spread(self.map),
            "mask": {
                "pixels": int(self.mask.sum()),
                "fraction": round(float(self.mask.mean()), 6),
            },
        }


def segment(
    image: UInt8[np.ndarray, "h w 3"],
    phrase: str,
    models: Models,
    *,
    method: str = "sealed",
    settings: Settings | None = None,
    target: str | None = None,
    caption: str | None = None,
    latent: Float[Tensor, "1 channel h_latent w_latent"] | None = None,
    progress: Callable[[str], None] | None = None,
    **overrides: Any,
) -> Segmentation:
    """The pixels of a picture that a phrase means.

    All of section 3, a stage after the other; what each does is told where it is defined.

    Args:
        image: uint8 ``(h, w, 3)`` of any size.
        phrase: What to look for: "the striped red ring".
        models: From `load_models`.
        method: A name in `SETTINGS`.
        settings: Settings of one's own in the place of the named ones; `method` then only says
            which of the model's thresholds to use.
        target: A word of the prompt whose chunk is meant; the phrase's first chunk when None.
        caption: The prompt, where it is to be another than "a photograph of {phrase}"; or "blip",
            to let BLIP go on from there.
        latent: From `encode_image`, so that many phrases share one encoded picture.
        progress: Is told each stage before it starts.
        **overrides: Single settings, by name: ``alpha=0.7``.

    Returns:
        The mask with its map, prompt and settings.

    Raises:
        ValueError: An unknown method or setting, an empty phrase, no noun in it, a target that
            isn't there, or anything that a stage refuses.
    """
    tell = progress or (lambda stage: None)
    if caption in ("phrase", "blip"):
        overrides, caption = {**overrides, "caption": caption}, None
    chosen = resolve(models, method, settings, **overrides)
    phrase, prompt = read_phrase(image, phrase, models, chosen, target, caption, tell)
    tell("attention")
    with record_attention(models.unet) as attention:
        denoise_once(
            image,
            prompt,
            models,
            timestep=chosen.timesteps or (),
            seed=chosen.seed,
            size=chosen.size,
            latent=latent,
        )
    tell("score map")
    score = score_target(attention.cross_layers, prompt, chosen)
    tell("completion")
    completed = complete(
        score, attention.self_layers, transpose=chosen.transpose, steps=chosen.steps
    )
    tell("mask")
    return cut(completed, score, image, phrase, prompt, chosen, models, method)


def read_phrase(
    image: UInt8[np.ndarray, "h w 3"],
    phrase: str,
    models: Models,
    settings: Settings,
    target: str | None = None,
    caption: str | None = None,
    tell: Callable[[str], None] = lambda stage: None,
) -> tuple[str, Prompt]:
    """The stages of `segment` before the picture is looked at: the phrase tidied, the prompt."""
    phrase = " ".join(phrase.split())
    if not phrase:
        raise ValueError("the phrase is empty; name a thing, as in 'the striped red ring'")
    tell("caption")
    text = caption or f"a photograph of {phrase}"
    if caption is None and settings.caption == "blip":
        text = write_caption(image, models.captioner, about=phrase)
    tell("chunks")
    start = opening(text)
    chunks = [chunk for chunk in noun_chunks(text, models.parser) if chunk.start >= start]
    if not chunks:
        raise ValueError(
            f"no noun chunk was found in {text[start:][:80]!r}; name a thing, as in "
            "'the striped red ring'"
        )
    asked = re.search(re.escape(phrase), text[start:], re.IGNORECASE)
    if target is None and asked:
        index = find_target(chunks, after=start + asked.start(), caption=text)
    else:
        index = find_target(chunks, target or phrase, caption=text)
    tell("embedding")
    edits = {name: getattr(settings, name) for name in OF_THE_PROMPT}
    return phrase, embed(text, chunks, models.text, target=index, **edits)


def score_target(layers: Sequence[Layer], prompt: Prompt, settings: Settings) -> Tensor:
    """The score map of the prompt's target alone: ``1 h w``."""
    spans, index = prompt.spans, prompt.target or 0
    only = replace(spans, nouns=(spans.nouns[index],), chunks=(spans.chunks[index],))
    weights = settings.weights if isinstance(settings.weights, Mapping) else None
    return score_maps(
        layers, only, keys=settings.keys, weights=weights, subtokens=settings.subtokens
    )


def cut(
    completed: Float[Tensor, "1 h_grid w_grid"],
    score: Float[Tensor, "1 h_grid w_grid"],
    image: UInt8[np.ndarray, "h w 3"],
    phrase: str,
    prompt: Prompt,
    settings: Settings,
    models: Models,
    method: str,
) -> Segmentation:
    """The last stage of `segment`: the completed map as large as the picture, and its mask."""
    pixels = to_pixels(completed, (image.shape[0], image.shape[1]))[0]
    return Segmentation(
        mask=pixels >= settings.threshold,
        map=pixels,
        score=score[0].cpu().numpy(),
        phrase=phrase,
        prompt=prompt,
        target=prompt.target or 0,
        settings=settings,
        method=method,
        model=models.name,
        revision=models.revision,
    )


def resolve(
    models: Models, method: str = "sealed", settings: Settings | None = None, **overrides: Any
) -> Settings:
    """The settings that a model is read with, nothing left open.

    Args:
        models: Whose `Reading` fills what the settings leave to the model.
        method: A name in `SETTINGS`.
        settings: Settings in the place of the named ones.
        **overrides: Single settings, by name.

    Returns:
        Settings whose timesteps, weights and threshold are given.

    Raises:
        ValueError: An unknown method or setting, or a threshold out of [0, 1].
    """
    if method not in SETTINGS and settings is None:
        raise ValueError(f"method is one of {', '.join(SETTINGS)}; got {method!r}")
    known = Settings.__dataclass_fields__
    unknown = sorted(set(overrides) - set(known))
    if unknown:
        raise ValueError(f"there is no setting {', '.join(unknown)}; there are {', '.join(known)}")
    chosen = replace(settings or SETTINGS[method], **overrides)
    reading = models.reading
    if chosen.timesteps is None:
        chosen = replace(chosen, timesteps=reading.timesteps)
    if chosen.weights is None:
        chosen = replace(chosen, weights=reading.weights or "equal")
    if chosen.threshold is None:
        chosen = replace(chosen, threshold=reading.thresholds.get(method, 0.5))
    if chosen.threshold is None or math.isnan(chosen.threshold) or not 0 <= chosen.threshold <= 1:
        raise ValueError(f"threshold lies in [0, 1]; got {chosen.threshold}")
    return chosen
