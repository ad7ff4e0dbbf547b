"""Small batches for the systems that are trained, and models with a small CLIP."""

from dataclasses import replace

import torch

from nbhelpers.family.trained import Batch, MaskBatch
from tests.tiny_clip import SIDE, make_clip

CAPTIONS = ("a red ring near a cat", "the old hat", "a striped cat", "a dog and a red moon")
NOUNS = (("ring", "cat"), ("hat",), ("cat",), ("dog", "moon"))


def with_clip(models):
    """The models with a small CLIP of their own text encoder's vocabulary."""
    clip = make_clip(models.text.tokenizers[0])
    return replace(models, sources={**models.sources, "clip": clip})


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def captioned(seed=0):
    """Four pictures with captions."""
    pixels = 2 * torch.rand(len(CAPTIONS), 3, SIDE, SIDE, generator=generator(seed)) - 1
    return Batch(pixels, CAPTIONS, NOUNS)


def masked(seed=0):
    """Two pictures of one and of two things, with masks."""
    pixels = 2 * torch.rand(2, 3, SIDE, SIDE, generator=generator(seed)) - 1
    masks = torch.zeros(3, SIDE // 2, SIDE // 2)
    masks[0, 2:9, 3:8] = 1
    masks[1, :6, :6] = 1
    masks[2, 9:, 4:12] = 1
    names = [[("dog", "red dog")], [("cat", "old cat"), ("cat", "red cat")]]
    return MaskBatch(pixels, [masks[:1], masks[1:]], names)


def defining_changes_the_loss(network, batch, side):
    """The losses of one batch with the system's own term and without it."""
    found = []
    for defining in (True, False):
        network.defining = defining
        found.append(float(network.loss(batch, side, generator(3)).detach()))
    network.defining = True
    return found
