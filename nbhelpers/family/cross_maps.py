"""The cross-attention maps of one resolution, which several systems read while they generate."""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from nbhelpers import kernels
from nbhelpers.attention import Layer
from nbhelpers.models import Models


def cross_maps(
    layers: Sequence[Layer], tokens: Sequence[int], factor: int
) -> Float[Tensor, "picture token h w"]:
    """Returns the probability with which each location attends to some of the tokens.

    The mean over heads and over the layers of one resolution. It is differentiable where the
    layers were recorded with their gradient.

    Args:
        layers: What `record_attention` recorded of the cross-attention.
        tokens: The positions of the wanted tokens, the start token at 0.
        factor: How many times coarser than the latent the wanted layers are: 4 for the 16 x 16
            maps of Stable Diffusion.

    Returns:
        Probabilities in float32. A repeated token gives its map again.

    Raises:
        ValueError: No recorded layer has this factor.
    """
    chosen = [layer for layer in layers if layer.factor == factor]
    if not chosen:
        there = sorted({layer.factor for layer in layers})
        raise ValueError(
            f"no recorded cross-attention is {factor} times coarser than the latent; the recorded "
            f"factors are {there}"
        )
    # Triton's kernel has no gradient.
    backend: Literal["torch"] | None = "torch" if chosen[0].query.requires_grad else None
    maps = [
        kernels.columns(layer.query, layer.key, tokens, layer.scale, backend=backend)
        .mean(dim=1)
        .transpose(1, 2)
        .unflatten(-1, layer.grid)
        for layer in chosen
    ]
    return torch.stack(maps).mean(dim=0)


def main_factor(models: Models) -> int:
    """Returns the factor of the resolution that a calibration weighs most, the coarsest of equals.

    4 for Stable Diffusion, whose 16 x 16 maps Prompt-to-Prompt and Attend-and-Excite read.
    """
    weights = models.calibration.weights or {4: 1.0}
    return max(weights, key=lambda factor: (weights[factor], factor))
