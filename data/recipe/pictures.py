"""The training set: pictures and captions from a seed, kept in memory-mapped files."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from tqdm import tqdm

from nbhelpers.files import write_whole
from recipe.captions import BRIEF, CAREFUL, ORDINARY, write_caption
from recipe.scenes import SIZE, draw, sample_scene

# As Stable Diffusion was: on small pictures first, which cost less, then on those of full size.
SMALL = (64, 64)
CAPTIONS_A_PICTURE = 4
STYLES = {"brief": BRIEF, "ordinary": ORDINARY, "careful": CAREFUL}
_CHUNK = 500


@dataclass(frozen=True)
class Pictures:
    """The training set: `pictures[i]`, and the same scene `small`, are told by `captions`.

    `captions[style][i]` are `CAPTIONS_A_PICTURE` sentences; no mask is kept.
    """

    pictures: UInt8[np.ndarray, "picture h w 3"]
    small: UInt8[np.ndarray, "picture smaller_h smaller_w 3"]
    captions: dict[str, list[list[str]]]

    def __len__(self) -> int:
        return len(self.pictures)

    def texts(self, style: str) -> Iterator[str]:
        """Return every caption of one of `STYLES`."""
        return (text for texts in self.captions[style] for text in texts)

    def sample(
        self, generator: torch.Generator, size: int, style: str
    ) -> tuple[Tensor, list[str]]:
        """Return numbers of pictures, and one caption of each."""
        index = torch.randint(len(self), (size,), generator=generator)
        which = torch.randint(CAPTIONS_A_PICTURE, (size,), generator=generator)
        texts = self.captions[style]
        pairs = zip(index.tolist(), which.tolist(), strict=True)
        return index, [texts[picture][number] for picture, number in pairs]


def to_unit(pictures: UInt8[np.ndarray, "batch h w 3"]) -> Float[Tensor, "batch 3 h w"]:
    """Return pictures as float32 in [-1, 1], channels first."""
    return torch.from_numpy(pictures.astype(np.float32)).permute(0, 3, 1, 2) / 127.5 - 1


def _draw_chunk(
    seed: int, start: int, count: int
) -> tuple[np.ndarray, np.ndarray, list[dict[str, list[str]]]]:
    """Draw pictures `start` to `start + count`, large and small, with their captions."""
    large = np.empty((count, *SIZE, 3), dtype=np.uint8)
    small = np.empty((count, *SMALL, 3), dtype=np.uint8)
    told = []
    for number in range(count):
        rng = np.random.default_rng((seed, start + number))
        scene = sample_scene(rng)
        large[number], small[number] = draw(scene)[0], draw(scene, SMALL)[0]
        told.append(
            {
                key: [write_caption(scene, rng, style=style) for _ in range(CAPTIONS_A_PICTURE)]
                for key, style in STYLES.items()
            }
        )
    return large, small, told


def draw_pictures(
    folder: Path, *, count: int, seed: int, workers: int | None = None, progress: bool = True
) -> Pictures:
    """Draw the training set into `folder`, or take the first `count` of what is drawn there.

    Args:
        folder: where `pictures.npy`, `small.npy` and `captions.json` go.
        count: number of pictures.
        seed: picture i is drawn from (seed, i), so any part can be drawn again by itself.
        workers: processes that draw (default: one a core).
        progress: whether to show a bar.

    Raises:
        ValueError: if the folder holds pictures of another seed, or fewer.
    """
    paths = folder / "pictures.npy", folder / "small.npy"
    texts = folder / "captions.json"
    if not texts.exists():
        folder.mkdir(parents=True, exist_ok=True)
        large, small = (
            np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(count, *size, 3))
            for path, size in zip(paths, (SIZE, SMALL), strict=True)
        )
        captions: dict[str, list[list[str]]] = {style: [] for style in STYLES}
        starts = range(0, count, _CHUNK)
        sizes = [min(_CHUNK, count - start) for start in starts]
        with ProcessPoolExecutor(
            workers or os.cpu_count(), mp_context=get_context("spawn")
        ) as pool:
            drawn = pool.map(_draw_chunk, [seed] * len(sizes), starts, sizes)
            bar = tqdm(drawn, "drawing", len(sizes), disable=not progress, mininterval=5)
            for start, (wide, narrow, told) in zip(starts, bar, strict=True):
                large[start : start + len(wide)] = wide
                small[start : start + len(narrow)] = narrow
                for style in STYLES:
                    captions[style].extend(each[style] for each in told)
        large.flush()
        small.flush()
        record = {"seed": seed, "count": count, "captions": captions}
        write_whole(texts, json.dumps(record).encode())
    record = json.loads(texts.read_text())
    if record["seed"] != seed or record["count"] < count:
        raise ValueError(
            f"{folder} holds {record['count']} pictures of seed {record['seed']}, "
            f"but {count} of seed {seed} were asked for; give another folder or remove this one"
        )
    large, small = (np.load(path, mmap_mode="r")[:count] for path in paths)
    return Pictures(large, small, {style: t[:count] for style, t in record["captions"].items()})
