"""What was measured, as tables and figures for the book, from the files in ``data/benchmarks``.

``python -m tests.bench`` measures and writes them.
"""

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nbhelpers.display import Drawing, tabulate
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
    """A record.

    Raises:
        FileNotFoundError: It wasn't measured; the message says how to.
    """
    path = folder / f"{benchmark}-{device}.json"
    if not path.is_file():
        raise FileNotFoundError(
            f"{path.name} isn't in {folder}: nothing was measured; run "
            f"python -m tests.bench {benchmark} --device {device}"
        )
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def pick(rows: Sequence[Row], way: str, **case: Any) -> Row:
    """The row of a way in a case.

    Raises:
        ValueError: There is none.
    """
    for row in rows:
        if row["way"] == way and all(row.get(name) == value for name, value in case.items()):
            return row
    raise ValueError(f"nothing was measured of {way!r} with {case}")


def measured(device: str = "cpu", folder: Path = FOLDER) -> list[str]:
    """The benchmarks that have a record of this device."""
    return [name for name in BENCHMARKS if (folder / f"{name}-{device}.json").is_file()]


def table(benchmark: str, device: str = "cpu", folder: Path = FOLDER) -> str:
    """A benchmark's rows as text in columns: medians over the runs."""
    return lay_out(read(benchmark, device, folder))


def lay_out(record: dict[str, Any]) -> str:
    """A record's rows as text in columns, under a line about where and how it was measured."""
    rows: list[Row] = record["rows"]
    machine = record["machine"]
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
        cells = [f"{row[name]}" for name in case] + [row["way"]]
        numbers = [_ms(row["seconds"]), _short(row["ratio"]), _short(row["peak_mib"], ".1f")]
        off = _short(row["difference"], ".0e")
        cells += [*numbers, row["error"] or off, *(str(row.get(name, "")) for name in more)]
        lines.append(cells)
    return repr(tabulate(head, lines, caption=first))


def promises(device: str = "cpu", folder: Path = FOLDER) -> str:
    """Every target of the benchmarks that were run: what was wanted, found, and whether met."""
    records = [read(name, device, folder) for name in measured(device, folder)]
    if not records:
        return f"nothing was measured on {device}: python -m tests.bench all --device {device}"
    return verdicts(*records)


def verdicts(*records: dict[str, Any]) -> str:
    """The targets of records as text in columns."""
    lines = []
    for one in [one for record in records for one in record["targets"]]:
        found = "not measured" if one["found"] is None else f"{one['found']:.3g} {one['unit']}"
        verdict = "met" if one["met"] else "missed" if one["found"] is not None else ""
        lines.append([one["what"], f"{one['wanted']} {one['unit']}", found, verdict])
    return repr(tabulate(["target", "wanted", "found", ""], lines))


def show_time(device: str = "cpu", folder: Path = FOLDER) -> Drawing:
    """The time of one layer's completion against the number of places, both axes in tens."""
    rows = read("complete", device, folder)["rows"]
    curves = _curves(rows, "n", (*GATHERING, *SPREADING), "seconds", 1000)
    return _lines(curves, "places N", "milliseconds, a layer")


def show_memory(device: str = "cpu", folder: Path = FOLDER) -> Drawing:
    """The extra peak memory of one layer's completion, both axes in powers of ten.

    What was below a tenth of a MiB is drawn there: the clock of memory ticks in pages.
    """
    rows = read("complete", device, folder)["rows"]
    curves = _curves(rows, "n", (*GATHERING, *SPREADING), "peak_mib", 1)
    least = {name: [max(value, 0.1) for value in values] for name, values in curves[1].items()}
    return _lines((curves[0], least), "places N", "extra peak memory, MiB")


def show_overhead(device: str = "cpu", folder: Path = FOLDER) -> Drawing:
    """The time of capturing, and of capturing and completing, over a plain pass, by batch."""
    rows = read("capture", device, folder)["rows"]
    batches = sorted({row["batch"] for row in rows})
    lines = {}
    for way in ("capture", "capture + A S"):
        own = [pick(rows, way, batch=batch) for batch in batches]
        lines[way] = [_interval(row["all_ratios"]) for row in own]
    return show_lines(batches, lines, x_label="batch", y_label="time over a plain pass")


def show_costs(device: str = "cpu", folder: Path = FOLDER) -> Drawing:
    """What every way of capturing adds to a plain pass: the runs' median and range."""
    rows = read("capture", device, folder)["rows"]
    first = [row for row in rows if row["batch"] == rows[0]["batch"] and row["all_ratios"]]
    extra = [_interval([ratio - 1 for ratio in row["all_ratios"]]) for row in first]
    labels = [row["way"] for row in first]
    return show_intervals(
        labels, {"extra time": extra}, x_label="extra time, as a share of a plain pass"
    )


FIGURES = {
    "time": show_time,
    "memory": show_memory,
    "overhead": show_overhead,
    "costs": show_costs,
}


def save_figures(device: str, out: Path, folder: Path = FOLDER) -> list[Path]:
    """Draw what has a record, as PNG files."""
    there = measured(device, folder)
    needs = {"time": "complete", "memory": "complete", "overhead": "capture", "costs": "capture"}
    out.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, show in FIGURES.items():
        if needs[name] in there:
            paths.append(out / f"{name}-{device}.png")
            show(device, folder).save(paths[-1])
    return paths


Curves = tuple[list[float], dict[str, list[float]]]


def _curves(rows: Sequence[Row], axis: str, ways: Sequence[str], name: str, unit: float) -> Curves:
    """One number of every way that was measured everywhere, along one axis."""
    places = sorted({row[axis] for row in rows})
    lines = {}
    for way in ways:
        own = {row[axis]: row[name] for row in rows if row["way"] == way}
        if all(own.get(place) is not None for place in places):
            lines[way] = [own[place] * unit for place in places]
    return places, lines


def _lines(curves: Curves, x_label: str, y_label: str) -> Drawing:
    places, lines = curves
    if not lines:
        raise ValueError(f"nothing was recorded of the {y_label}; it is measured on Linux alone")
    return show_lines(places, lines, x_label=x_label, y_label=y_label, logarithmic=True)


def _interval(values: Sequence[float]) -> tuple[float, float, float]:
    """The median and both ends."""
    return statistics.median(values), min(values), max(values)


def _ms(seconds: float | None) -> str:
    return "" if seconds is None else f"{1000 * seconds:,.1f}"


def _short(value: float | None, form: str = ".2f") -> str:
    return "" if value is None else format(value, form)
