"""A complete run as arrays, and what one variant of it is worth beside another."""

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int64

from nbhelpers.evaluation.batched import THRESHOLDS
from nbhelpers.evaluation.jobs import as_json
from nbhelpers.evaluation.report import complete_records
from nbhelpers.evaluation.store import Store
from nbhelpers.metrics import Interval, paired_bootstrap, paired_bootstrap_overall, precision_at
from nbhelpers.segment import Settings

HALF = THRESHOLDS.index(0.5)


@dataclass(frozen=True, repr=False)
class Run:
    """What a split was read as: for every variant the counts of each item at each threshold.

    Attributes:
        folder: Where it lies.
        settings: From its manifest.
        fingerprint: Of the manifest.
        items: Those that have a result.
        errors: How many have none.
        shared: By variant, the intersections.
        either: By variant, the unions.
    """

    folder: Path
    settings: Mapping[str, Any]
    fingerprint: str
    items: list[Mapping[str, Any]]
    errors: int
    shared: Mapping[str, Int64[np.ndarray, "item threshold"]]
    either: Mapping[str, Int64[np.ndarray, "item threshold"]]

    @property
    def split(self) -> str:
        """Such as "val"."""
        return str(self.settings["dataset"]["split"])

    @property
    def pictures(self) -> Int64[np.ndarray, " item"]:
        """The picture of each item."""
        return np.asarray([item["image"] for item in self.items])

    def like(self, settings: Settings, seeds: Collection[int] | None = None) -> list[str]:
        """The variants of these settings, from whichever seeds; or only from some."""
        wanted = {**as_json(asdict(settings)), "seed": None, "threshold": None}
        return [
            name
            for name, found in self.settings["variants"].items()
            if {**found, "seed": None, "threshold": None} == wanted
            and (seeds is None or found["seed"] in seeds)
        ]

    def seeds(self, settings: Settings) -> set[int]:
        """The seeds from which these settings were read."""
        return {self.settings["variants"][name]["seed"] for name in self.like(settings)}

    def only(self, **facts: Any) -> "Run":
        """The items of which these facts hold, such as ``kind="position"``."""
        kept = [i for i, item in enumerate(self.items) if facts.items() <= item.items()]
        return Run(
            self.folder,
            self.settings,
            self.fingerprint,
            [self.items[i] for i in kept],
            self.errors,
            {name: counts[kept] for name, counts in self.shared.items()},
            {name: counts[kept] for name, counts in self.either.items()},
        )

    def ious(self, variants: list[str], threshold: int) -> Float[np.ndarray, " item"]:
        """The IoU of each item at the place of a threshold, the mean over variants (seeds)."""
        shared, either = self.counts(variants, threshold)
        return (shared / np.maximum(either, 1)).mean(axis=0)

    def counts(
        self, variants: list[str], threshold: int
    ) -> tuple[Int64[np.ndarray, "variant item"], Int64[np.ndarray, "variant item"]]:
        """Intersections and unions of each item at the place of a threshold."""
        shared = np.stack([self.shared[name][:, threshold] for name in variants])
        return shared, np.stack([self.either[name][:, threshold] for name in variants])

    def curve(self, variants: list[str]) -> list[float]:
        """mIoU at each of `THRESHOLDS`."""
        return [float(self.ious(variants, t).mean()) for t in range(len(THRESHOLDS))]

    def best(self, variants: list[str]) -> int:
        """The place of the threshold with the highest mIoU; the lowest of several."""
        return int(np.argmax(self.curve(variants)))


