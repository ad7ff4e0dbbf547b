"""How others store attention, from their descriptions: every probability is formed.

They exchange the attention processors for ones that compute softmax(QK') as a matrix, keep it or
part of it, and complete the score map with the kept matrices. Only the benchmarks use this.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Store = dict[str, Tensor]
Keep = Callable[[Tensor], Tensor]


class Storing:
    """An attention processor that forms the probabilities and keeps something of them."""

    def __init__(self, name: str, store: Store, keep: Keep) -> None:
        self.name, self.store, self.keep = name, store, keep

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        **more: Any,
    ) -> Tensor:
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query = attn.head_to_batch_dim(attn.to_q(hidden_states))
        key = attn.head_to_batch_dim(attn.to_k(context))
        value = attn.head_to_batch_dim(attn.to_v(context))
        probabilities = attn.get_attention_scores(query, key, attention_mask)
        heads = probabilities.unflatten(0, (-1, attn.heads))  # batch head n token
        self.store[self.name] = self.keep(heads)
        mixed = attn.batch_to_head_dim(torch.bmm(probabilities, value))
        out: Tensor = attn.to_out[1](attn.to_out[0](mixed))
        return out


# Each keeps of "batch head n token" a tensor whose first and last two axes are these.
KEEPS: Mapping[str, Keep] = {
    "all heads": lambda heads: heads,
    "head means": lambda heads: heads.mean(dim=1, keepdim=True),
    "all heads, on the CPU": lambda heads: heads.cpu(),
}


@contextmanager
def storing(unet: nn.Module, keep: Keep, kinds: str = "cross self") -> Iterator[Store]:
    """Keep the probabilities of these kinds of layers, by name, while the block runs."""
    store: Store = {}
    before = unet.attn_processors
    processors = dict(before)
    for name in before:
        kind = "cross" if "attn2" in name else "self"
        if kind in kinds:
            processors[name] = Storing(name, store, keep)
    unet.set_attn_processor(processors)
    try:
        yield store
    finally:
        unet.set_attn_processor(dict(before))


def complete_stored(
    store: Store,
    token: int,
    grid: tuple[int, int],
    weights: Mapping[int, float],
    transpose: bool = False,
) -> Tensor:
    """DiffSegmenter's arithmetic with stored matrices: the completed maps, ``batch n``.

    Head and layer mean of the token's column a resolution, stretched to [0, 1], enlarged,
    weighted; then once A S, or A^T S, with A the head and layer mean of the finest
    self-attention.
    """
    n = math.prod(grid)
    columns: dict[int, list[Tensor]] = {}
    total: Tensor | None = None
    layers = 0
    for name, kept in store.items():
        if "attn2" in name:
            factor = round(math.sqrt(n / kept.shape[-2]))
            columns.setdefault(factor, []).append(kept[..., token].float().mean(dim=1))
        elif kept.shape[-1] == n:
            mean = kept.mean(dim=1)
            total = mean if total is None else total + mean
            layers += 1
    if total is None:
        raise ValueError(f"no self-attention of the grid {grid} was stored")
    whole = sum(weights.get(factor, 0.0) for factor in columns)
    scores = sum(
        weights.get(factor, 0.0) / whole * _enlarged(maps, factor, grid)
        for factor, maps in columns.items()
    )
    matrix = ((total.mT if transpose else total) / layers).float()
    found: Tensor = (matrix @ scores[..., None]).squeeze(-1)  # type: ignore[index]
    return found


def word_map(store: Store, token: int, grid: tuple[int, int]) -> Tensor:
    """DAAM's map of a token: every head's, enlarged by bicubic interpolation, averaged."""
    found = []
    for kept in store.values():
        factor = round(math.sqrt(math.prod(grid) / kept.shape[-2]))
        cells = (grid[0] // factor, grid[1] // factor)
        maps = kept[..., token].float().unflatten(-1, cells)
        found.append(F.interpolate(maps, size=grid, mode="bicubic").clamp(min=0).mean(dim=1))
    return torch.stack(found).mean(dim=0).flatten(1)


def _enlarged(maps: list[Tensor], factor: int, grid: tuple[int, int]) -> Tensor:
    """One resolution's mean map, stretched to [0, 1], on the finest grid: ``batch n``."""
    mean = torch.stack(maps).mean(dim=0)
    low, high = mean.amin(dim=1, keepdim=True), mean.amax(dim=1, keepdim=True)
    cells = (grid[0] // factor, grid[1] // factor)
    stretched = torch.where(high > low, (mean - low) / (high - low), 0.0)  # one cell tells nothing
    stretched = stretched.unflatten(1, cells)[:, None]
    enlarged = F.interpolate(stretched, size=grid, mode="bilinear", align_corners=False)
    return enlarged.flatten(1)
