"""Each method's own gathering, chosen on val from a wide list.

Methods differ in the prompt, and a gathering that suits one need not suit another. So every method
is given its best before they are compared: timesteps, layers, weights of the resolutions, their
normalization, what the softmax runs over, and the threshold.

A phrase costs one pass of the UNet a method; every gathering is computed from what that pass
recorded, and is the one that `segment` makes by these settings, but for rounding.
"""

import base64
import json
import random
import zlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from itertools import groupby, product
from typing import Any, get_args

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64, UInt8, UInt16
from torch import Tensor

from nbhelpers.attention import Recording
from nbhelpers.calibration import (
    RESOLUTION_WEIGHTS,
    Calibration,
    Gathering,
    Layers,
    Normalize,
    SoftmaxOver,
    as_record,
)
from nbhelpers.completion import complete
from nbhelpers.denoising import add_noise, encode_image
from nbhelpers.embeddings import Prompt
from nbhelpers.evaluation.batched import THRESHOLDS, one_thread
from nbhelpers.evaluation.jobs import Job
from nbhelpers.evaluation.journal import Record
from nbhelpers.evaluation.run import Evaluate, Item, complete_records
from nbhelpers.evaluation.store import Store
from nbhelpers.kernels import threshold_sweep
from nbhelpers.masks import to_pixels
from nbhelpers.metrics import paired_bootstrap
from nbhelpers.models import Models, load_models
from nbhelpers.scores import PLACES, join_maps, noun_maps
from nbhelpers.segment import attend, make_prompt, target_spans
from nbhelpers.settings import SETTINGS, Settings
from nbhelpers.versions import version_of

TIMESTEPS = (
    *((20,), (50,), (100,), (200,), (300,), (400,)),
    *((50, 100, 200), (100, 200, 300), (200, 300, 400), (300, 400, 500)),
)
LAYERS: tuple[Layers, ...] = ("all", "no-mid", "up")
STEPS = 2**16 - 1  # an IoU is kept as a whole number of these
SHOWN = 10  # of the best, in the table
DEFAULT = "default"  # the name of settings without one
HOW = (
    "Of all gatherings and thresholds the one with the highest mIoU, or, of the gatherings within "
    "one standard error of it, the simplest: with the fewest timesteps, then with the fewest "
    "departures from all layers, equal weights, mean probabilities and a softmax over all tokens, "
    "then the better one. The default is chosen by the mean over the methods."
)
Cells = Sequence[tuple[int, str]]
"""The factor and the place of each cross-attention layer."""


def simplicity(gathering: Gathering) -> tuple[int, int]:
    """The order in which ties are broken, simplest first.

    Example:
        >>> simplicity(Gathering((100,), None, normalize="none"))
        (1, 0)
        >>> simplicity(Gathering((100, 200), {1: 1.0}, "up"))
        (2, 3)
    """
    departures = (
        gathering.weights is not None,
        gathering.layers != "all",
        gathering.normalize != "none",
        gathering.softmax_over != "all",
    )
    return len(gathering.timesteps), sum(departures)


def candidates(cells: Cells) -> list[Gathering]:
    """The gatherings to be tried with a UNet, simplest first; of two that are the same, one.

    Resolutions count equally, the finest two alone, each alone, and by DiffSegmenter's weights.

    Args:
        cells: Of its cross-attention layers.
    """
    factors = sorted({factor for factor, _ in cells})
    weightings = [
        *(None, dict.fromkeys(factors[:2], 1.0), *({factor: 1.0} for factor in factors)),
        RESOLUTION_WEIGHTS,
    ]
    choices = (TIMESTEPS, weightings, LAYERS, get_args(Normalize), get_args(SoftmaxOver))
    found: dict[Any, Gathering] = {}
    for gathering in sorted((Gathering(*some) for some in product(*choices)), key=simplicity):
        shares = _shares(gathering, cells)
        several = len({factor for factor, _ in shares}) > 1
        how = gathering.normalize if several else None  # one map is stretched in the end anyway
        if shares:
            key = gathering.timesteps, gathering.softmax_over, how, tuple(shares.items())
            found.setdefault(key, gathering)
    return list(found.values())


