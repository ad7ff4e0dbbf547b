"""Every figure of the model card, measured by one command and written to `results.json`."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from tqdm import tqdm

from nbhelpers.captions import caption
from nbhelpers.models import (
    Calibration,
    Captioner,
    Models,
    load_captioner,
    load_models,
    load_parser,
)
from nbhelpers.segment import SETTINGS, Settings, segment
from nbhelpers.shapes.benchmark import SPLITS, said_of, scene_of
from nbhelpers.shapes.captions import name
from nbhelpers.shapes.cards import write_cards
from nbhelpers.shapes.leak_tables import summary, table
from nbhelpers.shapes.leaks import READINGS, Measurement, measure
from nbhelpers.shapes.probes import probe_noun_token, probe_pictures, probe_text
from nbhelpers.shapes.sheet import contact_sheet, score_generated
from nbhelpers.shapes.world import draw
from nbhelpers.versions import versions

PACKAGES = ("torch", "diffusers", "transformers", "numpy")  # a result names their versions

# Timesteps and weights that are tried on val; 1 is the 20 x 20 grid, 2 the 10 x 10.
TIMESTEPS = ((100,), (200,), (400,), (100, 200, 300), (200, 400, 600))
WEIGHTS: tuple[dict[int, float], ...] = ({1: 0.5, 2: 0.5}, {1: 0.2, 2: 0.8}, {2: 1.0})
PARTS = (
    "leaks",
    "seals",
    "second seed",
    "captions",
    "probes",
    "seconds",
    "parser",
    "sheet",
    "training",
)
COMPARED = ("plain", "chunk", "paper", "sealed")


def compared() -> dict[str, Settings]:
    """Return the settings that the tests compare."""
    return {method: SETTINGS[method] for method in COMPARED}


def seals() -> dict[str, Settings]:
    """Return the sealed prompt made the other way, and with a seal less, which val alone measures.

    They tell which of the three leaks have to be closed, and how, in the default.
    """
    sealed = SETTINGS["sealed"]
    by: Literal["masking", "encoding"] = "masking" if sealed.by == "encoding" else "encoding"
    return {
        f"sealed, by {by}": replace(sealed, by=by),
        "sealed, the prompt's tail": replace(sealed, tail="prompt"),
        "sealed, the target open": replace(sealed, isolate="others"),
        "sealed, the others open": replace(sealed, isolate="target"),
        "the empty tail alone": replace(sealed, isolate="none"),
    }


def choose_reading(models: Models, *, scenes: int = 24, workers: int = 1) -> list[dict[str, Any]]:
    """Measure every candidate of timesteps and weights on the first scenes of val.

    A candidate's figure is the mean of the mIoU over the methods compared, both readings and
    three places, each method at its best threshold: no method is favored by it.

    Returns:
        Candidates, the best first.
    """
    rows = []
    for timesteps in TIMESTEPS:
        for weights in WEIGHTS:
            tried = {
                method: replace(settings, timesteps=timesteps, weights=weights)
                for method, settings in compared().items()
            }
            found = measure(
                models,
                "val",
                tried,
                places=("alone", "2 of 2", "1 of 3"),
                scenes=scenes,
                workers=workers,
                progress=False,
            )
            figure = float(found.iou.mean((2, 3)).max(-1).mean())
            rows.append({"timesteps": timesteps, "weights": weights, "miou": figure})
            tqdm.write(f"t = {timesteps}, weights {weights}: {figure:.3f}")
    return sorted(rows, key=lambda row: -row["miou"])


def write_reading(models_folder: Path, found: Measurement, best: Mapping[str, Any]) -> None:
    """Write `nbhelpers.json` beside the model: how it is best read, by val."""
    thresholds = {}
    for index, method in enumerate(found.methods):
        level = found.iou[index, READINGS.index("all")].mean((0, 1)).argmax()
        thresholds[method] = round(float(level) / 100, 2)
    record = {
        "timesteps": best["timesteps"],
        "weights": best["weights"],
        "thresholds": {m: t for m, t in thresholds.items() if m in SETTINGS},
    }
    save(models_folder / "nbhelpers.json", record)


def score_captions(captioner: Captioner, split: str = "testA") -> dict[str, float]:
    """Caption every picture of a split; return the shares that tell the truth.

    A caption is right if each thing it names is in the picture, in the color it says, no thing
    twice; `named` is the mean number of things it names.
    """
    first = 1 + sum(list(SPLITS.values())[: list(SPLITS).index(split)])
    right, named, colored = [], [], []
    for number in tqdm(range(first, first + SPLITS[split]), "captions", mininterval=5):
        scene = scene_of(number, split)
        said = said_of(caption(draw(scene)[0], captioner))
        there = [(thing.noun, thing.color) for thing in scene.things]
        good = bool(said)
        for noun, color in said:
            match = [t for t in there if t[0] == noun and color in (None, t[1])]
            good = good and bool(match)
            if match:
                there.remove(match[0])
        right.append(good)
        named.append(len(said))
        colored.append(float(np.mean([color is not None for _, color in said] or [False])))
    return {
        "right": float(np.mean(right)),
        "named": float(np.mean(named)),
        "colored": float(np.mean(colored)),
        "captions": len(right),
    }


def time_loading(folder: str = "shapes", *, pictures: int = 20) -> dict[str, float]:
    """Return the seconds that loading takes, and a picture by `segment` after it."""
    started = time.perf_counter()
    models = load_models(folder)
    captioner, parser = models.captioner, models.parser
    del captioner, parser
    loaded = time.perf_counter()
    for number in range(1, 1 + pictures):
        scene = scene_of(number, "val")
        segment(draw(scene)[0], f"the {name(scene.things[0])}", models)
    return {
        "loading": loaded - started,
        "a picture": (time.perf_counter() - loaded) / pictures,
        "threads": float(torch.get_num_threads()),
    }


def sizes(folder: Path) -> dict[str, float]:
    """Return the megabytes of each model's folder."""
    parts = ("clip", "stable-diffusion", "blip", "parser")
    return {
        part: sum(f.stat().st_size for f in (folder / part).rglob("*") if f.is_file()) / 1e6
        for part in parts
    }


