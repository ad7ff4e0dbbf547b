"""SegDiff: a diffusion model over masks, which sees the picture; trained on true masks.

Amit, Nachmani, Shaharabany and Wolf, 2021, "SegDiff: Image Segmentation with Diffusion
Probabilistic Models", arXiv 2112.00390.

A ceiling for this family, not a rival: it learned from the masks of freshly drawn scenes.
Kept: the encodings of the picture, G(I), and of the noised mask, F(x_t), are summed and go through
one UNet, step by step from noise to a mask; the results of several runs are averaged.
Simplified and added: the text is a condition beside the timestep (the paper segments one kind of
thing); the network predicts the mask, not the noise, so that ten steps suffice; masks are half as
large as the picture.
"""

import math
from collections.abc import Sequence
from functools import partial
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from nbhelpers.family.dense import text_features, to_input
from nbhelpers.family.trained import MaskBatch, encode, enlarge, load_trained
from nbhelpers.models import Models

WIDTHS = (32, 64, 96)
STEPS, RUNS = 10, 5
WAVES = 16  # of the timestep's embedding


class Block(nn.Module):
    """Two convolutions beside a shortcut, what is between them scaled and shifted."""

    def __init__(self, first: int, last: int, condition: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList([nn.GroupNorm(8, first), nn.GroupNorm(8, last)])
        self.inner, self.outer = nn.Conv2d(first, last, 3, 1, 1), nn.Conv2d(last, last, 3, 1, 1)
        self.shortcut = nn.Conv2d(first, last, 1)
        self.condition = nn.Linear(condition, 2 * last)

    def forward(
        self, grid: Float[Tensor, "b first h w"], condition: Float[Tensor, "b condition"]
    ) -> Float[Tensor, "b last h w"]:
        found = self.norms[1](self.inner(F.silu(self.norms[0](grid))))
        scale, shift = self.condition(condition)[:, :, None, None].chunk(2, 1)
        added: Tensor = self.outer(F.silu(found * (1 + scale) + shift))
        return self.shortcut(grid) + added


class SegDiff(nn.Module):
    """F, G and the UNet over their sum.

    Attributes:
        defining: Whether the noised mask is seen; if not, this is an ordinary segmenter.
    """

    defining = True

    def __init__(self, clip: nn.Module) -> None:
        super().__init__()
        joint = clip.config.projection_dim
        a, b, c = WIDTHS
        block = partial(Block, condition=joint)
        self.mask_in, self.picture_in = nn.Conv2d(1, a, 3, 1, 1), nn.Conv2d(3, a, 4, 2, 1)
        self.of_mask, self.of_picture = block(a, a), nn.ModuleList([block(a, a), block(a, a)])
        self.time = nn.Sequential(nn.Linear(2 * WAVES, joint), nn.SiLU(), nn.Linear(joint, joint))
        self.down = nn.ModuleList([block(a, a), block(a, b), block(b, c)])
        self.middle = block(c, c)
        self.up = nn.ModuleList([block(2 * c, b), block(2 * b, a), block(2 * a, a)])
        self.out = nn.Conv2d(a, 1, 3, 1, 1)

    def forward(
        self,
        noised: Float[Tensor, "b 1 h w"],
        pixels: Float[Tensor, "b 3 height width"],
        time: Float[Tensor, " b"],
        texts: Float[Tensor, "b joint"],
    ) -> Float[Tensor, "b 1 h w"]:
        """Predicts the mask in [-1, 1] behind a noised one; a time is 0 (no noise) to 1."""
        waves = math.pi * time[:, None] * 2 ** torch.linspace(0, 6, WAVES, device=time.device)
        told = self.time(torch.cat([waves.sin(), waves.cos()], 1)) + len(texts[0]) ** 0.5 * texts
        grid = self.picture_in(pixels)
        for block in self.of_picture:
            grid = block(grid, told)
        if self.defining:
            grid = grid + self.of_mask(self.mask_in(noised), told)
        kept = []
        for number, block in enumerate(self.down):
            grid = block(F.avg_pool2d(grid, 2) if number else grid, told)
            kept.append(grid)
        grid = self.middle(grid, told)
        for number, block in enumerate(self.up):
            grid = F.interpolate(grid, scale_factor=2) if number else grid
            grid = block(torch.cat([grid, kept.pop()], 1), told)
        return self.out(F.silu(grid)).float()

    def loss(
        self, batch: MaskBatch, models: Models, generator: torch.Generator
    ) -> Float[Tensor, ""]:
        """Returns the squared error of the mask of one phrase a picture, at a random time."""
        phrases, masks = batch.choose(generator)
        clean = 2 * masks[:, None] - 1
        time = torch.rand(len(clean), generator=generator).to(clean)
        noise = torch.randn(clean.shape, generator=generator).to(clean)
        texts = encode(phrases, models.clip)
        return F.mse_loss(self(add_noise(clean, noise, time), batch.pixels, time, texts), clean)


def add_noise(
    clean: Float[Tensor, "b 1 h w"], noise: Float[Tensor, "b 1 h w"], time: Float[Tensor, " b"]
) -> Float[Tensor, "b 1 h w"]:
    """Adds as much noise as a time has to a mask: cos(pi t / 2) of the mask, sin of the noise."""
    angle = (math.pi / 2 * time)[:, None, None, None]
    return angle.cos() * clean + angle.sin() * noise


@torch.no_grad()
def maps(
    image: UInt8[np.ndarray, "h w 3"],
    texts: Sequence[str],
    models: Models,
    *,
    network: SegDiff | None = None,
    runs: int = RUNS,
    seed: int = 0,
) -> Float[np.ndarray, "text h w"]:
    """Returns the mean mask of several runs from noise to a mask.

    Args:
        image: As in `clippy.maps`, and so are texts, models and network.
        runs: Whose results are averaged.
        seed: Of the noise, the same for every text.
    """
    network = network or load_trained(SegDiff, "segdiff", models)
    pixels = to_input([image], models.clip)
    asked = text_features(texts, models.clip).repeat_interleave(runs, 0)
    size = (pixels.shape[2] // 2, pixels.shape[3] // 2)
    noise = torch.randn(runs, 1, *size, generator=torch.Generator().manual_seed(seed))
    noised = noise = noise.to(pixels).repeat(len(texts), 1, 1, 1)
    pixels, times = pixels.expand(len(noise), -1, -1, -1), torch.linspace(1, 0, STEPS + 1).tolist()
    for now, after in pairwise(times):
        angle = math.pi / 2 * now
        clean = network(noised, pixels, pixels.new_full((len(noise),), now), asked).clamp(-1, 1)
        noise = (noised - math.cos(angle) * clean) / math.sin(angle)
        noised = add_noise(clean, noise, pixels.new_full((len(noise),), after))
    mean = (noised.unflatten(0, (len(texts), runs)).mean(1)[:, 0] + 1) / 2
    return enlarge(mean, (image.shape[0], image.shape[1]))
