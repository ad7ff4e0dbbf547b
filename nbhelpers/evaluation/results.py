"""Tables as they are kept: JSON of shares for programs, Markdown in percent for readers."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nbhelpers.files import write_whole

FORMAT = 3
FILES = ("tables.json", "questions.json", "family.json")
ESCAPED = str.maketrans({c: f"&#{ord(c)};" for c in "&<>|`*_[]\\$"})
BASELINES = {"table-2": "plain", "table-2-code": "DiffSegmenter's code"}  # what gains are over
Record = Mapping[str, Any]


@dataclass(frozen=True)
class Results:
    """Tables that were made of evaluations.

    Attributes:
        tables: Each with its name, title, split, what it was read from, and rows.
    """

    tables: tuple[Mapping[str, Any], ...]

    def table(self, name: str, split: str = "testA") -> Mapping[str, Any]:
        """Returns one table.

        Args:
            name: "table-1" to "table-4", "table-2-code" (Table 2 over DiffSegmenter's code),
                "figure-8", "leaks", "leaks-into", "weight", "into", "completion", "timesteps",
                "kinds", "gains" or "family".
            split: Which the figures come from.

        Raises:
            KeyError: It isn't there; says which are.
        """
        for table in self.tables:
            if (table["name"], table["split"]) == (name, split):
                return table
        there = ", ".join(f"{table['name']} of {table['split']}" for table in self.tables)
        raise KeyError(f"there is no {name!r} of {split!r}; there are {there or 'none'}")

    def rows(self, name: str, split: str = "testA", **facts: Any) -> list[Mapping[str, Any]]:
        """Returns the rows of a table of which these facts hold.

        Raises:
            KeyError: The table isn't there, or none of its rows is like this.

        Example:
            >>> row = {"label": "α = 0.9", "alpha": 0.9, "miou": 0.5}
            >>> made = Results(({"name": "table-3", "split": "testA", "rows": [row]},))
            >>> made.rows("table-3", alpha=0.9)[0]["miou"]
            0.5
        """
        rows = self.table(name, split)["rows"]
        found = [row for row in rows if facts.items() <= _plain(row).items()]
        if not found:
            raise KeyError(f"no row of {name!r} of {split!r} has {facts}")
        return found

    def row(self, name: str, split: str = "testA", **facts: Any) -> Mapping[str, Any]:
        """Returns the one row of a table of which these facts hold.

        Raises:
            KeyError: There is none, or more than one.
        """
        found = self.rows(name, split, **facts)
        if len(found) > 1:
            raise KeyError(f"{len(found)} rows of {name!r} of {split!r} have {facts}")
        return found[0]

    def markdown(self, name: str, split: str = "testA") -> str:
        """Returns one table in Markdown."""
        return markdown(self.table(name, split))


def load_results(folder: str | Path) -> Results:
    """Returns the tables of a folder, such as ``data/results``.

    Raises:
        ValueError: It holds none, or a damaged file.
    """
    tables: list[Mapping[str, Any]] = []
    for name in FILES:
        path = Path(folder) / name
        if path.exists():
            try:
                found = json.loads(path.read_bytes())
                tables += _as_now(found["tables"], found["format"])
            except (ValueError, TypeError, KeyError) as error:
                raise ValueError(f"{path} is damaged ({error}); make it again") from error
    if not tables:
        raise ValueError(
            f"{folder} holds neither {' nor '.join(FILES)}; make them with: "
            "python -m nbhelpers reproduce"
        )
    return Results(tuple(tables))


def _as_now(tables: Sequence[Record], version: int) -> list[Record]:
    """Reads the rows of earlier formats: 1 had keys for `softmax_over`, both a place for order."""
    then = {1: {"keys": "softmax_over", "place": "order"}, 2: {"place": "order"}}.get(version, {})

    def row_of(row: Record) -> Record:
        now = {then.get(key, key): value for key, value in row.items()}
        if then.keys() & {"keys"} & row.keys():
            now["label"] = row["label"].replace(", keys ", ", softmax over ")
        return now

    return [{**table, "rows": [row_of(row) for row in table["rows"]]} for table in tables]


def save_tables(
    folder: Path, name: str, title: str, tables: Sequence[Mapping[str, Any]]
) -> list[Path]:
    """Writes tables as ``NAME.json`` and ``NAME.md``.

    Args:
        folder: Made where it is missing.
        name: "tables" or "questions".
        title: Over the Markdown.
        tables: As `make_tables` and the answers give them.

    Raises:
        OSError: The folder can't be written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"format": FORMAT, "tables": list(tables)}, indent=1, allow_nan=False)
    page = "\n\n".join([f"# {title}", *map(markdown, tables)]) + "\n"
    contents = {f"{name}.json": text + "\n", f"{name}.md": page}
    for file, content in contents.items():
        write_whole(folder / file, content.encode("utf-8"))
    return [folder / file for file in contents]


def side_by_side(
    first: Results, second: Results, name: str, split: str = "testA"
) -> list[dict[str, Any]]:
    """Returns the gains of a table beside those of another model's, row by row.

    Args:
        first: Results of one model.
        second: Of another, such as one trained from another seed.
        name: Of a table that both have.
        split: Likewise.

    Returns:
        Label and order of each row that both have, and `gains`: the two intervals.

    Raises:
        KeyError: One of them hasn't got the table.
    """
    others = {_key(row): row for row in second.table(name, split)["rows"]}
    return [
        {
            "label": row["label"],
            "order": row.get("order"),
            "gains": [row["gain"], others[_key(row)]["gain"]],
        }
        for row in first.table(name, split)["rows"]
        if row.get("gain") and _key(row) in others and others[_key(row)].get("gain")
    ]


def over_baselines(
    results: Results, method: str = "sealed", split: str = "testA"
) -> list[tuple[str, Mapping[str, Any]]]:
    """Finds a method's rows of Table 2 over both baselines: plain, and DiffSegmenter's code.

    Args:
        results: Whose tables are read.
        method: A name in `SETTINGS`.
        split: Which the figures come from.

    Returns:
        The name of each baseline that was read, with the row whose "gain" and "overall_gain" are
        over it, every method at its own calibration.

    Example:
        >>> row = {"method": "sealed", "gain": {"mean": 0.1}}
        >>> made = Results(({"name": "table-2", "split": "testA", "rows": [row]},))
        >>> [name for name, row in over_baselines(made)]
        ['plain']
    """
    return [
        (BASELINES[table["name"]], row)
        for table in results.tables
        if table["name"] in BASELINES and table["split"] == split
        for row in table["rows"]
        if row["method"] == method and row["gain"]
    ]


def _key(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """Returns what a row is known by."""
    return row["label"], row.get("order")


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a row whose lists can be compared with tuples."""
    return {key: tuple(v) if isinstance(v, list) else v for key, v in row.items()}


def markdown(table: Record) -> str:
    """Returns a table with its title and what it was read from.

    Texts that come from a dataset are escaped. Figures are percent, gains are points.
    """
    kinds = {
        "table-1": class_columns,
        "figure-8": example_columns,
        "family": family_columns,
        "leaks": order_columns,
        "leaks-into": order_columns,
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

    def score(row: Record, key: str) -> str:
        """Returns a mean with its interval, which older records don't have."""
        return bounds(row[name], "") if (name := f"{key}_interval") in row else percent(row[key])

    lines = []
    for row in rows:
        line = [
            row["label"],
            f"{row['threshold']:.2f}",
            score(row, "miou"),
            span(row["gain"]),
            score(row, "oiou"),
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


def order_columns(table: Record) -> tuple[list[str], list[list[str]]]:
    """Returns a row for each way of closing leaks, a column for each order."""
    rows = table["rows"]
    orders = list(dict.fromkeys(row["order"] for row in rows))
    cells = {(row["label"], row["order"]): row for row in rows}
    lines = []
    for label in dict.fromkeys(row["label"] for row in rows):
        line = [label]
        for order in orders:
            row = cells.get((label, order))
            line.append(f"{percent(row['miou'])} {span(row['gain'])}".strip() if row else "")
        lines.append(line)
    return ["", *orders], lines


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

    def rank(row: Record) -> tuple[bool, bool, float]:
        """Returns what rows are sorted by."""
        found = row["classes"] or row["phrase"]
        mean = found["miou"]["mean"] if found else 0.0
        return found is None, row["supervision"] == "masks", -mean

    lines = []
    for row in sorted(table["rows"], key=rank):
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
