""" "Table 1, measured": all systems of the family on the same pictures by the same protocols.

Each system's threshold, and the choice among its own settings, is made on val and used on test.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from nbhelpers.datasets.published import splits_of
from nbhelpers.evaluation.batched import THRESHOLDS
from nbhelpers.evaluation.jobs import Job
from nbhelpers.evaluation.runs import ClassRun, Run, find_runs, load, load_classes, part_by_split
from nbhelpers.evaluation.store import read_manifest
from nbhelpers.family import SYSTEMS, foreign_to, read_made_with
from nbhelpers.files import write_whole
from nbhelpers.metrics import Interval, paired_bootstrap, paired_bootstrap_classes
from nbhelpers.models import load_models
from nbhelpers.segment import SETTINGS

# With how many pictures of val and of the first test split. A picture has about six phrases, each
# asked for by itself.
PROTOCOLS: Mapping[Literal["classes", "phrase"], tuple[int, int]] = {
    "classes": (100, 200),
    "phrase": (50, 100),
}
FILE = "left-out.json"
WORLD = "stickers"  # whose models, classes and training pictures the systems have


@dataclass(frozen=True)
class Entry:
    """What the table says of a system besides its figures."""

    title: str
    paper: str
    supervision: str = "none"
    quoted: float | None = None


METHODS = {
    "diffsegmenter": Entry("DiffSegmenter", "Wang et al., 2023, arXiv 2309.02773", quoted=0.379),
    "paper": Entry("the paper", "the paper that this book teaches", quoted=0.379),
    "sealed": Entry("sealed (ours)", "this book"),
}
ENTRIES = METHODS | {
    s.name: Entry(s.title, s.paper, s.supervision, s.quoted) for s in SYSTEMS.values()
}


def family_jobs(
    base: Job, pictures: int | None = None, *, without: Collection[str] = ()
) -> dict[str, Job]:
    """Returns the runs that the table needs, each by the name of its folder.

    Args:
        base: Dataset, model and device; there are none but for the sticker world and its model.
        pictures: How many of each split, instead of those of `PROTOCOLS`.
        without: Systems that can't be run, from `find_left_out`.
    """
    if (base.dataset, base.model) != (WORLD, WORLD):
        return {}
    tests = [split for split in splits_of(base.dataset, base.by)[1] if split.startswith("test")]
    variants = {name: SETTINGS[name] for name in METHODS}
    found = {}
    for prompts, counts in PROTOCOLS.items():
        for split, count in zip(("val", tests[0]), counts, strict=True):
            job = replace(
                base, split=split, pictures=pictures or count, prompts=prompts, variants={}
            )
            found[f"method-{prompts}-{split}"] = replace(job, variants=variants)
            for system in SYSTEMS.values():
                if prompts in system.takes and system.name not in without:
                    name = f"{system.name}-{prompts}-{split}"
                    found[name] = replace(job, system=system.name)
    return found


def find_left_out(device: str = "cpu") -> dict[str, str]:
    """Returns why systems can't be run, by name: weights that aren't there, or another model's.

    Args:
        device: Where the models are loaded; they are where a file says what it was made with.
    """
    reasons, loaded = {}, None
    for system in SYSTEMS.values():
        command = f"python -m recipe family --systems {system.name} makes"
        if not system.trained:
            continue
        if not system.weights.is_file():
            reasons[system.name] = f"not run: its weights aren't trained; {command} them"
        elif read_made_with(system):
            loaded = loaded or load_models(WORLD, device=device)
            if others := foreign_to(system, loaded):
                other = " and another ".join(others)
                reasons[system.name] = (
                    f"not run: its weights were made with another {other}; {command} new ones"
                )
    return reasons


def write_left_out(folder: Path, reasons: Mapping[str, str]) -> None:
    """Keeps beside the runs which systems have none, and why.

    Raises:
        OSError: The folder can't be written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / FILE, (json.dumps(dict(reasons), indent=1) + "\n").encode())


def read_left_out(folder: Path) -> dict[str, str]:
    """Reads what `write_left_out` kept; nothing where nothing was.

    Raises:
        ValueError: The file is damaged.
    """
    path = folder / FILE
    try:
        found: dict[str, str] = json.loads(path.read_bytes()) if path.exists() else {}
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}); remove it and run again") from error
    return found


def job_of_each(jobs: Mapping[str, Job]) -> dict[str, Job]:
    """Picks one job of each method alone, from those of `family_jobs`: what is measured."""
    found: dict[str, Job] = {}
    for job in jobs.values():
        for name, settings in job.variants.items():
            found.setdefault(name, replace(job, variants={name: settings}))
        if job.system is not None:
            found.setdefault(job.system, job)
    return found


