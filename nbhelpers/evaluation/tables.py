"""The paper's tables from what was evaluated, its own figures in a column of their own.

The paper names no split, no metric (mIoU or oIoU), no seed and no interval; here all four stand
in the table. Its numbers are of RefCOCO, or of COCO, with Stable Diffusion.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from nbhelpers.evaluation.runs import Run, ious_of, load, worth
from nbhelpers.evaluation.store import read_manifest
from nbhelpers.segment import SETTINGS, Settings

# Table 3: alpha, the paper's threshold, its mIOU.
ALPHAS = (
    *((0.1, 0.5, 0.176), (0.3, 0.5, 0.191), (0.5, 0.55, 0.202), (0.7, 0.5, 0.219)),
    *((0.8, 0.5, 0.225), (0.85, 0.5, 0.226), (0.9, 0.5, 0.23), (0.95, 0.5, 0.228)),
    (1.0, 0.55, 0.226),
)


@dataclass(frozen=True)
class Row:
    """A row of a table: what was read, and what the paper has for it.

    Attributes:
        label: What the row is called.
        settings: Of the variant.
        facts: What tells it from the other rows, for a program.
        paper: The paper's threshold and mIOU; empty where it has none.
    """

    label: str
    settings: Settings
    facts: Mapping[str, Any] = field(default_factory=dict)
    paper: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Table:
    """Rows that are compared with one baseline.

    Attributes:
        title: With the paper's number, where it is the paper's.
        rows: In order.
        baseline: What gains are over.
        axis: Whether the rows lie on one axis, of which a few points show nothing.
    """

    title: str
    rows: Sequence[Row]
    baseline: Settings
    axis: bool = False


def weighted(alpha: float) -> Settings:
    """The paper's method with another weight; with 1 it is noun chunk replacement alone."""
    return replace(SETTINGS["paper"], alpha=alpha)


def named(method: str, label: str, threshold: float | None = None, miou: float = 0.0) -> Row:
    """The row of one of `SETTINGS`."""
    paper = {} if threshold is None else {"threshold": threshold, "miou": miou}
    return Row(label, SETTINGS[method], {"method": method}, paper)


TABLES: Mapping[str, Table] = {
    "table-2": Table(
        "Table 2. Referring expressions",
        (
            named("plain", "plain (baseline)", 0.5, 0.224),
            named("diffsegmenter", "DiffSegmenter's code: weight 1.21, last token"),
            named("paper", "paper (Eq. 3 and 4)", 0.5, 0.23),
            named("sealed", "sealed (ours)"),
        ),
        SETTINGS["plain"],
    ),
    "table-3": Table(
        "Table 3. The weight α of the noun",
        [
            Row(f"α = {a:g}", weighted(a), {"alpha": a}, {"threshold": threshold, "miou": miou})
            for a, threshold, miou in ALPHAS
        ],
        weighted(1.0),
        axis=True,
    ),
    "table-4": Table(
        "Table 4. Ablation",
        (
            named("plain", "plain (baseline)", 0.5, 0.224),
            named("chunk", "noun chunk replacement (Eq. 3)", 0.55, 0.226),
            named("paper", "and unconditioned embedding averaging (Eq. 4)", 0.5, 0.23),
        ),
        SETTINGS["plain"],
    ),
}


def methods(seeds: Iterable[int] = (0, 1)) -> dict[str, Settings]:
    """Every named method from the noise of every seed."""
    return {
        name if seed == settings.seed else f"{name}, seed {seed}": replace(settings, seed=seed)
        for seed in seeds
        for name, settings in SETTINGS.items()
    }


def variants() -> dict[str, Settings]:
    """All settings that the tables have rows for, by name; the named methods from two seeds."""
    others = {f"paper, alpha {a:g}": weighted(a) for a, *_ in ALPHAS}
    # 0.9 is "paper" and 1 is "chunk" already.
    return methods() | {n: s for n, s in others.items() if s not in SETTINGS.values()}


def find_runs(folder: Path, prompts: str) -> list[Path]:
    """The runs of one kind in a folder, or in the folders of it."""
    found = []
    for path in sorted({folder / "manifest.json", *folder.glob("*/manifest.json")}):
        if path.is_file() and read_manifest(path.parent)["settings"]["prompts"] == prompts:
            found.append(path.parent)
    return found


def load_runs(folder: Path, prompts: str = "phrase") -> tuple[Run, list[Run]]:
    """The val and test runs of a folder.

    Raises:
        ValueError: They aren't there, aren't complete, or don't belong together.
    """
    return part_by_split([load(path) for path in find_runs(folder, prompts)], folder)


