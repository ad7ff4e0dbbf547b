"""The systems of the family that learn from true masks: of scenes drawn anew for every step.

Nothing else in this world learns from a mask. These two are a ceiling, and every table says so.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor, nn

from nbhelpers.family.odise import Odise
from nbhelpers.family.segdiff import SegDiff
from nbhelpers.family.trained import MaskBatch
from nbhelpers.models import Models
from recipe.captions import name as name_of
from recipe.pictures import to_unit
from recipe.scenes import draw, sample_scene
from recipe.training import fit, half_precision

NETWORKS: dict[str, type[nn.Module]] = {"segdiff": SegDiff, "odise": Odise}
SCENES_SEED = 11  # no scene of the training pictures, of the benchmark or of a held-out measure
BATCH = 20
RATE = 1e-3


def draw_batch(step: int, size: int) -> MaskBatch:
    """Return the scenes of one step, which no other step draws."""
    pictures, masks, names = [], [], []
    for number in range(size):
        scene = sample_scene(np.random.default_rng((SCENES_SEED, step, number)))
        picture, covers = draw(scene)
        pictures.append(picture)
        masks.append(F.avg_pool2d(torch.from_numpy(covers).float(), 2))
        both = [(thing.noun, name_of(thing)) for thing in scene.things]
        names.append([tuple(dict.fromkeys(pair)) for pair in both])
    return MaskBatch(to_unit(np.stack(pictures)), masks, names)


def train(
    name: str,
    models: Models,
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
        models: the sticker world's, which stay as they are.
        folder: the same resumes.
        steps: of `BATCH` scenes.
        seed: of weights and chance; the scenes are the same for all.
        defining: whether the part that makes the system what it is is there.
        progress: whether to show a bar.
    """
    torch.manual_seed(seed)
    network: Any = NETWORKS[name](models.clip.model).to(models.device).train()
    network.defining = defining
    if models.device.type == "cpu":
        models.unet.set_attn_processor(AttnProcessor())  # the fused one's backward takes longer

    def loss(step: int, generator: torch.Generator) -> Tensor:
        drawn = draw_batch(step, BATCH)
        batch = MaskBatch(
            drawn.pixels.to(models.device),
            [masks.to(models.device) for masks in drawn.masks],
            drawn.names,
        )
        with half_precision(models.device.type):
            return network.loss(batch, models, generator)

    fit(
        name,
        loss,
        parameters=network.parameters(),
        kept={name: network},
        folder=folder,
        steps=steps,
        rate=RATE,
        seed=seed,
        weight_decay=0.05,
        progress=progress,
    )
    return network.eval().requires_grad_(False)
