"""Classes pooled over all pictures, as COCO-Object is scored: 81 of them with background."""

import numpy as np
from jaxtyping import Float, Int, Int64, UInt8

from nbhelpers.metrics.overlaps import ious

IGNORED = 255


def class_intersection_union(
    found: UInt8[np.ndarray, "h w"],
    truth: UInt8[np.ndarray, "h w"],
    classes: int,
    ignored: int = IGNORED,
) -> tuple[Int64[np.ndarray, " classes"], Int64[np.ndarray, " classes"]]:
    """Counts, for each class of one picture, the pixels of both maps and those of either.

    Sum them over the pictures, then `class_iou`.

    Args:
        found: The class of each pixel, background 0 among them.
        truth: The true classes; pixels of value `ignored` count nowhere.
        classes: How many there are, with background: 81 for COCO.
        ignored: The value of pixels that don't count.

    Raises:
        ValueError: The shapes differ, or a counted pixel has a class that there isn't.
    """
    if found.shape != truth.shape:
        raise ValueError(f"the maps have one shape (h, w); got {found.shape} and {truth.shape}")
    counted = truth != ignored
    mine, true = found[counted].astype(np.int64), truth[counted].astype(np.int64)
    highest = max(mine.max(initial=0), true.max(initial=0))
    if highest >= classes:
        raise ValueError(f"classes are 0 to {classes - 1}, background 0; a pixel has {highest}")
    shared = np.bincount(mine[mine == true], minlength=classes)
    either = np.bincount(mine, minlength=classes) + np.bincount(true, minlength=classes) - shared
    return shared.astype(np.int64), either.astype(np.int64)


def class_iou(
    intersection: Int[np.ndarray, " classes"], union: Int[np.ndarray, " classes"]
) -> Float[np.ndarray, " classes"]:
    """Returns the IoU of each class, its pixels pooled over all pictures: COCO-Object's protocol.

    In [0, 1]; NaN for a class that is neither true nor found anywhere, so that the mean over
    classes is ``np.nanmean``.

    Args:
        intersection: From `class_intersection_union`, summed over the pictures.
        union: The same.

    Raises:
        ValueError: These are counts that no two maps have.
    """
    return np.where(np.asarray(union) > 0, ious(intersection, union), np.nan)
