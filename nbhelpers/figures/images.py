"""Pictures, masks, maps and chunks, drawn for a reader.

One look throughout: ink on white, maps in viridis, which is perceptually even and safe for the
color-blind, and no stretching that isn't written beside the map. Every `show_` function returns
a `Drawing`, which a notebook displays by itself and which carries its own alt text; nothing here
touches pyplot's global figure or the reader's settings.
"""

import io
import re
import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from torch import Tensor

from nbhelpers.datasets import Picture
from nbhelpers.display import Drawing, as_arrays, overlay
from nbhelpers.segment import Segmentation

Masks = Bool[np.ndarray, "chunk h w"] | Bool[Tensor, "chunk h w"]
Maps = Float[np.ndarray, "chunk h_grid w_grid"] | Float[Tensor, "chunk h_grid w_grid"]

DARK = "#1b1b1b"  # the ink, as matplotlib writes it
HEAT = "viridis"
MARK = "#ffd8a8"  # behind the target's words; dark ink stays readable on it
REST = "#e3e8ee"  # behind the other chunks
MONO = "DejaVu Sans Mono"
LINE = 60  # characters
COLUMNS = 4  # panels in a row
PANEL = 1.9  # inches, the longer side of a panel
SIDE = 1.5  # inches, of a panel of `show_rows`
MOST = 40  # rows
DPI = 96  # CSS pixels in an inch; twice as many are drawn, for sharp screens


def show_image(image: Picture, label: Any = "", *, alt: str | None = None) -> Drawing:
    """The picture, with a line above it."""
    image, _ = as_arrays(image, [], bool)
    figure, axes = _panels(1, image.shape[:2])
    draw_panel(axes[0], image, label)
    return finish(figure, alt or f"A picture of {size_of(image)} pixels: {label}".rstrip(": "))


def show_masks(
    image: Picture,
    masks: Masks | Segmentation | Sequence[Segmentation],
    labels: Sequence[Any] | None = None,
    *,
    alt: str | None = None,
) -> Drawing:
    """The picture beside what each mask keeps of it.

    Args:
        image: uint8 ``(h, w, 3)``.
        masks: One a panel, of the picture's size; or what `segment` found, one or several.
        labels: One a mask: text, or chunks; the phrases of what `segment` found when None.
        alt: The figure in words; the labels and covered shares when None.

    Raises:
        ValueError: Sizes, types or the number of labels don't fit.
    """
    found = [masks] if isinstance(masks, Segmentation) else masks
    if len(found) and all(isinstance(one, Segmentation) for one in found):
        labels = [one.phrase for one in found] if labels is None else labels
    image, panels = as_arrays(image, [getattr(one, "mask", one) for one in found], bool)
    labels = _labels(labels, len(panels))
    shares = [f"{mask.mean():.1%} of the picture" for mask in panels]
    figure, axes = _panels(1 + len(panels), image.shape[:2])
    draw_panel(axes[0], image, "picture")
    for axis, mask, label, share in zip(axes[1:], panels, labels, shares, strict=True):
        draw_panel(axis, overlay(image, mask), label, note=share)
    parts = [f"{label or 'a mask'}: {share}" for label, share in zip(labels, shares, strict=True)]
    said = f"A picture of {size_of(image)} pixels and its masks. {'; '.join(parts)}."
    return finish(figure, alt or said)


def show_maps(
    image: Picture,
    maps: Maps,
    labels: Sequence[Any] | None = None,
    *,
    limits: tuple[int | float, int | float] = (0, 1),
    alt: str | None = None,
) -> Drawing:
    """The picture beside maps of it, each cell of a map a patch of one color.

    All maps share one scale, and each one's own range is written under it: a flat map looks flat.

    Args:
        image: uint8 ``(h, w, 3)``.
        maps: One a panel, on any grid over the whole picture.
        labels: One a map: text, or chunks.
        limits: The values at the two ends of the color scale.
        alt: The figure in words; the labels, ranges and peaks when None.

    Raises:
        ValueError: A value is NaN or outside the limits, or the labels don't fit.
    """
    image, panels = as_arrays(image, maps, float)
    labels = _labels(labels, len(panels))
    low, high = limits
    if not low < high:
        raise ValueError(f"limits are (low, high) with low < high; got {limits}")
    found = (
        min((m.min() for m in panels), default=low),
        max((m.max() for m in panels), default=low),
    )
    slack = 1e-6 * (high - low)
    if not (low - slack <= found[0] and found[1] <= high + slack):
        raise ValueError(
            f"the maps run from {found[0]:.4g} to {found[1]:.4g}, outside the color scale's "
            f"{low:g} to {high:g}; pass limits=({found[0]:.4g}, {found[1]:.4g}) or wider"
        )
    h, w = image.shape[:2]
    figure, axes = _panels(1 + len(panels), (h, w), bar=0.7)
    draw_panel(axes[0], image, "picture")
    parts, drawn = [], None
    for axis, values, label in zip(axes[1:], panels, labels, strict=True):
        note = f"{values.min():.2f} to {values.max():.2f}, {size_of(values)} cells"
        drawn = draw_panel(
            axis, values, label, note, cmap=HEAT, vmin=low, vmax=high, extent=(0, w, h, 0)
        )
        row, column = np.unravel_index(values.argmax(), values.shape)
        across = (100 * (column + 0.5) / values.shape[1], 100 * (row + 0.5) / values.shape[0])
        where = f"highest {across[0]:.0f}% from the left, {across[1]:.0f}% from the top"
        parts.append(f"{label or 'a map'}: {note}, {where}")
    if drawn is not None:
        bar = figure.colorbar(drawn, ax=axes, shrink=0.75, aspect=25, pad=0.02)
        bar.outline.set_visible(False)
        bar.ax.tick_params(labelsize=8, colors=DARK, length=2)
    said = f"A picture of {size_of(image)} pixels and heat maps of it. {'; '.join(parts)}."
    return finish(figure, alt or said)


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


