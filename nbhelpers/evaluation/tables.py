"""The paper's tables from what was evaluated, its own figures in a column of their own.

The paper names no split, no metric (mIoU or oIoU), no seed and no interval; here all four stand
in the table. Its numbers are of RefCOCO, or of COCO, with Stable Diffusion.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from nbhelpers.evaluation.measured import Run, load, worth
from nbhelpers.evaluation.report import write_report
from nbhelpers.evaluation.store import Store, read_manifest
from nbhelpers.segment import SETTINGS, Settings

# Table 3: alpha, the paper's threshold, its mIOU in per cent.
ALPHAS = (
    *((0.1, 0.5, 17.6), (0.3, 0.5, 19.1), (0.5, 0.55, 20.2), (0.7, 0.5, 21.9), (0.8, 0.5, 22.5)),
    *((0.85, 0.5, 22.6), (0.9, 0.5, 23.0), (0.95, 0.5, 22.8), (1.0, 0.55, 22.6)),
)
# Table 1: what the paper cites for COCO, in its order; mIOU in per cent.
CITED = {
    "ReCo": 15.7,
    "MaskCLIP": 20.6,
    "TCL": 30.4,
    "CLIPpy": 32.0,
    "ViewCo": 23.5,
    "SegCLIP": 26.5,
    "OVSegmentor": 25.1,
    "OVDiff": 34.8,
    "Baseline (DiffSegmenter)": 37.9,
    "Ours (the paper's)": 37.9,
}


@dataclass(frozen=True)
class Row:
    """A row of a table: what was read, and what the paper has for it.

    Attributes:
        label: What the row is called.
        settings: Of the variant.
        threshold: The paper's; None where it has none.
        miou: The paper's mIOU in per cent; likewise.
    """

    label: str
    settings: Settings
    threshold: float | None = None
    miou: float | None = None


def weighted(alpha: float) -> Settings:
    """The paper's method with another weight; with 1 it is noun chunk replacement alone."""
    return replace(SETTINGS["paper"], alpha=alpha)


TABLES: Mapping[str, Sequence[Row]] = {
    "Table 2. Referring expressions": (
        Row("plain (baseline)", SETTINGS["plain"], 0.5, 22.4),
        Row("DiffSegmenter's code: weight 1.21, last token", SETTINGS["diffsegmenter"]),
        Row("paper (Eq. 3 and 4)", SETTINGS["paper"], 0.5, 23.0),
        Row("sealed (ours)", SETTINGS["sealed"]),
    ),
    "Table 3. The weight α of the noun": tuple(
        Row(f"α = {alpha:g}", weighted(alpha), threshold, miou)
        for alpha, threshold, miou in ALPHAS
    ),
    "Table 4. Ablation": (
        Row("plain (baseline)", SETTINGS["plain"], 0.5, 22.4),
        Row("noun chunk replacement (Eq. 3)", SETTINGS["chunk"], 0.55, 22.6),
        Row("and unconditioned embedding averaging (Eq. 4)", SETTINGS["paper"], 0.5, 23.0),
    ),
}


def variants() -> dict[str, Settings]:
    """All settings that the tables have rows for, by name."""
    others = {f"paper alpha={a:g}": weighted(a) for a, *_ in ALPHAS}
    # 0.9 is "paper" and 1 is "chunk" already.
    return {**SETTINGS, **{n: s for n, s in others.items() if s not in SETTINGS.values()}}


def find_runs(folder: Path, prompts: str) -> list[Path]:
    """The runs of one kind in a folder, or in the folders of it."""
    found = []
    for path in sorted({folder / "manifest.json", *folder.glob("*/manifest.json")}):
        if path.is_file() and read_manifest(path.parent)["settings"]["prompts"] == prompts:
            found.append(path.parent)
    return found


