"""All thresholds at once: one look at every pixel instead of one look for every threshold."""

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

CELLS = 4096  # of [0, 1]; a power of two, so that scaling by it rounds nothing


def threshold_sweep(
    maps: Float[Tensor, "map h w"],
    truths: Bool[Tensor, "map h w"],
    thresholds: Float[Tensor, " threshold"],
) -> tuple[Int64[Tensor, "map threshold"], Int64[Tensor, "map threshold"]]:
    """Intersection and union of every map, cut at every threshold, with its true mask.

    A pixel belongs to the masks of all thresholds up to its own value, so its place among them is
    all that counts: one histogram of these places, summed from above, holds every mask's area.

    Args:
        maps: Values in [0, 1].
        truths: The true masks.
        thresholds: Ascending; rounded to the maps' dtype, as `to_masks` has its own rounded.

    Returns:
        The pixels of ``(map >= threshold) & truth`` and of ``(map >= threshold) | truth``,
        exactly: both are counts.

    Raises:
        ValueError: A map that leaves [0, 1] or holds NaN, thresholds that do not ascend, or
            shapes that differ.

    Example:
        >>> maps, truths = torch.tensor([[[0.2, 0.8]]]), torch.tensor([[[False, True]]])
        >>> threshold_sweep(maps, truths, torch.tensor([0.0, 0.5, 0.9]))
        (tensor([[1, 1, 0]]), tensor([[2, 1, 1]]))
    """
    thresholds = checked(maps, truths, thresholds)
    count, bins = len(maps), len(thresholds) + 1
    # A place in the histogram for each pair of a threshold passed and a truth.
    place = passed(maps.flatten(1), thresholds).mul_(2).add_(truths.flatten(1))
    pixels = torch.stack([torch.bincount(row, minlength=2 * bins) for row in place])
    above = pixels.view(count, bins, 2).flip(1).cumsum(1).flip(1)
    intersection = above[:, 1:, 1]
    union = above[:, 1:, 0] + above[:, :1, 1]
    return intersection.contiguous(), union


def passed(values: Tensor, thresholds: Tensor) -> Tensor:
    """For each value, how many of the ascending thresholds it reaches.

    The cell that a value falls into gives the least it can be; the few thresholds inside of the
    cell are tried one by one, which makes it exact. Where they crowd, a search is faster.
    """
    edges = torch.arange(CELLS + 1, device=values.device, dtype=values.dtype) / CELLS
    least = torch.bucketize(edges, thresholds, right=True, out_int32=True)
    crowd = int(least.diff().max())
    if crowd > 4:
        return torch.bucketize(values, thresholds, right=True, out_int32=True)
    found = least[(values * CELLS).to(torch.int32)]
    beyond = torch.cat([thresholds, thresholds.new_full((1,), torch.inf)])
    for _ in range(crowd):
        found += values >= beyond[found]
    return found


def checked(maps: Tensor, truths: Tensor, thresholds: Tensor) -> Tensor:
    """The thresholds in the maps' dtype and place, if all is as it must be."""
    if maps.shape != truths.shape or truths.dtype != torch.bool or not maps.numel():
        raise ValueError(
            "maps and truths have one shape (map, h, w), truths are bool; "
            f"got {tuple(maps.shape)} and {truths.dtype} {tuple(truths.shape)}"
        )
    low, high = (float(end) for end in maps.aminmax())
    if not 0 <= low <= high <= 1:  # NaN is neither
        raise ValueError(f"maps lie in [0, 1], as to_pixels gives them; got {low} to {high}")
    if not len(thresholds) or not (thresholds.diff() >= 0).all() or thresholds.isnan().any():
        raise ValueError(f"thresholds ascend, at least one; got {thresholds.tolist()[:8]}")
    return thresholds.to(maps)