def show_chunks(
    caption: str, chunks: Sequence[Any], target: int | None = None, *, alt: str | None = None
) -> Drawing:
    """The caption with its noun chunks marked, their nouns underlined, the target's warmer.

    Args:
        caption: The text that the chunks' character offsets count in.
        chunks: From `noun_chunks`.
        target: The index of the chunk that is asked for.
        alt: The figure in words; the chunks and nouns when None.

    Raises:
        ValueError: A chunk's text isn't what stands at its place in the caption.
    """
    from matplotlib.figure import Figure

    for chunk in chunks:
        if caption[chunk.start : chunk.end] != chunk.text:
            raise ValueError(
                f"the chunk {chunk.text!r} stands at {chunk.start} to {chunk.end}, where the "
                f"caption has {caption[chunk.start : chunk.end]!r}; pass the caption it came from"
            )
    places, x, y = [], 0, 0
    for word in re.findall(r"\s*\S+|\s+$", caption):
        if x + len(word) > LINE:
            x, y = (-1 if word[0].isspace() else 0), y + (x > 0)
        for _ in word:
            places.append((x, y))
            x, y = (x + 1, y) if x + 1 < LINE else (0, y + 1)
    figure = Figure(figsize=(7.2, 0.2 + 0.34 * (y + 1)), facecolor="white")
    axis = figure.add_axes((0, 0, 1, 1), xlim=(-1, LINE + 1), ylim=(y + 1, 0))
    axis.set_axis_off()
    for index, chunk in enumerate(chunks):
        for x, y in places[chunk.start : chunk.end]:
            axis.barh(y + 0.5, 1, 0.8, x, color=MARK if index == target else REST)
        for x, y in places[chunk.noun_start : chunk.noun_end]:
            axis.plot((x, x + 1), (y + 0.84,) * 2, color=DARK, linewidth=1.2)
    font: dict[str, Any] = {"family": MONO, "fontsize": 13, "color": DARK, "parse_math": False}
    for character, (x, y) in zip(drawable(caption, MONO), places, strict=True):
        axis.text(x + 0.5, y + 0.68, character, ha="center", va="baseline", **font)
    parts = [
        f"{chunk} (noun: {chunk.noun}{', the target' if index == target else ''})"
        for index, chunk in enumerate(chunks)
    ]
    said = f"The caption “{caption}” with its noun chunks marked: {'; '.join(parts) or 'none'}."
    return finish(figure, alt or said)


def _labels(labels: Sequence[Any] | None, count: int) -> list[str]:
    """One line of text for each panel."""
    if labels is None:
        return [""] * count
    if len(labels) != count:
        raise ValueError(f"there must be one label for each panel: {len(labels)} for {count}")
    return [str(label) for label in labels]


def size_of(array: np.ndarray) -> str:
    """The sides of a picture or map, in words."""
    return f"{array.shape[0]} x {array.shape[1]}"


def drawable(text: str, family: str = "DejaVu Sans") -> str:
    """The text with a box for every character that the font lacks (emoji, controls)."""
    from matplotlib.font_manager import findfont, get_font

    known = get_font(findfont(family)).get_charmap()
    return "".join(c if c.isprintable() and ord(c) in known else "\ufffd" for c in text)


def _panels(count: int, size: tuple[int, int], bar: float = 0.0) -> tuple[Any, list[Any]]:
    """A figure with that many panels in the picture's proportions, room for two lines each."""
    from matplotlib.figure import Figure

    h, w = (max(side / max(size), 1 / 4) * PANEL for side in size)
    columns = min(count, COLUMNS)
    rows = -(-count // columns)
    width = columns * (max(w, PANEL * 0.7) + 0.12) + bar
    figure = Figure(figsize=(width, rows * (h + 0.7)), facecolor="white", layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
    for axis in grid:
        axis.set_axis_off()
    return figure, grid[:count]


def draw_panel(axis: Any, values: np.ndarray, label: Any, note: str = "", **options: Any) -> Any:
    """One panel: a label above, the pixels or cells, a note below."""
    lines = textwrap.wrap(drawable(" ".join(str(label).split())), 26)
    if len(lines) > 2:
        lines = [lines[0], lines[1][:25] + "…"]
    axis.set_title("\n".join(lines), fontsize=9, color=DARK, parse_math=False, pad=4)
    drawn = axis.imshow(values, **options)
    sides = np.ptp(axis.get_xlim()), np.ptp(axis.get_ylim())
    if max(sides) > 8 * min(sides):
        axis.set_aspect("auto")
        note = f"{note}\nnot to scale".lstrip()
    below = {"transform": axis.transAxes, "ha": "center", "va": "top", "fontsize": 8}
    axis.text(0.5, -0.03, note, color=DARK, **below)
    return drawn


def finish(figure: Any, alt: str) -> Drawing:
    """The drawn figure; drawn twice, it has the same bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=2 * DPI, metadata={"Software": None})
    return Drawing(buffer.getvalue(), alt, round(figure.get_figwidth() * DPI))


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
