"""The records of ``python -m tests.bench`` in ``data/benchmarks``, and figures of them."""

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nbhelpers.display import Drawing
from nbhelpers.errors import refused
from nbhelpers.figures import show_intervals, show_lines
from nbhelpers.weights import data_folder

FOLDER = data_folder() / "benchmarks"
BENCHMARKS = ("complete", "capture", "sweep", "segment", "profile")
# The ways of completing one layer's maps, as the records call them.
NAIVE, SDPA, OURS, STOCK = "naive", "SDPA, V = S", "ours", "ours, stock PyTorch"
NAIVE_T, FLASH_T, OURS_T = "naive, A^T S", "flash forward and backward, A^T S", "ours, A^T S"
GATHERING = (NAIVE, SDPA, STOCK, OURS)
SPREADING = (NAIVE_T, FLASH_T, OURS_T)
Row = dict[str, Any]


def read(benchmark: str, device: str = "cpu", folder: Path = FOLDER) -> dict[str, Any]:
    """Reads a record; where there is none, `FileNotFoundError` says how to measure it."""
    path = folder / f"{benchmark}-{device}.json"
    if not path.is_file():
        raise FileNotFoundError(
            f"{path.name} isn't in {folder}: nothing was measured; run "
            f"python -m tests.bench {benchmark} --device {device}"
        )
    return json.loads(path.read_text(encoding="utf-8"))


def pick(rows: Sequence[Row], way: str, **case: Any) -> Row:
    """Picks the row of a way in a case; `ValueError` where there is none."""
    for row in rows:
        if row["way"] == way and all(row.get(name) == value for name, value in case.items()):
            return row
    raise refused("pick", "nothing was measured of it", way=way, **case)


def measured(device: str = "cpu", folder: Path = FOLDER) -> list[str]:
    """Lists the benchmarks that have a record of this device."""
    return [name for name in BENCHMARKS if (folder / f"{name}-{device}.json").is_file()]


def show_time(device: str = "cpu", folder: Path = FOLDER) -> Drawing:
    """Draws the time of one layer's completion against the pixels, both axes in powers of ten."""
    return _completion(device, folder, "seconds", "milliseconds, a layer", 1000)


def show_memory(device: str = "cpu", folder: Path = FOLDER) -> Drawing:
    """Draws the extra peak memory of one layer's completion, both axes in powers of ten.

    What was below a tenth of a MiB is drawn there: memory is counted in pages.
    """
    return _completion(device, folder, "peak_mib", "extra peak memory, MiB", least=0.1)


def show_overhead(device: str = "cpu", folder: Path = FOLDER) -> Drawing:
    """Draws the time of capturing, and of capture and completion, over a plain pass, by batch."""
    rows = read("capture", device, folder)["rows"]
    batches = sorted({row["batch"] for row in rows})
    lines = {
        way: [_interval(pick(rows, way, batch=batch)["all_ratios"]) for batch in batches]
        for way in ("capture", "capture + A S")
    }
    return show_lines(batches, lines, x_label="batch", y_label="time over a plain pass")


def show_costs(device: str = "cpu", folder: Path = FOLDER) -> Drawing:
    """Draws what every way of capturing adds to a plain pass: the runs' median and range."""
    rows = read("capture", device, folder)["rows"]
    first = [row for row in rows if row["batch"] == rows[0]["batch"] and row["all_ratios"]]
    extra = [_interval([ratio - 1 for ratio in row["all_ratios"]]) for row in first]
    label = "extra time, as a share of a plain pass"
    return show_intervals([row["way"] for row in first], {"extra time": extra}, x_label=label)


def _completion(
    device: str, folder: Path, number: str, label: str, unit: float = 1, least: float = 0
) -> Drawing:
    """Draws one number of every way of completion that was measured at every count of pixels."""
    rows = read("complete", device, folder)["rows"]
    pixels, lines = sorted({row["n"] for row in rows}), {}
    for way in (*GATHERING, *SPREADING):
        own = {row["n"]: row[number] for row in rows if row["way"] == way}
        if all(own.get(n) is not None for n in pixels):
            lines[way] = [max(own[n] * unit, least) for n in pixels]
    if not lines:
        raise ValueError(f"nothing was recorded of the {label}; it is measured on Linux alone")
    return show_lines(pixels, lines, x_label="locations N", y_label=label, logarithmic=True)


def _interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Returns the median and both ends."""
    return statistics.median(values), min(values), max(values)
