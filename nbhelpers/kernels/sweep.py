"""All thresholds at once: one look at every pixel instead of one look for every threshold."""

import torch
from torch import Tensor

CELLS = 4096  # of [0, 1]; a power of two, so that scaling by it rounds nothing


def count_places(maps: Tensor, truths: Tensor, thresholds: Tensor) -> Tensor:
    """For each map, how many pixels reach how many thresholds: ``2 * reached + truth``."""
    places = passed(maps.flatten(1), thresholds).mul_(2).add_(truths.flatten(1))
    bins = 2 * (len(thresholds) + 1)
    return torch.stack([torch.bincount(row, minlength=bins) for row in places])


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
