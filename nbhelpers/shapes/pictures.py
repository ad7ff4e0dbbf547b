"""The training set: pictures and captions from a seed, kept in one memory-mapped file."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from tqdm import tqdm

from nbhelpers.shapes.captions import BRIEF, CAREFUL, ORDINARY, write_caption
from nbhelpers.shapes.world import SIZE, draw, sample_scene

CAPTIONS_A_PICTURE = 3
STYLES = {"ordinary": ORDINARY, "brief": BRIEF, "careful": CAREFUL}


@dataclass(frozen=True)
class Pictures:
    """The training set: `pictures[i]` is described by each of `captions[style][i]`."""

    pictures: UInt8[np.ndarray, "picture h w 3"]
    captions: dict[str, list[list[str]]]

    def __len__(self) -> int:
        return len(self.pictures)

    def texts(self, style: str) -> Iterator[str]:
        """Return every caption of one of `STYLES`."""
        return (text for texts in self.captions[style] for text in texts)

    def batch(
        self, generator: torch.Generator, size: int, style: str = "ordinary"
    ) -> tuple[Float[Tensor, "batch 3 h w"], list[str], Tensor]:
        """Return pictures in [-1, 1], one caption of each, and their numbers."""
        index = torch.randint(len(self), (size,), generator=generator)
        which = torch.randint(CAPTIONS_A_PICTURE, (size,), generator=generator)
        texts = self.captions[style]
        captions = [texts[i][w] for i, w in zip(index.tolist(), which.tolist(), strict=True)]
        return to_unit(self.pictures[index.numpy()]), captions, index


def to_unit(pictures: UInt8[np.ndarray, "batch h w 3"]) -> Float[Tensor, "batch 3 h w"]:
    """Return pictures as float32 in [-1, 1], channels first."""
    return torch.from_numpy(pictures.astype(np.float32)).permute(0, 3, 1, 2) / 127.5 - 1


def draw_pictures(folder: Path, *, count: int, seed: int, progress: bool = True) -> Pictures:
    """Draw the training set into `folder`, or take it from there if it is whole.

    Args:
        folder: where `pictures.npy` and `captions.json` go.
        count: number of pictures.
        seed: picture i is drawn from (seed, i), so any part can be drawn again by itself.
        progress: whether to show a bar.
    """
    pixels, texts = folder / "pictures.npy", folder / "captions.json"
    if not texts.exists():
        folder.mkdir(parents=True, exist_ok=True)
        pictures = np.lib.format.open_memmap(
            pixels, mode="w+", dtype=np.uint8, shape=(count, *SIZE, 3)
        )
        captions: dict[str, list[list[str]]] = {style: [] for style in STYLES}
        for number in tqdm(range(count), "drawing", disable=not progress, mininterval=1):
            rng = np.random.default_rng((seed, number))
            scene = sample_scene(rng)
            pictures[number] = draw(scene)[0]
            for key, style in STYLES.items():
                captions[key].append(
                    [write_caption(scene, rng, style=style) for _ in range(CAPTIONS_A_PICTURE)]
                )
        pictures.flush()
        partial = texts.with_suffix(".partial")
        partial.write_text(json.dumps({"seed": seed, "count": count, "captions": captions}))
        os.replace(partial, texts)
    record = json.loads(texts.read_text())
    if (record["seed"], record.get("count")) != (seed, count):
        raise ValueError(
            f"{folder} holds {record.get('count')} pictures of seed {record['seed']}, "
            f"but {count} of seed {seed} were asked for; give another folder or remove this one"
        )
    return Pictures(np.load(pixels, mmap_mode="r"), record["captions"])
