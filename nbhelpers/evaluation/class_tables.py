"""Table 1 from what was evaluated, by COCO-Object's protocol, and the figures the paper cites."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64

from nbhelpers.evaluation.jobs import as_json
from nbhelpers.evaluation.journal import Record
from nbhelpers.evaluation.report import complete_records, summarize
from nbhelpers.evaluation.store import Store
from nbhelpers.metrics import paired_bootstrap_classes
from nbhelpers.segment import SETTINGS

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


@dataclass(frozen=True, repr=False)
class ClassRun:
    """What the classes of a split were read as.

    Attributes:
        settings: From its manifest.
        fingerprint: Of the manifest.
        records: One a picture that has a result.
        errors: How many have none.
        curves: By variant and class, the pooled IoU at each threshold.
    """

    settings: Mapping[str, Any]
    fingerprint: str
    records: Sequence[Record]
    errors: int
    curves: Mapping[str, Mapping[str, np.ndarray]]

    def counts(
        self, variant: str, threshold: int
    ) -> tuple[Int64[np.ndarray, "picture class"], Int64[np.ndarray, "picture class"]]:
        """Intersections and unions of each picture at the place of a threshold."""
        classes = len(self.settings["dataset"]["classes"])
        found = np.zeros((2, len(self.records), classes), np.int64)
        for i, record in enumerate(self.records):
            for c, (shared, either) in record["counts"][variant].items():
                found[:, i, int(c)] = shared[threshold], either[threshold]
        return found[0], found[1]

    def plain(self, variant: str) -> str | None:
        """The plain variant from the same seed; None where it is this one, or wasn't read."""
        variants = self.settings["variants"]
        seed = variants[variant]["seed"]
        wanted = as_json(asdict(replace(SETTINGS["plain"], seed=seed)))
        found = [name for name, settings in variants.items() if settings == wanted]
        return found[0] if found and found[0] != variant else None


def class_tables(val: Path, tests: Sequence[Path], *, seed: int = 0) -> list[dict[str, Any]]:
    """Table 1 of every test split: mIoU over classes, their pixels pooled.

    Args:
        val: A complete run of classes, where thresholds are chosen.
        tests: Others.
        seed: Of the bootstrap over pictures.

    Returns:
        One record a split, with mIoU at the threshold from val and at the best one, the gain over
        plain at plain's own threshold with its interval (None for plain itself), and the IoU of
        each class.

    Raises:
        ValueError: A run isn't complete.
    """
    chosen = {name: best(curves)[0] for name, curves in _load(val).curves.items()}
    found = []
    for folder in tests:
        run = _load(folder)
        counts = {name: run.counts(name, chosen[name]) for name in run.curves if name in chosen}
        rows = []
        for name, mine in counts.items():
            curves, place, base = run.curves[name], chosen[name], run.plain(name)
            top, oracle = best(curves)
            gain = None
            if base in counts:
                gain = asdict(paired_bootstrap_classes(mine, counts[base], seed=seed))
            rows.append(
                {
                    "label": name,
                    "method": name,
                    "threshold": place / 100,
                    "miou": float(np.mean([curve[place] for curve in curves.values()])),
                    "gain": gain,
                    "oracle_threshold": top / 100,
                    "oracle": oracle,
                    "classes": {c: float(curve[place]) for c, curve in curves.items()},
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
    """The place of the threshold with the highest mean over classes, and that mean."""
    means = np.mean(list(curves.values()), axis=0)
    return int(means.argmax()), float(means.max())


def _load(folder: Path) -> ClassRun:
    """A complete run of classes."""
    store = Store.of(folder)
    settings, records = store.manifest["settings"], complete_records(store)
    good = [record for record in records if "error" not in record]
    if not good:
        raise ValueError(f"{folder} holds errors alone; see {folder / 'report.json'}")
    names = settings["dataset"]["classes"]
    curves = {
        variant: {
            names[int(c)]: np.asarray(sums["intersection"]) / np.maximum(sums["union"], 1)
            for c, sums in classes.items()
        }
        for variant, classes in summarize(good).items()
    }
    return ClassRun(settings, store.fingerprint, good, len(records) - len(good), curves)
