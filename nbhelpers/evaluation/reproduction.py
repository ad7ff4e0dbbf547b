"""Everything that the tables and the questions need, as runs side by side in one folder.

How many pictures each run looks at is chosen so that, with the small model of the shapes world
and two cores, the paper's tables take half an hour and the questions another half.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from nbhelpers.datasets.published import splits_of
from nbhelpers.evaluation.class_tables import class_tables
from nbhelpers.evaluation.jobs import Job
from nbhelpers.evaluation.questions import (
    QUESTIONS,
    answer_gains,
    answer_into,
    answer_kinds,
    answer_places,
    phrase_variants,
    place_variants,
)
from nbhelpers.evaluation.store import read_manifest
from nbhelpers.evaluation.tables import (
    check_alike,
    examples,
    find_runs,
    load_runs,
    make_tables,
    methods,
    variants,
)
from nbhelpers.segment import SETTINGS, Settings

Prompts = Literal["phrase", "first", "places", "classes"]


@dataclass(frozen=True)
class Part:
    """Runs of one kind.

    Attributes:
        prompts: What is asked of a picture, see `Job`.
        variants: What is read on val, where thresholds are chosen, and on the first test split.
        pictures: How many of val and of the first test split.
        more: What is read on as many pictures of the other test splits as of val; nothing, and
            no such split, when None.
    """

    prompts: Prompts
    variants: Callable[[], Mapping[str, Settings]]
    pictures: tuple[int, int]
    more: Callable[[], Mapping[str, Settings]] | None = None


PARTS: Mapping[str, Part] = {
    "tables": Part("phrase", variants, (80, 150), methods),
    "classes": Part("classes", lambda: SETTINGS, (80, 150)),
    "places": Part("places", place_variants, (40, 80)),
    "settings": Part("first", phrase_variants, (60, 120)),
}
OF_TABLES, OF_QUESTIONS = ("tables", "classes"), ("places", "settings")


def jobs(base: Job, parts: Iterable[str], pictures: int | None = None) -> dict[str, Job]:
    """The runs of some parts, each by the name of its folder.

    Args:
        base: Dataset, model and device.
        parts: Of `PARTS`; "classes" is left out where pixels have no classes, as in RefCOCO.
        pictures: How many of each split, in the place of the parts' own numbers.
    """
    tests = [split for split in splits_of(base.dataset, base.by)[1] if split.startswith("test")]
    found = {}
    for name in parts:
        part = PARTS[name]
        if part.prompts == "classes" and base.dataset != "shapes":
            continue
        on_val, on_test = (pictures or count for count in part.pictures)
        runs = [("val", part.variants, on_val), (tests[0], part.variants, on_test)]
        if part.more is not None:
            runs += [(split, part.more, on_val) for split in tests[1:]]
        for split, read, count in runs:
            found[f"{name}-{split}"] = replace(
                base, split=split, variants=read(), pictures=count, prompts=part.prompts
            )
    return found


def paper_tables(folder: Path, *, seed: int = 0) -> list[dict[str, Any]]:
    """Tables 1 to 4 and what Figures 7 and 8 show, from the runs in a folder.

    Args:
        folder: Holds complete runs side by side.
        seed: Of the bootstrap.

    Returns:
        As `make_tables`. Figure 7 is drawn from Table 3; "figure-8" names its pictures.

    Raises:
        ValueError: There is nothing to make a table of, or runs that don't belong together.
    """
    found = []
    classes = find_runs(folder, "classes")
    if classes:
        found += class_tables(*by_split(classes), seed=seed)
    if find_runs(folder, "phrase") or not found:
        val, tests = load_runs(folder)
        found += make_tables(val, tests, seed=seed)
        shown = [examples(val, test) for test in tests]
        found += [table for table in shown if table is not None]
    return found


def answers(folder: Path, *, seed: int = 0) -> list[dict[str, Any]]:
    """What the runs in a folder say about the questions that the paper leaves open.

    Args:
        folder: Holds complete runs side by side.
        seed: Of the bootstrap.

    Raises:
        ValueError: There is nothing to answer from, or runs that don't belong together.
    """
    found = []
    if find_runs(folder, "places"):
        val, tests = load_runs(folder, "places")
        found += [answer_places(val, test, seed=seed) for test in tests]
        told = [answer_into(val, test, seed=seed) for test in tests]
        found += [table for table in told if table is not None]
    if find_runs(folder, "first"):
        found += make_tables(*load_runs(folder, "first"), QUESTIONS, seed=seed)
    if find_runs(folder, "phrase") or not found:
        val, tests = load_runs(folder)
        for test in tests:
            found += [answer_kinds(val, test, seed=seed), answer_gains(val, test, seed=seed)]
    return found


def by_split(folders: Sequence[Path]) -> tuple[Path, list[Path]]:
    """The run on which thresholds are chosen, val or a train split of COCO, and the others.

    Raises:
        ValueError: There isn't exactly one of the first kind, and one of the second; or they
            differ in what a threshold depends on.
    """
    settings = {path: read_manifest(path)["settings"] for path in folders}
    splits = {path: found["dataset"]["split"] for path, found in settings.items()}
    choosing = [p for p, split in splits.items() if split == "val" or split.startswith("train")]
    tests = [path for path in folders if path not in choosing]
    if len(choosing) != 1 or not tests:
        raise ValueError(
            f"runs of classes are of {', '.join(splits.values())}; one of val (of COCO: of train) "
            "and one of another split are needed, since thresholds are chosen on the one and used "
            "on the other"
        )
    (val,) = choosing
    for test in tests:
        check_alike((val, settings[val]), (test, settings[test]))
    return val, tests
