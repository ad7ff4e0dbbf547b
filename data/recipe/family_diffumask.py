"""DiffuMask's pairs of generated pictures and their attention's masks, and its segmenter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int, UInt8
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from nbhelpers.family import digest
from nbhelpers.family.dense import text_features, to_input
from nbhelpers.family.diffumask import Segmenter
from nbhelpers.family.sampling import sample_support
from nbhelpers.models import Models
from nbhelpers.segment import segment
from recipe.pictures import to_unit
from recipe.training import fit

PICTURES = 32  # sampled of each class
KEPT = 0.5  # the share of them that CLIP finds most like their class
FOREGROUND, BACKGROUND = 0.5, 0.3  # a map's values from and up to which a pixel counts
UNKNOWN = 255
BATCH = 16
STEPS = 600


@dataclass(frozen=True)
class Pairs:
    """Generated pictures with the class of each pixel: 0 is background, `UNKNOWN` nothing."""

    pictures: UInt8[np.ndarray, "picture h w 3"]
    labels: UInt8[np.ndarray, "picture h w"]

    def __len__(self) -> int:
        return len(self.pictures)


def make(
    names: Sequence[str],
    models: Models,
    folder: Path,
    *,
    pictures: int = PICTURES,
    steps: int = STEPS,
    seed: int = 0,
    progress: bool = True,
) -> dict[str, Tensor]:
    """Return the weights of a segmenter that was trained on generated pairs alone.

    Args:
        names: of the classes.
        models: generate the pictures and read their attention.
        folder: for the pairs and checkpoints; the same folder resumes.
        pictures: sampled of each class.
        steps: of training.
        seed: of pictures, weights and batches.
        progress: whether to show a bar.
    """
    folder = folder / f"diffumask-{digest(models.unet)[:8]}-{seed}-{pictures}"
    for number, name in enumerate(names):
        # Each class has seeds of its own, so that no two begin from the same noise.
        write_pairs(folder, name, models, pictures=pictures, seed=seed + 10_000 * number)
    pairs = load_pairs(folder, names, models)
    more: dict[str, Any] = {"device": models.device, "progress": progress}
    folder = folder / f"clip-{digest(models.clip.model)[:8]}"  # which chose among the pictures
    return train(pairs, names, folder, steps=steps, seed=seed, **more).state_dict()


def write_pairs(folder: Path, name: str, models: Models, *, pictures: int, seed: int) -> None:
    """Sample pictures of a class and write them with the maps of their attention, once."""
    path = folder / f"{name}.safetensors"
    if path.exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    images, maps = zip(*sample_support(name, models, pictures=pictures, seed=seed), strict=True)
    tensors = {
        "pictures": torch.from_numpy(np.ascontiguousarray(np.stack(images))),
        "maps": torch.from_numpy(np.rint(255 * np.stack(maps)).astype(np.uint8)),
    }
    partial = path.with_suffix(".partial")
    save_file(tensors, partial, metadata={"unet": digest(models.unet)})
    partial.replace(path)


def load_pairs(folder: Path, names: Sequence[str], models: Models) -> Pairs:
    """Return the better pictures of every class, the class of their pixels by the attention.

    Raises:
        ValueError: if pictures are not this model's, or a map is not that of the picture's own
            attention: a mask that was drawn is refused.
    """
    shown, labels = [], []
    for number, name in enumerate(names, start=1):
        path = folder / f"{name}.safetensors"
        with safe_open(path, "pt") as file:
            unet = (file.metadata() or {}).get("unet")
            pictures, maps = (file.get_tensor(key).numpy() for key in ("pictures", "maps"))
        if unet != digest(models.unet):
            raise ValueError(f"{path} was not written by this model; remove it and run again")
        for index in range(len(pictures)):
            own = segment(pictures[index], name, models, method="diffsegmenter").map
            if np.abs(255 * own - maps[index]).max() > 2:
                raise ValueError(
                    f"mask {index} in {path} is not that of the picture's attention; DiffuMask "
                    "learns from no other masks, so remove the file and run again"
                )
        best = looks_right(list(pictures), name, models)
        label = np.full(maps.shape, UNKNOWN, np.uint8)
        label[maps >= 255 * FOREGROUND], label[maps <= 255 * BACKGROUND] = number, 0
        shown.append(pictures[best])
        labels.append(label[best])
    return Pairs(np.concatenate(shown), np.concatenate(labels))


@torch.no_grad()
def looks_right(
    pictures: Sequence[UInt8[np.ndarray, "h w 3"]], name: str, models: Models
) -> list[int]:
    """Return the numbers of the pictures that CLIP finds most like their class."""
    clip = models.clip
    found = clip.model.get_image_features(to_input(pictures, clip)).pooler_output
    scores = nn.functional.normalize(found, dim=-1) @ text_features([name], clip)[0]
    return sorted(scores.topk(max(1, round(KEPT * len(pictures)))).indices.tolist())


def train(
    pairs: Pairs,
    names: Sequence[str],
    folder: Path,
    *,
    steps: int,
    seed: int,
    device: torch.device | str = "cpu",
    progress: bool = True,
) -> Segmenter:
    """Train the segmenter on spliced pairs; checkpoints and the log go to `folder`."""
    torch.manual_seed(seed)
    segmenter = Segmenter(names).to(device)

    def loss(step: int, generator: torch.Generator) -> Tensor:
        pictures, labels = splice(pairs, generator, BATCH)
        logits = segmenter(to_unit(pictures).to(device))
        return nn.functional.cross_entropy(logits, labels.to(device), ignore_index=UNKNOWN)

    fit(
        "segmenter",
        loss,
        parameters=segmenter.parameters(),
        kept={"segmenter": segmenter},
        folder=folder,
        steps=steps,
        rate=2e-3,
        seed=seed,
        progress=progress,
    )
    return segmenter.eval()


def splice(
    pairs: Pairs, generator: torch.Generator, count: int
) -> tuple[UInt8[np.ndarray, "picture h w 3"], Int[Tensor, "picture h w"]]:
    """Return pictures of which two thirds are four others, each at half its size, side by side.

    Half of all are mirrored. A generated picture shows one thing, and a real one shows several.
    """
    numbers = torch.randint(len(pairs), (count, 4), generator=generator).tolist()
    mirrored = (torch.rand((count, 4), generator=generator) < 0.5).tolist()
    whole = (torch.rand(count, generator=generator) < 1 / 3).tolist()
    shown, known = [], []
    for row, flips, alone in zip(numbers, mirrored, whole, strict=True):
        parts = []
        for number, flip in zip(row, flips, strict=True):
            picture, label = pairs.pictures[number], pairs.labels[number]
            parts.append((picture[:, ::-1], label[:, ::-1]) if flip else (picture, label))
        if alone:
            picture, label = parts[0]
        else:
            halves = [(_halved(picture), label[1::2, 1::2]) for picture, label in parts]
            picture, label = (
                np.concatenate([np.concatenate([a, b], axis=1), np.concatenate([c, d], axis=1)])
                for a, b, c, d in zip(*halves, strict=True)
            )
        shown.append(picture)
        known.append(label)
    return np.stack(shown), torch.from_numpy(np.stack(known)).long()


def _halved(picture: np.ndarray) -> np.ndarray:
    """Return a picture at half its size, each pixel the mean of four."""
    h, w = picture.shape[:2]
    mean = picture.reshape(h // 2, 2, w // 2, 2, 3).mean(axis=(1, 3))
    return np.rint(mean).astype(np.uint8)
