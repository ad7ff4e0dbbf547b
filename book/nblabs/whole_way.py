"""The checks of the lab on the whole way: the mask, and how good it is."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from nbhelpers.masks import to_masks
from nbhelpers.metrics import iou
from nblabs.checking import rounds


def check_cut(cut: Callable[[Tensor, float], Tensor], *, seed: int | None = None) -> None:
    """Checks ``cut(heat, threshold)``: a map ``(h, w)`` stretched to [0, 1] and cut.

    Args:
        cut: Returns bool ``(h, w)``, True where the stretched map reaches the threshold.
        seed: Of the first inputs; fresh ones each time when None.

    Raises:
        Wrong: It differs from `to_masks`.
    """
    for trial in rounds(cut, seed):
        h, w = torch.randint(3, 8, (2,), generator=trial.rng).tolist()
        heat = torch.randint(0, 9, (h, w), generator=trial.rng).float() + 5.0
        heat[0, 0], heat[0, 1], heat[-1, -1] = 5.0, 13.0, 9.0  # the last lies on the cut
        threshold = 0.5
        wanted = to_masks(heat[None], (h, w), threshold)[0]
        least, most = heat.amin(dim=1, keepdim=True), heat.amax(dim=1, keepdim=True)
        stretched = (heat - heat.min()) / (heat.max() - heat.min())
        trial.compare(
            trial.ask(heat, threshold),
            wanted,
            {
                "stretch the map to [0, 1] before you cut it": heat >= threshold,
                "a pixel that lies exactly on the threshold is in: >=": stretched > threshold,
                "subtract the least value too; a map needn't start at 0": (
                    heat / heat.max() >= threshold
                ),
                "stretch the map as a whole, not row by row": (
                    (heat - least) / (most - least).clamp(min=1e-6) >= threshold
                ),
                "bright is in: you kept what lies below": stretched < threshold,
            },
            "subtract the least value, divide by the range, compare with >=",
        )


def check_overlap(
    overlap: Callable[[np.ndarray, np.ndarray], float], *, seed: int | None = None
) -> None:
    """Checks ``overlap(mask, truth)``: intersection over union, 0 where both are empty.

    Args:
        overlap: Takes two bool arrays ``(h, w)``, returns a number.
        seed: Of the first inputs; fresh ones each time when None.

    Raises:
        Wrong: It differs from `iou`.
    """
    for trial in rounds(overlap, seed):
        draw = torch.rand((2, 9, 7), generator=trial.rng).numpy()
        mask, truth = draw[0] > 0.4, draw[1] > 0.7
        both, either = (mask & truth).sum(), (mask | truth).sum()
        trial.compare(
            trial.ask(mask, truth),
            iou(mask, truth),
            {
                "you divide by the mask; that is precision": both / mask.sum(),
                "you divide by the truth; that is recall": both / truth.sum(),
                "you count the intersection twice; that is Dice": (
                    2 * both / (mask.sum() + truth.sum())
                ),
                "the ground doesn't count; that is accuracy": (mask == truth).mean(),
                "count the union once: what is in both isn't in it twice": (
                    both / (mask.sum() + truth.sum())
                ),
                "it is a share: divide by the union": both / mask.size,
                "intersection over union, not union over intersection": either / max(both, 1),
            },
            "count the pixels in both, then those in either",
        )
        nothing = np.zeros((3, 2), bool)
        with np.errstate(all="ignore"):
            try:
                empty = trial.ask(nothing, nothing)
            except ZeroDivisionError:
                empty = float("nan")
        trial.compare(empty, 0.0, hint="two empty masks have a union of 0; return 0 for them")
