"""One phrase in one picture read by many settings at once, and its pixels counted.

What differs only after the pass of the UNet (over which keys the softmax runs, how often the
self-attention is applied) shares that pass; what differs only in the prompt shares the picture's
latent. Each map is the one that `segment` makes.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from itertools import groupby
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from nbhelpers.denoising import add_noise, encode_image
from nbhelpers.embeddings import Prompt
from nbhelpers.kernels import threshold_sweep
from nbhelpers.masks import to_pixels
from nbhelpers.models import Models
from nbhelpers.segment import attend, make_prompt, target_maps
from nbhelpers.settings import Settings, resolve

THRESHOLDS = tuple(i / 100 for i in range(101))
AFTER_THE_PASS = (
    *("softmax_over", "weights", "layers", "normalize", "subtokens", "transpose", "steps"),
    *("threshold", "calibrated_for"),
)


@dataclass(frozen=True)
class Question:
    """A phrase to be found in a picture.

    Attributes:
        image: uint8 ``(h, w, 3)``; one array for all questions about one picture, so that it is
            encoded once.
        phrase: What is meant.
        before: What stands before it in the prompt, after "a photograph of".
        after: What stands behind it.
    """

    image: UInt8[np.ndarray, "h w 3"]
    phrase: str
    before: str = ""
    after: str = ""


class Reader:
    """Completed maps by many settings at once.

    Args:
        models: From `load_models`.
        variants: Settings by name.
    """

    def __init__(self, models: Models, variants: Mapping[str, Settings]) -> None:
        self.models = models
        self.names = tuple(variants)
        chosen = {name: resolve(models, settings=s) for name, s in variants.items()}
        early = [f.name for f in fields(Settings) if f.name not in AFTER_THE_PASS]
        # The variants of each prompt's pass, and the passes that one batch may hold.
        self.passes: dict[tuple[Any, ...], dict[str, Settings]] = {}
        for name, s in chosen.items():
            key = tuple(getattr(s, field) for field in early)
            self.passes.setdefault(key, {})[name] = s
        self._latents: dict[tuple[Any, ...], tuple[np.ndarray, Tensor]] = {}

    @torch.no_grad()
    def maps(self, questions: Sequence[Question]) -> list[Float[Tensor, "variant h w"]]:
        """Returns the maps of each question, one a variant, in their order.

        Args:
            questions: As many prompts as there are questions share a pass of the UNet. That
                rounds larger products otherwise, which moves a map by less than 1e-3.

        Returns:
            In [0, 1], as large as the picture.

        Raises:
            ValueError: No noun in a phrase, or anything that a stage refuses.
        """
        images = [question.image for question in questions]
        kept = {key: pair for key, pair in self._latents.items() if any_is(pair[0], images)}
        self._latents = kept
        rows: list[dict[str, Tensor]] = [{} for _ in questions]
        alike = sorted(self.passes.values(), key=lambda group: _pass_of(first(group)))
        for _, groups in groupby(alike, key=lambda group: _pass_of(first(group))):
            asked = [(i, group) for group in groups for i in range(len(questions))]
            for start in range(0, len(asked), len(questions)):
                some = asked[start : start + len(questions)]
                for i, found in self._read([(i, questions[i], group) for i, group in some]):
                    rows[i].update(found)
        maps = []
        for question, row in zip(questions, rows, strict=True):
            h, w = question.image.shape[:2]
            pixels = [to_pixels(row[name][None], (h, w)) for name in self.names]
            maps.append(torch.from_numpy(np.concatenate(pixels)))
        return maps

    def together(
        self, image: UInt8[np.ndarray, "h w 3"], texts: Sequence[str]
    ) -> list[Float[Tensor, "variant h w"]]:
        """Returns the maps of each text in one picture; each is asked for by itself.

        Raises:
            ValueError: As for `maps`.
        """
        return [self.maps([Question(image, text)])[0] for text in texts]

    def _read(
        self, asked: Sequence[tuple[int, Question, dict[str, Settings]]]
    ) -> list[tuple[int, dict[str, Tensor]]]:
        """Returns the completed maps of prompts that share one pass of the UNet."""
        prompts = [self._prompt(question, first(group)) for _, question, group in asked]
        timesteps = first(asked[0][2]).timesteps or ()
        noised = [self._noised(question.image, first(group)) for _, question, group in asked]
        attention = attend(noised, prompts, timesteps, self.models)
        rows = []
        for k, (i, _, group) in enumerate(asked):
            own = attention.part(k, len(asked))
            maps = {n: target_maps(own, [prompts[k]], s)[1][0, 0] for n, s in group.items()}
            rows.append((i, maps))
        return rows

    def _prompt(self, question: Question, settings: Settings) -> Prompt:
        """Returns the prompt of a question, its target the chunk of the phrase itself."""
        return make_prompt(
            question.phrase,
            self.models,
            settings,
            image=question.image,
            before=question.before,
            after=question.after,
        )

    def _noised(self, image: np.ndarray, settings: Settings) -> Tensor:
        """Returns a picture's latent with the noise of each timestep; it is encoded once."""
        key = (id(image), settings.seed, settings.size)
        if key not in self._latents:
            latent = encode_image(image, self.models, seed=settings.seed, size=settings.size)
            self._latents[key] = image, latent
        latent = self._latents[key][1]
        return add_noise(latent, settings.timesteps or (), self.models, seed=settings.seed)


def first(group: Mapping[str, Settings]) -> Settings:
    """Returns the settings that stand for all that share a pass."""
    return next(iter(group.values()))


def any_is(image: np.ndarray, images: Sequence[np.ndarray]) -> bool:
    """Tells whether a picture is one of these very arrays."""
    return any(image is other for other in images)


def _pass_of(settings: Settings) -> tuple[Any, ...]:
    """Returns what prompts must have in common to share a pass."""
    return (settings.timesteps, settings.seed, settings.size or (0, 0))


@contextmanager
def one_thread() -> Iterator[None]:
    """Keeps PyTorch to one thread: its bits then don't hang on the number of cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def count(
    maps: Float[Tensor, "variant h w"], truth: Bool[np.ndarray, "h w"], names: Sequence[str]
) -> dict[str, list[list[int]]]:
    """Returns the pixels that each map shares with the truth, and those that either has.

    Args:
        maps: In [0, 1].
        truth: The true mask.
        names: Of the maps.

    Returns:
        By name, the intersections and the unions at each of `THRESHOLDS`.
    """
    truths = torch.from_numpy(truth)[None].expand(maps.shape)
    thresholds = torch.tensor(THRESHOLDS, dtype=torch.float32, device="cpu")
    shared, either = threshold_sweep(maps, truths, thresholds)
    pairs = zip(names, shared.tolist(), either.tolist(), strict=True)
    return {name: [i, u] for name, i, u in pairs}
