"""The records of ``python -m tests.bench`` in ``data/benchmarks``, as tables and figures."""

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nbhelpers.display import Drawing, tabulate
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


def table(benchmark: str, device: str = "cpu", folder: Path = FOLDER) -> str:
    """Returns a benchmark's rows as text in columns: medians over the runs."""
    return lay_out(read(benchmark, device, folder))


def lay_out(record: dict[str, Any]) -> str:
    """Lays a record's rows out in columns, under a line about where and how it was measured."""
    rows, machine = record["rows"], record["machine"]
    where = machine.get("gpu") or f"{machine['processor']}, {machine['threads']} thread"
    settings = ", ".join(f"{name} {value}" for name, value in record["settings"].items())
    first = f"{record['benchmark']} on {where}\n{settings}\n"
    if record["benchmark"] == "profile":
        lines = [
            [row["operator"], row["calls"], _ms(row["seconds"]), f"{row['share']:.1%}"]
            for row in rows
        ]
        return repr(tabulate(["operator", "calls", "ms", "share"], lines, caption=first))
    known = {"way", "difference", "seconds", "ratio", "peak_mib", "all_seconds", "all_ratios"}
    extra = ("held_mb", "largest_batch", "per_second")
    more = [name for name in extra if any(name in row for row in rows)]
    case = [name for name in rows[0] if name not in known | {"error", *extra}]
    head = [*case, "way", "ms", "x base", "peak MiB", "off by", *more]
    lines = []
    for row in rows:
        numbers = [_ms(row["seconds"]), _short(row["ratio"]), _short(row["peak_mib"], ".1f")]
        off = row["error"] or _short(row["difference"], ".0e")
        others = [str(row.get(name, "")) for name in more]
        lines.append([*(str(row[name]) for name in case), row["way"], *numbers, off, *others])
    return repr(tabulate(head, lines, caption=first))


def promises(device: str = "cpu", folder: Path = FOLDER) -> str:
    """Lists the targets of the benchmarks that were run: what was wanted, found, whether met."""
    records = [read(name, device, folder) for name in measured(device, folder)]
    if not records:
        return f"nothing was measured on {device}: python -m tests.bench all --device {device}"
    return verdicts(*records)


def verdicts(*records: dict[str, Any]) -> str:
    """Lists the targets of records as text in columns."""
    lines = []
    for one in (one for record in records for one in record["targets"]):
        found = "not measured" if one["found"] is None else f"{one['found']:.3g} {one['unit']}"
        verdict = "met" if one["met"] else "missed" if one["found"] is not None else ""
        lines.append([one["what"], f"{one['wanted']} {one['unit']}", found, verdict])
    return repr(tabulate(["target", "wanted", "found", ""], lines))


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


FIGURES = {  # and the record that each is drawn from
    "time": (show_time, "complete"),
    "memory": (show_memory, "complete"),
    "overhead": (show_overhead, "capture"),
    "costs": (show_costs, "capture"),
}


def save_figures(device: str, out: Path, folder: Path = FOLDER) -> list[Path]:
    """Draws what has a record, as PNG files."""
    out.mkdir(parents=True, exist_ok=True)
    there, paths = measured(device, folder), []
    for name, (show, needed) in FIGURES.items():
        if needed in there:
            paths.append(out / f"{name}-{device}.png")
            show(device, folder).save(paths[-1])
    return paths


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


def _ms(seconds: float | None) -> str:
    return "" if seconds is None else f"{1000 * seconds:,.1f}"


def _short(value: float | None, form: str = ".2f") -> str:
    return "" if value is None else format(value, form)
