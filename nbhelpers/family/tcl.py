"""TCL: a decoder that learns to draw the mask that a caption asks for, beside a frozen CLIP.

Cha, Mun and Roh, 2023, "Learning to Generate Text-grounded Mask for Open-world Semantic
Segmentation from Only Image-Text Pairs", arXiv 2212.00785.

Kept: CLIP's patches, frozen, go through gated convolutions to a finer grid; the mask of a text is
the sigmoid of its cosine with each location, with a trained slope and offset. What the mask keeps
of a picture is to match the caption: the pixels, read again by CLIP, and the mean of the features.
The mask of a picture's own caption is to cover a fixed share, that of another's nothing, and both
are to be smooth.

Simplified: two convolutions in place of four blocks, since the grid is small; a choice by
threshold whose gradient is the sigmoid's in place of Gumbel noise, so that nothing is drawn at
random; no refinement by the picture's colors at test time, since no other system here has one.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from nbhelpers.family.dense import text_features, to_input
from nbhelpers.family.trained import (
    Batch,
    VisionTower,
    contrast,
    encode,
    enlarge,
    load_trained,
    match,
)
from nbhelpers.models import Clip, Models

AREA = 0.3  # of the picture, that the masks of own captions are to cover on average
WEIGHTS = {"contrast": 0.1, "area": 0.4, "smooth": 1.0}


class Gated(nn.Module):
    """A convolution whose share begins at nothing, so that the decoder begins as CLIP itself."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(8, width)
        self.convolution = nn.Conv2d(width, width, 3, 1, 1)
        self.gate = nn.Parameter(torch.zeros(1))

    def forward(self, grid: Float[Tensor, "b width h w"]) -> Float[Tensor, "b width h w"]:
        added: Tensor = self.convolution(F.relu(self.norm(grid)))
        return grid + self.gate.tanh() * added


class Tcl(nn.Module):
    """The decoder over a frozen CLIP.

    Attributes:
        defining: Whether the contrast is of what the masks keep; of the whole picture if not.
    """

    defining = True
    training_only = ("tower.", "scale")  # CLIP's own, as they are

    def __init__(self, clip: nn.Module) -> None:
        super().__init__()
        self.tower = VisionTower(clip).requires_grad_(False)
        width = clip.config.projection_dim
        self.coarse, self.fine = Gated(width), Gated(width)
        self.slope = nn.Parameter(torch.tensor(10.0))
        self.offset = nn.Parameter(torch.tensor(-2.5))
        self.scale = nn.Parameter(clip.logit_scale.detach().clone(), requires_grad=False)

    def features(self, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b joint gh gw"]:
        """Returns unit vectors on a grid twice as fine as CLIP's patches."""
        with torch.no_grad():
            grid = self.tower(pixels).mT.unflatten(2, self.tower.grid)
        # Contiguous: the backward of torch 2.13's GroupNorm crashes on a transposed tensor.
        grid = F.interpolate(self.coarse(grid.contiguous()), scale_factor=2, mode="bilinear")
        return F.normalize(self.fine(grid).float(), dim=1)

    def masks(
        self, features: Float[Tensor, "b joint gh gw"], texts: Float[Tensor, "text joint"]
    ) -> Float[Tensor, "b text gh gw"]:
        """Returns the mask of every text in every picture."""
        cosines = torch.einsum("bchw,tc->bthw", features, texts)
        return torch.sigmoid(self.slope * cosines + self.offset)

    def loss(self, batch: Batch, clip: Clip, generator: torch.Generator) -> Float[Tensor, ""]:
        """Computes contrast within the masks, their area and their smoothness.

        Args:
            batch: Pictures and captions.
            clip: Whose text tower reads the captions.
            generator: Not used.
        """
        features, texts = self.features(batch.pixels), encode(batch.captions, clip)
        masks = self.masks(features, texts)
        kept = masks if self.defining else torch.ones_like(masks)
        own = kept.diagonal().permute(2, 0, 1)[:, None]
        chosen = (own > 0.5).float() + own - own.detach()
        seen = F.interpolate(chosen, batch.pixels.shape[2:], mode="bilinear") * batch.pixels
        pictures = self.tower.project(self.tower.run(self.tower.embed(seen))[:, 0])
        pooled = torch.einsum("bthw,bchw->btc", kept, features)
        found = (F.normalize(pooled, dim=-1) * texts).sum(-1)
        terms = {
            "contrast": contrast(pictures, texts, self.scale) + match(self.scale.exp() * found),
            "area": area(masks),
            "smooth": variation(masks.diagonal().permute(2, 0, 1)) + variation(features),
        }
        return torch.stack([WEIGHTS[name] * term for name, term in terms.items()]).sum()


def area(masks: Float[Tensor, "b b h w"]) -> Float[Tensor, ""]:
    """Computes how far own captions' masks are from `AREA` on average, and others' from 0."""
    shares = masks.mean((2, 3))
    own = torch.eye(len(shares), dtype=torch.bool, device=shares.device)
    return (shares[own].mean() - AREA).abs() + shares[~own].mean()


def variation(grid: Float[Tensor, "*b h w"]) -> Float[Tensor, ""]:
    """Returns the mean absolute difference of neighbors."""
    return grid.diff(dim=-1).abs().mean() + grid.diff(dim=-2).abs().mean()


@torch.no_grad()
def maps(
    image: UInt8[np.ndarray, "h w 3"],
    texts: Sequence[str],
    models: Models,
    *,
    network: Tcl | None = None,
) -> Float[np.ndarray, "text h w"]:
    """Returns the mask of each text before any threshold; arguments as in `clippy.maps`."""
    network = network or load_trained(Tcl, "tcl", models)
    features = network.features(to_input([image], models.clip))
    masks = network.masks(features, text_features(texts, models.clip))
    return enlarge(masks[0], (image.shape[0], image.shape[1]))
