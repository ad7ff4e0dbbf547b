"""Pictures, masks, maps and chunks, drawn for a reader.

One style throughout: ink on white, masks tinting the gray picture, maps in viridis, which is
perceptually even and safe for the color-blind, and no stretching that isn't written beside the
map. Panels are figures of their own, so that a narrow page can stack them. Every `show_` function
returns a `Drawing`, which a notebook displays by itself and which carries its own alt text;
nothing here touches pyplot's global figure or the reader's settings.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from torch import Tensor

from nbhelpers.datasets import Picture
from nbhelpers.display import Drawing, as_arrays, overlay, stack
from nbhelpers.figures.panels import (
    DARK,
    PANEL,
    WIDTH,
    Panel,
    colored,
    draw,
    drawable,
    finish,
    laid_out,
    legend,
    scale,
    size_of,
)
from nbhelpers.metrics import iou
from nbhelpers.segment import Segmentation

Truth = Bool[np.ndarray, "h w"]
Masks = Bool[np.ndarray, "chunk h w"] | Bool[Tensor, "chunk h w"]
Maps = Float[np.ndarray, "chunk h_grid w_grid"] | Float[Tensor, "chunk h_grid w_grid"]

MARK = "#ffd8a8"  # behind the target's words; dark ink stays readable on it
REST = "#e3e8ee"  # behind the other chunks
MONO = "DejaVu Sans Mono"
LINE = 60  # characters
MOST = 40  # rows


def show_image(image: Picture, label: Any = "", *, alt: str | None = None) -> Drawing:
    """Returns the picture, with a line above it."""
    image, _ = as_arrays(image, [], bool)
    drawn = draw([Panel(image, str(label))], PANEL)[0]
    said = alt or f"A picture of {size_of(image)} pixels: {label}".rstrip(": ")
    return replace(drawn, alt=said)


def show_images(
    images: Sequence[np.ndarray], labels: Sequence[Any], *, alt: str | None = None
) -> Drawing:
    """Shows pictures side by side, each with a line above it.

    Args:
        images: uint8 ``(h, w, 3)``, of any sizes.
        labels: One a picture.
        alt: The figure in words; the labels and sizes when None.

    Raises:
        ValueError: No picture, one that is none, or the number of labels doesn't fit.
    """
    if not len(images):
        raise ValueError("give at least one picture; got none")
    names = _labels(labels, len(images))
    drawn = [
        Panel(as_arrays(image, [], bool)[0], name)
        for image, name in zip(images, names, strict=True)
    ]
    said = "; ".join(f"{panel.label}, {size_of(panel.values)} pixels" for panel in drawn)
    return stack(laid_out(drawn), alt or f"Pictures side by side: {said}.")


def show_masks(
    image: Picture,
    masks: Masks | Segmentation | Sequence[Segmentation],
    labels: Sequence[Any] | None = None,
    *,
    truth: Truth | Sequence[Truth] | None = None,
    alt: str | None = None,
) -> Drawing:
    """Returns the picture beside itself in gray, each mask as a tint over it.

    Args:
        image: uint8 ``(h, w, 3)``.
        masks: One a panel, of the picture's size; or what `segment` found, one or several.
        labels: One a mask: text, or chunks; the phrases of what `segment` found when None.
        truth: The true mask of all of them, or one for each. Three colors then part the pixels
            found correctly, found wrongly and missed, and the note below is the IoU.
        alt: The figure in words; the labels and notes when None.

    Raises:
        ValueError: Sizes, types or the number of labels or true masks don't fit.
    """
    found = [masks] if isinstance(masks, Segmentation) else masks
    if len(found) and all(isinstance(one, Segmentation) for one in found):
        labels = [one.phrase for one in found] if labels is None else labels
    image, panels = as_arrays(image, [getattr(one, "mask", one) for one in found], bool)
    labels = _labels(labels, len(panels))
    one = truth is None or getattr(truth, "ndim", 3) == 2
    truths: list[Any] = [truth] * len(panels) if one else [*truth]  # type: ignore[misc]
    if len(truths) != len(panels):
        raise ValueError(f"{len(panels)} masks need as many true masks; got {len(truths)}")
    drawn = [Panel(image, "picture")]
    for mask, true, label in zip(panels, truths, labels, strict=True):
        share = f"{mask.mean():.1%} of the picture"
        note = share if true is None else f"IoU {iou(mask, true):.2f}"
        drawn.append(Panel(overlay(image, mask, true), label, note))
    rows = laid_out(drawn)
    if any(true is not None for true in truths):
        rows.append((legend(),))
    parts = [f"{panel.label or 'a mask'}: {panel.note}" for panel in drawn[1:]]
    said = f"A picture of {size_of(image)} pixels and its masks. {'; '.join(parts)}."
    return stack(rows, alt or said)


def show_maps(
    image: Picture,
    maps: Maps,
    labels: Sequence[Any] | None = None,
    *,
    limits: tuple[int | float, int | float] = (0, 1),
    alt: str | None = None,
) -> Drawing:
    """Returns the picture beside maps of it, each cell of a map a patch of one color.

    All maps share one scale, and each one's own range is written under it: a flat map stays flat.

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
    drawn, parts = [Panel(image, "picture")], []
    for values, label in zip(panels, labels, strict=True):
        form = ".2f" if np.abs(values).max() >= 0.1 else ".2g"
        least = values.min() if abs(values.min()) >= abs(values.max()) / 100 else 0
        note = f"{least:{form}} to {values.max():{form}}, {size_of(values)}"
        drawn.append(Panel(values, label, note, colored(image, limits)))
        row, column = np.unravel_index(values.argmax(), values.shape)
        across = (100 * (column + 0.5) / values.shape[1], 100 * (row + 0.5) / values.shape[0])
        where = f"highest {across[0]:.0f}% from the left, {across[1]:.0f}% from the top"
        parts.append(f"{label or 'a map'}: {note} cells, {where}")
    rows = [*laid_out(drawn), (scale(limits),)] if panels else laid_out(drawn)
    said = f"A picture of {size_of(image)} pixels and heat maps of it. {'; '.join(parts)}."
    return stack(rows, alt or said)


