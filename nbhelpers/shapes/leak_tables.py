"""Tables of how well a phrase is read wherever it stands, with paired intervals over scenes.

The threshold of a method and reading is chosen on val, over all places together, and reported on
testA.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from nbhelpers.shapes.leaks import PLACES, READINGS, THRESHOLDS, Measurement


def interval(
    gains: Float[np.ndarray, " scene"], *, draws: int = 10_000, seed: int = 0
) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of the mean over scenes."""
    rng = np.random.default_rng(seed)
    picks = rng.integers(len(gains), size=(draws, len(gains)))
    low, high = np.quantile(gains[picks].mean(1), (0.025, 0.975))
    return float(low), float(high)


def table(val: Measurement, test: Measurement, *, baseline: str = "plain") -> list[dict[str, Any]]:
    """Return a row for each method, reading and place of `test`, thresholds chosen on `val`.

    Each row has the mIoU, the gain over the baseline of the same reading and place with its
    paired interval, the threshold, and the mIoU at the threshold that suits the test best (an
    oracle's, for comparison).
    """
    base = test.methods.index(baseline)
    order = [val.methods.index(method) for method in test.methods]
    best = val.iou[order].mean((2, 3)).argmax(-1)
    rows = []
    for m, method in enumerate(test.methods):
        for r, reading in enumerate(READINGS):
            oracle = int(test.iou[m, r].mean((0, 1)).argmax())
            for p, place in enumerate(PLACES):
                own = test.iou[m, r, p, :, best[m, r]].astype(float)
                gains = own - test.iou[base, r, p, :, best[base, r]]
                rows.append(
                    {
                        "method": method,
                        "keys": reading,
                        "place": place,
                        "miou": float(own.mean()),
                        "gain": float(gains.mean()),
                        "interval": interval(gains) if m != base else None,
                        "threshold": float(THRESHOLDS[best[m, r]]),
                        "oracle_miou": float(test.iou[m, r, p, :, oracle].mean()),
                    }
                )
    return rows


def summary(found: Measurement, *, baseline: str = "sealed") -> list[dict[str, Any]]:
    """Return a row for each method and reading: its mean over places, each at its best threshold.

    The gain is over the baseline of the same reading, with its paired interval over scenes.
    """
    ious = found.iou.mean(2).astype(float)  # method, reading, scene, threshold
    base = found.methods.index(baseline)
    rows = []
    for m, method in enumerate(found.methods):
        for r, reading in enumerate(READINGS):
            best, own = (int(ious[i, r].mean(0).argmax()) for i in (base, m))
            gains = ious[m, r, :, own] - ious[base, r, :, best]
            rows.append(
                {
                    "method": method,
                    "keys": reading,
                    "miou": float(ious[m, r, :, own].mean()),
                    "threshold": float(THRESHOLDS[own]),
                    "gain": float(gains.mean()),
                    "interval": interval(gains) if m != base else None,
                }
            )
    return rows


def print_summary(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the rows as a Markdown table: a line a method, a column a reading."""
    lines = ["| prompt | " + " | ".join(READINGS) + " |", "|---|" + "---|" * len(READINGS)]
    for method in dict.fromkeys(row["method"] for row in rows):
        own = {row["keys"]: row for row in rows if row["method"] == method}
        lines.append(f"| {method} | " + " | ".join(_cell(own[keys]) for keys in READINGS) + " |")
    return "\n".join(lines)


def _cell(row: Mapping[str, Any]) -> str:
    """Return a figure, and behind it its gain and interval where it is no baseline's."""
    span = row["interval"]
    gain = f" ({row['gain']:+.2f} [{span[0]:+.2f}, {span[1]:+.2f}])" if span else ""
    return f"{row['miou']:.3f}{gain}"


def print_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the rows as a Markdown table: a line for each reading and place."""
    methods = list(dict.fromkeys(row["method"] for row in rows))
    lines = [
        "| softmax over | target's phrase | " + " | ".join(methods) + " |",
        "|---|---|" + "---|" * len(methods),
    ]
    for reading in READINGS:
        for place in PLACES:
            cells = []
            for method in methods:
                (row,) = (
                    row
                    for row in rows
                    if (row["method"], row["keys"], row["place"]) == (method, reading, place)
                )
                cells.append(_cell(row))
            lines.append(f"| {reading} | {place} | " + " | ".join(cells) + " |")
    return "\n".join(lines)