@dataclass(frozen=True)
class Worth:
    """How well a variant does on a test split, its threshold chosen on val. Shares, not per cent.

    Attributes:
        threshold: Chosen on val by mIoU.
        miou: At that threshold.
        oiou: The same.
        gain: Of mIoU over the baseline at its own threshold, with its interval; None for the
            baseline itself.
        overall_gain: The same of oIoU.
        half: mIoU at the paper's usual threshold, 0.5.
        oracle_threshold: The best on the test itself, which nobody may choose.
        oracle: mIoU at that.
        precision: Pr@0.5 to Pr@0.9 at the threshold from val, of each expression's mean over
            seeds.
        seeds: mIoU from the noise of each seed.
    """

    threshold: float
    miou: float
    oiou: float
    gain: Interval | None
    overall_gain: Interval | None
    half: float
    oracle_threshold: float
    oracle: float
    precision: Mapping[float, float]
    seeds: Mapping[str, float]


def load(folder: Path) -> Run:
    """A complete run of expressions.

    Raises:
        ValueError: It isn't complete, is damaged, or has no results.
    """
    store = Store.of(folder)
    settings, records = store.manifest["settings"], complete_records(store)
    good = [k for k, record in enumerate(records) if "error" not in record]
    if not good:
        raise ValueError(f"{folder} holds errors alone; see {folder / 'report.json'}")
    arrays: list[dict[str, np.ndarray]] = []
    for which in (0, 1):
        pairs = {
            name: [records[k]["counts"][name][which] for k in good]
            for name in settings["variants"]
        }
        arrays.append({name: np.asarray(rows, np.int64) for name, rows in pairs.items()})
    items = [store.manifest["items"][k] for k in good]
    return Run(folder, settings, store.fingerprint, items, len(records) - len(good), *arrays)


def worth(
    val: Run,
    test: Run,
    settings: Settings,
    baseline: Settings | None = None,
    *,
    seeds: Collection[int] | None = None,
    seed: int = 0,
) -> Worth | None:
    """What a variant is worth on `test`, the threshold of both chosen on `val`.

    Args:
        val: Where thresholds are chosen.
        test: Where the figures come from.
        settings: Of the variant.
        baseline: To compare it with; None for no comparison.
        seeds: Only the noise of these; None for all from which both were read.
        seed: Of the bootstrap over pictures.

    Returns:
        None where one of the runs hasn't read the variant.
    """
    if baseline is not None and not (test.like(baseline) and val.like(baseline)):
        baseline = None
    both = [settings] if baseline is None else [settings, baseline]
    common = set.intersection(*(run.seeds(s) for run in (val, test) for s in both))
    if seeds is not None:
        common &= set(seeds)
    names = test.like(settings, common)
    if not names:
        return None
    place = val.best(val.like(settings, common))
    oracle = test.best(names)
    ious = test.ious(names, place)
    shared, either = test.counts(names, place)
    gain = overall = None
    if baseline is not None:
        base, at = test.like(baseline, common), val.best(val.like(baseline, common))
        gain = paired_bootstrap(ious, test.ious(base, at), test.pictures, seed=seed)
        theirs = test.counts(base, at)
        overall = paired_bootstrap_overall(
            (shared.sum(axis=0), either.sum(axis=0)),
            (theirs[0].sum(axis=0), theirs[1].sum(axis=0)),
            test.pictures,
            seed=seed,
        )
    return Worth(
        threshold=THRESHOLDS[place],
        miou=float(ious.mean()),
        oiou=int(shared.sum()) / max(int(either.sum()), 1),
        gain=gain,
        overall_gain=overall,
        half=float(test.ious(names, HALF).mean()),
        oracle_threshold=THRESHOLDS[oracle],
        oracle=float(test.ious(names, oracle).mean()),
        precision=precision_at(ious),
        seeds={
            str(test.settings["variants"][name]["seed"]): float(test.ious([name], place).mean())
            for name in names
        },
    )


def ious_of(val: Run, test: Run, settings: Settings) -> Float[np.ndarray, " item"] | None:
    """IoUs at the threshold from val, from the settings' own seed; None if not read."""
    seeds = (settings.seed,)
    names, there = test.like(settings, seeds), val.like(settings, seeds)
    return test.ious(names, val.best(there)) if names and there else None
