"""The whole way, pictures and phrases to masks: one by one, in batches, and as others loop."""

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from nbhelpers.batches import segment_batch
from nbhelpers.benchmarks import Row, pick
from nbhelpers.calibration import RESOLUTION_WEIGHTS
from nbhelpers.denoising import add_noise, encode_image, predict_noise
from nbhelpers.embeddings import embed
from nbhelpers.masks import to_pixels
from nbhelpers.models import Models
from nbhelpers.segment import make_prompt, segment
from nbhelpers.settings import resolve
from tests.bench.baselines import KEEPS, complete_stored, storing
from tests.bench.measure import Way, agree, interleave
from tests.bench.operators import Tell
from tests.bench.records import rows_of, target

LOOP, SINGLE, BATCH = "DiffSegmenter-style loop", "segment, one by one", "segment_batch"
METHOD = "diffsegmenter"  # the one that both can compute
# One look, and DiffSegmenter's own gathering in place of the one that val chose for a model:
# every resolution with its weight, from all layers, each stretched. So both compute the same.
SETTINGS: dict[str, Any] = {
    "timesteps": (100,),
    "weights": RESOLUTION_WEIGHTS,
    "layers": "all",
    "normalize": "min-max",
    "softmax_over": "all",
}


def loop(
    images: Sequence[np.ndarray], phrases: Sequence[Sequence[str]], models: Models
) -> list[np.ndarray]:
    """Every phrase for itself: encode, two halves of which one is read, store, complete, stretch.

    Returns:
        A map for each phrase, as large as its picture.
    """
    chosen = resolve(models, METHOD, **SETTINGS)
    empty = embed("", [], models.text)
    found = []
    for image, asked in zip(images, phrases, strict=True):
        for phrase in asked:
            prompt = make_prompt(phrase, models, chosen, image=image)
            latent = add_noise(encode_image(image, models), chosen.timesteps or (), models)
            with storing(models.unet, KEEPS["all heads"]) as store:
                predict_noise(
                    torch.cat([latent, latent]), chosen.timesteps or (), [empty, prompt], models
                )
            store = {name: kept[1:] for name, kept in store.items()}
            grid = (latent.shape[-2], latent.shape[-1])
            token = prompt.spans[prompt.target or 0][-1]
            weights: Any = chosen.weights
            maps = complete_stored(store, token, grid, weights).unflatten(1, grid)
            found.append(to_pixels(maps, (image.shape[0], image.shape[1]))[0])
    return found


@torch.no_grad()
def bench_segment(
    models: Models,
    images: Sequence[np.ndarray],
    phrases: Sequence[Sequence[str]],
    *,
    batch: int = 8,
    rounds: int = 3,
    tell: Tell = lambda name: None,
) -> tuple[list[Row], list[Row]]:
    """Expressions per second of the whole way, captions' and parsing's time included.

    Args:
        models: What it runs on.
        images: uint8 ``(h, w, 3)``.
        phrases: For each picture its phrases.
        batch: Of `segment_batch`.
        rounds: How often each way runs.
        tell: Is told each way before it runs.

    Returns:
        Rows with ``per_second``, and the targets' rows.

    Raises:
        ValueError: A way's maps differ from the loop's.
    """
    cuda = models.device.type == "cuda"
    count = sum(map(len, phrases))

    def singles() -> list[np.ndarray]:
        return [
            segment(image, phrase, models, method=METHOD, **SETTINGS).map
            for image, asked in zip(images, phrases, strict=True)
            for phrase in asked
        ]

    def together(using: Models) -> list[np.ndarray]:
        rows = segment_batch(images, phrases, using, method=METHOD, batch=batch, **SETTINGS)
        return [one.map for row in rows for one in row]

    ways = [
        Way(LOOP, lambda: loop(images, phrases, models)),
        Way(SINGLE, singles),
        Way(BATCH, lambda: together(models)),
    ]
    for name, compiled in (("channels_last", False), ("compiled", True)) if cuda else ():
        faster = speed_up(_copied(models), compiled=compiled)
        ways.append(Way(f"{BATCH}, {name}", lambda faster=faster: together(faster)))  # type: ignore[misc]
    differences = agree(ways, off_mean, 1e-2 if models.dtype == torch.float32 else 0.2, tell)
    found = interleave(ways, models.device, rounds=rounds, warm=3 * cuda, tell=tell)
    rows = rows_of(found, {"expressions": count, "batch": batch}, differences)
    for row in rows:
        row["per_second"] = row["seconds"] and round(count / row["seconds"], 2)
    ratio = pick(rows, BATCH)["ratio"]
    times = ratio and 1 / ratio
    if not cuda:
        return rows, []
    best = max((row["per_second"] or 0.0 for row in rows), default=None)
    return rows, [
        target("whole way, times faster than the loop", times, at_least=15),
        target("whole way, expressions a second", best, at_least=300, unit="/s"),
    ]


def speed_up(models: Models, *, channels_last: bool = True, compiled: bool = False) -> Models:
    """Lay the models' UNet and autoencoder out, and partly compile the UNet, for a GPU.

    The residual blocks and feed-forwards are compiled one by one, never the UNet as a whole: the
    recorder's hooks sit on its attention, and a compiled whole would skip them. Load the models
    with ``dtype=torch.bfloat16`` for the rest of the gain.

    Args:
        models: From `load_models`, on a CUDA device; they are changed and returned.
        channels_last: Keep the channels of a pixel side by side, as the tensor cores read them.
        compiled: Compile, which takes minutes in the first pass of each size.

    Raises:
        ValueError: The models aren't on a CUDA device, where this gains nothing.
    """
    from diffusers.models.attention import FeedForward
    from diffusers.models.resnet import ResnetBlock2D

    if models.device.type != "cuda":
        raise ValueError(
            f"channels_last and compilation are for a CUDA device, and the models are on "
            f"{models.device}; load them with device='cuda'"
        )
    if channels_last:
        for model in (models.unet, models.vae):
            model.to(memory_format=torch.channels_last)
    for module in models.unet.modules() if compiled else ():
        if isinstance(module, (FeedForward, ResnetBlock2D)):
            module.compile()
    return models


def _copied(models: Models) -> Models:
    """The models with a UNet and an autoencoder of their own."""
    return replace(models, unet=copy.deepcopy(models.unet), vae=copy.deepcopy(models.vae))


def off_mean(maps: Sequence[np.ndarray], right: Sequence[np.ndarray]) -> float:
    """How far maps in [0, 1] are from the right ones, on the mean over the worst map's pixels."""
    return float(np.max([np.abs(a - b).mean() for a, b in zip(maps, right, strict=True)]))
