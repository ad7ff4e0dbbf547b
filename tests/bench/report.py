"""What the benchmarks found, as text in columns and as files of figures."""

from pathlib import Path
from typing import Any

from nbhelpers.benchmarks import (
    FOLDER,
    measured,
    read,
    show_costs,
    show_memory,
    show_overhead,
    show_time,
)
from nbhelpers.display import tabulate

FIGURES = {  # and the record that each is drawn from
    "time": (show_time, "complete"),
    "memory": (show_memory, "complete"),
    "overhead": (show_overhead, "capture"),
    "costs": (show_costs, "capture"),
}


def table(benchmark: str, device: str = "cpu", folder: Path = FOLDER) -> str:
    """A benchmark's rows as text in columns: medians over the runs."""
    return lay_out(read(benchmark, device, folder))


def lay_out(record: dict[str, Any]) -> str:
    """A record's rows in columns, under a line about where and how it was measured."""
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
    """The targets of the benchmarks that were run: what was wanted, found, whether met."""
    records = [read(name, device, folder) for name in measured(device, folder)]
    if not records:
        return f"nothing was measured on {device}: python -m tests.bench all --device {device}"
    return verdicts(*records)


def verdicts(*records: dict[str, Any]) -> str:
    """The targets of records as text in columns."""
    lines = []
    for one in (one for record in records for one in record["targets"]):
        found = "not measured" if one["found"] is None else f"{one['found']:.3g} {one['unit']}"
        verdict = "met" if one["met"] else "missed" if one["found"] is not None else ""
        lines.append([one["what"], f"{one['wanted']} {one['unit']}", found, verdict])
    return repr(tabulate(["target", "wanted", "found", ""], lines))


def save_figures(device: str, out: Path, folder: Path = FOLDER) -> list[Path]:
    """Draw what has a record, as PNG files."""
    out.mkdir(parents=True, exist_ok=True)
    there, paths = measured(device, folder), []
    for name, (show, needed) in FIGURES.items():
        if needed in there:
            paths.append(out / f"{name}-{device}.png")
            show(device, folder).save(paths[-1])
    return paths


def _ms(seconds: float | None) -> str:
    return "" if seconds is None else f"{1000 * seconds:,.1f}"


def _short(value: float | None, form: str = ".2f") -> str:
    return "" if value is None else format(value, form)
