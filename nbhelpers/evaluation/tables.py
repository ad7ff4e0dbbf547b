"""The paper's tables from what was evaluated, its own figures in a column of their own.

The paper names no split, no metric (mIoU or oIoU), no seed and no interval; here all four stand
in the table. Its numbers are of RefCOCO, or of COCO, with Stable Diffusion.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from nbhelpers.datasets import Referring
from nbhelpers.display import Drawing
from nbhelpers.evaluation.runs import (
    ClassRun,
    Run,
    compare,
    find_runs,
    ious_of,
    load_class_runs,
    load_runs,
)
from nbhelpers.figures import show_lines, show_rows
from nbhelpers.metrics import paired_bootstrap_classes
from nbhelpers.models import Models
from nbhelpers.segment import SETTINGS, Settings, segment

# Table 3: alpha, the paper's threshold, its mIOU.
ALPHAS = (
    *((0.1, 0.5, 0.176), (0.3, 0.5, 0.191), (0.5, 0.55, 0.202), (0.7, 0.5, 0.219)),
    *((0.8, 0.5, 0.225), (0.85, 0.5, 0.226), (0.9, 0.5, 0.23), (0.95, 0.5, 0.228)),
    (1.0, 0.55, 0.226),
)


# Table 1: what the paper cites for COCO, in its order.
CITED = {
    "ReCo": 0.157,
    "MaskCLIP": 0.206,
    "TCL": 0.304,
    "CLIPpy": 0.32,
    "ViewCo": 0.235,
    "SegCLIP": 0.265,
    "OVSegmentor": 0.251,
    "OVDiff": 0.348,
    "Baseline (DiffSegmenter)": 0.379,
    "Ours (the paper's)": 0.379,
}


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
        gains: Whether the gains are all that it adds, so that it is left out without its baseline.
    """

    title: str
    rows: Sequence[Row]
    baseline: Settings
    axis: bool = False
    gains: bool = False


def weighted(alpha: float) -> Settings:
    """Returns the paper's method with another weight; 1 is noun chunk replacement alone."""
    return replace(SETTINGS["paper"], alpha=alpha)


