"""ReCo's references: for each class the archive that CLIP retrieves, co-segmented."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nbhelpers.family.dense import text_features
from nbhelpers.family.reco import cosegment, patch_features, retrieve
from nbhelpers.models import Models
from recipe.pictures import Pictures

ARCHIVE = 50  # pictures of a class, and of the context
SEARCHED = 6000


def make(
    names: Sequence[str],
    models: Models,
    pictures: Pictures,
    *,
    archive: int = ARCHIVE,
    searched: int = SEARCHED,
    seed: int = 0,
) -> dict[str, Tensor]:
    """Return the reference of each class, from training pictures alone.

    Their captions are not read: CLIP finds the pictures by what they show.

    Args:
        names: of the classes.
        models: whose CLIP retrieves and embeds.
        pictures: the training set.
        archive: how many pictures a class gets.
        searched: among how many of the training set they are looked for, from its beginning.
        seed: of the pictures that are the context.
    """
    known = list(pictures.pictures[:searched])
    found = retrieve(text_features(names, models.clip), known, models.clip, archive)
    generator = torch.Generator().manual_seed(seed)
    others = torch.randperm(len(known), generator=generator)[:archive].tolist()
    context = patch_features([known[i] for i in others], models.clip)
    return {
        name: cosegment(patch_features([known[i] for i in numbers], models.clip), context)
        for name, numbers in zip(names, found, strict=True)
    }
