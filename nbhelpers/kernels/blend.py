"""Maps of several resolutions as one, in stock PyTorch."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

TELLS = 1e-6  # what differs by less, as a share of the largest value, is the same everywhere


def aggregate(
    maps: Sequence[Tensor], weights: Sequence[float], size: tuple[int, int], normalize: bool
) -> Float[Tensor, "chunk h w"]:
    """Computes the weighted sum of maps, each enlarged, and stretched to [0, 1] if wished."""
    total = torch.zeros(len(maps[0]), *size, device=maps[0].device, dtype=torch.float32)
    for level, weight in zip(maps, weights, strict=True):
        values = _stretched(level.float()) if normalize else level.float()
        enlarged = F.interpolate(  # which wants a batch
            values[None], size=size, mode="bilinear", align_corners=False
        )
        total += weight * enlarged[0]
    return total


def _stretched(values: Tensor) -> Tensor:
    """Returns each map from 0 to 1; 0 where it is the same everywhere."""
    low, high = values.amin(dim=(1, 2), keepdim=True), values.amax(dim=(1, 2), keepdim=True)
    return torch.where(high - low > TELLS * high, (values - low) / (high - low), 0.0)
