"""How much of a mask is right: IoU, its two means, its levels, its curve over thresholds."""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int, Int64
from torch import Tensor

from nbhelpers.kernels import threshold_sweep

LEVELS = (0.5, 0.6, 0.7, 0.8, 0.9)


def iou(mask: Bool[np.ndarray, "h w"], truth: Bool[np.ndarray, "h w"]) -> float:
    """Intersection over union of a mask with the true one.

    Returns:
        In [0, 1]; 0 where both are empty.

    Raises:
        ValueError: The shapes differ. (pycocotools answers -1.)

    Example:
        >>> iou(np.array([[True, True, False]]), np.array([[False, True, True]]))
        0.3333333333333333
    """
    intersection, union = intersection_union(mask[None], truth[None])
    return float(ious(intersection, union)[0])


def intersection_union(
    masks: Bool[np.ndarray, "mask h w"], truths: Bool[np.ndarray, "mask h w"]
) -> tuple[Int64[np.ndarray, " mask"], Int64[np.ndarray, " mask"]]:
    """The pixels that each mask shares with its truth, and those that either has.

    Raises:
        ValueError: The shapes differ, or it isn't bool: in 0 and 255, ``&`` and ``|`` still work
            but count other things.
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
    """The IoU of each mask.

    Returns:
        float64 in [0, 1]; 0 where the union is empty.

    Raises:
        ValueError: Counts that no two masks have: below 0, or more shared than there is.
    """
    intersection, union = np.asarray(intersection), np.asarray(union)
    if (
        intersection.shape != union.shape
        or (intersection < 0).any()
        or (intersection > union).any()
    ):
        raise ValueError(
            "an intersection lies between 0 and its union, one of each a mask; got "
            f"{intersection[:8].tolist()} and {union[:8].tolist()}"
        )
    return intersection / np.maximum(union, 1)


def mean_iou(intersection: Int[np.ndarray, " mask"], union: Int[np.ndarray, " mask"]) -> float:
    """mIoU: the mean over expressions of the IoU.

    Args:
        intersection: From `intersection_union`, of any number of pictures.
        union: The same.

    Returns:
        In [0, 1], the same to the last bit whatever the order.

    Raises:
        ValueError: There is none to take the mean of, or counts that no two masks have.
    """
    return mean(ious(intersection, union))


def overall_iou(intersection: Int[np.ndarray, " mask"], union: Int[np.ndarray, " mask"]) -> float:
    """oIoU: the sum of the intersections over the sum of the unions.

    Args:
        intersection: From `intersection_union`, of any number of pictures.
        union: The same.

    Returns:
        In [0, 1]; 0 where all is empty.

    Raises:
        ValueError: There is none, or counts that no two masks have.
    """
    if not len(ious(intersection, union)):
        raise ValueError("there is no mask to take the IoU of; evaluate at least one expression")
    return int(np.sum(intersection)) / max(int(np.sum(union)), 1)


def precision_at(
    values: Float[np.ndarray, " mask"], levels: Sequence[float] = LEVELS
) -> dict[float, float]:
    """Pr@k: the share of the expressions whose IoU reaches a level.

    Args:
        values: IoUs, from `ious`.
        levels: In [0, 1]; an IoU of exactly the level reaches it.

    Returns:
        The share at each level, in [0, 1].

    Raises:
        ValueError: There is no IoU, or one that isn't in [0, 1].

    Example:
        >>> precision_at(np.array([0.5, 0.7, 0.2, 0.0]), (0.5, 0.7))
        {0.5: 0.5, 0.7: 0.25}
    """
    values = np.asarray(values, np.float64)
    if not len(values) or not ((values >= 0) & (values <= 1)).all():
        raise ValueError(f"IoUs lie in [0, 1], at least one; got {values[:8].tolist()}")
    return {k: int(np.count_nonzero(values >= k)) / len(values) for k in levels}


def threshold_curves(
    maps: Float[Tensor, "map h w"],
    truths: Bool[Tensor, "map h w"],
    thresholds: Float[Tensor, " threshold"],
) -> Float[np.ndarray, "map threshold"]:
    """The IoU of every map at every threshold, from one look at the pixels.

    Args:
        maps: In [0, 1], as `to_pixels` stretches them.
        truths: The true masks.
        thresholds: Ascending.

    Returns:
        float64; 0 where mask and truth are both empty.

    Raises:
        ValueError: A map that leaves [0, 1], shapes that differ, thresholds that don't ascend.

    Example:
        >>> import torch
        >>> maps, truths = torch.tensor([[[0.2, 0.8]]]), torch.tensor([[[False, True]]])
        >>> threshold_curves(maps, truths, torch.tensor([0.0, 0.5, 0.9]))
        array([[0.5, 1. , 0. ]])
    """
    intersection, union = threshold_sweep(maps, truths, thresholds)
    return (intersection.double() / union.clamp(min=1)).cpu().numpy()


def mean(values: np.ndarray) -> float:
    """The mean, rounded once: the same whatever the order."""
    if not len(values):
        raise ValueError("there is nothing to take the mean of; evaluate at least one expression")
    return math.fsum(values.tolist()) / len(values)
