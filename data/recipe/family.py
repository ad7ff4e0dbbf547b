"""`python -m recipe family`: train the family's systems, and measure what their own terms add.

The weights lie in `family/NAME.safetensors`, the figures with and without the terms in
`family/terms.json`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from safetensors.torch import save_file
from torch import nn

from nbhelpers.datasets import referring
from nbhelpers.evaluation.batched import THRESHOLDS
from nbhelpers.evaluation.classes import Drawn, count_classes
from nbhelpers.family import SYSTEMS, made_with
from nbhelpers.files import write_whole
from nbhelpers.metrics import ious
from nbhelpers.models import Models, load_models
from recipe import family_captions, family_diffumask, family_masks, family_ovdiff, family_reco
from recipe.art import NOUNS
from recipe.pictures import draw_pictures

NAMES = (*family_captions.NETWORKS, *family_masks.NETWORKS)
MADE = ("ovdiff", "diffumask", "reco")  # by the shipped models, with no term to switch off
STEPS = 700  # of every system
TERM_STEPS = STEPS // 5  # of each side, where a system is trained with and without its term
TERM_PICTURES = {"val": 100, "testA": 200}  # on which the two sides are measured
PICTURES = 20_000  # drawn for them; 700 batches of 64 are 45,000


def train(
    names: Iterable[str],
    work: Path,
    out: Path,
    *,
    steps: int = STEPS,
    seed: int = 0,
    device: str = "cpu",
    count: int = PICTURES,
) -> None:
    """Train systems and save their weights in half precision; what is trained is loaded.

    Each file says with which of the shared models it was made.

    Args:
        names: a choice of `NAMES` and `MADE`.
        work: for pictures, checkpoints and logs; the same folder resumes.
        out: the sticker world's folder; `family` in it gets the weights.
        steps: of each system in `NAMES`.
        seed: of weights and batches.
        device: "cpu" or "cuda".
        count: of training pictures.

    Raises:
        ValueError: if there is no such system.
    """
    models = load_models("stickers", device=device)
    for name in checked(names, (*NAMES, *MADE)):
        folder = work / "family"
        if name in MADE:
            weights = make_one(name, models, work, seed=seed, count=count)
        else:
            network = train_one(name, models, work, folder, steps=steps, seed=seed, count=count)
            left_out = getattr(network, "training_only", ())
            weights = {k: v for k, v in network.state_dict().items() if not k.startswith(left_out)}
        path = out / "family" / f"{name}.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        known = made_with(SYSTEMS[name], models)
        partial = path.with_suffix(".partial")
        save_file(halved(weights), partial, metadata={"format": "pt", **known})
        partial.replace(path)


def checked(names: Iterable[str], known: Sequence[str] = NAMES) -> list[str]:
    """Return the names, which must be among those known."""
    names = list(names)
    if unknown := sorted(set(names) - set(known)):
        raise ValueError(f"the systems are {', '.join(known)}; got {', '.join(unknown)}")
    return names


def make_one(
    name: str, models: Models, work: Path, *, seed: int, count: int = PICTURES
) -> dict[str, torch.Tensor]:
    """Return what one of `MADE` ships, for the world's nouns."""
    if name == "reco":
        pictures = draw_pictures(work / "pictures", count=count, seed=0)
        return family_reco.make(NOUNS, models, pictures, seed=seed)
    make = family_ovdiff.make if name == "ovdiff" else family_diffumask.make
    return make(NOUNS, models, work / "family", seed=seed)


def train_one(
    name: str,
    models: Models,
    work: Path,
    folder: Path,
    *,
    steps: int,
    seed: int,
    count: int = PICTURES,
    **more: Any,
) -> nn.Module:
    """Train one system, with a folder in `folder` for its checkpoints.

    Its name says the system, the seed and the shared models: another training's isn't resumed.
    """
    known = [digest[:8] for digest in made_with(SYSTEMS[name], models).values()]
    folder = folder / "-".join([name, *known, str(seed)])
    if name in family_masks.NETWORKS:
        return family_masks.train(name, models, folder, steps=steps, seed=seed, **more)
    pictures = draw_pictures(work / "pictures", count=count, seed=0)
    return family_captions.train(
        name, pictures, models.clip, folder, steps=steps, seed=seed, **more
    )


def halved(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return weights in half precision, as they are shipped."""
    return {
        key: (value.half() if value.is_floating_point() else value).cpu().contiguous()
        for key, value in weights.items()
    }


def measure_terms(
    names: Iterable[str],
    work: Path,
    out: Path,
    *,
    steps: int = TERM_STEPS,
    seed: int = 0,
    device: str = "cpu",
) -> None:
    """Train each system with and without its own term, equally long; write `family/terms.json`.

    The figure is mIoU over the classes and background in the first pictures of testA, at the
    threshold that is best in the first of val. Systems measured before keep their figures.
    """
    models = load_models("stickers", device=device)
    path = out / "family" / "terms.json"
    found = json.loads(path.read_text()) if path.exists() else {}
    for name in checked(names):
        found[name] = {"steps": steps, "seed": seed, "pictures": TERM_PICTURES["testA"]}
        for side in ("with", "without"):
            network = train_one(
                name,
                models,
                work,
                work / "family" / f"{side}-term",
                steps=steps,
                seed=seed,
                defining=side == "with",
            )
            found[name][side] = mean_iou(SYSTEMS[name].load(), network, models)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, (json.dumps(found, indent=1) + "\n").encode())


def mean_iou(maps: Callable[..., np.ndarray], network: nn.Module, models: Models) -> float:
    """Return mIoU over classes and background on testA, at val's best threshold."""
    best = class_ious(maps, network, models, "val").argmax()
    return round(float(class_ious(maps, network, models, "testA")[best]), 4)


def class_ious(
    maps: Callable[..., np.ndarray], network: nn.Module, models: Models, split: str
) -> np.ndarray:
    """Return mIoU at each threshold by the evaluation's protocol for classes."""
    scenes = Drawn(referring("stickers", split))
    classes = len(scenes.categories)
    totals = np.zeros((2, len(THRESHOLDS), classes), np.int64)
    for number in scenes.image_ids[: TERM_PICTURES[split]]:
        truth = scenes.class_map(number)
        present = [int(c) for c in np.unique(truth) if c]
        names: Sequence[str] = [scenes.categories[c] for c in present]
        found = maps(scenes.image(number), names, models, network=network)
        counts = count_classes([torch.from_numpy(m) for m in found], present, truth, classes)
        for c, both in counts.items():
            totals[:, :, int(c)] += both
    return np.array([np.nanmean(class_iou(*totals[:, t])) for t in range(len(THRESHOLDS))])


def class_iou(
    intersection: Int[np.ndarray, " classes"], union: Int[np.ndarray, " classes"]
) -> Float[np.ndarray, " classes"]:
    """Return the IoU of each class, its pixels pooled over all pictures: COCO-Object's protocol.

    In [0, 1]; NaN for a class that is neither true nor found anywhere, so that the mean over
    classes is ``np.nanmean``.

    Args:
        intersection: From `class_intersection_union`, summed over the pictures.
        union: The same.

    Raises:
        ValueError: These are counts that no two maps have.
    """
    return np.where(np.asarray(union) > 0, ious(intersection, union), np.nan)
