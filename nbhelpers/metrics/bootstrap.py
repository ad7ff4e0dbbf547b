"""Paired bootstrap over pictures: the uncertainty of a difference between two methods."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, Int64, Shaped

from nbhelpers.errors import refused
from nbhelpers.metrics.overlaps import mean

STEP = 2.0**-40  # what values are rounded to: whole multiples of it sum without an error


@dataclass(frozen=True)
class Interval:
    """A difference and its percentile interval.

    Attributes:
        mean: The difference.
        low: The lower end of the interval.
        high: The upper end of the interval.
        level: The share of resamples that lie inside.
        pictures: How many were drawn from.
        resamples: How many times they were drawn.
    """

    mean: float
    low: float
    high: float
    level: float
    pictures: int
    resamples: int


def paired_bootstrap(
    a: Float[np.ndarray, " mask"],
    b: Float[np.ndarray, " mask"],
    groups: Shaped[np.ndarray, " mask"] | Sequence[int],
    *,
    resamples: int = 10_000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Returns the mean of ``a - b`` and its percentile interval, whatever the order to the bit.

    Pictures are drawn, with all their expressions, since expressions of one picture succeed and
    fail together; both methods are drawn alike, since what is asked is the difference. Efron's
    percentile bootstrap of a ratio: the summed differences over the number of expressions.

    Args:
        a: One value an expression, in [-1, 1]: the IoU of one method.
        b: The other method's, of the same expressions.
        groups: The picture of each.
        resamples: How many times as many pictures are drawn as there are.
        seed: The seed of the draws.
        level: The share of resamples inside of the interval, in (0, 1).

    Raises:
        ValueError: Lengths differ, there is nothing to compare, or a value isn't in [-1, 1].
    """
    ones = np.ones(len(a), np.int64)
    return _bootstrap((a, ones), (b, ones), groups, resamples, seed, level)


def paired_bootstrap_overall(
    a: tuple[Int[np.ndarray, " mask"], Int[np.ndarray, " mask"]],
    b: tuple[Int[np.ndarray, " mask"], Int[np.ndarray, " mask"]],
    groups: Shaped[np.ndarray, " mask"] | Sequence[int],
    *,
    resamples: int = 10_000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Returns how much larger the overall IoU of `a` is than that of `b`.

    Args:
        a: Intersection and union of each expression, from `intersection_union`.
        b: The other method's, of the same expressions.
        groups: The picture of each.
        resamples: As in `paired_bootstrap`; so are `seed` and `level`.

    Raises:
        ValueError: Lengths differ, or there is nothing to compare.
    """
    return _bootstrap(a, b, groups, resamples, seed, level)


def paired_bootstrap_classes(
    a: tuple[Int[np.ndarray, "picture class"], Int[np.ndarray, "picture class"]],
    b: tuple[Int[np.ndarray, "picture class"], Int[np.ndarray, "picture class"]],
    *,
    resamples: int = 10_000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Returns how much larger the mean IoU over classes of `a` is than that of `b`.

    In each draw the pixels of every class are pooled over the drawn pictures; the mean is over
    the classes that one of these has.

    Args:
        a: Intersection and union of each picture and class, from `class_intersection_union`.
        b: The other method's, of the same pictures.
        resamples: As in `paired_bootstrap`; so are `seed` and `level`.

    Raises:
        ValueError: Shapes differ, or there is nothing to compare.
    """
    shapes = [part.shape for part in (*a, *b)]
    if len(set(shapes)) > 1 or not a[0].size:
        raise ValueError(f"a and b hold counts a picture and class, at least one; got {shapes}")
    counts = np.stack([*a, *b]).astype(np.float64)  # whole numbers, so their sums are exact
    pictures = counts.shape[1]

    def difference(times: np.ndarray) -> np.ndarray:  # with each picture taken so many times
        return _mean_of_classes(*(times @ counts[:2])) - _mean_of_classes(*(times @ counts[2:]))

    found = [
        difference(np.stack([np.bincount(row, minlength=pictures) for row in drawn]))
        for drawn in _draws(pictures, resamples, seed, level)
    ]
    (between,) = difference(np.ones((1, pictures)))
    return _interval(float(between), found, level, pictures)


def _mean_of_classes(shared: np.ndarray, either: np.ndarray) -> np.ndarray:
    """Returns the mean IoU of the classes that have pixels, in each draw."""
    known = np.count_nonzero(either, axis=-1)
    return (shared / np.maximum(either, 1)).sum(axis=-1) / np.maximum(known, 1)


def _bootstrap(
    a: tuple[np.ndarray, np.ndarray],
    b: tuple[np.ndarray, np.ndarray],
    groups: Shaped[np.ndarray, " mask"] | Sequence[int],
    resamples: int,
    seed: int,
    level: float,
) -> Interval:
    """Returns the difference of two ratios of sums, and its interval over pictures."""
    parts = [np.asarray(part) for part in (*a, *b)]
    names, picture = np.unique(np.asarray(groups), return_inverse=True)
    if not len(picture) or any(part.shape != picture.shape for part in parts):
        raise ValueError(
            "a, b and groups hold one value an expression, at least one; got "
            f"{[part.shape for part in parts]} and {picture.shape}"
        )
    sums = np.zeros((4, len(names)), np.int64)
    for total, part in zip(sums, parts, strict=True):
        np.add.at(total, picture, _whole(part))
    scales = [STEP if part.dtype.kind == "f" else 1.0 for part in parts]
    found = [
        _difference(sums[:, drawn].sum(axis=-1), scales)
        for drawn in _draws(len(names), resamples, seed, level)
    ]
    if parts[0].dtype.kind == "f":
        between = mean(np.concatenate([parts[0], -parts[2]])) * 2
    else:
        between = float(_difference(sums.sum(axis=1), scales))
    return _interval(between, found, level, len(names))


def _draws(
    pictures: int, resamples: int, seed: int, level: float
) -> Iterator[Int64[np.ndarray, "draw picture"]]:
    """Yields which pictures are drawn, as many draws at a time as memory is likely to hold."""
    if not 0 < level < 1 or resamples < 1:
        wanted = "level lies in (0, 1), resamples from 1"
        raise refused("paired_bootstrap", wanted, level=level, resamples=resamples)
    rng = np.random.default_rng(seed)
    for start in range(0, resamples, step := max(1, 2**20 // pictures)):
        yield rng.integers(pictures, size=(min(step, resamples - start), pictures))


def _interval(between: float, found: list[np.ndarray], level: float, pictures: int) -> Interval:
    """Returns a difference with the percentiles of its resamples."""
    values = np.concatenate(found)
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return Interval(between, float(low), float(high), level, pictures, len(values))


def _difference(sums: np.ndarray, scales: list[float]) -> np.ndarray:
    """Returns the first ratio less the second; 0 where there is nothing to divide by."""
    top_a, bottom_a, top_b, bottom_b = sums
    ratio_a = top_a * scales[0] / np.maximum(bottom_a, 1)
    return ratio_a - top_b * scales[2] / np.maximum(bottom_b, 1)


def _whole(values: np.ndarray) -> np.ndarray:
    """Returns values as whole multiples of `STEP`; counts as they are."""
    if values.dtype.kind != "f":
        return values.astype(np.int64)
    if not ((values >= -1) & (values <= 1)).all():
        raise ValueError(f"values lie in [-1, 1]; got {values[:8].tolist()}")
    return np.rint(values / STEP).astype(np.int64)