def score_leaks(
    out: Path, models: Models, *, scenes: int | None = None, workers: int = 1
) -> dict[str, Any]:
    """Choose the reading on val, write it beside the model, and fill the tables of the tests."""
    candidates = choose_reading(models, workers=workers)
    best = Calibration(timesteps=candidates[0]["timesteps"], weights=candidates[0]["weights"])
    models = replace(models, calibration=best)
    read = partial(measure, models, scenes=scenes, workers=workers)
    val = read("val", compared())
    write_reading(out / "stable-diffusion", val, candidates[0])
    return {
        "seed": 0,
        "scenes": {s: min(n, scenes or n) for s, n in SPLITS.items()},
        "settings": {key: asdict(value) for key, value in compared().items()},
        "reading": {**candidates[0], "candidates": candidates},
        "tables": {
            "val": table(val, val),
            **{split: table(val, read(split, compared())) for split in ("testA", "testB")},
        },
    }


def score_seals(models: Models, *, scenes: int | None = None, workers: int = 1) -> dict[str, Any]:
    """Measure on val which seals the sealed prompt needs."""
    tried = {"sealed": SETTINGS["sealed"], **seals()}
    return {"seals": summary(measure(models, "val", tried, scenes=scenes, workers=workers))}


def score_second(
    work: Path, models: Models, seed: int, *, scenes: int | None = None, workers: int = 1
) -> dict[str, Any]:
    """Fill testA's table for the CLIP and UNet of another seed, read as the shipped ones are.

    An `nbhelpers.json` is written beside them, so that all else reads them so too.
    """
    folder = work / f"seed-{seed}" / "models" / "stable-diffusion"
    other = replace(load_models(folder), calibration=models.calibration)
    read = partial(measure, other, methods=compared(), scenes=scenes, workers=workers)
    val, test = read("val"), read("testA")
    write_reading(folder, val, asdict(models.calibration))
    counts = {each.split: each.iou.shape[3] for each in (val, test)}
    found = {"seed": seed, "scenes": counts, "noun token": probe_noun_token(other)}
    return {"second seed": {**found, "testA": table(val, test)}}


def score(
    work: Path,
    out: Path,
    *,
    parts: Iterable[str] = PARTS,
    second_seed: int | None = None,
    scenes: int | None = None,
    treebanks: Path | None = None,
    workers: int = 1,
) -> None:
    """Measure `parts`, keep the rest of `results.json`, write it after each, then the cards.

    Args:
        work: where the logs of training lie.
        out: the folder of the models.
        parts: a choice of `PARTS`.
        second_seed: of the CLIP and UNet that "second seed" measures, from `work`.
        scenes: only the first so many of each split.
        treebanks: as in training, to score the parser.
        workers: processes that share the scenes.
    """
    phrases = Path(__file__).resolve().parents[2] / "tests" / "phrases.json"
    path = out / "results.json"
    record: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}

    def parser() -> dict[str, Any]:
        from nbhelpers.shapes.parser import score_parser

        nlp = load_parser(out / "parser")
        return {"parser": score_parser(nlp, treebanks=treebanks, phrases=phrases)}

    def sheet() -> dict[str, Any]:
        folder = out / "stable-diffusion"
        contact_sheet(folder, out / "contact-sheet.png")
        return {"generated": score_generated(folder, load_captioner(str(out / "blip")))}

    def model() -> Models:
        return load_models(out / "stable-diffusion")

    steps: dict[str, Callable[[], dict[str, Any]]] = {
        "leaks": lambda: score_leaks(out, model(), scenes=scenes, workers=workers),
        "seals": lambda: score_seals(model(), scenes=scenes, workers=workers),
        "second seed": lambda: (
            {}
            if second_seed is None
            else score_second(work, model(), second_seed, scenes=scenes, workers=workers)
        ),
        "captions": lambda: {"captions": score_captions(load_captioner(str(out / "blip")))},
        "probes": lambda: {
            "text probe": probe_text(model()),
            "image probe": probe_pictures(out / "clip"),
            "noun token": probe_noun_token(model()),
        },
        "seconds": lambda: {"seconds": time_loading(), "megabytes": sizes(out)},
        "parser": parser,
        "sheet": sheet,
        # parts may be trained on several machines; what another one logged is kept
        "training": lambda: {"training": record.get("training", {}) | training_cost(work)},
    }
    for part in parts:
        record.update({**steps[part](), "versions": versions(PACKAGES)})
        save(path, record)
    if {"tables", "captions", "image probe", "seconds", "training"} <= set(record):
        write_cards(out, record)


def training_cost(work: Path) -> dict[str, Any]:
    """Return the last line of every part's log: its steps, loss and seconds."""
    cost = {}
    for path in sorted(work.rglob("*.log.jsonl")):
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        merged: dict[str, Any] = {}
        for line in lines:
            merged.update(line)
        cost[str(path.relative_to(work)).removesuffix(".log.jsonl")] = merged
    return cost


def save(path: Path, record: Mapping[str, Any]) -> None:
    """Write a record as JSON, whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(record, indent=1) + "\n")
    partial.replace(path)
