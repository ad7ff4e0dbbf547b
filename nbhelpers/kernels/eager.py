"""Attention columns and completed maps in stock PyTorch, in memory linear in the pixels.

Everything is computed in float32, whatever the model runs in: logits reach 1e4 in half precision,
and a probability of 1/4096 has few bits left there.
"""

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

# Logits held at once: 2**24 floats are 64 MiB, less than one plain pass of a large UNet takes.
BLOCK = 2**24


def columns(
    query: Float[Tensor, "batch head n d"],
    key: Float[Tensor, "batch head token d"],
    index: Sequence[int],
    scale: float,
    subset: Sequence[int] | None = None,
) -> Float[Tensor, "batch head n column"]:
    """The probabilities with which every pixel looks at some of the tokens.

    Column t of the cross-attention is ``exp(q . k_t * scale - lse)``, where lse is the
    log-sum-exp of ``q . k * scale`` over the tokens that the softmax runs over.

    Args:
        query: The pixels' queries.
        key: The tokens' keys.
        index: The wanted tokens, a column each.
        scale: What the model multiplies its logits by, usually ``d ** -0.5``.
        subset: The tokens that the softmax runs over; all of them when None. A wanted token
            outside of it has no probability, so it must lie inside.

    Returns:
        The wanted columns in float32; over all tokens of the subset they sum to 1.

    Raises:
        ValueError: A wanted token is no token of the subset.
    """
    tokens = list(range(key.shape[-2])) if subset is None else list(subset)
    missing = sorted(set(index) - set(tokens))
    if missing:
        raise ValueError(
            f"tokens {missing} were asked for, but the softmax runs over tokens {tokens}; "
            "choose the wanted tokens among them"
        )
    chosen = key[..., tokens, :].float().transpose(-1, -2)
    wanted = [tokens.index(token) for token in index]
    found = []
    for rows in _blocks(query.shape[-2], query.shape[0] * query.shape[1] * len(tokens)):
        logits = (query[..., rows, :].float() * scale) @ chosen
        lse = logits.logsumexp(dim=-1, keepdim=True)
        found.append((logits[..., wanted] - lse).exp())
    return torch.cat(found, dim=-2)


def complete(
    query: Float[Tensor, "batch head n d"],
    key: Float[Tensor, "batch head n d"],
    maps: Float[Tensor, "chunk n"],
    scale: float,
    transpose: bool = False,
) -> Float[Tensor, "chunk n"]:
    """The maps carried along one layer's self-attention, averaged over heads and batch.

    ``A S`` is attention with S in the place of the values; ``A^T S`` sends every pixel's score
    to the pixels that it looks at, and is summed block by block.

    Args:
        query: The pixels' queries.
        key: The pixels' keys.
        maps: S, one row a map.
        scale: What the model multiplies its logits by, usually ``d ** -0.5``.
        transpose: Whether to apply ``A^T`` instead of ``A``.

    Returns:
        The new maps in float32. A's rows sum to 1, so ``A S`` stays within S's range and
        leaves a constant map as it is, and ``A^T S`` keeps the sum of S.
    """
    query, key, maps = query.float(), key.float(), maps.float()
    if transpose:
        return _complete_transposed(query, key, maps, scale)
    batch, heads, n, d = query.shape
    # The fast kernels want values as wide as the keys; the general one would hold n x n.
    groups = []
    for group in maps.split(d):
        values = F.pad(group.T, (0, d - len(group))).expand(batch, heads, n, d)
        carried = F.scaled_dot_product_attention(query, key, values, scale=scale)
        groups.append(carried[..., : len(group)].mean(dim=(0, 1)).T)
    return torch.cat(groups)


def _complete_transposed(query: Tensor, key: Tensor, maps: Tensor, scale: float) -> Tensor:
    """``A^T S``, a block of A's rows at a time."""
    batch, heads, n, _ = query.shape
    total = torch.zeros_like(maps)
    for rows in _blocks(n, batch * heads * key.shape[-2]):
        attention = (query[..., rows, :] * scale @ key.transpose(-1, -2)).softmax(dim=-1)
        total += (maps[:, rows] @ attention).mean(dim=(0, 1))
    return total


def _blocks(n: int, cost: int) -> Iterator[slice]:
    """Slices of n rows that hold at most `BLOCK` numbers each, where a row holds `cost`."""
    step = max(1, BLOCK // max(cost, 1))
    return (slice(start, start + step) for start in range(0, n, step))
