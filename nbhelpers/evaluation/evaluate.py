"""Methods on a dataset in one call, held in memory: for notebooks.

The command ``python -m nbhelpers evaluate`` keeps what it does on disk and goes on after a crash;
this is for what takes minutes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any

import numpy as np
from jaxtyping import Float, Int64
from tqdm import tqdm

from nbhelpers.datasets import Referring
from nbhelpers.display import Table, tabulate
from nbhelpers.evaluation.batched import Question, Reader
from nbhelpers.evaluation.journal import Record
from nbhelpers.evaluation.results import bounds
from nbhelpers.evaluation.run import Item, work
from nbhelpers.metrics import Interval, intersection_union, overall_iou, paired_bootstrap
from nbhelpers.models import Models
from nbhelpers.settings import Settings, resolve


@dataclass(frozen=True, repr=False)
class Evaluation:
    """How well methods find what phrases mean, with intervals over pictures.

    Attributes:
        data: Which split was read, and by which model.
        baseline: The method that gains are over.
        thresholds: Where each method's map is cut: the model's own, never chosen on this split.
        expressions: The ids of the expressions that have a result.
        pictures: The picture of each.
        ious: By method, the IoU of each.
        miou: By method, the mean IoU with its interval.
        oiou: By method, the overall IoU.
        gain: By method, what its mean IoU gains over the baseline's, both on the same pictures;
            None for the baseline.
        errors: What was left out because a stage refused it: the message, by expression.
        broken: How many records of the dataset were left out as broken.
    """

    data: str
    baseline: str
    thresholds: Mapping[str, float]
    expressions: tuple[int, ...]
    pictures: Int64[np.ndarray, " expression"]
    ious: Mapping[str, Float[np.ndarray, " expression"]]
    miou: Mapping[str, Interval]
    oiou: Mapping[str, float]
    gain: Mapping[str, Interval | None]
    errors: Mapping[int, str]
    broken: int

    def table(self) -> Table:
        """Returns a row a method, in percent and points, and under what it was read from."""
        rows = [
            [
                name,
                f"{self.thresholds[name]:.2f}",
                bounds(asdict(self.miou[name]), ""),
                f"{100 * self.oiou[name]:.1f}",
                bounds(asdict(gain), "+") if (gain := self.gain[name]) else "-",
            ]
            for name in self.ious
        ]
        caption = (
            f"{self.data}: {len(self.expressions):,} expressions of "
            f"{len(np.unique(self.pictures)):,} pictures; {len(self.errors):,} errors and "
            f"{self.broken:,} broken records left out; 95% intervals over pictures"
        )
        columns = ["method", "threshold", "mIoU", "oIoU", f"gain over {self.baseline}"]
        return tabulate(columns, rows, caption=caption)

    def __repr__(self) -> str:
        return repr(self.table())

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        """Returns the table, as a notebook wants it."""
        return self.table()._repr_mimebundle_()


def evaluate(
    models: Models,
    dataset: Referring,
    methods: Sequence[str] | Mapping[str, Settings] = ("plain", "paper", "sealed"),
    *,
    pictures: int | None = None,
    batch: int = 1,
    seed: int = 0,
    progress: bool = True,
) -> Evaluation:
    """Reads a dataset by several methods and says how well each does, with intervals.

    Args:
        models: From `load_models`.
        dataset: From `referring`.
        methods: Names in `SETTINGS`, or settings by names of one's own; gains are over the first.
        pictures: Only the first so many, by number; all when None.
        batch: How many phrases share a pass of the UNet.
        seed: Of the bootstrap (10,000 draws of the pictures).
        progress: Whether to show a bar.

    Returns:
        The results; a notebook shows them as a table. A phrase that a stage refuses is an error
        there and stops nothing.

    Raises:
        ValueError: No method or an unknown one, or nothing that could be read.

    Example:
        >>> import nbhelpers as nb
        >>> data = nb.referring("stickers", "val")
        >>> found = nb.evaluate(nb.load_models("stickers"), data, ["plain", "sealed"], pictures=2,
        ...                     progress=False)
        >>> found
        stickers val, model stickers: 14 expressions of 2 pictures; 0 errors ...
        method  threshold  mIoU ...
        ------  ---------  ----...
        plain   ...
        sealed  ...
    """
    if isinstance(methods, str) or not methods:
        raise ValueError(f"methods is a list such as ['plain', 'sealed']; got {methods!r}")
    own = methods if isinstance(methods, Mapping) else {}
    chosen = {
        name: resolve(models, settings=own[name]) if own else resolve(models, name)
        for name in methods
    }
    reader = Reader(models, chosen)
    thresholds = np.asarray([s.threshold for s in chosen.values()], np.float32)[:, None, None]
    known = sorted(dataset.expressions, key=lambda e: (e.image_id, e.id))
    groups = [list(group) for _, group in groupby(known, lambda e: e.image_id)][:pictures]
    asked = {str(e.id): e for group in groups for e in group}
    images: dict[int, np.ndarray] = {}  # the pictures of the batch: each is encoded once

    def read(items: Sequence[Item]) -> list[Record]:
        """Returns the counts of some expressions, a method each."""
        some = [asked[item["id"]] for item in items]
        wanted = {e.image_id for e in some}
        for number in images.keys() - wanted:
            del images[number]
        images.update({n: dataset.image(n) for n in wanted - images.keys()})
        truths = [dataset.mask(e) for e in some]
        maps = reader.maps([Question(images[e.image_id], e.text) for e in some])
        return [
            {"id": str(e.id), "counts": intersection_union(found.numpy() >= thresholds, truth)}
            for e, found, truth in zip(
                some, maps, (np.stack([truth] * len(chosen)) for truth in truths), strict=True
            )
        ]

    done = work(read, [{"id": name} for name in asked], batch=batch)
    records = list(tqdm(done, total=len(asked), unit="phrase", disable=not progress))
    errors = {int(r["id"]): r["error"] for r in records if "error" in r}
    good = [r for r in records if "error" not in r]
    if not good:
        raise ValueError(
            f"none of {len(records)} expressions could be read"
            + (f", the first: {records[0]['error']}" if records else "; the dataset is empty")
        )
    numbers = np.asarray([asked[r["id"]].image_id for r in good])
    shared, either = np.stack([np.stack(r["counts"]) for r in good]).transpose(1, 2, 0)
    ious = dict(zip(chosen, shared / np.maximum(either, 1), strict=True))
    first = next(iter(chosen))
    zero = np.zeros(len(good))
    return Evaluation(
        data=f"{dataset.name} {dataset.split}, model {models.name}",
        baseline=first,
        thresholds={name: float(s.threshold or 0) for name, s in chosen.items()},
        expressions=tuple(int(r["id"]) for r in good),
        pictures=numbers,
        ious=ious,
        miou={n: paired_bootstrap(v, zero, numbers, seed=seed) for n, v in ious.items()},
        oiou={n: overall_iou(i, u) for n, i, u in zip(chosen, shared, either, strict=True)},
        gain={
            n: None if n == first else paired_bootstrap(v, ious[first], numbers, seed=seed)
            for n, v in ious.items()
        },
        errors=errors,
        broken=len(dataset.broken),
    )