def part_by_split(runs: Sequence[Run], folder: Path) -> tuple[Run, list[Run]]:
    """The run of val, and those of the test splits.

    Raises:
        ValueError: There is no val, more than one, or nothing but it; or runs that differ.
    """
    vals = [run for run in runs if run.split == "val"]
    tests = sorted((run for run in runs if run.split != "val"), key=lambda run: run.split)
    if len(vals) != 1 or not tests:
        raise ValueError(
            "thresholds are chosen on val and reported on a test split, and the runs in "
            f"{folder} are of {', '.join(run.split for run in runs) or 'no split'}; evaluate one "
            "run of val and one of a test split, such as testA, into folders side by side there"
        )
    for test in tests:
        check_alike((vals[0].folder, vals[0].settings), (test.folder, test.settings))
    return vals[0], tests


def check_alike(*runs: tuple[Path, Mapping[str, Any]]) -> None:
    """Whether a threshold of the first run may be used on the second: folders and settings.

    Raises:
        ValueError: They are of different models, code, packages or datasets.
    """
    (val, first), (test, second) = runs
    for key in ("model", "reading", "code", "packages", "device", "dtype", "parser"):
        if first[key] != second[key]:
            raise ValueError(
                f"{val} and {test} differ in {key}, so that a threshold of the one says nothing "
                "of the other; evaluate both with the same"
            )
    if first["dataset"]["name"] != second["dataset"]["name"]:
        raise ValueError(f"{val} and {test} are of different datasets")


def make_tables(
    val: Run, tests: Sequence[Run], plans: Mapping[str, Table] = TABLES, *, seed: int = 0
) -> list[dict[str, Any]]:
    """Tables of every test split, as far as their rows were read.

    All rows of a table are read from the same seeds: those that every one of them was read from.
    An axis is left out for a split that wasn't read along all of it that val was.

    Args:
        val: Where thresholds are chosen.
        tests: Where the figures come from.
        plans: Which tables, by name.
        seed: Of the bootstrap.

    Returns:
        One record a table and split: `about` it, and a record a row, from `worth`.
    """
    found = []
    for name, plan in plans.items():
        for test in tests:
            runs = (val, test)
            known = [row for row in plan.rows if val.like(row.settings)]
            read = [row for row in known if test.like(row.settings)]
            if plan.axis and len(read) < len(known):
                continue
            each = [run.seeds(row.settings) for run in runs for row in read]
            seeds = set.intersection(*each) if each else ()
            lines = []
            for row in read:
                baseline = None if row.settings == plan.baseline else plan.baseline
                value = worth(val, test, row.settings, baseline, seeds=seeds, seed=seed)
                if value is not None:
                    paper = dict(row.paper) or None
                    curve = test.curve(test.like(row.settings, seeds))
                    facts = {"label": row.label, **row.facts, **asdict(value), "paper": paper}
                    lines.append(facts | ({"curve": curve} if name == "table-2" else {}))
            if lines:
                found.append({"name": name, "title": plan.title, **about(test), "rows": lines})
    return found


def about(run: Run) -> dict[str, Any]:
    """What stands under a table: what was read, and how much of it was left out."""
    dataset = run.settings["dataset"]
    return {
        "dataset": dataset["name"],
        "split": run.split,
        "expressions": len(run.items),
        "pictures": len(np.unique(run.pictures)),
        "errors": run.errors,
        "broken": dataset["broken"],
        "model": run.settings["model"]["name"],
        "revision": run.settings["model"]["revision"],
        "fingerprint": run.fingerprint,
    }


def examples(
    val: Run, test: Run, methods: Sequence[str] = ("plain", "chunk", "paper")
) -> dict[str, Any] | None:
    """Figure 8's pictures, chosen by a rule and not by taste.

    Of the expressions with an attribute: where the last method gains most over the first, where
    it gains as much as it does in the middle of all, and where it loses most.

    Returns:
        One record, whose rows name the expression, its picture, and each method's IoU and
        threshold; None where a method wasn't read.
    """
    read = {name: ious_of(val, test, SETTINGS[name]) for name in methods}
    found = {name: values for name, values in read.items() if values is not None}
    told = [i for i, item in enumerate(test.items) if item["kind"] == "attribute"]
    if not told or len(found) < len(methods):
        return None
    gains = found[methods[-1]] - found[methods[0]]
    order = sorted(told, key=lambda i: (gains[i], test.items[i]["id"]))
    chosen = {"gains most": order[-1], "in the middle": order[len(order) // 2]}
    chosen["loses most"] = order[0]
    cuts = {
        name: val.best(val.like(SETTINGS[name], (SETTINGS[name].seed,))) / 100 for name in methods
    }
    rows = []
    for label, i in chosen.items():
        item = {key: test.items[i][key] for key in ("id", "expression", "image", "phrase")}
        scores = {name: float(values[i]) for name, values in found.items()}
        rows.append({"label": label, **item, "iou": scores, "threshold": cuts})
    title = "Figure 8. Maps of the ablation"
    return {"name": "figure-8", "title": title, **about(test), "rows": rows}
