"""The systems of the family that learn from captions alone: one recipe, one budget for all."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nbhelpers.family.clippy import Clippy
from nbhelpers.family.ovsegmentor import OVSegmentor
from nbhelpers.family.segclip import SegClip
from nbhelpers.family.tcl import Tcl
from nbhelpers.family.trained import Batch
from nbhelpers.family.viewco import ViewCo
from nbhelpers.models import Clip
from recipe.art import NOUNS
from recipe.captions import plural
from recipe.clip import jitter
from recipe.pictures import Pictures, to_unit
from recipe.training import fit, half_precision

NETWORKS: dict[str, type[nn.Module]] = {
    "tcl": Tcl,
    "clippy": Clippy,
    "viewco": ViewCo,
    "segclip": SegClip,
    "ovsegmentor": OVSegmentor,
}
BATCH = 64
# From CLIP's weights a smaller rate than from scratch; TCL's decoder is new.
RATES = {"tcl": 1e-3, "clippy": 2e-4, "viewco": 1e-3, "segclip": 3e-4, "ovsegmentor": 3e-4}
_NAMED = re.compile(rf"\b(?:{'|'.join([*NOUNS, *map(plural, NOUNS)])})\b")


def sample_batch(pictures: Pictures, generator: torch.Generator, size: int) -> Batch:
    """Return pictures, each moved a little, with an ordinary caption and the nouns in it."""
    index, captions = pictures.sample(generator, size, "ordinary")
    pixels = jitter(to_unit(pictures.pictures[index.numpy()]), captions, generator)
    return Batch(pixels, captions, [_NAMED.findall(caption) for caption in captions])


def train(
    name: str,
    pictures: Pictures,
    clip: Clip,
    folder: Path,
    *,
    steps: int,
    seed: int,
    defining: bool = True,
    progress: bool = True,
) -> nn.Module:
    """Train a system of `NETWORKS`; checkpoints and the log go to `folder`.

    Args:
        name: of the system.
        pictures: the training set, which holds no masks.
        clip: the sticker world's; its weights are the start of all but ViewCo.
        folder: the same resumes.
        steps: of `BATCH` pictures.
        seed: of weights and batches.
        defining: whether the term that makes the system what it is counts.
        progress: whether to show a bar.
    """
    torch.manual_seed(seed)
    clip.model.set_attn_implementation("eager")  # the fused one's backward is slower on a CPU
    network: Any = NETWORKS[name](clip.model).to(clip.device).train()
    network.defining = defining

    def loss(step: int, generator: torch.Generator) -> Tensor:
        batch = sample_batch(pictures, generator, BATCH)
        batch = Batch(batch.pixels.to(clip.device), batch.captions, batch.nouns)
        with half_precision(clip.device.type):
            return network.loss(batch, clip, generator)

    fit(
        name,
        loss,
        parameters=[weight for weight in network.parameters() if weight.requires_grad],
        kept={name: network},
        folder=folder,
        steps=steps,
        rate=RATES[name],
        seed=seed,
        weight_decay=0.05,
        progress=progress,
    )
    return network.eval().requires_grad_(False)
