"""One phrase in one picture read by many settings at once, and its pixels counted.

What differs only after the pass of the UNet (over which keys the softmax runs, how often the
self-attention is applied) shares that pass; what differs only in the prompt shares the picture's
latent. Each map is the one that `segment` makes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8

from nbhelpers.attention import denoise_once, record_attention
from nbhelpers.captions import caption as write_caption
from nbhelpers.captions import opening
from nbhelpers.chunks import find_target, noun_chunks
from nbhelpers.completion import complete
from nbhelpers.embeddings import embed
from nbhelpers.kernels import threshold_sweep
from nbhelpers.latents import encode_image
from nbhelpers.masks import to_pixels
from nbhelpers.models import Models
from nbhelpers.scores import score_maps
from nbhelpers.segment import Settings, resolve

THRESHOLDS = tuple(i / 100 for i in range(101))
AFTER_THE_PASS = ("keys", "weights", "subtokens", "transpose", "steps", "threshold")
OF_THE_PROMPT = ("isolate", "by", "tail", "alpha", "unconditional", "into")


class Reader:
    """Completed maps of one picture after another.

    Args:
        models: From `load_models`.
        variants: Settings by name.
    """

    def __init__(self, models: Models, variants: Mapping[str, Settings]) -> None:
        self.models = models
        self.names = tuple(variants)
        self.passes: dict[tuple[Any, ...], list[Settings]] = {}
        self._order: list[str] = []
        chosen = {name: resolve(models, "plain", s) for name, s in variants.items()}
        early = [f.name for f in fields(Settings) if f.name not in AFTER_THE_PASS]
        groups: dict[tuple[Any, ...], list[str]] = {}
        for name, settings in chosen.items():
            groups.setdefault(tuple(getattr(settings, e) for e in early), []).append(name)
        for key, names in groups.items():
            self.passes[key] = [chosen[name] for name in names]
            self._order += names
        self._image: UInt8[np.ndarray, "h w 3"] | None = None
        self._latents: dict[tuple[Any, ...], torch.Tensor] = {}

    @torch.no_grad()
    def maps(
        self, image: UInt8[np.ndarray, "h w 3"], phrase: str, before: str = "", after: str = ""
    ) -> Float[torch.Tensor, "variant h w"]:
        """The map of a phrase by every variant, in their order.

        Args:
            image: uint8 ``(h, w, 3)``. The same picture again is not encoded again.
            phrase: What is meant.
            before: What stands before it in the prompt, after "a photograph of".
            after: What stands behind it.

        Returns:
            In [0, 1], as large as the picture.

        Raises:
            ValueError: No noun in the phrase, or anything that a stage refuses.
        """
        if image is not self._image:
            self._image, self._latents = image, {}
        rows: list[torch.Tensor] = []
        for group in self.passes.values():
            rows += self._read(image, " ".join(phrase.split()), before, after, group)
        stretched = to_pixels(torch.stack(rows), (image.shape[0], image.shape[1]))
        return torch.from_numpy(stretched)[[self._order.index(name) for name in self.names]]

    def _read(
        self, image: np.ndarray, phrase: str, before: str, after: str, group: list[Settings]
    ) -> list[torch.Tensor]:
        """The completed maps of the settings that share a pass."""
        first = group[0]
        text, start = f"a photograph of {before}{phrase}{after}", len("a photograph of " + before)
        if first.caption == "blip":
            text = write_caption(image, self.models.captioner, about=phrase)
            start = opening(text)
        chunks = [c for c in noun_chunks(text, self.models.parser) if c.start >= opening(text)]
        if not chunks:
            raise ValueError(f"no noun chunk was found in {text[:80]!r}; name a thing")
        index = find_target(chunks, after=start, caption=text)
        edit = {name: getattr(first, name) for name in OF_THE_PROMPT}
        prompt = embed(text, chunks, self.models.text, target=index, **edit)
        timesteps = first.timesteps or ()
        latent = self._latent(image, first)
        with record_attention(self.models.unet) as attention:
            denoise_once(
                None, prompt, self.models, timestep=timesteps, seed=first.seed, latent=latent
            )
        spans = prompt.spans
        only = replace(spans, nouns=(spans.nouns[index],), chunks=(spans.chunks[index],))
        rows = []
        for s in group:
            weights = s.weights if isinstance(s.weights, Mapping) else None
            score = score_maps(
                attention.cross_layers, only, keys=s.keys, weights=weights, subtokens=s.subtokens
            )
            rows.append(
                complete(score, attention.self_layers, transpose=s.transpose, steps=s.steps)[0]
            )
        return rows

    def _latent(self, image: np.ndarray, settings: Settings) -> torch.Tensor:
        """The picture's latent, made once."""
        key = (settings.seed, settings.size)
        if key not in self._latents:
            self._latents[key] = encode_image(
                image, self.models, seed=settings.seed, size=settings.size
            )
        return self._latents[key]


def count(
    maps: Float[torch.Tensor, "variant h w"],
    truth: Bool[np.ndarray, "h w"],
    names: Sequence[str],
) -> dict[str, list[list[int]]]:
    """The pixels that each map shares with the truth, and those that either has.

    Args:
        maps: In [0, 1].
        truth: The true mask.
        names: Of the maps.

    Returns:
        By name, the intersections and the unions at each of `THRESHOLDS`.
    """
    truths = torch.from_numpy(truth)[None].expand(maps.shape)
    shared, either = threshold_sweep(maps, truths, torch.tensor(THRESHOLDS))
    pairs = zip(names, shared.tolist(), either.tolist(), strict=True)
    return {name: [i, u] for name, i, u in pairs}
