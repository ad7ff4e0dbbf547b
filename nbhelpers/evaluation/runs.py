"""Complete runs as arrays, those that belong together, and one variant compared with another."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Float, Int64

from nbhelpers.evaluation.batched import THRESHOLDS
from nbhelpers.evaluation.jobs import as_json, item_as_now, settings_as_now
from nbhelpers.evaluation.journal import Record
from nbhelpers.evaluation.run import complete_records, summarize
from nbhelpers.evaluation.store import Store, read_manifest
from nbhelpers.metrics import Interval, paired_bootstrap, paired_bootstrap_overall, precision_at
from nbhelpers.segment import SETTINGS, Settings

HALF = THRESHOLDS.index(0.5)


@dataclass(frozen=True, repr=False, eq=False)
class Complete:
    """A run of which every item has a result or an error.

    Attributes:
        folder: Where it lies.
        settings: From its manifest, by the names of today.
        fingerprint: Of the manifest.
        errors: How many items have no result.
    """

    folder: Path
    settings: Mapping[str, Any]
    fingerprint: str
    errors: int

    @property
    def split(self) -> str:
        """Such as "val"."""
        return str(self.settings["dataset"]["split"])

    def has(self, variant: str, settings: Settings) -> bool:
        """Tells whether a variant has these settings, be its threshold what it may."""
        wanted = {**as_json(asdict(settings)), "threshold": None}
        if self.settings["format"] < 3:  # all were gathered alike, over all tokens if not told
            wanted["softmax_over"] = wanted["softmax_over"] or "all"
        found = self.settings["variants"][variant]
        return {**wanted, **found, "threshold": None} == wanted


@dataclass(frozen=True, repr=False, eq=False)
class Run(Complete):
    """A run of expressions: for every variant the counts of each item at each threshold.

    Attributes:
        items: Those that have a result.
        shared: By variant, the intersections.
        either: By variant, the unions.
    """

    items: list[Mapping[str, Any]]
    shared: Mapping[str, Int64[np.ndarray, "item threshold"]]
    either: Mapping[str, Int64[np.ndarray, "item threshold"]]

    @property
    def pictures(self) -> Int64[np.ndarray, " item"]:
        """The picture of each item."""
        return np.asarray([item["image"] for item in self.items])

    def like(self, settings: Settings, seeds: Collection[int] | None = None) -> list[str]:
        """Returns the variants of these settings, from whichever seeds; or only from some."""
        return [
            name
            for name, found in self.settings["variants"].items()
            if self.has(name, replace(settings, seed=found["seed"]))
            and (seeds is None or found["seed"] in seeds)
        ]

    def seeds(self, settings: Settings) -> set[int]:
        """Returns the seeds from which these settings were read."""
        return {self.settings["variants"][name]["seed"] for name in self.like(settings)}

    def only(self, **facts: Any) -> "Run":
        """Returns the items of which these facts hold, such as ``kind="position"``."""
        kept = [i for i, item in enumerate(self.items) if facts.items() <= item.items()]
        return replace(
            self,
            items=[self.items[i] for i in kept],
            shared={name: counts[kept] for name, counts in self.shared.items()},
            either={name: counts[kept] for name, counts in self.either.items()},
        )

    def ious(self, variants: list[str], threshold: int) -> Float[np.ndarray, " item"]:
        """Returns the IoU of each item at a threshold's index, the mean over variants (seeds)."""
        shared, either = self.counts(variants, threshold)
        return (shared / np.maximum(either, 1)).mean(axis=0)

    def counts(
        self, variants: list[str], threshold: int
    ) -> tuple[Int64[np.ndarray, "variant item"], Int64[np.ndarray, "variant item"]]:
        """Returns intersections and unions of each item at a threshold's index."""
        shared = np.stack([self.shared[name][:, threshold] for name in variants])
        return shared, np.stack([self.either[name][:, threshold] for name in variants])

    def curve(self, variants: list[str]) -> list[float]:
        """Returns mIoU at each of `THRESHOLDS`."""
        return [float(self.ious(variants, t).mean()) for t in range(len(THRESHOLDS))]

    def best(self, variants: list[str]) -> int:
        """Returns the index of the threshold with the highest mIoU; the lowest of several."""
        return int(np.argmax(self.curve(variants)))


