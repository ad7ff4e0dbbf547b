"""Seconds and peak memory of a run; runs compared, and taken in turns."""

import ctypes
import gc
import re
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

MIB = 2**20
STATUS, PEAK = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Cost:
    """What one run took.

    Attributes:
        seconds: Of the process on a CPU, of the stream on a GPU.
        peak_mib: The most memory above what was held before; None where it can't be measured.
    """

    seconds: float
    peak_mib: float | None


@dataclass(frozen=True)
class Way:
    """One of several ways to the same result."""

    name: str
    run: Callable[[], Any]


@dataclass
class Measured:
    """What the runs of one way took.

    Attributes:
        costs: One a run.
        ratios: Each run's seconds over the mean of the base's before and after it.
        error: What ended the runs early, out of memory for instance.
    """

    costs: list[Cost] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)
    error: str | None = None

    def row(self) -> dict[str, Any]:
        """The numbers, ready for JSON: medians over the runs, and all of them."""
        seconds = [cost.seconds for cost in self.costs]
        peaks = [cost.peak_mib for cost in self.costs if cost.peak_mib is not None]
        return {
            "seconds": round(statistics.median(seconds), 6) if seconds else None,
            "ratio": round(statistics.median(self.ratios), 4) if self.ratios else None,
            "peak_mib": round(statistics.median(peaks), 1) if peaks else None,
            "all_seconds": [round(value, 6) for value in seconds],
            "all_ratios": [round(value, 4) for value in self.ratios],
            "error": self.error,
        }


def measure(run: Callable[[], Any], device: torch.device) -> tuple[Any, Cost]:
    """Run it once; on a CPU by the clock of the process, on a GPU by events of the stream.

    Returns:
        What it returned, and what it took.
    """
    gc.collect(1)  # the young: what the last run left in cycles
    if device.type == "cuda":
        return _measure_on_gpu(run, device)
    before = _forget_peak()
    started = time.process_time()
    result = run()
    seconds = time.process_time() - started
    return result, Cost(seconds, None if before is None else _resident("VmHWM") - before)


def agree(
    ways: Sequence[Way],
    off: Callable[[Any, Any], float],
    limit: float,
    tell: Callable[[str], None] = lambda name: None,
) -> dict[str, float]:
    """How far each way's result is from the first's.

    Args:
        ways: The one that is right, and the others.
        off: How far a result is from the right one.
        limit: How far it may be.
        tell: Is told each way before it runs.

    Returns:
        By the ways' names, in order.

    Raises:
        ValueError: A result is farther off: then nothing may be timed.
    """
    found: dict[str, float] = {}
    right: Any = None
    for way in ways:
        tell(way.name)
        result = way.run()
        right = result if way is ways[0] else right
        far = off(result, right)
        if not far <= limit:
            raise ValueError(
                f"{way.name!r} is off by {far:.2g}, {limit:g} is allowed; nothing was timed"
            )
        found[way.name] = round(far, 8)
    return found


def interleave(
    ways: Sequence[Way],
    device: torch.device,
    *,
    rounds: int,
    seconds: float = float("inf"),
    warm: int = 0,
    tell: Callable[[str], None] = lambda name: None,
) -> dict[str, Measured]:
    """Every way in turns, each between two runs of the first, which is the base.

    Args:
        ways: The base and the others. One that runs out of memory or fails is left out from then
            on and its error noted; the base may not.
        device: Where they run.
        rounds: How often each runs.
        seconds: No new round starts after so many; the first always runs.
        warm: Runs of each before any is measured.
        tell: Is told each way before it runs.

    Returns:
        By the ways' names, in order.
    """
    base, *others = ways
    found = {way.name: Measured() for way in ways}

    def take(way: Way) -> Cost:
        tell(way.name)
        result, cost = measure(way.run, device)
        del result
        found[way.name].costs.append(cost)
        return cost

    for way in ways:
        with _noting(found[way.name], quiet=way is not base):
            for _ in range(warm):
                way.run()
    started = time.monotonic()
    before = take(base)
    for turn in range(rounds):
        if turn and time.monotonic() - started > seconds:
            break
        for way in others:
            if found[way.name].error:
                continue
            with _noting(found[way.name]):
                own = take(way)
            if found[way.name].error:
                continue
            after = take(base)
            middle = (before.seconds + after.seconds) / 2
            found[way.name].ratios.append(own.seconds / middle)
            before = after
    return found


def largest(run: Callable[[int], Any], most: int) -> int:
    """The largest power of two up to `most` that a run takes without running out of memory."""
    fits, batch = 0, 1
    while batch <= most:
        try:
            run(batch)
        except (torch.OutOfMemoryError, MemoryError):
            break
        finally:
            _release()
        fits, batch = batch, 2 * batch
    return fits


@contextmanager
def _noting(measured: Measured, quiet: bool = True) -> Iterator[None]:
    """Note an error instead of letting it end the other ways' runs, too."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:  # torch.OutOfMemoryError is a RuntimeError
        if not quiet:
            raise
        measured.error = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        _release()


def _release() -> None:
    """Give back what failed runs held."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _measure_on_gpu(run: Callable[[], Any], device: torch.device) -> tuple[Any, Cost]:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    start.record()
    result = run()
    end.record()
    torch.cuda.synchronize(device)
    peak = (torch.cuda.max_memory_allocated(device) - before) / MIB
    return result, Cost(start.elapsed_time(end) / 1000, peak)


def _forget_peak() -> float | None:
    """Let the peak of resident memory start anew, in MiB what is resident; None but on Linux."""
    if not PEAK.exists():
        return None
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim:  # freed blocks that C keeps would hide what a run takes
        trim(0)
    try:
        PEAK.write_text("5", encoding="utf-8")
    except OSError:
        return None
    return _resident("VmRSS")


def _resident(name: str) -> float:
    """A line of the process's memory, in MiB."""
    found = re.search(rf"^{name}:\s+(\d+) kB", STATUS.read_text(encoding="utf-8"), re.MULTILINE)
    return int(found[1]) / 1024 if found else 0.0
