"""Table 1 from what was evaluated, by COCO-Object's protocol, and the figures the paper cites."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nbhelpers.evaluation.report import make_report
from nbhelpers.evaluation.store import Store

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


def class_tables(val: Path, tests: Sequence[Path]) -> list[dict[str, Any]]:
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
    chosen = {name: best(m)[0] for name, m in _read(val)[1].items()}
    found = []
    for folder in tests:
        report, variants = _read(folder)
        settings = report["settings"]
        rows = []
        for name, curves in variants.items():
            if name not in chosen:
                continue
            place, (top, oracle) = chosen[name], best(curves)
            rows.append(
                {
                    "label": name,
                    "method": name,
                    "threshold": place / 100,
                    "miou": float(np.mean([curve[place] for curve in curves.values()])),
                    "oracle_threshold": top / 100,
                    "oracle": oracle,
                    "classes": {c: float(curve[place]) for c, curve in curves.items()},
                }
            )
        facts = {
            "dataset": settings["dataset"]["name"],
            "split": settings["dataset"]["split"],
            "pictures": report["items"] - len(report["errors"]),
            "errors": len(report["errors"]),
            "broken": settings["dataset"]["broken"],
            "model": settings["model"]["name"],
            "fingerprint": report["fingerprint"],
        }
        title = "Table 1. Classes, pooled, background among them"
        found.append({"name": "table-1", "title": title, **facts, "rows": rows, "cited": CITED})
    return found


def best(curves: Mapping[str, np.ndarray]) -> tuple[int, float]:
    """The place of the threshold with the highest mean over classes, and that mean."""
    means = np.mean(list(curves.values()), axis=0)
    return int(means.argmax()), float(means.max())


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, dict[str, np.ndarray]]]:
    """A run's report; the pooled IoU of every variant and class, by name, at each threshold."""
    report = make_report(Store.of(folder))
    if not report["variants"]:
        raise ValueError(f"{folder} holds errors alone; see {folder / 'report.json'}")
    names = report["settings"]["dataset"]["classes"]
    return report, {
        variant: {
            names[int(c)]: np.asarray(sums["intersection"]) / np.maximum(sums["union"], 1)
            for c, sums in classes.items()
        }
        for variant, classes in report["variants"].items()
    }