@dataclass(frozen=True, repr=False, eq=False)
class ClassRun(Complete):
    """A run of classes.

    Attributes:
        records: One a picture that has a result.
        curves: By variant and class, the pooled IoU at each threshold.
    """

    records: Sequence[Record]
    curves: Mapping[str, Mapping[str, np.ndarray]]

    def counts(
        self, variant: str, threshold: int
    ) -> tuple[Int64[np.ndarray, "picture class"], Int64[np.ndarray, "picture class"]]:
        """Returns intersections and unions of each picture at a threshold's index."""
        classes = len(self.settings["dataset"]["classes"])
        found = np.zeros((2, len(self.records), classes), np.int64)
        for i, record in enumerate(self.records):
            for c, (shared, either) in record["counts"][variant].items():
                found[:, i, int(c)] = shared[threshold], either[threshold]
        return found[0], found[1]

    def plain(self, variant: str) -> str | None:
        """Names the plain variant of the same seed; None where it is this one, or wasn't read."""
        variants = self.settings["variants"]
        seed = variants[variant].get("seed")
        if seed is None:  # a system of the family has no settings of the method's
            return None
        wanted = replace(SETTINGS["plain"], seed=seed)
        found = [name for name in variants if self.has(name, wanted)]
        return found[0] if found and found[0] != variant else None


def load(folder: Path) -> Run:
    """Returns a complete run of expressions.

    Raises:
        ValueError: It isn't complete, is damaged, or has no results.
    """
    known, items, records = _read(folder)
    counts: list[dict[str, np.ndarray]] = [
        {
            name: np.asarray([record["counts"][name][which] for record in records], np.int64)
            for name in known["settings"]["variants"]
        }
        for which in (0, 1)
    ]
    return Run(**known, items=items, shared=counts[0], either=counts[1])


def load_classes(folder: Path) -> ClassRun:
    """Returns a complete run of classes.

    Raises:
        ValueError: As for `load`.
    """
    known, _, records = _read(folder)
    names = known["settings"]["dataset"]["classes"]
    curves = {
        variant: {
            names[int(c)]: np.asarray(sums["intersection"]) / np.maximum(sums["union"], 1)
            for c, sums in classes.items()
        }
        for variant, classes in summarize(records).items()
    }
    return ClassRun(**known, records=records, curves=curves)


def _read(folder: Path) -> tuple[dict[str, Any], list[Mapping[str, Any]], list[Record]]:
    """Returns what `Complete` holds; the items that have a result; their records."""
    store = Store.of(folder)
    records = complete_records(store)
    good = [k for k, record in enumerate(records) if "error" not in record]
    if not good:
        raise ValueError(f"{folder} holds errors alone; see {folder / 'report.json'}")
    known = {
        "folder": folder,
        "settings": settings_as_now(store.manifest["settings"]),
        "fingerprint": store.fingerprint,
        "errors": len(records) - len(good),
    }
    every = store.manifest["items"]
    return known, [item_as_now(every[k]) for k in good], [records[k] for k in good]


def find_runs(folder: Path, prompts: str, *, systems: bool = False) -> list[Path]:
    """Returns the runs of one kind in a folder, or in the folders of it.

    Args:
        folder: Where they lie.
        prompts: As in `Job`.
        systems: Whether of the family's systems, or of the method's own settings.
    """
    found = []
    known = sorted({folder / "manifest.json", *folder.glob("*/manifest.json")})
    for path in filter(Path.is_file, known):
        settings = settings_as_now(read_manifest(path.parent)["settings"])
        of_systems = any("system" in variant for variant in settings["variants"].values())
        if settings["prompts"] == prompts and of_systems == systems:
            found.append(path.parent)
    return found


def load_runs(folder: Path, prompts: str = "phrase") -> tuple[Run, list[Run]]:
    """Returns the val and test runs of expressions in a folder.

    Raises:
        ValueError: They aren't there, aren't complete, or don't belong together.
    """
    return part_by_split([load(path) for path in find_runs(folder, prompts)], folder)


def load_class_runs(folder: Path) -> tuple[ClassRun, list[ClassRun]]:
    """Returns the val and test runs of classes in a folder.

    Raises:
        ValueError: As for `load_runs`.
    """
    return part_by_split([load_classes(path) for path in find_runs(folder, "classes")], folder)


AnyRun = TypeVar("AnyRun", bound=Complete)


