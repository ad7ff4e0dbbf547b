"""Numbers, drawn for a reader: matrices, curves and intervals, in the style of the pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from nbhelpers.display import Drawing
from nbhelpers.figures.panels import DARK, HEAT, POINTS, drawable, finish

# Okabe and Ito's, told apart by any eye, dark enough for lines; each line has a marker of its own.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#1b1b1b", "#E69F00")
MARKERS = ("o", "s", "^", "D", "v", "P")

Interval = tuple[float, float, float]  # a mean and the two ends of its interval


def show_matrix(
    values: Float[np.ndarray, "row column"],
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    limits: tuple[float, float],
    label: str,
    row_label: str = "",
    column_label: str = "",
    alt: str | None = None,
) -> Drawing:
    """Returns a matrix as colored cells, its rows and columns named.

    Args:
        values: The cells; NaN leaves one empty.
        rows: One name a row.
        columns: One name a column.
        limits: The values at the two ends of the color scale.
        label: What the colors stand for.
        row_label: What the rows are.
        column_label: What the columns are.
        alt: The figure in words; its largest cells when None.

    Raises:
        ValueError: Names don't fit the cells, or a cell lies outside the limits.
    """
    from matplotlib.figure import Figure

    values = np.asarray(values, np.float64)
    if values.shape != (len(rows), len(columns)):
        raise ValueError(
            f"{values.shape[0]} x {values.shape[1]} cells have {len(rows)} names of rows and "
            f"{len(columns)} of columns"
        )
    low, high = limits
    found = np.nanmin(values), np.nanmax(values)
    slack = 1e-6 * (high - low)
    if not (low - slack <= found[0] and found[1] <= high + slack):
        raise ValueError(
            f"the cells run from {found[0]:.4g} to {found[1]:.4g}, outside the color scale's "
            f"{low:g} to {high:g}; pass limits=({found[0]:.4g}, {found[1]:.4g}) or wider"
        )
    size = (2.2 + 0.3 * len(columns), 1.1 + 0.3 * len(rows))
    figure = Figure(figsize=size, facecolor="white", layout="constrained")
    axis = figure.subplots()
    drawn = axis.imshow(values, cmap=HEAT, vmin=low, vmax=high)
    axis.set_xticks(range(len(columns)), [drawable(c) for c in columns], rotation=60, ha="right")
    axis.set_yticks(range(len(rows)), [drawable(r) for r in rows])
    axis.set_xlabel(column_label, fontsize=POINTS, color=DARK)
    axis.set_ylabel(row_label, fontsize=POINTS, color=DARK)
    _quiet(axis)
    bar = figure.colorbar(drawn, ax=axis, shrink=0.8, pad=0.02)
    bar.set_label(label, fontsize=POINTS, color=DARK)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=POINTS, colors=DARK, length=2)
    order = np.argsort(np.where(np.isnan(values), -np.inf, values), axis=None)[::-1][:4]
    cells = [np.unravel_index(index, values.shape) for index in order]
    said = "; ".join(f"{rows[r]} and {columns[c]}: {values[r, c]:.2f}" for r, c in cells)
    return finish(figure, alt or f"A matrix of {label}. Largest: {said}.")


def show_lines(
    x: Sequence[float],
    lines: Mapping[str, Sequence[float] | Sequence[Interval]],
    *,
    x_label: str,
    y_label: str,
    marks: Mapping[str, float] | None = None,
    logarithmic: bool = False,
    alt: str | None = None,
) -> Drawing:
    """Draws curves over one axis, with their intervals as bands.

    Args:
        x: Where the points stand.
        lines: One curve a name: numbers, or triples of a mean and the two ends of its interval.
        x_label: What x is, with its unit.
        y_label: What the curves are, with their unit.
        marks: Points on the axis to be marked, by name.
        logarithmic: Both axes in powers of ten.
        alt: The figure in words; each curve's ends and peak when None.

    Raises:
        ValueError: A curve has another number of points than x.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(5.6, 3.4), facecolor="white", layout="constrained")
    axis = figure.subplots()
    parts = []
    for index, (name, values) in enumerate(lines.items()):
        points = np.asarray(values, np.float64)
        if len(points) != len(x):
            raise ValueError(f"{name!r} has {len(points)} points, x has {len(x)}")
        mean = points if points.ndim == 1 else points[:, 0]
        color = COLORS[index % len(COLORS)]
        if points.ndim == 2:
            axis.fill_between(x, points[:, 1], points[:, 2], color=color, alpha=0.18, linewidth=0)
        marker = MARKERS[index % len(MARKERS)]
        axis.plot(x, mean, color=color, marker=marker, markersize=4, linewidth=1.4, label=name)
        best = int(np.nanargmax(mean))
        parts.append(
            f"{name}: {mean[0]:.3g} at {x[0]:g}, highest {mean[best]:.3g} at {x[best]:g}, "
            f"{mean[-1]:.3g} at {x[-1]:g}"
        )
    for index, (name, spot) in enumerate(sorted((marks or {}).items(), key=lambda m: m[1])):
        axis.axvline(spot, color=DARK, linewidth=0.8, linestyle=":")
        style: dict[str, Any] = {"transform": axis.get_xaxis_transform(), "fontsize": POINTS}
        height = 1.01 + 0.06 * (index % 2)  # neighbors may stand close
        axis.text(spot, height, name, ha="center", va="bottom", color=DARK, **style)
    if logarithmic:
        axis.set(xscale="log", yscale="log")
        axis.set_xticks(x, [f"{value:g}" for value in x], minor=False)
        axis.set_xticks([], minor=True)
    elif all(isinstance(value, int) for value in x):  # no batch of 1.2
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set_xlabel(x_label, fontsize=POINTS, color=DARK)
    axis.set_ylabel(y_label, fontsize=POINTS, color=DARK)
    axis.grid(color="#e3e8ee", linewidth=0.6)
    _quiet(axis)
    if len(lines) > 1:
        axis.legend(fontsize=POINTS, frameon=False, labelcolor=DARK)
    said = f"Curves of {y_label} over {x_label}. {'; '.join(parts)}."
    return finish(figure, alt or said)


