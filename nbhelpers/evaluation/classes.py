"""Table 1's protocol: every class of a picture is asked for, and each pixel goes to one of them.

Which classes are in a picture is taken from its truth, for every method alike; a pixel goes to
the class with the highest map where that reaches the threshold, else to background. Pixels are
pooled over all pictures, class by class, background among them (COCO-Object).
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from jaxtyping import Float, UInt8
from torch import Tensor

from nbhelpers.datasets import Broken, Coco, Referring
from nbhelpers.datasets.coco import IGNORED
from nbhelpers.evaluation.batched import THRESHOLDS, Reader
from nbhelpers.family.reading import SystemReader
from nbhelpers.metrics import class_intersection_union


class Scenes(Protocol):
    """Pictures whose every pixel has a class: `Coco`, or `Drawn`."""

    @property
    def image_ids(self) -> tuple[int, ...]:
        """Ascending."""

    @property
    def categories(self) -> tuple[str, ...]:
        """The classes' names, background first."""

    def image(self, image_id: int) -> UInt8[np.ndarray, "h w 3"]:
        """Returns a picture."""

    def class_map(self, image_id: int) -> UInt8[np.ndarray, "h w"]:
        """Returns each pixel's class, an index in `categories`; 255 for what doesn't count."""


@dataclass(frozen=True)
class Drawn:
    """The drawn pictures as class maps: there, every thing of a picture has an expression."""

    data: Referring

    @property
    def broken(self) -> tuple[Broken, ...]:
        """The records that were left out."""
        return self.data.broken

    @property
    def image_ids(self) -> tuple[int, ...]:
        """Ascending."""
        return tuple(sorted({e.image_id for e in self.data.expressions}))

    @cached_property
    def categories(self) -> tuple[str, ...]:
        """The nouns, background first."""
        return ("background", *sorted({e.category for e in self.data.expressions}))

    def image(self, image_id: int) -> UInt8[np.ndarray, "h w 3"]:
        """Returns a picture."""
        return self.data.image(image_id)

    def class_map(self, image_id: int) -> UInt8[np.ndarray, "h w"]:
        """Returns the class of each pixel; no two things of a picture have a pixel in common."""
        found = np.zeros(self.data.pictures[image_id].size, np.uint8)
        things = {e.annotation_id: e for e in self.data.expressions if e.image_id == image_id}
        for expression in things.values():
            found[self.data.mask(expression)] = self.categories.index(expression.category)
        return found


def digest(scenes: Coco | Drawn) -> str:
    """Returns the SHA-256 of what the truths are made of; COCO's pictures are not read."""
    if isinstance(scenes, Drawn):
        return scenes.data.sha256()
    total = hashlib.sha256(json.dumps(scenes.categories).encode())
    for number in scenes.image_ids:
        records = [record.fields for record in scenes.annotations.get(number, ())]
        total.update(json.dumps([number, scenes.pictures[number].size, records]).encode())
    return total.hexdigest()


def read_classes(
    scenes: Scenes, image_id: int, reader: Reader | SystemReader
) -> dict[str, dict[str, list[list[int]]]]:
    """Returns the counts of one picture.

    Returns:
        For every variant and every class of the picture (its index, as text), the
        intersections and unions in pixels at each of `THRESHOLDS`.

    Raises:
        ValueError: Anything that a stage refuses.
    """
    image, truth = scenes.image(image_id), scenes.class_map(image_id)
    present = [int(c) for c in np.unique(truth) if c not in (0, IGNORED)]
    if not present:  # nothing to ask for, nothing to find: all of it is rightly background
        size = int((truth == 0).sum())
        return {name: {"0": [[size] * len(THRESHOLDS)] * 2} for name in reader.names}
    found = reader.together(image, [scenes.categories[c] for c in present])
    return {
        name: count_classes([maps[v] for maps in found], present, truth, len(scenes.categories))
        for v, name in enumerate(reader.names)
    }


def count_classes(
    maps: Sequence[Float[Tensor, "h w"]],
    present: Sequence[int],
    truth: UInt8[np.ndarray, "h w"],
    classes: int,
) -> dict[str, list[list[int]]]:
    """Returns the pooled counts of one picture by one variant.

    Args:
        maps: One a class that is asked for, in [0, 1].
        present: These classes.
        truth: The class of each pixel.
        classes: How many there are, with background.
    """
    stacked = np.stack([values.cpu().numpy() for values in maps])
    best = np.asarray(present, np.uint8)[stacked.argmax(axis=0)]
    peak = stacked.max(axis=0)
    kept = [0, *present]
    counts: dict[str, list[list[int]]] = {str(c): [[], []] for c in kept}
    for threshold in THRESHOLDS:
        # Rounded as the maps are, so that a map of exactly 0.3 reaches 0.3.
        label = np.where(peak >= peak.dtype.type(threshold), best, 0).astype(np.uint8)
        shared, either = class_intersection_union(label, truth, classes)
        for c in kept:
            counts[str(c)][0].append(int(shared[c]))
            counts[str(c)][1].append(int(either[c]))
    return counts