def part_by_split(runs: Sequence[AnyRun], folder: Path) -> tuple[AnyRun, list[AnyRun]]:
    """Returns the run on which thresholds are chosen, and those of the test splits.

    The first is of val, or of a train split of COCO.

    Raises:
        ValueError: There is none of the first kind, more than one, or nothing but it; or a run
            differs from it in model, code, packages or dataset.
    """
    choosing = [run for run in runs if run.split == "val" or run.split.startswith("train")]
    tests = sorted((run for run in runs if run not in choosing), key=lambda run: run.split)
    if len(choosing) != 1 or not tests:
        raise ValueError(
            "thresholds are chosen on val and reported on a test split, and the runs in "
            f"{folder} are of {', '.join(run.split for run in runs) or 'no split'}; evaluate one "
            "run of val and one of a test split, such as testA, into folders side by side there; "
            "of COCO, one of a train split and one of val"
        )
    (val,) = choosing
    for test in tests:
        _check_alike(val, test)
    return val, tests


def _check_alike(val: Complete, test: Complete) -> None:
    """Refuses a threshold of the first run for the second where that says nothing there.

    Raises:
        ValueError: They are of different models, code, packages or datasets.
    """
    for key in ("model", "calibration", "code", "packages", "device", "dtype", "parser"):
        if val.settings[key] != test.settings[key]:
            raise ValueError(
                f"{val.folder} and {test.folder} differ in {key}, so that a threshold of the one "
                "says nothing of the other; evaluate both with the same"
            )
    if val.settings["dataset"]["name"] != test.settings["dataset"]["name"]:
        raise ValueError(f"{val.folder} and {test.folder} are of different datasets")


@dataclass(frozen=True)
class Comparison:
    """A variant on a test split beside a baseline, thresholds chosen on val. Shares, no percent.

    Attributes:
        threshold: Chosen on val by mIoU.
        miou: At that threshold.
        miou_interval: The same with its interval over pictures.
        oiou: At that threshold.
        oiou_interval: The same with its interval.
        gain: Of mIoU over the baseline at its own threshold; None for the baseline itself.
        overall_gain: The same of oIoU.
        half: The mIoU at the paper's usual threshold, 0.5.
        oracle_threshold: The best on the test itself, which nobody may choose.
        oracle: The mIoU at that.
        precision: Pr@0.5 to Pr@0.9 at the threshold from val, of each mean over seeds.
        seeds: The mIoU from the noise of each seed.
    """

    threshold: float
    miou: float
    miou_interval: Interval
    oiou: float
    oiou_interval: Interval
    gain: Interval | None
    overall_gain: Interval | None
    half: float
    oracle_threshold: float
    oracle: float
    precision: Mapping[float, float]
    seeds: Mapping[str, float]


def compare(
    val: Run,
    test: Run,
    settings: Settings,
    baseline: Settings | None = None,
    *,
    seeds: Collection[int] | None = None,
    seed: int = 0,
) -> Comparison | None:
    """Returns a variant on `test`, beside a baseline, the threshold of each chosen on `val`.

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
    index = val.best(val.like(settings, common))
    oracle = test.best(names)
    ious = test.ious(names, index)
    shared, either = (counts.sum(axis=0) for counts in test.counts(names, index))

    def better_than(others: Any, counts: tuple[Any, Any]) -> tuple[Interval, Interval]:
        """Returns by how much both means are higher than these IoUs' and these counts'."""
        overall = paired_bootstrap_overall((shared, either), counts, test.pictures, seed=seed)
        return paired_bootstrap(ious, others, test.pictures, seed=seed), overall

    gain = overall = None
    if baseline is not None:
        base, at = test.like(baseline, common), val.best(val.like(baseline, common))
        theirs = (counts.sum(axis=0) for counts in test.counts(base, at))
        gain, overall = better_than(test.ious(base, at), (*theirs,))
    own, own_overall = better_than(0 * ious, (0 * shared, either))  # than masks that are empty
    return Comparison(
        threshold=THRESHOLDS[index],
        miou=float(ious.mean()),
        miou_interval=own,
        oiou=int(shared.sum()) / max(int(either.sum()), 1),
        oiou_interval=own_overall,
        gain=gain,
        overall_gain=overall,
        half=float(test.ious(names, HALF).mean()),
        oracle_threshold=THRESHOLDS[oracle],
        oracle=float(test.ious(names, oracle).mean()),
        precision=precision_at(ious),
        seeds={
            str(test.settings["variants"][name]["seed"]): float(test.ious([name], index).mean())
            for name in names
        },
    )


def ious_of(val: Run, test: Run, settings: Settings) -> Float[np.ndarray, " item"] | None:
    """Returns IoUs at the threshold from val, from the settings' own seed; None if not read."""
    seeds = (settings.seed,)
    names, there = test.like(settings, seeds), val.like(settings, seeds)
    return test.ious(names, val.best(there)) if names and there else None
