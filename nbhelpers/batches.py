"""Many phrases of many pictures: what they share is computed once, the rest in batches."""

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np
from torch import Tensor

from nbhelpers.datasets import Picture, as_image
from nbhelpers.denoising import add_noise, encode_image
from nbhelpers.errors import refused
from nbhelpers.models import Models
from nbhelpers.segment import Segmentation, attend, binarize, make_prompt, target_maps
from nbhelpers.settings import DEFAULT, Settings, resolve


def segment_batch(
    images: Sequence[Picture],
    phrases: Sequence[Sequence[str]],
    models: Models,
    *,
    method: str | None = None,
    settings: Settings | None = None,
    batch: int = 8,
    progress: Callable[[str], None] | None = None,
    **overrides: Any,
) -> list[list[Segmentation]]:
    """Segments many phrases of many pictures as `segment` does, in fewer and larger passes.

    Every picture is encoded once, and phrases and timesteps share passes of the UNet, also those
    of different pictures. No unconditional half is run. What comes back for each picture are its
    phrases' segmentations, in order: those of `segment`, but for the rounding of larger products,
    which moves maps by less than 1e-3 in float32.

    Args:
        images: uint8 ``(h, w, 3)`` of any sizes, or what `as_image` takes.
        phrases: For each picture its phrases.
        models: From `load_models`.
        method: As in `segment`; so are `settings` and the overrides.
        batch: The most latents in one pass of the UNet; a phrase takes one for each timestep. It
            bounds the memory, and below about 8 a GPU waits for the CPU.
        progress: Called with each phrase before its pass.

    Raises:
        ValueError: There isn't one list of phrases for each picture, the batch is below 1, or
            `segment` refuses something.
    """
    if len(images) != len(phrases) or any(isinstance(asked, str) for asked in phrases):
        raise ValueError(
            "phrases holds a list of phrases for each picture; "
            f"got {len(images)} pictures and {len(phrases)} lists"
        )
    if batch < 1:
        raise refused(
            "segment_batch", "batch counts the latents of a pass, at least 1", batch=batch
        )
    chosen = resolve(models, method, settings, **overrides)
    name = "custom" if settings is not None else method or DEFAULT
    pictures = [as_image(image) for image in images]
    found: list[list[Segmentation]] = [[] for _ in pictures]
    at_once = max(1, batch // max(1, len(chosen.timesteps or ())))
    items = _noised(pictures, phrases, models, chosen)
    while run := list(islice(items, at_once)):
        prompts = []
        for number, phrase, _ in run:
            if progress:
                progress(phrase)
            prompts.append(make_prompt(phrase, models, chosen, image=pictures[number]))
        attention = attend([item[2] for item in run], prompts, chosen.timesteps or (), models)
        maps = zip(*target_maps(attention, prompts, chosen), strict=True)
        for (number, phrase, _), prompt, (score, completed) in zip(
            run, prompts, maps, strict=True
        ):
            image = pictures[number]
            one = binarize(completed, score, image, phrase, prompt, chosen, models, name)
            found[number].append(one)
    return found


def _noised(
    images: Sequence[np.ndarray],
    phrases: Sequence[Sequence[str]],
    models: Models,
    settings: Settings,
) -> Iterator[tuple[int, str, Tensor]]:
    """Yields each phrase with its picture's number and noised latents, made once a picture."""
    for number, (image, asked) in enumerate(zip(images, phrases, strict=True)):
        if asked:
            latent = encode_image(image, models, seed=settings.seed, size=settings.size)
            noised = add_noise(latent, settings.timesteps or (), models, seed=settings.seed)
            yield from ((number, phrase, noised) for phrase in asked)