def _shares(gathering: Gathering, cells: Cells) -> dict[tuple[int, str], float]:
    """The share that each kind of layer's resolution has in the sum, where it has any."""
    scoring = {cell for cell in cells if _scores(gathering, *cell)}
    weights = gathering.weights or dict.fromkeys((factor for factor, _ in scoring), 1.0)
    total = sum(weights[factor] for factor in {factor for factor, _ in scoring})
    return {cell: weights[cell[0]] / total for cell in sorted(scoring)}


def _scores(gathering: Gathering, factor: int, place: str) -> bool:
    """Whether a layer has a say in a gathering."""
    weighted = gathering.weights is None or gathering.weights.get(factor, 0) > 0
    return weighted and place in PLACES[gathering.layers]


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
        """The phrases to be read, picture by picture; the same ones in every search."""
        found = []
        for image, group in groupby(self.job.items(), key=lambda item: item["image"]):
            asked = list(group)
            drawn = random.Random(image).sample(asked, min(self.phrases, len(asked)))
            found += sorted(drawn, key=lambda item: item["expression"])
        return found

    def settings(self) -> dict[str, Any]:
        """All that the counts depend on: not the calibration, which is what is sought."""
        known = self.job.settings()
        del known["calibration"]
        lists = {"timesteps": TIMESTEPS, "layers": LAYERS, "thresholds": len(THRESHOLDS)}
        return {**known, "prompts": "calibrate", "phrases": self.phrases, "search": lists}

    def open(self) -> Evaluate:
        """Load the models; what it returns makes the records of items."""
        job = self.job
        models = load_models(
            job.model, device=job.device, revision=job.revision, parser=job.parser
        )
        expressions = {e.id: e for e in job.data.expressions}

        def evaluate(items: Sequence[Item]) -> list[Record]:
            """The IoUs of each item."""
            records: list[Record] = []
            for item in items:
                image = job.data.image(item["image"])
                truth = job.data.mask(expressions[item["expression"]])
                cells, ious = search_phrase(image, item["phrase"], truth, models, job.variants)
                packed = {name: pack(values) for name, values in ious.items()}
                records.append({"id": item["id"], "cells": cells, "ious": packed})
            return records

        return one_thread()(evaluate) if job.device == "cpu" else evaluate


@torch.no_grad()
def search_phrase(
    image: UInt8[np.ndarray, "h w 3"],
    phrase: str,
    truth: Bool[np.ndarray, "h w"],
    models: Models,
    methods: Mapping[str, Settings],
) -> tuple[Cells, dict[str, UInt16[np.ndarray, "gathering threshold"]]]:
    """The IoU of one phrase by every gathering of `candidates` at each of `THRESHOLDS`.

    Returns:
        The UNet's layers, and by method the IoUs in units of 1 / `STEPS`.

    Raises:
        ValueError: No noun in the phrase, or anything that a stage refuses.
    """
    latent = encode_image(image, models)
    # The noise of a timestep is drawn by its place among the timesteps, so both tell a look.
    noised = {
        (t, place): row
        for timesteps in TIMESTEPS
        for place, (t, row) in enumerate(
            zip(timesteps, add_noise(latent, timesteps, models), strict=True)
        )
    }
    rows, timesteps = torch.stack(list(noised.values())), [t for t, _ in noised]
    cuts = torch.tensor(THRESHOLDS, dtype=torch.float32, device="cpu")
    cells: Cells = ()
    found = {}
    for name, settings in methods.items():
        prompt = make_prompt(phrase, models, settings, image=image)
        attention = attend([rows], [prompt], timesteps, models)
        looks = {look: attention.part(k, len(noised)) for k, look in enumerate(noised)}
        cells = [(layer.factor, layer.place) for layer in attention.cross_layers]
        tried = candidates(cells)
        ious = np.zeros((len(tried), len(THRESHOLDS)), np.uint16)
        for chosen, maps in _completed(looks, prompt, settings, tried):
            pixels = torch.from_numpy(to_pixels(maps, truth.shape))
            truths = torch.from_numpy(truth)[None].expand(pixels.shape)
            shared, either = threshold_sweep(pixels, truths, cuts)
            ious[chosen] = (STEPS * shared.double() / either.clamp(min=1)).round().numpy()
        found[name] = ious
    return cells, found


