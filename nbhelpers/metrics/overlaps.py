"""The overlap of masks with true masks: IoU, its means, its levels."""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int, Int64

from nbhelpers.errors import refused

LEVELS = (0.5, 0.6, 0.7, 0.8, 0.9)


def iou(mask: Bool[np.ndarray, "h w"], truth: Bool[np.ndarray, "h w"]) -> float:
    """Returns the intersection over union of two masks, in [0, 1]; 0 where both are empty.

    Raises:
        ValueError: The shapes differ, where pycocotools answers -1.

    Example:
        >>> iou(np.array([[True, True, False]]), np.array([[False, True, True]]))
        0.3333333333333333
    """
    intersection, union = intersection_union(mask[None], truth[None])
    return float(ious(intersection, union)[0])


def intersection_union(
    masks: Bool[np.ndarray, "mask h w"], truths: Bool[np.ndarray, "mask h w"]
) -> tuple[Int64[np.ndarray, " mask"], Int64[np.ndarray, " mask"]]:
    """Counts the pixels that each mask shares with its truth, and those that either has.

    Raises:
        ValueError: The shapes differ, or one isn't bool: ``&`` and ``|`` of 0 and 255 work, but
            count other things.
    """
    if masks.shape != truths.shape or masks.dtype != bool or truths.dtype != bool:
        raise ValueError(
            "masks and truths are bool of one shape (mask, h, w); "
            f"got {masks.dtype} {masks.shape} and {truths.dtype} {truths.shape}"
        )
    return (
        np.count_nonzero(masks & truths, axis=(1, 2)).astype(np.int64),
        np.count_nonzero(masks | truths, axis=(1, 2)).astype(np.int64),
    )


def ious(
    intersection: Int[np.ndarray, " mask"], union: Int[np.ndarray, " mask"]
) -> Float[np.ndarray, " mask"]:
    """Returns the IoU of each mask: float64 in [0, 1]; 0 where the union is empty.

    Raises:
        ValueError: These are counts that no two masks have: below 0, or more shared than there is.
    """
    intersection, union = np.asarray(intersection), np.asarray(union)
    possible = intersection.shape == union.shape
    if not possible or not ((intersection >= 0) & (intersection <= union)).all():
        raise ValueError(
            "an intersection lies between 0 and its union, one of each a mask; got "
            f"{intersection[:8].tolist()} and {union[:8].tolist()}"
        )
    return intersection / np.maximum(union, 1)


def mean_iou(intersection: Int[np.ndarray, " mask"], union: Int[np.ndarray, " mask"]) -> float:
    """Returns mIoU, the mean over expressions of the IoU, in [0, 1].

    Args:
        intersection: From `intersection_union`, of any number of pictures; their order doesn't
            change a bit.
        union: The same.

    Raises:
        ValueError: There is none to take the mean of, or no two masks have such counts.
    """
    return mean(ious(intersection, union))


def overall_iou(intersection: Int[np.ndarray, " mask"], union: Int[np.ndarray, " mask"]) -> float:
    """Returns oIoU, the sum of the intersections over that of the unions, in [0, 1]; 0 if empty.

    Args:
        intersection: From `intersection_union`, of any number of pictures.
        union: The same.

    Raises:
        ValueError: There is none, or no two masks have such counts.
    """
    if not len(ious(intersection, union)):
        raise ValueError("there is no mask to take the IoU of; evaluate at least one expression")
    return int(np.sum(intersection)) / max(int(np.sum(union)), 1)


def precision_at(
    values: Float[np.ndarray, " mask"], levels: Sequence[float] = LEVELS
) -> dict[float, float]:
    """Returns Pr@k, the share in [0, 1] of the expressions whose IoU reaches each level.

    Args:
        values: IoUs, from `ious`.
        levels: In [0, 1]; an IoU of exactly the level reaches it.

    Raises:
        ValueError: There is no IoU, or one that isn't in [0, 1].

    Example:
        >>> precision_at(np.array([0.5, 0.7, 0.2, 0.0]), (0.5, 0.7))
        {0.5: 0.5, 0.7: 0.25}
    """
    values = np.asarray(values, np.float64)
    if not len(values) or not ((values >= 0) & (values <= 1)).all():
        raise refused("precision_at", "IoUs lie in [0, 1], at least one", values=values.tolist())
    return {k: int(np.count_nonzero(values >= k)) / len(values) for k in levels}


def mean(values: np.ndarray) -> float:
    """Returns the mean, rounded once: the same whatever the order."""
    if not len(values):
        raise ValueError("there is nothing to take the mean of; evaluate at least one expression")
    return math.fsum(values.tolist()) / len(values)
