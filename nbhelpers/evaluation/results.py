"""Tables as they are kept: one JSON file for programs, the same as Markdown for readers."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nbhelpers.evaluation.layout import beside, markdown
from nbhelpers.files import write_whole

FILES = ("tables.json", "questions.json", "family.json")
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
                tables += found["tables"] if found["format"] > 1 else _as_now(found["tables"])
            except (ValueError, TypeError, KeyError) as error:
                raise ValueError(f"{path} is damaged ({error}); make it again") from error
    if not tables:
        raise ValueError(
            f"{folder} holds neither {' nor '.join(FILES)}; make them with: "
            "python -m nbhelpers reproduce"
        )
    return Results(tuple(tables))


def _as_now(tables: Sequence[Record]) -> list[Record]:
    """Replaces what tables of format 1 called keys: the tokens of the softmax."""

    def row_of(row: Record) -> Record:
        if "keys" not in row:
            return row
        named = {"softmax_over" if key == "keys" else key: v for key, v in row.items()}
        return {**named, "label": row["label"].replace(", keys ", ", softmax over ")}

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
    text = json.dumps({"format": 2, "tables": list(tables)}, indent=1, allow_nan=False)
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
        Label and place of each row that both have, and `gains`: the two intervals.

    Raises:
        KeyError: One of them hasn't got the table.
    """
    others = {_key(row): row for row in second.table(name, split)["rows"]}
    return [
        {
            "label": row["label"],
            "place": row.get("place"),
            "gains": [row["gain"], others[_key(row)]["gain"]],
        }
        for row in first.table(name, split)["rows"]
        if row.get("gain") and _key(row) in others and others[_key(row)].get("gain")
    ]


def save_beside(folder: Path, first: Results, second: Results, names: Sequence[str]) -> Path:
    """Writes the gains of two models side by side, of all tables that both have, as Markdown.

    Args:
        folder: Gets ``beside.md``.
        first: Results of one model.
        second: Of another.
        names: What the two are called.

    Raises:
        ValueError: They have no table in common.
        OSError: The folder can't be written to.
    """
    there = {(table["name"], table["split"]) for table in second.tables}
    parts = []
    for table in first.tables:
        name, split = table["name"], table["split"]
        if (name, split) in there:
            rows = side_by_side(first, second, name, split)
            if rows:
                parts.append(f"## {table['title']}: {split}\n\n{beside(rows, names)}")
    if not parts:
        raise ValueError("the two results have no table in common, so nothing stands side by side")
    path = folder / "beside.md"
    text = "\n\n".join(["# The same from two models", *parts]) + "\n"
    write_whole(path, text.encode("utf-8"))
    return path


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
    return row["label"], row.get("place")


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a row whose lists can be compared with tuples."""
    return {key: tuple(v) if isinstance(v, list) else v for key, v in row.items()}