def family_table(
    folder: Path,
    costs: Mapping[str, Mapping[str, float]] | None = None,
    left_out: Mapping[str, str] | None = None,
    *,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Returns the table of every test split, from the runs in a folder.

    Args:
        folder: Holds complete runs side by side, of systems and of the method's settings.
        costs: By system, what `measure` found; left out where it wasn't measured.
        left_out: Why a system wasn't run, by name. It has a row all the same, and runs of it that
            lie there from another time don't count.
        seed: Of the bootstrap over pictures.

    Returns:
        One record a test split. A row has, for each protocol that the system takes, mIoU with its
        interval at the threshold from val, the best threshold's on the test itself (an oracle's)
        and the fingerprint of the test run; or, as `not_run`, why it has none.

    Raises:
        ValueError: There are no runs, or some that don't belong together.
    """
    reasons = dict(left_out or {})
    rows: dict[str, dict[str, dict[str, Any]]] = {}
    facts: dict[str, dict[str, Any]] = {}
    for prompts in PROTOCOLS:
        for val, tests in _groups(folder, prompts, reasons):
            for name, variants in _methods_of(val).items():
                for test in tests:
                    row = rows.setdefault(test.split, {}).setdefault(name, {})
                    row[prompts] = _measured(val, test, variants, seed)
            for test in tests:
                _note(facts.setdefault(test.split, {}), prompts, test)
    if not rows:
        raise ValueError(
            f"{folder} holds no runs of systems; make them with: "
            "python -m nbhelpers reproduce --parts family"
        )
    return [
        {
            "name": "family",
            "title": "Table 1, measured: every system on the same pictures",
            "split": split,
            **facts[split],
            "rows": [
                {
                    "label": ENTRIES[name].title,
                    "method": name,
                    **asdict(ENTRIES[name]),
                    **dict.fromkeys(PROTOCOLS),
                    **rows[split].get(name, {}),
                    "cost": None if name in reasons else dict((costs or {}).get(name, {})) or None,
                    "not_run": reasons.get(name),
                }
                for name in ENTRIES
                if name in rows[split] or name in reasons
            ],
        }
        for split in sorted(rows)
    ]


def _groups(
    folder: Path, prompts: str, without: Collection[str]
) -> list[tuple[Run, list[Run]] | tuple[ClassRun, list[ClassRun]]]:
    """Gathers the val run and those of test splits, for each system and the method's settings."""
    read: Any = load_classes if prompts == "classes" else load
    grouped: dict[str, list[Any]] = {}
    for systems in (True, False):
        for path in find_runs(folder, prompts, systems=systems):
            name = _system_of(read_manifest(path)["settings"])
            if name not in without:
                grouped.setdefault(name, []).append(read(path))
    found = []
    for runs in grouped.values():
        val, tests = part_by_split(runs, folder)
        for test in tests:
            mine, theirs = (run.settings["variants"] for run in (val, test))
            if any("system" in v for v in mine.values()) and mine != theirs:
                raise ValueError(
                    f"{val.folder} and {test.folder} are of different code, weights or settings "
                    "of a system; evaluate both with the same"
                )
        found.append((val, tests))
    return found


def _system_of(settings: Mapping[str, Any]) -> str:
    """Returns the system of a run; nothing where it is of the method's settings."""
    return str(next(iter(settings["variants"].values())).get("system", ""))


def _methods_of(run: Run | ClassRun) -> dict[str, list[str]]:
    """Returns the variants among which each method of a run has its choice."""
    found: dict[str, list[str]] = {}
    for name, variant in run.settings["variants"].items():
        found.setdefault(variant.get("system", name), []).append(name)
    return {name: variants for name, variants in found.items() if name in ENTRIES}


def _measured(
    val: Run | ClassRun, test: Run | ClassRun, variants: Sequence[str], seed: int
) -> dict[str, Any]:
    """Returns a method's figures by one protocol."""
    curves = np.stack([_curve(val, variant) for variant in variants])
    chosen, index = divmod(int(curves.argmax()), len(THRESHOLDS))
    variant = variants[chosen]
    curve = _curve(test, variant)
    return {
        "variant": variant,
        "threshold": THRESHOLDS[index],
        "miou": asdict(_interval(test, variant, index, seed)),
        "oracle_threshold": THRESHOLDS[int(curve.argmax())],
        "oracle": float(curve.max()),
        "errors": val.errors + test.errors,
        "fingerprint": test.fingerprint,
    }


def _curve(run: Run | ClassRun, variant: str) -> np.ndarray:
    """Returns mIoU at each of `THRESHOLDS`."""
    if isinstance(run, ClassRun):
        return np.mean(list(run.curves[variant].values()), axis=0)
    return np.asarray(run.curve([variant]))


def _interval(run: Run | ClassRun, variant: str, index: int, seed: int) -> Interval:
    """Returns mIoU at a threshold's index, with its interval over pictures."""
    if isinstance(run, ClassRun):
        shared, either = run.counts(variant, index)
        nothing = (np.zeros_like(shared), either)
        return paired_bootstrap_classes((shared, either), nothing, seed=seed)
    ious = run.ious([variant], index)
    return paired_bootstrap(ious, np.zeros_like(ious), run.pictures, seed=seed)


def _note(facts: dict[str, Any], prompts: str, run: Run | ClassRun) -> None:
    """Records what was read, and how much of it was left out, under the table.

    Raises:
        ValueError: It is of another data set or model than before, or of another number of
            pictures than the others of its protocol.
    """
    dataset = run.settings["dataset"]
    known = {
        "dataset": dataset["name"],
        "model": run.settings["model"]["name"],
        "broken": dataset["broken"],
        f"{prompts}_of_pictures": dataset["pictures"],
    }
    for key, value in known.items():
        if facts.setdefault(key, value) != value:
            raise ValueError(
                f"{run.folder} has {key} {value!r} where the other runs have {facts[key]!r}; "
                "evaluate all of them with the same"
            )
    pictures = len(run.records) if isinstance(run, ClassRun) else len(np.unique(run.pictures))
    by = "class_pictures" if prompts == "classes" else "pictures"
    facts[by] = max(facts.get(by, 0), pictures)
    if isinstance(run, Run):
        facts["expressions"] = max(facts.get("expressions", 0), len(run.items))
    facts["errors"] = facts.get("errors", 0) + run.errors
