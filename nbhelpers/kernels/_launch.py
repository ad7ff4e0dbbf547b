"""The launches of the Triton kernels: tile sizes, grids, strides, and the means left over."""

from collections.abc import Sequence
from typing import Any

import torch
import triton  # type: ignore[import-untyped]
from torch import Tensor

from nbhelpers.kernels import _tiled
from nbhelpers.kernels.eager import TELLS

TOGETHER = 16  # maps in one pass over the keys, where there are several


def tiles(d: int, dtype: torch.dtype) -> dict[str, int]:
    """Returns tile sizes and warps for a head dimension, so that no register spills on sm_90."""
    features = max(16, triton.next_power_of_2(d))
    # No tensor cores in full precision: products live in registers.
    rows, columns, stages = (32, 32, 2) if dtype == torch.float32 else (128, 64, 3)
    rows = rows if features <= 64 else rows // 2
    sizes = {"BLOCK_M": rows, "BLOCK_N": columns, "BLOCK_D": features}
    return {**sizes, "num_warps": 4, "num_stages": stages}


def row_lse(query: Tensor, key: Tensor, scale: float) -> Tensor:
    """Computes `eager.row_lse`."""
    batch, heads, n, d = query.shape
    lse = query.new_empty(batch, heads, n, dtype=torch.float32)
    shape = {"N": n, "TOKENS": key.shape[-2], "D": d, **tiles(d, query.dtype)}
    strides = (*query.stride(), *key.stride())
    _tiled.row_lse_kernel[_grid(query, shape)](query, key, lse, scale, heads, *strides, **shape)
    return lse


def columns_from_lse(query: Tensor, key: Tensor, lse: Tensor, scale: float) -> Tensor:
    """Computes `eager.columns_from_lse`."""
    batch, heads, n, d = query.shape
    count = key.shape[-2]
    out = query.new_empty(batch, heads, n, count, dtype=torch.float32)
    shape = {"N": n, "TOKENS": count, "D": d, **tiles(d, query.dtype), "BLOCK_N": 16}
    arguments = (query, key, lse.contiguous(), out, scale, heads, *query.stride(), *key.stride())
    _tiled.columns_kernel[_grid(query, shape)](*arguments, **shape)
    return out


def complete(query: Tensor, key: Tensor, maps: Tensor, scale: float, transpose: bool) -> Tensor:
    """Computes `eager.complete`."""
    lse = row_lse(query, key, scale) if transpose else None
    groups = [_carry(query, key, group, scale, lse) for group in maps.split(TOGETHER, dim=1)]
    return torch.cat(groups, dim=1)


def _carry(query: Tensor, key: Tensor, maps: Tensor, scale: float, lse: Tensor | None) -> Tensor:
    """Carries up to `TOGETHER` maps: gathers, or spreads where the rows' lse is given."""
    batch, heads, n, d = query.shape
    prompts, count, _ = maps.shape
    out = query.new_empty(batch, heads, count, n, dtype=torch.float32)
    shape: dict[str, Any] = {"N": n, "D": d, "CHUNKS": count, **tiles(d, query.dtype)}
    shape["BLOCK_C"] = 1 if count == 1 else TOGETHER
    strides = (*query.stride(), *key.stride())
    given = (maps.float().contiguous(), out, scale, heads, batch // prompts, *strides)
    grid = _grid(query, shape)
    if lse is None:
        _tiled.gather_kernel[grid](query, key, *given, **shape)
    else:
        _tiled.spread_kernel[grid](query, key, lse, *given, **shape)
    return out.unflatten(0, (prompts, -1)).mean(dim=(1, 2))


def aggregate(
    maps: Sequence[Tensor], weights: Sequence[float], size: tuple[int, int], normalize: bool
) -> Tensor:
    """Computes `eager.aggregate`."""
    first = maps[0]
    sizes = [tuple(level.shape[-2:]) for level in maps]
    areas = [h * w for h, w in sizes]
    starts = [sum(areas[:level]) for level in range(len(areas))]
    table = torch.tensor(
        [[start, h, w] for start, (h, w) in zip(starts, sizes, strict=True)],
        dtype=torch.int32,
        device=first.device,
    )
    shares = torch.tensor(list(weights), dtype=torch.float32, device=first.device)
    flat = torch.cat([level.float().flatten(1) for level in maps], dim=1)
    out = first.new_empty(len(first), *size, dtype=torch.float32)
    block = 512
    _tiled.blend_kernel[(triton.cdiv(size[0] * size[1], block), len(first))](
        flat, table, shares, out, flat.shape[1], *size,
        NORMALIZE=normalize, TELLS=TELLS, LEVELS=len(maps), LONGEST=max(areas), BLOCK=block,
    )  # fmt: skip
    return out


def count_places(maps: Tensor, truths: Tensor, thresholds: Tensor) -> Tensor:
    """Computes `eager.count_places`."""
    count, pixels = len(maps), maps[0].numel()
    places = 2 * (len(thresholds) + 1)
    # One bin more than places, for what lies beyond the last pixel.
    bins = triton.next_power_of_2(places + 1)
    found = torch.zeros(count, bins, dtype=torch.int32, device=maps.device)
    block = 2048
    _tiled.places_kernel[(triton.cdiv(pixels, block), count)](
        maps.contiguous(), truths.contiguous().view(torch.uint8), thresholds, found, pixels,
        THRESHOLDS=len(thresholds), BITS=len(thresholds).bit_length(), BINS=bins, BLOCK=block,
    )  # fmt: skip
    return found[:, :places].long()


def _grid(query: Tensor, shape: dict[str, Any]) -> tuple[int, int]:
    """Returns a grid with a program for each tile of pixels of each head."""
    return triton.cdiv(query.shape[-2], shape["BLOCK_M"]), query.shape[0] * query.shape[1]
