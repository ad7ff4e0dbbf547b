"""How well a phrase is read wherever it stands: each method, reading and place on drawn scenes.

The threshold of a method and reading is chosen on val, over all places together, and reported on
testA. Intervals are paired bootstraps over scenes.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal

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
    chosen = {method: resolve(models, method, settings) for method, settings in methods.items()}
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


def interval(
    gains: Float[np.ndarray, " scene"], *, draws: int = 10_000, seed: int = 0
) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of the mean over scenes."""
    rng = np.random.default_rng(seed)
    picks = rng.integers(len(gains), size=(draws, len(gains)))
    low, high = np.quantile(gains[picks].mean(1), (0.025, 0.975))
    return float(low), float(high)


def table(val: Measurement, test: Measurement, *, baseline: str = "plain") -> list[dict[str, Any]]:
    """Return a row for each method, reading and place of `test`, thresholds chosen on `val`.

    Each row has the mIoU, the gain over the baseline of the same reading and place with its
    paired interval, the threshold, and the mIoU at the threshold that suits the test best (an
    oracle's, for comparison).
    """
    base = test.methods.index(baseline)
    order = [val.methods.index(method) for method in test.methods]
    best = val.iou[order].mean((2, 3)).argmax(-1)
    rows = []
    for m, method in enumerate(test.methods):
        for r, reading in enumerate(READINGS):
            oracle = int(test.iou[m, r].mean((0, 1)).argmax())
            for p, place in enumerate(PLACES):
                own = test.iou[m, r, p, :, best[m, r]].astype(float)
                gains = own - test.iou[base, r, p, :, best[base, r]]
                rows.append(
                    {
                        "method": method,
                        "keys": reading,
                        "place": place,
                        "miou": float(own.mean()),
                        "gain": float(gains.mean()),
                        "interval": interval(gains) if m != base else None,
                        "threshold": float(THRESHOLDS[best[m, r]]),
                        "oracle_miou": float(test.iou[m, r, p, :, oracle].mean()),
                    }
                )
    return rows


def summary(found: Measurement, *, baseline: str = "sealed") -> list[dict[str, Any]]:
    """Return a row for each method and reading: its mean over places, each at its best threshold.

    The gain is over the baseline of the same reading, with its paired interval over scenes.
    """
    ious = found.iou.mean(2).astype(float)  # method, reading, scene, threshold
    base = found.methods.index(baseline)
    rows = []
    for m, method in enumerate(found.methods):
        for r, reading in enumerate(READINGS):
            best, own = (int(ious[i, r].mean(0).argmax()) for i in (base, m))
            gains = ious[m, r, :, own] - ious[base, r, :, best]
            rows.append(
                {
                    "method": method,
                    "keys": reading,
                    "miou": float(ious[m, r, :, own].mean()),
                    "threshold": float(THRESHOLDS[own]),
                    "gain": float(gains.mean()),
                    "interval": interval(gains) if m != base else None,
                }
            )
    return rows


def print_summary(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the rows as a Markdown table: a line a method, a column a reading."""
    lines = ["| prompt | " + " | ".join(READINGS) + " |", "|---|" + "---|" * len(READINGS)]
    for method in dict.fromkeys(row["method"] for row in rows):
        own = {row["keys"]: row for row in rows if row["method"] == method}
        lines.append(f"| {method} | " + " | ".join(_cell(own[keys]) for keys in READINGS) + " |")
    return "\n".join(lines)


def _cell(row: Mapping[str, Any]) -> str:
    """Return a figure, and behind it its gain and interval where it is no baseline's."""
    span = row["interval"]
    gain = f" ({row['gain']:+.2f} [{span[0]:+.2f}, {span[1]:+.2f}])" if span else ""
    return f"{row['miou']:.3f}{gain}"


def environment() -> dict[str, str]:
    """Return the versions that a recorded result names."""
    packages = ("torch", "diffusers", "transformers", "numpy")
    return {"python": platform.python_version(), **{p: version(p) for p in packages}}


def print_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the rows as a Markdown table: a line for each reading and place."""
    methods = list(dict.fromkeys(row["method"] for row in rows))
    lines = [
        "| softmax over | target's phrase | " + " | ".join(methods) + " |",
        "|---|---|" + "---|" * len(methods),
    ]
    for reading in READINGS:
        for place in PLACES:
            cells = []
            for method in methods:
                (row,) = (
                    row
                    for row in rows
                    if (row["method"], row["keys"], row["place"]) == (method, reading, place)
                )
                cells.append(_cell(row))
            lines.append(f"| {reading} | {place} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def save(path: Path, record: Mapping[str, Any]) -> None:
    """Write a record as JSON, whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(record, indent=1) + "\n")
    partial.replace(path)