def _completed(
    looks: Mapping[tuple[int, int], Recording],
    prompt: Prompt,
    settings: Settings,
    tried: Sequence[Gathering],
) -> Iterator[tuple[list[int], Float[Tensor, "gathering h_grid w_grid"]]]:
    """The completed maps of the gatherings of each set of timesteps, and which these are."""
    spans = target_spans(prompt)
    nouns = {
        (look, tokens): [
            noun_maps(layer, spans, tokens, settings.subtokens) for layer in seen.cross_layers
        ]
        for (look, seen), tokens in product(looks.items(), get_args(SoftmaxOver))
    }
    groups: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for number, gathering in enumerate(tried):
        groups[gathering.timesteps].append(number)
    for timesteps, numbers in groups.items():
        mine = [(t, place) for place, t in enumerate(timesteps)]
        layers = [layer for look in mine for layer in looks[look].cross_layers]
        size = max((layer.grid for layer in layers), key=lambda grid: grid[0] * grid[1])
        scores = []
        for gathering in (tried[number] for number in numbers):
            maps = [m for look in mine for m in nouns[look, gathering.softmax_over]]
            pairs = [
                (layer, values)
                for layer, values in zip(layers, maps, strict=True)
                if _scores(gathering, layer.factor, layer.place)
            ]
            joined = join_maps(
                *zip(*pairs, strict=True),
                weights=gathering.weights,
                normalize=gathering.normalize,
                size=size,
            )
            scores.append(joined[0])
        carrying = [layer for look in mine for layer in looks[look].self_layers]
        yield (
            numbers,
            complete(
                torch.stack(scores), carrying, transpose=settings.transpose, steps=settings.steps
            ),
        )


def pack(ious: UInt16[np.ndarray, "gathering threshold"]) -> str:
    """IoUs as text: their differences along the thresholds, which are small, compressed."""
    steps = np.diff(ious, axis=-1, prepend=np.uint16(0))  # modulo 2 ** 16, as their sum is
    return base64.b85encode(zlib.compress(steps.astype("<u2").tobytes(), 6)).decode("ascii")


def unpack(text: str) -> UInt16[np.ndarray, "gathering threshold"]:
    """What `pack` made a text of."""
    steps = np.frombuffer(zlib.decompress(base64.b85decode(text)), "<u2")
    return steps.reshape(-1, len(THRESHOLDS)).cumsum(axis=-1, dtype=np.uint16)


def choose(
    ious: Float[np.ndarray, "phrase gathering threshold"],
    pictures: Int64[np.ndarray, " phrase"],
    tried: Sequence[Gathering],
) -> tuple[Gathering, list[dict[str, Any]]]:
    """The gathering to be used, by `HOW`, and the table that shows how far the others are.

    Args:
        ious: In [0, 1].
        pictures: The picture of each phrase.
        tried: The gatherings.

    Returns:
        The gathering with its threshold; and a row for each of the best ten, and for the chosen
        one if it isn't among them: its fields, its mIoU, by how much it is ``behind`` the best
        (the mean and its 95 % interval, pictures drawn again), whether it is within one standard
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
    """The standard error of each column's mean, phrases of one picture counted together."""
    names, place = np.unique(pictures, return_inverse=True)
    sums = np.zeros((len(names), values.shape[1]))
    np.add.at(sums, place, values - values.mean(axis=0))
    spread = np.square(sums).sum(axis=0) * len(names) / max(len(names) - 1, 1)
    found: np.ndarray = np.sqrt(spread) / len(values)
    return found


def calibrate(store: Store, before: Calibration) -> Calibration:
    """The calibration that a finished search found.

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
    tried = candidates([(factor, place) for factor, place in good[0][1]["cells"]])
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
        default, best[DEFAULT] = choose(sum(ious.values()) / len(ious), pictures, tried)
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
    """Every value of each field that was tried, once."""
    rows = [as_record(gathering) for gathering in tried]
    fields = ("timesteps", "weights", "layers", "normalize", "softmax_over")
    return {
        name: [json.loads(text) for text in dict.fromkeys(json.dumps(row[name]) for row in rows)]
        for name in fields
    }
