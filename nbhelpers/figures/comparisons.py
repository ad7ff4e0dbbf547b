"""Several pictures read in several ways, a row each, as in the paper's Figures 2 to 6 and 8."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nbhelpers.display import Drawing
from nbhelpers.figures.images import DARK, HEAT, as_arrays, draw_panel, finish, overlay

SIDE = 1.5  # inches, of a panel
MOST = 40  # rows


def show_rows(
    images: Sequence[np.ndarray],
    panels: Sequence[Sequence[np.ndarray]],
    columns: Sequence[str],
    names: Sequence[str],
    notes: Sequence[Sequence[str]],
    *,
    alt: str | None = None,
) -> Drawing:
    """Each picture beside what was made of it, in rows under common headings.

    Maps share one scale from 0 to 1, whose colors stand at the side, and are drawn as they are.

    Args:
        images: uint8 ``(h, w, 3)``, one a row, of any sizes.
        panels: For each picture one panel a column: a mask, bool and of the picture's size, or a
            map in [0, 1] on any grid over the whole picture.
        columns: A heading for each column of panels.
        names: What was asked of each picture.
        notes: For each panel a line below it, such as its IoU.
        alt: The figure in words; names and notes when None.

    Raises:
        ValueError: Numbers of rows or columns that differ, more than 40 rows, a panel that isn't
            what it is to be.
    """
    from matplotlib.figure import Figure

    wide = len(columns)
    rows = [len(images), len(panels), len(names), len(notes)]
    if len(set(rows)) > 1 or any(len(row) != wide for row in (*panels, *notes)):
        raise ValueError(
            f"there is one row a picture and one panel and note a column; got {rows} rows and "
            f"{sorted({len(row) for row in (*panels, *notes)})} panels or notes for {wide} columns"
        )
    if not 0 < len(images) <= MOST or not wide:
        raise ValueError(f"from 1 to {MOST} pictures fit a page, with a column; got {len(images)}")
    checked = [
        as_arrays(image, [panel], bool if np.asarray(panel).dtype == bool else float)
        for image, row in zip(images, panels, strict=True)
        for panel in row
    ]
    for _, (panel,) in checked:
        if panel.dtype != bool and not -1e-6 <= panel.min() <= panel.max() <= 1 + 1e-6:
            raise ValueError(
                f"a map lies in [0, 1]; got one from {panel.min():.4g} to {panel.max():.4g}"
            )
    size = ((1 + wide) * (SIDE + 0.12) + 0.6, len(images) * (SIDE + 0.45) + 0.25)
    figure = Figure(figsize=size, facecolor="white", layout="constrained")
    grid = figure.subplots(len(images), 1 + wide, squeeze=False)
    for axis in grid.ravel():
        axis.set_axis_off()
    drawn, parts, found = None, [], iter(checked)
    for r, (axes, name, row) in enumerate(zip(grid, names, notes, strict=True)):
        image = np.asarray(images[r])
        h, w = image.shape[:2]
        draw_panel(axes[0], image, name)
        for axis, column, note in zip(axes[1:], columns, row, strict=True):
            _, (panel,) = next(found)
            heading = column if r == 0 else ""
            if panel.dtype == bool:
                draw_panel(axis, overlay(image, panel), heading, note)
            else:
                drawn = draw_panel(
                    axis, panel, heading, note, cmap=HEAT, vmin=0, vmax=1, extent=(0, w, h, 0)
                )
        said = ", ".join(f"{column} {note}" for column, note in zip(columns, row, strict=True))
        parts.append(f"{name}: {said}")
    if drawn is not None:
        bar = figure.colorbar(drawn, ax=grid, shrink=min(1.0, 2.5 / size[1]), aspect=25, pad=0.01)
        bar.outline.set_visible(False)
        bar.ax.tick_params(labelsize=8, colors=DARK, length=2)
    return finish(figure, alt or f"Pictures and what was made of them. {'; '.join(parts)}.")


def in_proportion(
    gains: Sequence[float], rows: int, *, same: float = 0.05, seed: int = 0
) -> list[int]:
    """A few of many cases, with better, alike and worse in the proportion in which they occur.

    Args:
        gains: One a case: what the one method gains over the other.
        rows: How many to choose, from 1 to the number of cases.
        same: Gains up to so much, either way, count as alike.
        seed: Of the draw within better, alike and worse.

    Returns:
        The places of the chosen cases, the greatest gain first. The three numbers are the shares
        times `rows`, rounded so that they sum to it (largest remainders first).

    Raises:
        ValueError: More rows than cases, or none.

    Example:
        >>> chosen = in_proportion([0.4, 0.3, 0.2, 0.1, 0.0, 0.01, -0.2, -0.3], 4)
        >>> len({0, 1, 2, 3} & {*chosen}), len({4, 5} & {*chosen}), len({6, 7} & {*chosen})
        (2, 1, 1)
    """
    values = np.asarray(gains, np.float64)
    if not 1 <= rows <= len(values):
        raise ValueError(f"from 1 to {len(values)} of as many cases can be chosen; got {rows}")
    groups = [values > same, np.abs(values) <= same, values < -same]
    shares = np.array([group.mean() * rows for group in groups])
    counts = np.floor(shares + 1e-9).astype(int)
    for place in np.argsort(counts - shares, kind="stable")[: rows - counts.sum()]:
        counts[place] += 1
    rng = np.random.default_rng(seed)
    chosen = [
        int(place)
        for group, count in zip(groups, counts, strict=True)
        for place in rng.choice(np.flatnonzero(group), size=count, replace=False)
    ]
    return sorted(chosen, key=lambda place: (-values[place], place))