def show_rows(
    images: Sequence[np.ndarray],
    panels: Sequence[Sequence[np.ndarray]],
    columns: Sequence[str],
    names: Sequence[str],
    notes: Sequence[Sequence[str]],
    *,
    truths: Sequence[np.ndarray] | None = None,
    alt: str | None = None,
) -> Drawing:
    """Shows each picture beside what was made of it, a row for each, columns named in every row.

    Maps share one scale from 0 to 1, whose colors stand below, and are drawn as they are.

    Args:
        images: uint8 ``(h, w, 3)``, one a row, of any sizes.
        panels: For each picture one panel a column: a mask, bool and of the picture's size, or a
            map in [0, 1] on any grid over the whole picture.
        columns: A name for each column of panels.
        names: What was asked of each picture.
        notes: For each panel a line below it, such as its IoU.
        truths: The true mask of each row, where it is known: it parts the pixels of the row's
            masks into those found correctly, found wrongly and missed.
        alt: The figure in words; names and notes when None.

    Raises:
        ValueError: Numbers of rows or columns that differ, more than 40 rows, a panel that isn't
            what it is to be.
    """
    wide = len(columns)
    rows = [len(images), len(panels), len(names), len(notes)]
    if len({*rows, len(images if truths is None else truths)}) > 1 or any(
        len(row) != wide for row in (*panels, *notes)
    ):
        raise ValueError(
            f"there is one row a picture and one panel and note a column; got {rows} rows and "
            f"{sorted({len(row) for row in (*panels, *notes)})} panels or notes for {wide} columns"
        )
    if not 0 < len(images) <= MOST or not wide:
        raise ValueError(f"from 1 to {MOST} pictures fit a page, with a column; got {len(images)}")
    drawn: list[list[Panel]] = []
    for r, (picture, row, name) in enumerate(zip(images, panels, names, strict=True)):
        drawn.append([Panel(as_arrays(picture, [], bool)[0], name)])
        for given, column, note in zip(row, columns, notes[r], strict=True):
            kind = bool if np.asarray(given).dtype == bool else float
            image, (values,) = as_arrays(picture, [given], kind)
            options: Mapping[str, Any] = {}
            if kind is bool:
                values = overlay(image, values, None if truths is None else truths[r])
            elif not -1e-6 <= values.min() <= values.max() <= 1 + 1e-6:
                raise ValueError(
                    f"a map lies in [0, 1]; got one from {values.min():.4g} to {values.max():.4g}"
                )
            else:
                options = colored(image, (0, 1))
            drawn[-1].append(Panel(values, column, note, options))
    side = min(PANEL, WIDTH / (1 + wide))
    lines: list[Sequence[Drawing]] = [draw(row, side) for row in drawn]
    if truths is not None and any(not panel.options for row in drawn for panel in row[1:]):
        lines.append((legend(),))
    if any(panel.options for row in drawn for panel in row):
        lines.append((scale((0, 1)),))
    parts = [
        f"{row[0].label}: {', '.join(f'{panel.label} {panel.note}'.strip() for panel in row[1:])}"
        for row in drawn
    ]
    return stack(lines, alt or f"Pictures and what was made of them. {'; '.join(parts)}.")


