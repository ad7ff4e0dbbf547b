"""Each method's own gathering, chosen on val from a wide list.

Methods differ in the prompt, and a gathering that suits one need not suit another. So every method
is given its best before they are compared: timesteps, layers, weights of the resolutions, their
normalization, what the softmax runs over, and the threshold.

A phrase costs one pass of the UNet a method; every gathering is computed from what that pass
recorded, and is the one that `segment` makes by these settings, but for rounding.
"""

import base64
import hashlib
import json
import random
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int64, UInt16

from nbhelpers.calibration import Calibration, Gathering, as_record
from nbhelpers.evaluation.batched import THRESHOLDS, one_thread
from nbhelpers.evaluation.jobs import Job, code_version
from nbhelpers.evaluation.journal import Record
from nbhelpers.evaluation.run import Evaluate, Item, complete_records
from nbhelpers.evaluation.store import Store
from nbhelpers.metrics import paired_bootstrap
from nbhelpers.models import load_models
from nbhelpers.settings import SETTINGS
from nbhelpers.versions import version_of
from recipe import gatherings
from recipe.gatherings import STEPS, candidates, search_phrase, simplicity

SHOWN = 10  # of the best, in the table
DEFAULT = "default"  # the name of settings without one
HOW = (
    "Of all gatherings and thresholds the one with the highest mIoU, or, of the gatherings within "
    "one standard error of it, the simplest: with the fewest timesteps, then with the fewest "
    "departures from all layers, equal weights, mean probabilities and a softmax over all tokens, "
    "then the better one. The default is chosen by the mean over the methods."
)


@dataclass(frozen=True)
class Search:
    """A search before it is run, as a `Job` is.

    Attributes:
        job: The data (val alone), the model, and the methods as variants.
        phrases: At most so many of each picture, drawn from all of its phrases.
    """

    job: Job
    phrases: int = 1

    def items(self) -> list[dict[str, Any]]:
        """Return the phrases to be read, picture by picture; the same ones in every search."""
        found = []
        for image, group in groupby(self.job.items(), key=lambda item: item["image"]):
            asked = list(group)
            drawn = random.Random(image).sample(asked, min(self.phrases, len(asked)))
            found += sorted(drawn, key=lambda item: item["expression"])
        return found

    def settings(self) -> dict[str, Any]:
        """Return all that the IoUs depend on: not the calibration, which is what is sought."""
        known = self.job.settings()
        del known["calibration"]
        own = Path(gatherings.__file__).read_bytes()
        code = hashlib.sha256(code_version().encode() + own).hexdigest()
        return {**known, "prompts": "calibrate", "phrases": self.phrases, "code": code}

    def open(self) -> Evaluate:
        """Load the models; what it returns makes the records of items."""
        job = self.job
        models = load_models(
            job.model, device=job.device, revision=job.revision, parser=job.parser
        )
        expressions = {e.id: e for e in job.data.expressions}

        def evaluate(items: Sequence[Item]) -> list[Record]:
            """Return the IoUs of each item."""
            records: list[Record] = []
            for item in items:
                image = job.data.image(item["image"])
                truth = job.data.mask(expressions[item["expression"]])
                cells, ious = search_phrase(image, item["phrase"], truth, models, job.variants)
                packed = {name: pack(values) for name, values in ious.items()}
                records.append({"id": item["id"], "cells": cells, "ious": packed})
            return records

        return one_thread()(evaluate) if job.device == "cpu" else evaluate


def pack(ious: UInt16[np.ndarray, "gathering threshold"]) -> str:
    """Write IoUs as text: their differences along the thresholds, which are small, compressed."""
    steps = np.diff(ious, axis=-1, prepend=np.uint16(0))  # modulo 2 ** 16, as their sum is
    return base64.b85encode(zlib.compress(steps.astype("<u2").tobytes(), 6)).decode("ascii")


def unpack(text: str) -> UInt16[np.ndarray, "gathering threshold"]:
    """Return what `pack` made a text of."""
    steps = np.frombuffer(zlib.decompress(base64.b85decode(text)), "<u2")
    return steps.reshape(-1, len(THRESHOLDS)).cumsum(axis=-1, dtype=np.uint16)