def show_intervals(
    rows: Sequence[str],
    series: Mapping[str, Sequence[Interval]],
    *,
    x_label: str,
    alt: str | None = None,
) -> Drawing:
    """Draws means with their intervals, a row each, beside a line at zero.

    Args:
        rows: What each row measures, from the top.
        series: For each name one interval a row.
        x_label: What is measured, with its unit.
        alt: The figure in words; all the intervals when None.

    Raises:
        ValueError: A series has another number of rows.
    """
    from matplotlib.figure import Figure

    size = (6.2, 1.2 + len(rows) * (0.14 + 0.16 * len(series)))
    figure = Figure(figsize=size, facecolor="white", layout="constrained")
    axis = figure.subplots()
    axis.axvline(0, color=DARK, linewidth=0.8)
    parts = []
    for index, (name, intervals) in enumerate(series.items()):
        if len(intervals) != len(rows):
            raise ValueError(f"{name!r} has {len(intervals)} intervals for {len(rows)} rows")
        middle, low, high = np.asarray(intervals, np.float64).T
        y = np.arange(len(rows)) + (index - (len(series) - 1) / 2) * 0.7 / len(series)
        color, marker = COLORS[index % len(COLORS)], MARKERS[index % len(MARKERS)]
        axis.hlines(y, low, high, color=color, linewidth=1.6)
        axis.plot(middle, y, marker, color=color, markersize=4.5, label=name)
        said = ", ".join(
            f"{row} {m:+.3f} [{a:+.3f}, {b:+.3f}]"
            for row, (m, a, b) in zip(rows, intervals, strict=True)
        )
        parts.append(f"{name}: {said}")
    axis.set_yticks(range(len(rows)), [drawable(row) for row in rows])
    axis.set_ylim(len(rows) - 0.4, -0.6)
    axis.set_xlabel(x_label, fontsize=POINTS, color=DARK)
    axis.grid(axis="x", color="#e3e8ee", linewidth=0.6)
    _quiet(axis)
    if len(series) > 1:  # above, where no interval lies
        figure.legend(
            loc="outside upper center",
            ncols=len(series) if sum(map(len, series)) <= 60 else 2,
            frameon=False,
            fontsize=POINTS,
            labelcolor=DARK,
        )
    return finish(figure, alt or f"Intervals of {x_label}. {'; '.join(parts)}.")


def _quiet(axis: Any) -> None:
    """Draws ticks that can be read, and no frame."""
    axis.tick_params(labelsize=POINTS, colors=DARK, length=2)
    axis.set_axisbelow(True)
    for side in axis.spines.values():
        side.set_visible(False)