def show_chunks(
    caption: str, chunks: Sequence[Any], target: int | None = None, *, alt: str | None = None
) -> Drawing:
    """Shows a caption with its noun chunks marked, their nouns underlined, the target's warmer.

    Args:
        caption: The text that the chunks' character offsets count in.
        chunks: From `noun_chunks`.
        target: The index of the chunk that is asked for.
        alt: The figure in words; the chunks and nouns when None.

    Raises:
        ValueError: A chunk's text isn't what stands at its offsets in the caption.
    """
    from matplotlib.figure import Figure

    for chunk in chunks:
        if caption[chunk.start : chunk.end] != chunk.text:
            raise ValueError(
                f"the chunk {chunk.text!r} stands at {chunk.start} to {chunk.end}, where the "
                f"caption has {caption[chunk.start : chunk.end]!r}; pass the caption it came from"
            )
    spots, x, y = [], 0, 0
    for word in re.findall(r"\s*\S+|\s+$", caption):
        if x + len(word) > LINE:
            x, y = (-1 if word[0].isspace() else 0), y + (x > 0)
        for _ in word:
            spots.append((x, y))
            x, y = (x + 1, y) if x + 1 < LINE else (0, y + 1)
    figure = Figure(figsize=(7.2, 0.2 + 0.34 * (y + 1)), facecolor="white")
    axis = figure.add_axes((0, 0, 1, 1), xlim=(-1, LINE + 1), ylim=(y + 1, 0))
    axis.set_axis_off()
    for index, chunk in enumerate(chunks):
        for x, y in spots[chunk.start : chunk.end]:
            axis.barh(y + 0.5, 1, 0.8, x, color=MARK if index == target else REST)
        for x, y in spots[chunk.noun_start : chunk.noun_end]:
            axis.plot((x, x + 1), (y + 0.84,) * 2, color=DARK, linewidth=1.2)
    font: dict[str, Any] = {"family": MONO, "fontsize": 13, "color": DARK, "parse_math": False}
    for character, (x, y) in zip(drawable(caption, MONO), spots, strict=True):
        axis.text(x + 0.5, y + 0.68, character, ha="center", va="baseline", **font)
    parts = [
        f"{chunk} (noun: {chunk.noun}{', the target' if index == target else ''})"
        for index, chunk in enumerate(chunks)
    ]
    said = f"The caption “{caption}” with its noun chunks marked: {'; '.join(parts) or 'none'}."
    return finish(figure, alt or said)


def _labels(labels: Sequence[Any] | None, count: int) -> list[str]:
    """Returns one line of text for each panel."""
    if labels is None:
        return [""] * count
    if len(labels) != count:
        raise ValueError(f"there must be one label for each panel: {len(labels)} for {count}")
    return [str(label) for label in labels]


def in_proportion(
    gains: Sequence[float], rows: int, *, same: float = 0.05, seed: int = 0
) -> list[int]:
    """Picks a few of many cases, better, alike and worse in the proportion in which they occur.

    Args:
        gains: One a case: what the one method gains over the other.
        rows: How many to choose, from 1 to the number of cases.
        same: Gains up to so much, either way, count as alike.
        seed: Of the draw within better, alike and worse.

    Returns:
        The indices of the chosen cases, the greatest gain first. The three numbers are the shares
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
    for index in np.argsort(counts - shares, kind="stable")[: rows - counts.sum()]:
        counts[index] += 1
    rng = np.random.default_rng(seed)
    chosen = [
        int(index)
        for group, count in zip(groups, counts, strict=True)
        for index in rng.choice(np.flatnonzero(group), size=count, replace=False)
    ]
    return sorted(chosen, key=lambda index: (-values[index], index))