def part_by_split(runs: Iterable[Run]) -> tuple[Run, list[Run]]:
    """The run of val, and those of the test splits.

    Raises:
        ValueError: There is no val, more than one, or nothing but it.
    """
    runs = list(runs)
    vals = [run for run in runs if run.split == "val"]
    tests = sorted((run for run in runs if run.split != "val"), key=lambda run: run.split)
    if len(vals) != 1 or not tests:
        raise ValueError(
            "thresholds are chosen on val and reported on a test split, and the runs here are of "
            f"{', '.join(run.split for run in runs) or 'none'}; evaluate one run of val and one "
            "of a test split, such as testA, into folders side by side"
        )
    for test in tests:
        for key in ("model", "reading", "code", "packages", "device", "dtype", "parser"):
            if test.settings[key] != vals[0].settings[key]:
                raise ValueError(
                    f"{vals[0].folder} and {test.folder} differ in {key}, so that a threshold of "
                    "the one says nothing of the other; evaluate both with the same"
                )
        if test.settings["dataset"]["name"] != vals[0].settings["dataset"]["name"]:
            raise ValueError(f"{vals[0].folder} and {test.folder} are of different datasets")
    return vals[0], tests


def make_tables(val: Run, tests: Sequence[Run], *, seed: int = 0) -> list[dict[str, Any]]:
    """Tables 2 to 4 of every test split, as far as their rows were read.

    Args:
        val: Where thresholds are chosen.
        tests: Where the figures come from.
        seed: Of the bootstrap.

    Returns:
        One record a table and split: title, split, how many expressions, pictures and errors,
        and a record a row, from `worth`.
    """
    found = []
    for title, rows in TABLES.items():
        for test in tests:
            lines = []
            for row in rows:
                plain = SETTINGS["plain"] if row.settings != SETTINGS["plain"] else None
                value = worth(val, test, row.settings, plain, seed=seed)
                if value is not None:
                    paper = {"threshold": row.threshold, "miou": row.miou}
                    lines.append({"label": row.label, **asdict(value), "paper": paper})
            if lines:
                found.append({"title": title, **about(test), "rows": lines})
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
        "fingerprint": run.fingerprint,
    }


def class_table(val: Path, tests: Sequence[Path]) -> list[dict[str, Any]]:
    """Table 1 of every test split: mIoU over classes, their pixels pooled.

    Args:
        val: A complete run of classes, where thresholds are chosen.
        tests: Others.

    Returns:
        One record a split, with mIoU at the threshold from val and at the best one, and the IoU
        of each class. There is no interval: pooled pixels have no pictures to draw.

    Raises:
        ValueError: A run isn't complete.
    """
    chosen = {name: best(m)[0] for name, m in _class_curves(val).items()}
    found = []
    for folder in tests:
        report = write_report(Store.of(folder))
        rows = []
        for name, curves in _class_curves(folder).items():
            if name not in chosen:
                continue
            place, (top, oracle) = chosen[name], best(curves)
            rows.append(
                {
                    "label": name,
                    "threshold": place / 100,
                    "miou": float(np.mean([curve[place] for curve in curves.values()])),
                    "oracle_threshold": top / 100,
                    "oracle": oracle,
                    "classes": {c: float(curve[place]) for c, curve in curves.items()},
                }
            )
        dataset = report["settings"]["dataset"]
        facts = {"dataset": dataset["name"], "split": dataset["split"]}
        facts |= {"pictures": report["items"] - len(report["errors"])}
        facts |= {"errors": len(report["errors"]), "fingerprint": report["fingerprint"]}
        title = "Table 1. Classes, pooled, background among them"
        found.append({"title": title, **facts, "rows": rows, "cited": CITED})
    return found


def best(curves: Mapping[str, np.ndarray]) -> tuple[int, float]:
    """The place of the threshold with the highest mean over classes, and that mean."""
    means = np.mean(list(curves.values()), axis=0)
    return int(means.argmax()), float(means.max())


def _class_curves(folder: Path) -> dict[str, dict[str, np.ndarray]]:
    """The pooled IoU of every variant and class at each threshold."""
    report = write_report(Store.of(folder))
    return {
        variant: {
            c: np.asarray(sums["intersection"]) / np.maximum(sums["union"], 1)
            for c, sums in classes.items()
        }
        for variant, classes in report["variants"].items()
    }


def load_runs(folder: Path, prompts: str = "phrase") -> tuple[Run, list[Run]]:
    """The val and test runs of a folder.

    Raises:
        ValueError: They aren't there, aren't complete, or don't belong together.
    """
    return part_by_split(load(path) for path in find_runs(folder, prompts))
