"""What the paper leaves open, as variants to be run and tables to be made of them.

With the paper's own tables they are the parts of a reproduction: `PARTS`, `make_jobs`.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise, product
from pathlib import Path
from typing import Any, Literal

import numpy as np

from nbhelpers.datasets.published import splits_of
from nbhelpers.evaluation.jobs import ORDERS, Job
from nbhelpers.evaluation.runs import Run, compare, find_runs, ious_of, load_runs
from nbhelpers.evaluation.tables import Row, Table, about, make_tables, methods, variants
from nbhelpers.metrics import paired_bootstrap
from nbhelpers.segment import SETTINGS, Settings
from nbhelpers.weights import EMBEDDED

PLAIN, CHUNK, SEALED = SETTINGS["plain"], SETTINGS["chunk"], SETTINGS["sealed"]
# What closes which leak is asked of one gathering for all, that of settings without a name.
ALIKE = Settings(softmax_over="all")
WEIGHTS = tuple(round(0.1 * i, 1) for i in range(17))
MARKED = {"the paper's": 0.9, "plain": 1.0, "DiffSegmenter's": 1.21, "iSeg's": 1.6}
TIMESTEPS = (
    *((20,), (50,), (100,), (200,), (300,), (400,), (600,), (800,)),
    *((100, 200, 300), (200, 400, 600), tuple(range(20, 201, 20))),
)
ISOLATED = (("none", "encoding"), *product(("target", "others", "every"), ("encoding", "masking")))
SEALING = ("every", "masking")
# Each way to isolate under both tails; half an empty tail only where everything else is sealed.
CLOSING = (
    *product(ISOLATED, ("prompt", "empty")),
    *product((SEALING,), ("empty-eos", "empty-padding")),
)
WITH_CHUNK = {"plain": PLAIN, "chunk": CHUNK}
WITH_SEALED = {"plain": PLAIN, "sealed": SEALED}


def changed(label: str, settings: Settings, facts: Mapping[str, Any], **changes: Any) -> Row:
    """Returns a row of settings with some changed, and told apart by these."""
    return Row(label, replace(settings, **changes), {**facts, **changes})


def leaks() -> list[Row]:
    """Lists which chunks are isolated, how, whose tail follows, what the softmax runs over."""
    rows = []
    for ((isolate, by), tail), tokens in product(CLOSING, ("all", "words")):
        label = f"isolate {isolate}{_by(by)}, tail {tail}, softmax over {tokens}"
        facts = {"isolate": isolate, "by": by, "tail": tail, "softmax_over": tokens}
        rows.append(changed(label, ALIKE, {}, **facts))
    return rows


def leaks_into() -> list[Row]:
    """Returns what closes leaks, alone and together, for keys, values or both."""
    closing = (
        (("target", "encoding"), "prompt"),
        (("none", "encoding"), "empty"),
        (SEALING, "empty"),
    )
    return [
        changed(
            f"isolate {isolate}{_by(by)}, tail {tail}, into {which}",
            ALIKE,
            {},
            isolate=isolate,
            by=by,
            tail=tail,
            into=which,
        )
        for ((isolate, by), tail), which in product(closing, ("keys", "values", "both"))
    ]


def _by(way: str) -> str:
    """Returns how chunks are isolated for a label, where it isn't the paper's way."""
    return "" if way == "encoding" else f" by {way}"


def weights() -> list[Row]:
    """Lists the noun's weight on an axis: the chunk encoded alone (Eq. 3), without, as Compel.

    Compel's weighting differs from Eq. 4 below 1 alone.
    """
    axis = sorted({*WEIGHTS, *MARKED.values(), 0.85, 0.95})
    compel = replace(PLAIN, unconditional="masked")
    asked = [*product(WITH_CHUNK.items(), axis), *((("compel", compel), w) for w in axis if w < 1)]
    return [
        changed(f"{name}, w = {w:g}", settings, {"method": name}, alpha=w)
        for (name, settings), w in asked
    ]


def into() -> list[Row]:
    """Returns the changed embedding for keys, values or both."""
    methods = {name: SETTINGS[name] for name in ("chunk", "paper", "sealed")}
    return [
        Row("plain", PLAIN, {"method": "plain", "into": "both"}),
        *(
            changed(f"{name} into {which}", settings, {"method": name}, into=which)
            for (name, settings), which in product(methods.items(), ("keys", "values", "both"))
        ),
    ]


def completions() -> list[Row]:
    """Returns a S or A^T S, and how often."""
    return [
        changed(
            f"{name}, {'Aᵀ' if transpose else 'A'} S, {steps} x",
            settings,
            {"method": name},
            transpose=transpose,
            steps=steps,
        )
        for (name, settings), transpose, steps in product(
            WITH_SEALED.items(), (False, True), (1, 2, 3)
        )
    ]


def timesteps() -> list[Row]:
    """Lists timesteps, one or several together."""
    return [
        changed(f"{name}, t = {', '.join(map(str, t))}", s, {"method": name}, timesteps=t)
        for (name, s), t in product(WITH_SEALED.items(), TIMESTEPS)
    ]


QUESTIONS: Mapping[str, Table] = {
    "weight": Table("Eq. 4 as a weight w of the noun", weights(), PLAIN),
    "into": Table("Keys, values or both", into(), PLAIN),
    "completion": Table("A S or Aᵀ S, and how often", completions(), PLAIN),
    "timesteps": Table("Which timesteps", timesteps(), replace(PLAIN, timesteps=(100,))),
}


def leak_variants() -> dict[str, Settings]:
    """Returns all variants that are read in every order of the phrases, each once."""
    return _each_once([*leaks(), *leaks_into()])


def phrase_variants() -> dict[str, Settings]:
    """Returns all variants that are read of one phrase a picture, each once."""
    return _each_once(row for table in QUESTIONS.values() for row in table.rows)


def _each_once(rows: Iterable[Row]) -> dict[str, Settings]:
    """Returns the settings of rows, by the label of the first that has them."""
    found: dict[str, Settings] = {}
    for row in rows:
        if row.settings not in found.values():
            found[row.label] = row.settings
    return found


def answer_leaks(val: Run, test: Run, *, seed: int = 0) -> dict[str, Any]:
    """Returns how each way of closing leaks reads the target, by the order of its phrase.

    Gains are over the plain prompt under the same softmax in the same order. Thresholds are
    chosen on val, over all orders together.
    """
    rows = _by_order(leaks(), val, test, seed)
    title = "Three leaks, by the order of the target's phrase"
    return {"name": "leaks", "title": title, **about(test), "rows": rows}


def answer_into(val: Run, test: Run, *, seed: int = 0) -> dict[str, Any] | None:
    """Returns what the closed leaks bring to keys, to values and to both, as `answer_leaks`.

    Returns:
        None where a row wasn't read.
    """
    asked = leaks_into()
    if not all(run.like(row.settings) for run in (val, test) for row in asked):
        return None
    title = "Closed leaks for keys, values or both, by the order of the target's phrase"
    rows = _by_order(asked, val, test, seed)
    return {"name": "leaks-into", "title": title, **about(test), "rows": rows}


def _by_order(asked: Sequence[Row], val: Run, test: Run, seed: int) -> list[dict[str, Any]]:
    """Returns a record for each row in each order, as far as they were read."""
    rows, found = [], {order: test.only(order=order) for order in ORDERS}
    for row in asked:
        baseline = replace(ALIKE, softmax_over=row.settings.softmax_over)
        for order in ORDERS:
            here = found[order]
            if not here.items:
                continue
            versus = None if row.settings == baseline else baseline
            value = compare(val, here, row.settings, versus, seed=seed)
            if value is not None:
                rows.append({"label": row.label, "order": order, **row.facts, **asdict(value)})
    return rows


def answer_kinds(val: Run, test: Run, *, seed: int = 0) -> dict[str, Any]:
    """Returns each named method by what the phrase tells its thing by."""
    rows = []
    for kind in ("attribute", "position", "noun"):
        here = test.only(kind=kind)
        for method, settings in SETTINGS.items() if here.items else ():
            versus = None if settings == PLAIN else PLAIN
            value = compare(val, here, settings, versus, seed=seed)
            if value is not None:
                facts = {"kind": kind, "method": method, "expressions": len(here.items)}
                rows.append({"label": f"{kind}: {method}", **facts, **asdict(value)})
    return {"name": "kinds", "title": "By what the phrase says", **about(test), "rows": rows}


def answer_gains(
    val: Run, test: Run, *, edges: Sequence[float] = (0, 0.2, 0.4, 0.6, 0.8, 1), seed: int = 0
) -> dict[str, Any]:
    """Returns how much each method gains over plain, by how good plain is.

    Sorting by a noisy figure makes the worst seem to gain and the best to lose, whatever is
    compared. So beside each gain stands that of plain from other noise: what chance alone gives.

    Args:
        val: Where thresholds are chosen.
        test: Where the figures come from.
        edges: Of the groups, in IoU of plain.
        seed: Of the bootstrap.

    Returns:
        A row for each group and method; in `points` the IoU of every expression by each method.
    """
    compared = {**SETTINGS, "plain, other noise": replace(PLAIN, seed=1)}
    read = {name: ious_of(val, test, settings) for name, settings in compared.items()}
    points = {name: values for name, values in read.items() if values is not None}
    if "plain" not in points:
        raise ValueError(f"{test.folder} has not read plain, which gains are measured over")
    base = points["plain"]
    rows = []
    for low, high in pairwise(edges):
        group = (base >= low) & ((base < high) | (high == edges[-1]))
        for name, values in points.items():
            if name == "plain" or not group.any():
                continue
            gain = paired_bootstrap(values[group], base[group], test.pictures[group], seed=seed)
            facts = {"low": low, "high": high, "method": name, "expressions": int(group.sum())}
            label = f"plain's IoU from {low:g} to {high:g}: {name}"
            rows.append({"label": label, **facts, "gain": asdict(gain)})
    return {
        "name": "gains",
        "title": "Gain by the IoU of plain",
        **about(test),
        "rows": rows,
        "points": {name: np.round(values, 4).tolist() for name, values in points.items()},
    }


def answers(folder: Path, *, seed: int = 0) -> list[dict[str, Any]]:
    """Returns what the runs in a folder say about the questions that the paper leaves open.

    Args:
        folder: Holds complete runs side by side.
        seed: Of the bootstrap.

    Raises:
        ValueError: There is nothing to answer from, or runs that don't belong together.
    """
    found = []
    if find_runs(folder, "orders"):
        val, tests = load_runs(folder, "orders")
        found += [answer_leaks(val, test, seed=seed) for test in tests]
        told = [answer_into(val, test, seed=seed) for test in tests]
        found += [table for table in told if table is not None]
    if find_runs(folder, "first"):
        found += make_tables(*load_runs(folder, "first"), QUESTIONS, seed=seed)
    if find_runs(folder, "phrase") or not found:
        val, tests = load_runs(folder)
        for test in tests:
            found += [answer_kinds(val, test, seed=seed), answer_gains(val, test, seed=seed)]
    return found


Prompts = Literal["phrase", "first", "orders", "classes"]


@dataclass(frozen=True)
class Part:
    """The runs of one kind.

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


# So many pictures that, with the small model of the drawn world and two cores, the paper's tables
# take half an hour and the questions another half.
PARTS: Mapping[str, Part] = {
    "tables": Part("phrase", variants, (80, 150), methods),
    "classes": Part("classes", lambda: SETTINGS, (80, 150)),
    "leaks": Part("orders", leak_variants, (40, 80)),
    "settings": Part("first", phrase_variants, (60, 120)),
}
OF_TABLES, OF_QUESTIONS = ("tables", "classes"), ("leaks", "settings")


def make_jobs(base: Job, parts: Iterable[str], pictures: int | None = None) -> dict[str, Job]:
    """Returns the runs of some parts, each by the name of its folder.

    Args:
        base: Dataset, model and device.
        parts: Of `PARTS`; "classes" is left out where pixels have no classes, as in RefCOCO.
        pictures: How many of each split, instead of the parts' own numbers.
    """
    tests = [split for split in splits_of(base.dataset, base.by)[1] if split.startswith("test")]
    found = {}
    for name in parts:
        part = PARTS[name]
        if part.prompts == "classes" and base.dataset != EMBEDDED:
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
