"""Tables as Markdown: percent, gains in points with intervals, the paper's in a column."""

from collections.abc import Mapping, Sequence
from typing import Any

ESCAPED = str.maketrans({c: f"&#{ord(c)};" for c in "&<>|`*_[]\\$"})
Record = Mapping[str, Any]


def markdown(table: Record) -> str:
    """Returns a table with its title and what it was read from.

    Texts that come from a dataset are escaped. Figures are percent, gains are points.
    """
    kinds = {
        "table-1": class_columns,
        "figure-8": example_columns,
        "family": family_columns,
        "leaks": place_columns,
        "leaks-into": place_columns,
        "gains": gain_columns,
    }
    head, rows = kinds.get(table["name"], columns)(table)
    return f"## {table['title']}: {table['split']}\n\n{grid(head, rows)}\n\n{under(table)}"


def grid(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns cells as Markdown has them."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def columns(table: Record) -> tuple[list[str], list[list[str]]]:
    """Returns what most tables show."""
    rows = table["rows"]
    levels = sorted({level for row in rows for level in row["precision"]})[::2]
    theirs = any(row.get("paper") for row in rows)
    head = ["", "threshold", "mIoU", "gain", "oIoU", "gain of oIoU", "mIoU at 0.5", "oracle"]
    head += [f"Pr@{level}" for level in levels]
    head += ["the paper's threshold", "the paper's mIOU"] * theirs
    lines = []
    for row in rows:
        line = [
            row["label"],
            f"{row['threshold']:.2f}",
            percent(row["miou"]),
            span(row["gain"]),
            percent(row["oiou"]),
            span(row["overall_gain"]),
            percent(row["half"]),
            f"{percent(row['oracle'])} at {row['oracle_threshold']:.2f}",
            *(percent(row["precision"][level]) for level in levels),
        ]
        paper = row.get("paper")
        if theirs:
            line += [f"{paper['threshold']:g}", percent(paper["miou"])] if paper else ["", ""]
        lines.append(line)
    return head, lines


def place_columns(table: Record) -> tuple[list[str], list[list[str]]]:
    """Returns a row for each way of closing leaks, a column for each place."""
    rows = table["rows"]
    places = list(dict.fromkeys(row["place"] for row in rows))
    cells = {(row["label"], row["place"]): row for row in rows}
    lines = []
    for label in dict.fromkeys(row["label"] for row in rows):
        line = [label]
        for place in places:
            row = cells.get((label, place))
            line.append(f"{percent(row['miou'])} {span(row['gain'])}".strip() if row else "")
        lines.append(line)
    return ["", *places], lines


def gain_columns(table: Record) -> tuple[list[str], list[list[str]]]:
    """Returns a row for each group of expressions, a column for each method."""
    rows = table["rows"]
    methods = list(dict.fromkeys(row["method"] for row in rows))
    cells = {(row["low"], row["method"]): row for row in rows}
    lines = []
    for low, high, count in dict.fromkeys((r["low"], r["high"], r["expressions"]) for r in rows):
        gains = [span(cells[low, method]["gain"]) for method in methods]
        lines.append([f"{low:g} to {high:g}", f"{count:,}", *gains])
    return ["IoU of plain", "expressions", *methods], lines


def class_columns(table: Record) -> tuple[list[str], list[list[str]]]:
    """Lays out Table 1: mean over classes, its gain, each class, what the paper cites."""
    rows = table["rows"]
    classes = list(rows[0]["classes"])
    shown = classes if len(classes) <= 20 else []  # COCO's 81 are in the JSON alone
    lines = [
        [
            row["label"],
            f"{row['threshold']:.2f}",
            percent(row["miou"]),
            span(row.get("gain")),
            f"{percent(row['oracle'])} at {row['oracle_threshold']:.2f}",
            *(percent(row["classes"][name]) for name in shown),
        ]
        for row in rows
    ]
    empty = [""] * (2 + len(shown))
    lines += [
        [f"{name}, on COCO, as the paper cites it", "", percent(miou), *empty]
        for name, miou in table["cited"].items()
    ]
    return ["", "threshold", "mIoU", "gain", "oracle", *map(escape, shown)], lines


def family_columns(table: Record) -> tuple[list[str], list[list[str]]]:
    """Lays out Table 1, measured: supervised ceilings come last, then what wasn't run."""

    def score(row: Record, protocol: str) -> str:
        """Returns mIoU with its interval; nothing where the system doesn't take such texts."""
        return bounds(row[protocol]["miou"], "") if row[protocol] else ""

    def place(row: Record) -> tuple[bool, bool, float]:
        """Returns where a row stands."""
        found = row["classes"] or row["phrase"]
        mean = found["miou"]["mean"] if found else 0.0
        return found is None, row["supervision"] == "masks", -mean

    lines = []
    for row in sorted(table["rows"], key=place):
        ceiling = ", supervised: a ceiling" if row["supervision"] == "masks" else ""
        cost = row["cost"] or {}
        lines.append(
            [
                row["label"] + ceiling,
                row["supervision"],
                escape(row.get("not_run") or "") or score(row, "classes"),
                score(row, "phrase"),
                f"{cost['seconds']:.3f}" if cost else "",
                f"{cost['mib']:,.0f}" if cost.get("mib") else "",
                percent(row["quoted"]) if row["quoted"] else "",
            ]
        )
    head = ["", "learned from", "classes, mIoU", "phrases, mIoU", "seconds a picture", "MiB"]
    return [*head, "on COCO-Object, as the paper cites it"], lines


def example_columns(table: Record) -> tuple[list[str], list[list[str]]]:
    """Lays out Figure 8: which pictures it shows, and how well each method does there."""
    rows = table["rows"]
    names = list(rows[0]["iou"])
    lines = [
        [
            row["label"],
            escape(row["phrase"]),
            str(row["image"]),
            *(percent(row["iou"][name]) for name in names),
        ]
        for row in rows
    ]
    return ["paper's step", "phrase", "picture", *(f"IoU of {name}" for name in names)], lines


def under(table: Record) -> str:
    """Returns what stands under a table."""
    read = f"{table['pictures']:,} pictures" if "pictures" in table else ""
    if "expressions" in table:
        read = f"{table['expressions']:,} expressions of {read}"
    if "class_pictures" in table:
        read = ", ".join(filter(None, (f"classes of {table['class_pictures']:,} pictures", read)))
    seeds = sorted({seed for row in table["rows"] for seed in row.get("seeds", ())}, key=int)
    parts = [
        f"{escape(table['dataset'])} {table['split']}, model {escape(table['model'])}: {read}",
        f"{table['errors']} errors and {table['broken']} broken records left out",
        *([f"noise of seed {', '.join(seeds)}"] if seeds else []),
        "thresholds chosen on val; figures in percent, gains in points with 95% intervals over "
        "pictures",
    ]
    return f"*{'; '.join(parts)}.*"


def escape(text: Any) -> str:
    """Returns a text of which no character means anything to Markdown or HTML."""
    shown = "".join(c if c.isprintable() else "\ufffd" for c in str(text))
    return shown.translate(ESCAPED)


def percent(share: float) -> str:
    """Returns a share as percent, without the sign."""
    return f"{100 * share:.1f}"


def span(gain: Record | None) -> str:
    """Returns a gain in points with its interval; nothing for the baseline itself."""
    return bounds(gain, "+") if gain else ""


def bounds(interval: Record, sign: str) -> str:
    """Returns an interval in percent; with the sign "+" that of a gain."""
    mean, low, high = (f"{100 * interval[name]:{sign}.1f}" for name in ("mean", "low", "high"))
    return f"{mean} [{low}, {high}]"


def beside(rows: Sequence[Record], names: Sequence[str]) -> str:
    """Lays gains of two models beside each other, from `side_by_side`, as a Markdown table."""
    lines = [
        [row["label"], row["place"] or "", *(span(gain) for gain in row["gains"])] for row in rows
    ]
    return grid(["", "place", *map(escape, names)], lines)
