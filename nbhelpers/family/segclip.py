"""SegCLIP: learned centers that gather the patches in the middle of a CLIP.

Luo, Bao, Wu, He and Li, 2023, "SegCLIP: Patch Aggregation with Learnable Centers for
Open-Vocabulary Semantic Segmentation", arXiv 2211.14813.

Kept: the lower layers of CLIP read patches; each patch goes to one center; the upper layers read
the centers, whose mean is contrasted with the caption. Two terms shape the centers without words:
hidden patches are painted from the visible ones, and the patches of one superpixel are to share
their centers.

Simplified: superpixels are clusters of the patches' colors and positions, which need no library
for Felzenszwalb's graphs over pixels; hidden patches are painted by one layer of attention, since
they are few; the text tower stays as it is, so that systems begin alike.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from nbhelpers.family.dense import stretch_together, text_features, to_input
from nbhelpers.family.grouping import Grouping, score_groups
from nbhelpers.family.trained import Batch, VisionTower, contrast, encode, load_trained
from nbhelpers.models import Clip, Models

SPLIT = 2  # layers below the centers
VISIBLE = 0.25  # share of the patches from which the others are painted
SUPERPIXELS, ROUNDS = 16, 4
WEIGHTS = {"painting": 1.0, "superpixels": 0.1}  # chosen on val, in short trainings
EPSILON = 1e-6


class SegClip(nn.Module):
    """CLIP's vision tower with centers in its middle.

    Attributes:
        defining: Whether the two terms without words count.
    """

    defining = True
    training_only = ("paint",)

    def __init__(self, clip: nn.Module) -> None:
        super().__init__()
        self.tower = VisionTower(clip)
        width = self.tower.width
        self.grouping = Grouping(width, hard=True)
        self.scale = nn.Parameter(clip.logit_scale.detach().clone())
        pixels = 3 * self.tower.vision.config.patch_size**2
        parts = {"query": width, "key": width, "value": width, "pixels": pixels}
        self.paint = nn.ModuleDict({part: nn.Linear(width, out) for part, out in parts.items()})

    def forward(
        self, pixels: Float[Tensor, "b 3 h w"], generator: torch.Generator | None = None
    ) -> tuple[Float[Tensor, "b group joint"], Float[Tensor, "b group patch"]]:
        """Returns the centers as unit vectors, and each patch's shares in them."""
        patches = self.tower.run(self.tower.embed(pixels), last=SPLIT)[:, 1:]
        centers = self.grouping.groups.expand(len(patches), -1, -1).to(patches)
        found, shares = self.grouping(centers, patches, generator)
        return self.tower.project(self.tower.run(found, first=SPLIT)), shares

    def loss(self, batch: Batch, clip: Clip, generator: torch.Generator) -> Float[Tensor, ""]:
        """Returns the contrast with the captions, and the two terms without words."""
        centers, shares = self(batch.pixels, generator)
        pooled = F.normalize(centers.mean(1), dim=-1)
        named = contrast(pooled, encode(batch.captions, clip), self.scale)
        if not self.defining:
            return named
        patches = patchify(batch.pixels, self.tower.vision.config.patch_size)
        painted = self.painting_loss(batch.pixels, patches, generator)
        united = superpixel_loss(shares, superpixels(patches, self.tower.grid))
        return named + WEIGHTS["painting"] * painted + WEIGHTS["superpixels"] * united

    def painting_loss(
        self,
        pixels: Float[Tensor, "b 3 h w"],
        patches: Float[Tensor, "b patch pixel"],
        generator: torch.Generator,
    ) -> Float[Tensor, ""]:
        """Returns the squared error of hidden patches, each scaled to mean 0 and deviation 1."""
        order = torch.rand(patches.shape[:2], generator=generator).argsort(1).to(pixels.device)
        seen, hidden = order.tensor_split([round(VISIBLE * order.shape[1])], 1)
        tokens = self.tower.embed(pixels)[:, 1:]
        visible = self.tower.run(pick(tokens, seen), last=SPLIT)
        positions = self.tower.vision.embeddings.position_embedding.weight[1:][hidden]
        weights = self.paint["query"](positions) @ self.paint["key"](visible).mT
        mixed = (weights / math.sqrt(visible.shape[-1])).softmax(2) @ self.paint["value"](visible)
        truth = pick(patches, hidden)
        truth = (truth - truth.mean(2, keepdim=True)) / (truth.std(2, keepdim=True) + 0.02)
        return F.mse_loss(self.paint["pixels"](mixed).float(), truth)


def pick(tokens: Float[Tensor, "b n c"], index: Int[Tensor, "b m"]) -> Float[Tensor, "b m c"]:
    """Returns the tokens of these numbers."""
    return tokens.gather(1, index[:, :, None].expand(-1, -1, tokens.shape[2]))


def patchify(pixels: Float[Tensor, "b 3 h w"], side: int) -> Float[Tensor, "b patch pixel"]:
    """Returns the pixels of every patch, row by row."""
    return F.unfold(pixels, side, stride=side).mT


@torch.no_grad()
def superpixels(
    patches: Float[Tensor, "b patch pixel"], grid: tuple[int, int]
) -> Float[Tensor, "b superpixel patch"]:
    """Gathers patches alike in color and near each other, as 0 and 1: a few rounds of k-means.

    The first centers are patches at even distances.
    """
    color = patches.unflatten(2, (3, -1)).mean(3)
    steps = [torch.linspace(-1, 1, side, device=patches.device) for side in grid]
    location = torch.cartesian_prod(*steps).expand(len(patches), -1, -1)
    points = torch.cat([color, 0.5 * location], 2)
    start = torch.linspace(0, points.shape[1] - 1, SUPERPIXELS, device=patches.device).long()
    centers = points[:, start]
    for _ in range(ROUNDS):
        nearest = torch.cdist(centers, points).argmin(1)
        member = F.one_hot(nearest, SUPERPIXELS).mT.to(points)
        centers = member @ points / member.sum(2, keepdim=True).clamp(min=1)
    return member


def superpixel_loss(
    shares: Float[Tensor, "b group patch"], member: Float[Tensor, "b superpixel patch"]
) -> Float[Tensor, ""]:
    """Computes the KL divergence of each patch's shares from the mean of its superpixel."""
    mean = member @ shares.mT / member.sum(2, keepdim=True).clamp(min=1)
    of_patch = (member.mT @ mean).mT.clamp(min=EPSILON).detach()
    return (of_patch * (of_patch.log() - shares.clamp(min=EPSILON).log())).sum(1).mean()


@torch.no_grad()
def maps(
    image: UInt8[np.ndarray, "h w 3"],
    texts: Sequence[str],
    models: Models,
    *,
    network: SegClip | None = None,
) -> Float[np.ndarray, "text h w"]:
    """Scores by the cosine of a patch's centers with a text; arguments as in `clippy.maps`."""
    network = network or load_trained(SegClip, "segclip", models)
    centers, shares = network(to_input([image], models.clip))
    asked = text_features(texts, models.clip)
    scores = score_groups(shares[0], centers[0], asked, network.tower.grid)
    return stretch_together(scores, (image.shape[0], image.shape[1]))
