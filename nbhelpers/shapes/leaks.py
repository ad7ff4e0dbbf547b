"""How well a phrase is read wherever it stands: each method, reading and place on drawn scenes.

`leak_tables` makes tables of what is measured here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import get_context
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from tqdm import tqdm

from nbhelpers.attention import denoise_once, record_attention
from nbhelpers.chunks import Chunk
from nbhelpers.completion import complete
from nbhelpers.embeddings import embed
from nbhelpers.latents import encode_image
from nbhelpers.masks import to_pixels
from nbhelpers.models import Models
from nbhelpers.scores import score_maps
from nbhelpers.segment import SETTINGS, Settings, resolve
from nbhelpers.shapes.benchmark import SPLITS, scene_of
from nbhelpers.shapes.captions import article, name
from nbhelpers.shapes.world import Scene, Thing, draw

THRESHOLDS = np.linspace(0, 1, 101)
READINGS: tuple[Literal["all", "words"], ...] = ("all", "words")
PLACES = ("alone", "1 of 2", "2 of 2", "1 of 3", "2 of 3", "3 of 3")


@dataclass(frozen=True)
class Measurement:
    """IoU of every (method, reading, place, scene, threshold) on one split."""

    methods: tuple[str, ...]
    split: str
    iou: Float[np.ndarray, "method reading place scene threshold"]


def named(scene: Scene, place: str) -> tuple[list[Thing], int]:
    """Return the things that a prompt names, in order, and where the target stands in it.

    The target is the scene's first thing. With two phrases the other is its twin, of the same
    noun; with three, the twin and the third thing.
    """
    target, twin, third = scene.things
    if place == "alone":
        return [target], 0
    index = int(place[0]) - 1
    others = [twin] if place.endswith("2") else [twin, third]
    return [*others[:index], target, *others[index:]], index


def phrase_prompt(
    things: Sequence[Thing], opening: str = "a photograph of"
) -> tuple[str, list[Chunk]]:
    """Return "a photograph of a red ring and a blue moon" and its chunks.

    The chunks are known, so that no parser's mistake is counted here.
    """
    text, chunks = opening, []
    for number, thing in enumerate(things):
        text += " and " if number else " "
        phrase = f"{article(name(thing))} {name(thing)}"
        start, end = len(text), len(text) + len(phrase)
        noun_start = end - len(thing.noun)
        chunks.append(Chunk(phrase, start, end, thing.noun, noun_start, end))
        text += phrase
    return text, chunks


def iou_curve(
    pixels: Float[np.ndarray, "h w"], mask: np.ndarray
) -> Float[np.ndarray, " threshold"]:
    """Return the IoU of `pixels >= threshold` with `mask` at each of `THRESHOLDS`."""
    level = np.searchsorted(THRESHOLDS, pixels.ravel(), side="right") - 1
    count = len(THRESHOLDS)
    above = np.bincount(level, minlength=count)[::-1].cumsum()[::-1]
    hits = np.bincount(level[mask.ravel()], minlength=count)[::-1].cumsum()[::-1]
    return hits / (above + mask.sum() - hits)


def measure(
    models: Models,
    split: str,
    methods: Mapping[str, Settings] = SETTINGS,
    *,
    places: Sequence[str] = PLACES,
    scenes: int | None = None,
    seed: int = 0,
    workers: int = 1,
    progress: bool = True,
) -> Measurement:
    """Read every scene of a split by every method, reading and place.

    Args:
        models: from `load_models`.
        split: "val", "testA" or "testB".
        methods: settings by name; their `keys` is replaced by each reading in turn.
        places: where the target's phrase stands.
        scenes: only the first so many.
        seed: the benchmark's.
        workers: processes of one thread each that share the scenes; the result is the same.
        progress: whether to show a bar.
    """
    first = 1 + sum(list(SPLITS.values())[: list(SPLITS).index(split)])
    numbers = range(first, first + min(SPLITS[split], scenes or SPLITS[split]))
    chosen = {method: resolve(models, settings=settings) for method, settings in methods.items()}
    bar = partial(tqdm, desc=split, total=len(numbers), disable=not progress, mininterval=5)
    read = partial(_read_scene, models, split, chosen, tuple(places), seed)
    if workers == 1:
        found = list(bar(map(read, numbers)))
    else:
        with ProcessPoolExecutor(
            workers, get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,)
        ) as pool:
            found = list(bar(pool.map(read, numbers, chunksize=8)))
    # scene, place, method, reading, threshold -> method, reading, place, scene, threshold
    return Measurement(tuple(chosen), split, np.stack(found).transpose(2, 3, 1, 0, 4))


@torch.no_grad()
def _read_scene(
    models: Models,
    split: str,
    methods: Mapping[str, Settings],
    places: Sequence[str],
    seed: int,
    number: int,
) -> Float[np.ndarray, "place method reading threshold"]:
    """Return the IoU curves of one scene."""
    scene = scene_of(number, split, seed=seed)
    picture, masks = draw(scene)
    latent = encode_image(picture, models, seed=number)
    rows = []
    for place in places:
        things, target = named(scene, place)
        text, chunks = phrase_prompt(things)
        rows.append(
            [
                _curves(models, text, chunks, target, settings, latent, masks[0], number)
                for settings in methods.values()
            ]
        )
    return np.asarray(rows, dtype=np.float32)


def _curves(
    models: Models,
    text: str,
    chunks: Sequence[Chunk],
    target: int,
    settings: Settings,
    latent: torch.Tensor,
    mask: np.ndarray,
    seed: int,
) -> np.ndarray:
    """Return the IoU curves of one prompt: a row for each reading."""
    edits = ("isolate", "by", "tail", "alpha", "unconditional", "into")
    edit = {key: value for key, value in asdict(settings).items() if key in edits}
    prompt = embed(text, chunks, models.text, target=target, **edit)
    with record_attention(models.unet) as attention:
        denoise_once(
            None, prompt, models, timestep=settings.timesteps or (), seed=seed, latent=latent
        )
    weights = settings.weights if isinstance(settings.weights, Mapping) else None
    rows = []
    for keys in READINGS:
        scores = score_maps(
            attention.cross_layers,
            prompt.spans,
            keys=keys,
            weights=weights,
            subtokens=settings.subtokens,
        )[target : target + 1]
        maps = complete(
            scores, attention.self_layers, transpose=settings.transpose, steps=settings.steps
        )
        rows.append(iou_curve(to_pixels(maps, mask.shape)[0], mask))
    return np.stack(rows)
