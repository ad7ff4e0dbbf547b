"""Masks from maps: enlarged to the picture, stretched to [0, 1], cut at a threshold."""

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from nbhelpers.errors import refused


def to_pixels(
    maps: Float[Tensor, "chunk h w"], size: tuple[int, int]
) -> Float[np.ndarray, "chunk height width"]:
    """Returns float32 maps as large as the picture, each stretched to [0, 1].

    The last step of section 3.1 before the threshold: bilinear enlargement, then min-max.

    Args:
        maps: One map a chunk, of any range; in the end each holds a 0 and a 1.
        size: The picture's ``(h, w)`` in pixels.

    Raises:
        ValueError: A map holds NaN or infinity or is the same everywhere, or the size is none.
    """
    if len(size) != 2 or min(size) < 1:
        raise refused("to_pixels", "size is (h, w) in pixels, each at least 1", size=size)
    if not torch.isfinite(maps).all():
        raise ValueError(
            f"a map holds NaN or infinity ({_bad(~torch.isfinite(maps))} of {len(maps)} maps); "
            "half precision overflows on some models, load them with dtype=torch.float32"
        )
    maps = maps[None].float()
    pixels = F.interpolate(maps, size=size, mode="bilinear", align_corners=False)[0]
    low = pixels.amin(dim=(1, 2), keepdim=True)
    high = pixels.amax(dim=(1, 2), keepdim=True)
    if (flat := (high - low)[:, 0, 0] <= 1e-6 * high.abs()[:, 0, 0]).any():
        raise ValueError(
            f"a map is the same everywhere ({_bad(flat[:, None, None])} of {len(pixels)} maps, "
            f"size {size}), so no pixel stands out; use a larger picture or other settings"
        )
    return ((pixels - low) / (high - low)).cpu().numpy()


def to_masks(
    maps: Float[Tensor, "chunk h w"], size: tuple[int, int], threshold: float = 0.5
) -> Bool[np.ndarray, "chunk height width"]:
    """Returns the pixels of every chunk: those whose score reaches the threshold.

    Args:
        maps: One map a chunk, of any range.
        size: The picture's ``(h, w)`` in pixels.
        threshold: In [0, 1], on the map stretched to [0, 1]; 0.5 in table 2. A pixel at the
            threshold belongs to the mask, so that 1 still keeps the peak and no mask is empty.

    Raises:
        ValueError: A map holds NaN or infinity or is the same everywhere, or the threshold is
            outside [0, 1].

    Example:
        >>> to_masks(torch.tensor([[[0.0, 2.0]]]), size=(1, 2))
        array([[[False,  True]]])
    """
    if not 0 <= threshold <= 1:  # NaN doesn't either
        wanted = "threshold lies in [0, 1], on the map's own range"
        raise refused("to_masks", wanted, threshold=threshold)
    return to_pixels(maps, size) >= threshold


def _bad(where: Tensor) -> int:
    """Counts the maps in which a condition holds anywhere."""
    return int(where.flatten(1).any(dim=1).sum())
