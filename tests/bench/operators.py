"""The operators by themselves: completion against N, and the sweep of thresholds."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from nbhelpers import kernels
from nbhelpers.benchmarks import (
    FLASH_T,
    NAIVE,
    NAIVE_T,
    OURS,
    OURS_T,
    SDPA,
    STOCK,
    Row,
    pick,
)
from tests.bench.measure import Way, agree, interleave
from tests.bench.records import rows_of, target

Tell = Callable[[str], None]


def completion_ways(query: Tensor, key: Tensor, maps: Tensor, scale: float) -> list[Way]:
    """A S and A^T S of one layer, the naive first; each returns maps ``chunk n``."""

    def naive(transpose: bool) -> Tensor:
        mean = (query @ key.mT * scale).softmax(dim=-1).mean(dim=(0, 1)).float()
        return maps @ (mean if transpose else mean.T)

    def attention_of_maps() -> Tensor:
        """Stock attention given the maps as they are: narrower values than keys."""
        values = maps.T.to(query).expand(*query.shape[:2], *maps.T.shape)
        found = F.scaled_dot_product_attention(query, key, values, scale=scale)
        return found.float().mean(dim=(0, 1)).T

    def backward() -> Tensor:
        """The gradient of the values is P^T dO: forward once, then back with dO := S."""
        wide = F.pad(maps.T, (0, query.shape[-1] - len(maps))).to(query)
        with torch.enable_grad():
            values = torch.zeros_like(query).requires_grad_()
            found = F.scaled_dot_product_attention(query, key, values, scale=scale)
            found.backward(wide.expand_as(found))
        return values.grad.float().mean(dim=(0, 1)).T[: len(maps)]  # type: ignore[union-attr]

    def ours(transpose: bool, backend: Any = None) -> Tensor:
        return kernels.complete(query, key, maps, scale, transpose, backend=backend)

    ways = [
        Way(NAIVE, lambda: naive(False)),
        Way(SDPA, attention_of_maps),
        Way(OURS, lambda: ours(False)),
        Way(NAIVE_T, lambda: naive(True)),
        Way(FLASH_T, backward),
        Way(OURS_T, lambda: ours(True)),
    ]
    if query.device.type == "cuda":  # elsewhere it is what ours is
        ways.append(Way(STOCK, lambda: ours(False, "torch")))
        ways.append(Way(f"{STOCK}, A^T S", lambda: ours(True, "torch")))
    return ways


@torch.no_grad()
def bench_completion(
    device: torch.device,
    *,
    sides: Sequence[int] = (16, 24, 32, 48, 64),
    heads: int = 8,
    d: int = 40,
    batch: int = 1,
    rounds: int = 5,
    tell: Tell = lambda name: None,
) -> tuple[list[Row], list[Row]]:
    """One layer's completion of one map on square grids: time and memory against N."""
    cuda = device.type == "cuda"
    dtype = torch.bfloat16 if cuda else torch.float32
    rows: list[Row] = []
    for side in sides:
        n, scale = side * side, d**-0.5
        generator = torch.Generator().manual_seed(side)
        query, key = torch.randn(2, batch, heads, n, d, generator=generator).to(device, dtype)
        query = query * 3  # attention that is neither flat nor one-hot
        maps = torch.rand(1, n, generator=generator).to(device)
        ways = completion_ways(query, key, maps, scale)
        differences: dict[str, float] = {}
        for spread in (False, True):
            alike = [way for way in ways if way.name.endswith("A^T S") == spread]
            differences |= agree(alike, off_range, 0.05 if cuda else 1e-3, tell)
        found = interleave(ways, device, rounds=rounds, warm=3 * cuda, tell=tell)
        rows += rows_of(found, {"n": n, "d": d}, differences)
    return rows, _completion_targets(rows, max(sides) ** 2, cuda)


@torch.no_grad()
def bench_sweep(
    device: torch.device,
    *,
    maps: int = 8,
    side: int = 512,
    thresholds: int = 100,
    rounds: int = 5,
    tell: Tell = lambda name: None,
) -> tuple[list[Row], list[Row]]:
    """Intersections and unions at many thresholds, against one comparison after the other."""
    generator = torch.Generator().manual_seed(0)
    values = torch.rand(maps, side, side, generator=generator).to(device)
    truths = (torch.rand(maps, side, side, generator=generator) > 0.6).to(device)
    cuts = torch.linspace(0, 1, thresholds).to(device)

    def loop() -> Tensor:
        counts = []
        for value, truth in zip(values, truths, strict=True):
            masks = [value >= cut for cut in cuts]
            counts.append([[(m & truth).sum(), (m | truth).sum()] for m in masks])
        return torch.tensor(counts).permute(2, 0, 1)

    def together() -> Tensor:
        """All maps at once, one threshold after the other."""
        masks = (values >= cut for cut in cuts)
        counts = [[(m & truths).sum((1, 2)), (m | truths).sum((1, 2))] for m in masks]
        return torch.stack([torch.stack(both) for both in counts], dim=-1).cpu()

    def ours() -> Tensor:
        return torch.stack(kernels.threshold_sweep(values, truths, cuts)).cpu()

    ways = [Way("loop", loop), Way("loop over thresholds", together), Way(OURS, ours)]
    differences = agree(ways, lambda counts, right: float((counts != right).sum()), 0, tell)
    found = interleave(ways, device, rounds=rounds, warm=3 * (device.type == "cuda"), tell=tell)
    rows = rows_of(found, {"maps": maps, "side": side, "thresholds": thresholds}, differences)
    ratio = pick(rows, OURS)["ratio"]
    what = "sweep, times faster than the loop, with equal counts"
    return rows, [target(what, ratio and 1 / ratio, at_least=15)]


def off_range(maps: Tensor, right: Tensor) -> float:
    """How far maps are from the right ones where they are farthest, as a share of their range."""
    span = float(right.max() - right.min())
    return float((maps - right).abs().max()) / span if span else float("inf")


def _completion_targets(rows: Sequence[Row], n: int, cuda: bool) -> list[Row]:
    """What the largest grid shows."""

    def times(way: str, than: str) -> float | None:
        one, other = (pick(rows, name, n=n)["ratio"] for name in (way, than))
        if one is None:
            return None
        return 1 / one if than == NAIVE else other and other / one

    naive = f"completion, times faster than {NAIVE}"
    if cuda:
        found = [
            target(naive, times(OURS, NAIVE), at_least=5),
            target("completion, times faster than stock", times(OURS, STOCK), at_least=1.5),
        ]
    else:
        peak = pick(rows, OURS, n=n)["peak_mib"]
        found = [
            target(naive, times(OURS, NAIVE), at_least=2.5),
            target("completion, extra peak", peak, at_most=64, unit="MiB"),
        ]
    return [{**one, "what": f"{one['what']}, N = {n}"} for one in found]
