"""The operators in stock PyTorch: attention in memory linear in the pixels, and maps.

Everything is computed in float32, whatever the model runs in: logits reach 1e4 in half precision,
and a probability of 1/4096 has few bits left there.
"""

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

# Logits held at once. On a CPU 2**18 floats are 1 MiB and stay in the cache, which makes it faster
# than one large product; elsewhere a launch costs more than 64 MiB do.
BLOCK = 2**18
BLOCK_ELSEWHERE = 2**24
TELLS = 1e-6  # what differs by less, as a share of the largest value, is the same everywhere
CELLS = 4096  # of [0, 1]; a power of two, so that scaling by it rounds nothing


def row_lse(
    query: Float[Tensor, "batch head n d"], key: Float[Tensor, "batch head token d"], scale: float
) -> Float[Tensor, "batch head n"]:
    """Returns the log-sum-exp of ``q . k * scale`` over the tokens, of every pixel: float32."""
    tokens = key.float().transpose(-1, -2)
    found = [
        (query[..., rows, :].float() * scale @ tokens).logsumexp(dim=-1)
        for rows in _blocks(query, query.shape[0] * query.shape[1] * key.shape[-2])
    ]
    return torch.cat(found, dim=-1)


def columns_from_lse(
    query: Float[Tensor, "batch head n d"],
    key: Float[Tensor, "batch head column d"],
    lse: Float[Tensor, "batch head n"],
    scale: float,
) -> Float[Tensor, "batch head n column"]:
    """Returns ``exp(q . k_t * scale - lse)`` for the tokens given: float32."""
    logits = query.float() * scale @ key.float().transpose(-1, -2)
    return logits.sub_(lse[..., None]).exp_()


def complete(
    query: Float[Tensor, "batch head n d"],
    key: Float[Tensor, "batch head n d"],
    maps: Float[Tensor, "prompt chunk n"],
    scale: float,
    transpose: bool,
) -> Float[Tensor, "prompt chunk n"]:
    """Returns ``A S``, or ``A^T S``, with A each prompt's mean over heads and passes: float32.

    ``A S`` is attention with S in the place of the values; ``A^T S`` is summed block by block.
    """
    carry, parts = _spread if transpose else _gather, (len(maps), -1)
    own = zip(query.unflatten(0, parts), key.unflatten(0, parts), maps.float(), strict=True)
    return torch.stack([carry(q.float(), k.float(), s, scale) for q, k, s in own])


def _gather(query: Tensor, key: Tensor, maps: Tensor, scale: float) -> Tensor:
    """Returns ``A S``: every pixel takes the scores of the pixels that it attends to."""
    batch, heads, n, d = query.shape
    # The fast kernels want values as wide as the keys; the general one would hold n x n.
    groups = []
    for group in maps.split(d):
        values = F.pad(group.T, (0, d - len(group))).expand(batch, heads, n, d)
        carried = F.scaled_dot_product_attention(query, key, values, scale=scale)
        groups.append(carried[..., : len(group)].mean(dim=(0, 1)).T)
    return torch.cat(groups)


def _spread(query: Tensor, key: Tensor, maps: Tensor, scale: float) -> Tensor:
    """Returns ``A^T S``: every pixel gives its score to the pixels that it attends to."""
    total = torch.zeros_like(maps)
    for queries, keys in zip(query.flatten(0, 1), key.flatten(0, 1), strict=True):
        targets = (keys * scale).T.contiguous()
        for rows in _blocks(queries, len(keys)):
            total += maps[:, rows] @ (queries[rows] @ targets).softmax(dim=-1)
    return total / (query.shape[0] * query.shape[1])


def _blocks(query: Tensor, cost: int) -> Iterator[slice]:
    """Yields slices of the pixels whose rows, of `cost` numbers each, are held at once."""
    step = max(1, (BLOCK if query.device.type == "cpu" else BLOCK_ELSEWHERE) // max(cost, 1))
    return (slice(start, start + step) for start in range(0, query.shape[-2], step))


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


def count_places(maps: Tensor, truths: Tensor, thresholds: Tensor) -> Tensor:
    """Counts, for each map, the pixels by ``2 * (thresholds reached) + truth``.

    Every pixel is read once instead of once for every threshold.
    """
    bins = 2 * (len(thresholds) + 1)
    found = []
    for values, truth in zip(maps.flatten(1), truths.flatten(1), strict=True):
        places = passed(values, thresholds).mul_(2).add_(truth)  # one map stays in the cache
        found.append(torch.bincount(places, minlength=bins))
    return torch.stack(found)


def passed(values: Tensor, thresholds: Tensor) -> Tensor:
    """Counts, for each value of a row, the ascending thresholds that it reaches.

    The cell that a value falls into gives the least it can be; the few thresholds inside of the
    cell are tried one by one, which makes it exact. Where they crowd, a search is faster.
    """
    edges = torch.arange(CELLS + 1, device=values.device, dtype=values.dtype) / CELLS
    least = torch.bucketize(edges, thresholds, right=True, out_int32=True)
    crowd = int(least.diff().max())
    if crowd > 4:
        return torch.bucketize(values, thresholds, right=True, out_int32=True)
    # index_select gathers four times as fast as indexing does.
    found = least.index_select(0, (values * CELLS).to(torch.int32))
    beyond = torch.cat([thresholds, thresholds.new_full((1,), torch.inf)])
    for _ in range(crowd):
        found += values >= beyond.index_select(0, found)
    return found