def choose(
    ious: Float[np.ndarray, "phrase gathering threshold"],
    pictures: Int64[np.ndarray, " phrase"],
    tried: Sequence[Gathering],
) -> tuple[Gathering, list[dict[str, Any]]]:
    """Return the gathering to be used, by `HOW`, and the table that shows how far the others are.

    Args:
        ious: In [0, 1].
        pictures: The picture of each phrase.
        tried: The gatherings.

    Returns:
        The gathering with its threshold; and a row for each of the best ten, and for the chosen
        one if it isn't among them: its fields, its mIoU, by how much it is ``behind`` the best
        (the mean and its 95% interval, pictures drawn again), whether it is within one standard
        error, whether it is the chosen one.
    """
    curves = ious.mean(axis=0)
    cuts = curves.argmax(axis=1)
    each = ious[:, np.arange(len(tried)), cuts]
    means = curves.max(axis=1)
    top = int(means.argmax())
    behind = each[:, [top]] - each
    tied = behind.mean(axis=0) <= standard_errors(behind, pictures)
    chosen = min(map(int, np.flatnonzero(tied)), key=lambda g: (simplicity(tried[g]), -means[g]))
    best = [int(g) for g in np.argsort(-means, kind="stable")[:SHOWN]]
    shown = best if chosen in best else [*best, chosen]
    rows = []
    for g in shown:
        gap = paired_bootstrap(each[:, top], each[:, g], pictures)
        rows.append(
            {
                **as_record(replace(tried[g], threshold=THRESHOLDS[cuts[g]])),
                "miou": round(float(means[g]), 4),
                "behind": [round(value, 4) for value in (gap.mean, gap.low, gap.high)],
                "tied": bool(tied[g]),
                "chosen": bool(g == chosen),
            }
        )
    return replace(tried[chosen], threshold=THRESHOLDS[cuts[chosen]]), rows


def standard_errors(
    values: Float[np.ndarray, "phrase column"], pictures: Int64[np.ndarray, " phrase"]
) -> Float[np.ndarray, " column"]:
    """Return each column mean's standard error, the phrases of a picture taken together."""
    names, index = np.unique(pictures, return_inverse=True)
    sums = np.zeros((len(names), values.shape[1]))
    np.add.at(sums, index, values - values.mean(axis=0))
    spread = np.square(sums).sum(axis=0) * len(names) / max(len(names) - 1, 1)
    found: np.ndarray = np.sqrt(spread) / len(values)
    return found


def calibrate(store: Store, before: Calibration) -> Calibration:
    """Return the calibration that a finished search found.

    Args:
        store: Of the search; every item has a record.
        before: What is there already: methods that were not searched keep theirs, and so do
            settings without a name unless all methods were.

    Raises:
        ValueError: Items are missing, or none could be read.
    """
    settings, items = store.manifest["settings"], store.manifest["items"]
    records = complete_records(store)
    good = [(item, r) for item, r in zip(items, records, strict=True) if "error" not in r]
    if not good:
        raise ValueError(
            f"none of {len(records)} phrases could be read"
            + (f", the first: {records[0]['error']}" if records else "; the split is empty")
        )
    methods = [name for name in SETTINGS if name in settings["variants"]]
    tried = candidates([(factor, block) for factor, block in good[0][1]["cells"]])
    pictures = np.asarray([item["image"] for item, _ in good])
    ious = {
        name: np.stack([unpack(record["ious"][name]) for _, record in good]) / STEPS
        for name in methods
    }
    found: dict[str, Gathering] = {}
    best: dict[str, Any] = {}
    for name in methods:
        found[name], best[name] = choose(ious[name], pictures, tried)
    default: Gathering = before
    if set(methods) == set(SETTINGS):
        default, best[DEFAULT] = choose(np.mean(list(ious.values()), axis=0), pictures, tried)
    searched = {
        "how": HOW,
        "methods": methods,
        "dataset": settings["dataset"]["name"],
        "split": settings["dataset"]["split"],
        "pictures": len(set(pictures.tolist())),
        "phrases": len(good),
        "errors": len(records) - len(good),
        "gatherings": len(tried),
        "thresholds": len(THRESHOLDS),
        "searched": _lists(tried),
        "date": date.today().isoformat(),
        "nbhelpers": version_of("nbhelpers"),
        "code": settings["code"],
        "best": best,
    }
    kept = [one for one in before.chosen if not set(one.get("methods", ())) <= set(methods)]
    return Calibration(
        **{name: getattr(default, name) for name in Gathering.__dataclass_fields__},
        methods={**before.methods, **found},
        chosen=(*kept, searched),
    )


def _lists(tried: Sequence[Gathering]) -> dict[str, list[Any]]:
    """Return every value of each field that was tried, once."""
    rows = [as_record(gathering) for gathering in tried]
    fields = ("timesteps", "weights", "layers", "normalize", "softmax_over")
    return {
        name: [json.loads(text) for text in dict.fromkeys(json.dumps(row[name]) for row in rows)]
        for name in fields
    }
