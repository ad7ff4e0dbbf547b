"""Classes pooled over all pictures, as COCO-Object is scored: 81 of them with background."""

import numpy as np
from jaxtyping import Int64, UInt8

IGNORED = 255


def class_intersection_union(
    found: UInt8[np.ndarray, "h w"],
    truth: UInt8[np.ndarray, "h w"],
    classes: int,
    ignored: int = IGNORED,
) -> tuple[Int64[np.ndarray, " classes"], Int64[np.ndarray, " classes"]]:
    """Counts, for each class of one picture, the pixels of both maps and those of either.

    Sums of them over all pictures give the pooled IoU of each class.

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