def named(method: str, label: str, threshold: float | None = None, miou: float = 0.0) -> Row:
    """Returns the row of one of `SETTINGS`."""
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
    "table-2-code": Table(
        "Table 2, gains over DiffSegmenter's code",
        (
            named("diffsegmenter", "DiffSegmenter's code: weight 1.21, last token"),
            named("paper", "paper (Eq. 3 and 4)"),
            named("sealed", "sealed (ours)"),
        ),
        SETTINGS["diffsegmenter"],
        gains=True,
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
    """Returns every named method from the noise of every seed."""
    return {
        name if seed == settings.seed else f"{name}, seed {seed}": replace(settings, seed=seed)
        for seed in seeds
        for name, settings in SETTINGS.items()
    }


def variants() -> dict[str, Settings]:
    """Names all settings that the tables have rows for; the named methods from two seeds."""
    others = {f"paper, alpha {a:g}": weighted(a) for a, *_ in ALPHAS}
    # 0.9 is "paper" already; 1 is "chunk" on the paper's calibration.
    return methods() | {n: s for n, s in others.items() if s not in SETTINGS.values()}


def make_tables(
    val: Run, tests: Sequence[Run], plans: Mapping[str, Table] = TABLES, *, seed: int = 0
) -> list[dict[str, Any]]:
    """Makes tables of every test split, as far as their rows were read.

    All rows of a table are read from the same seeds: those that every one of them was read from.
    An axis is left out for a split that wasn't read along all of it that val was, and a table of
    gains alone for one in which its baseline wasn't read.

    Args:
        val: Where thresholds are chosen.
        tests: Where the figures come from.
        plans: Which tables, by name.
        seed: Of the bootstrap.

    Returns:
        One record a table and split: `about` it, and a record a row, from `compare`.
    """
    found = []
    for name, plan in plans.items():
        for test in tests:
            runs = (val, test)
            known = [row for row in plan.rows if val.like(row.settings)]
            read = [row for row in known if test.like(row.settings)]
            if plan.axis and len(read) < len(known):
                continue
            if plan.gains and plan.baseline not in [row.settings for row in read]:
                continue
            each = [run.seeds(row.settings) for run in runs for row in read]
            seeds = set.intersection(*each) if each else ()
            lines = []
            for row in read:
                baseline = None if row.settings == plan.baseline else plan.baseline
                value = compare(val, test, row.settings, baseline, seeds=seeds, seed=seed)
                if value is not None:
                    paper = dict(row.paper) or None
                    curve = test.curve(test.like(row.settings, seeds))
                    facts = {"label": row.label, **row.facts, **asdict(value), "paper": paper}
                    lines.append(facts | ({"curve": curve} if name == "table-2" else {}))
            if lines:
                found.append({"name": name, "title": plan.title, **about(test), "rows": lines})
    return found


def about(run: Run) -> dict[str, Any]:
    """Returns what stands under a table: what was read, and how much of it was left out."""
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
    """Picks Figure 8's pictures, chosen by a rule and not by taste.

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


def class_tables(
    val: ClassRun, tests: Sequence[ClassRun], *, seed: int = 0
) -> list[dict[str, Any]]:
    """Makes Table 1 of every test split: mIoU over classes, their pixels pooled.

    Args:
        val: Where thresholds are chosen.
        tests: Where the figures come from.
        seed: Of the bootstrap over pictures.

    Returns:
        One record a split, with mIoU at the threshold from val and at the best one, the gain over
        plain at plain's own threshold with its interval (None for plain itself), and the IoU of
        each class.
    """
    chosen = {name: best(curves)[0] for name, curves in val.curves.items()}
    found = []
    for run in tests:
        counts = {name: run.counts(name, chosen[name]) for name in run.curves if name in chosen}
        rows = []
        for name, mine in counts.items():
            curves, index, base = run.curves[name], chosen[name], run.plain(name)
            top, oracle = best(curves)
            gain = None
            if base in counts:
                gain = asdict(paired_bootstrap_classes(mine, counts[base], seed=seed))
            rows.append(
                {
                    "label": name,
                    "method": name,
                    "threshold": index / 100,
                    "miou": float(np.mean([curve[index] for curve in curves.values()])),
                    "gain": gain,
                    "oracle_threshold": top / 100,
                    "oracle": oracle,
                    "classes": {c: float(curve[index]) for c, curve in curves.items()},
                }
            )
        dataset = run.settings["dataset"]
        facts = {
            "dataset": dataset["name"],
            "split": dataset["split"],
            "pictures": len(run.records),
            "errors": run.errors,
            "broken": dataset["broken"],
            "model": run.settings["model"]["name"],
            "fingerprint": run.fingerprint,
        }
        title = "Table 1. Classes, pooled, background among them"
        found.append({"name": "table-1", "title": title, **facts, "rows": rows, "cited": CITED})
    return found


def best(curves: Mapping[str, np.ndarray]) -> tuple[int, float]:
    """Returns the index of the threshold with the highest mean over classes, and that mean."""
    means = np.mean(list(curves.values()), axis=0)
    return int(means.argmax()), float(means.max())


def paper_tables(folder: Path, *, seed: int = 0) -> list[dict[str, Any]]:
    """Makes Tables 1 to 4 and what Figures 7 and 8 show, from the runs in a folder.

    Args:
        folder: Holds complete runs side by side.
        seed: Of the bootstrap.

    Returns:
        As `make_tables`. Figure 7 is drawn from Table 3; "figure-8" names its pictures.

    Raises:
        ValueError: There is nothing to make a table of, or runs that don't belong together.
    """
    found = []
    if find_runs(folder, "classes"):
        found += class_tables(*load_class_runs(folder), seed=seed)
    if find_runs(folder, "phrase") or not found:
        val, tests = load_runs(folder)
        found += make_tables(val, tests, seed=seed)
        shown = [examples(val, test) for test in tests]
        found += [table for table in shown if table is not None]
    return found


def show_weights(table: Mapping[str, Any]) -> Drawing:
    """Draws Figure 7: how mIoU changes with the weight of the noun, against that at the weight 1.

    Args:
        table: A "table-3", whose row of the weight 1 is the baseline.
    """
    rows = table["rows"]
    (whole,) = (row["paper"]["miou"] for row in rows if row["alpha"] == 1)
    ours = [
        tuple(100 * row["gain"][end] for end in ("mean", "low", "high"))
        if row["gain"]
        else (0.0, 0.0, 0.0)
        for row in rows
    ]
    return show_lines(
        [row["alpha"] for row in rows],
        {
            f"{table['dataset']} {table['split']}, 95% interval": ours,
            "the paper, RefCOCO": [100 * (row["paper"]["miou"] - whole) for row in rows],
        },
        x_label="α, the weight of the noun",
        y_label="mIoU against α = 1, in points",
        marks={"the paper's choice": 0.9},
    )


def show_ablation(
    rows: Sequence[Mapping[str, Any]], benchmark: Referring, models: Models
) -> Drawing:
    """Draws Figure 8: the completed maps of each method for pictures that `examples` chose.

    Args:
        rows: Of a "figure-8".
        benchmark: The split that they are of.
        models: What reads it again.
    """
    images = [benchmark.image(row["image"]) for row in rows]
    names = list(rows[0]["iou"])
    maps = [
        [segment(image, row["phrase"], models, method=name).map for name in names]
        for image, row in zip(images, rows, strict=True)
    ]
    return show_rows(
        images,
        maps,
        names,
        [f"{row['label']}: {row['phrase']}" for row in rows],
        [[f"IoU {row['iou'][name]:.2f}" for name in names] for row in rows],
    )
