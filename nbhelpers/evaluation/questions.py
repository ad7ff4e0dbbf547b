"""What the paper leaves open, as variants to be read and tables to be made of them."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from itertools import pairwise, product
from typing import Any

import numpy as np

from nbhelpers.evaluation.measured import Run, worth
from nbhelpers.evaluation.plan import PLACES
from nbhelpers.evaluation.tables import about
from nbhelpers.metrics import paired_bootstrap
from nbhelpers.segment import SETTINGS, Settings

PLAIN, SEALED = SETTINGS["plain"], SETTINGS["sealed"]
WEIGHTS = tuple(round(0.1 * i, 1) for i in range(17))  # and those that somebody uses
MARKED = {"the paper's": 0.9, "plain": 1.0, "DiffSegmenter's": 1.21, "iSeg's": 1.6}
TIMESTEPS = ((20,), (50,), (100,), (200,), (300,), (400,), (600,), (800,))
SEVERAL = ((100, 200, 300), (200, 400, 600), tuple(range(20, 201, 20)))


def leaks() -> dict[str, Settings]:
    """Which chunks are isolated, how, whose tail follows, what the softmax runs over."""
    found = {}
    isolated = [("none", "encoding"), *product(("target", "others", "every"), BY)]
    for (isolate, by), tail, keys in product(isolated, TAILS, ("all", "words")):
        how = "" if isolate == "none" or by == "encoding" else f" by {by}"
        name = f"isolate {isolate}{how}, tail {tail}, keys {keys}"
        found[name] = replace(PLAIN, isolate=isolate, by=by, tail=tail, keys=keys)  # type: ignore[arg-type]
    return found


BY = ("encoding", "masking")
TAILS = ("prompt", "empty", "empty-eos", "empty-padding")


def weights() -> dict[str, Settings]:
    """The noun's weight on one axis, with the chunk encoded alone (Eq. 3) and without."""
    axis = sorted({*WEIGHTS, 1.21, 0.85, 0.95})
    ways = {"chunk": SETTINGS["chunk"], "plain": PLAIN}
    return {f"{n}, w {w:g}": replace(s, alpha=w) for (n, s), w in product(ways.items(), axis)}


def into() -> dict[str, Settings]:
    """The changed embedding for keys, values or both."""
    methods = {name: SETTINGS[name] for name in ("chunk", "paper", "sealed")}
    plain = {"plain": PLAIN}
    return plain | {
        f"{name} into {place}": replace(s, into=place)  # type: ignore[arg-type]
        for (name, s), place in product(methods.items(), ("keys", "values", "both"))
    }


def completions() -> dict[str, Settings]:
    """A S or A^T S, and how often."""
    methods = {"plain": PLAIN, "sealed": SEALED}
    return {
        f"{name}, {'Aᵀ' if transpose else 'A'} S x {steps}": replace(
            s, transpose=transpose, steps=steps
        )
        for (name, s), transpose, steps in product(methods.items(), (False, True), (1, 2, 3))
    }


def timesteps() -> dict[str, Settings]:
    """Where in the noise to look, once or several times."""
    methods = {"plain": PLAIN, "sealed": SEALED}
    return {
        f"{name}, t {', '.join(map(str, t))}": replace(s, timesteps=t)
        for (name, s), t in product(methods.items(), (*TIMESTEPS, *SEVERAL))
    }


# What each question compares its variants with.
QUESTIONS: Mapping[str, tuple[dict[str, Settings], Settings]] = {
    "Eq. 4 as a weight w of the noun": (weights(), PLAIN),
    "Keys, values or both": (into(), PLAIN),
    "A S or Aᵀ S, and how often": (completions(), PLAIN),
    "Which timesteps": (timesteps(), replace(PLAIN, timesteps=(100,))),
}


def phrase_variants() -> dict[str, Settings]:
    """All variants that are read of expressions alone, each once."""
    found: dict[str, Settings] = dict(SETTINGS)
    for variants, baseline in QUESTIONS.values():
        for name, settings in {**variants, "baseline": baseline}.items():
            if settings not in found.values():
                found[name] = settings
    return found


def answer_places(val: Run, test: Run, *, seed: int = 0) -> dict[str, Any]:
    """How each way of closing leaks reads the target at every place, against plain there.

    Thresholds are chosen on val, over all places together.
    """
    rows = []
    for label, settings in leaks().items():
        baseline = replace(PLAIN, keys=settings.keys)
        for place in PLACES:
            here = test.only(place=place)
            if not here.items:
                continue
            versus = None if settings == baseline else baseline
            value = worth(val, here, settings, versus, seed=seed)
            if value is not None:
                rows.append({"label": label, "place": place, **asdict(value)})
    return {"title": "Three leaks, at every place", **about(test), "rows": rows}


def answer_phrases(val: Run, test: Run, *, seed: int = 0) -> list[dict[str, Any]]:
    """The questions about single expressions, a table each."""
    found = []
    for title, (variants, baseline) in QUESTIONS.items():
        rows = []
        for label, settings in variants.items():
            versus = None if settings == baseline else baseline
            value = worth(val, test, settings, versus, seed=seed)
            if value is not None:
                rows.append({"label": label, **asdict(value)})
        if rows:
            found.append({"title": title, **about(test), "rows": rows})
    return found


def answer_kinds(val: Run, test: Run, *, seed: int = 0) -> dict[str, Any]:
    """Each named method by what the phrase tells its thing by."""
    rows = []
    for kind in ("attribute", "position", "noun"):
        here = test.only(kind=kind)
        for name, settings in SETTINGS.items() if here.items else ():
            versus = None if settings == PLAIN else PLAIN
            value = worth(val, here, settings, versus, seed=seed)
            if value is not None:
                rows.append({"label": f"{kind}: {name}", **asdict(value)})
    return {"title": "By what the phrase says", **about(test), "rows": rows}


def answer_gains(
    val: Run, test: Run, *, edges: Sequence[float] = (0, 0.2, 0.4, 0.6, 0.8, 1), seed: int = 0
) -> dict[str, Any]:
    """How much each method gains over plain, by how good plain is.

    Sorting by a noisy figure makes the worst seem to gain and the best to lose whatever is
    compared. So the groups are formed by plain's reading, and beside each gain stands that of
    plain from another seed, where one was read: what chance alone gives.

    Args:
        val: Where thresholds are chosen.
        test: Where the figures come from.
        edges: Of the groups, in IoU of plain.
        seed: Of the bootstrap.
    """
    base = ious_of(val, test, PLAIN)
    again = {"plain, another seed": replace(PLAIN, seed=1)}
    rows = []
    for low, high in pairwise(edges):
        group = (base >= low) & ((base < high) | (high == edges[-1]))
        for name, settings in {**SETTINGS, **again}.items():
            found = ious_of(val, test, settings, exactly=True)
            if name == "plain" or found is None or not group.any():
                continue
            gain = paired_bootstrap(found[group], base[group], test.pictures[group], seed=seed)
            label = f"plain's IoU {low:g} to {high:g}: {name}"
            facts = {"expressions": int(group.sum()), "miou": float(found[group].mean())}
            rows.append({"label": label, **facts, "gain": asdict(gain)})
    return {"title": "Gain by the baseline's IoU", **about(test), "rows": rows}


def ious_of(val: Run, test: Run, settings: Settings, exactly: bool = False) -> Any:
    """IoUs at the threshold from val, from the settings' own seed; None if not read."""
    names = [
        name
        for name in test.like(settings)
        if test.settings["variants"][name]["seed"] == settings.seed
    ]
    if not names:
        return None
    return np.asarray(test.ious(names, val.best(names)))
