"""Panels: pixels or cells with a label and a note, each a figure of its own.

A figure of several is stacked from them by `nbhelpers.display.stack`, so that a narrow page can
wrap them.
"""

import io
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from nbhelpers.display import EXTRA, FOUND, MISSED, Drawing

DARK = "#1b1b1b"  # the ink, as matplotlib writes it
HEAT = "viridis"
WIDTH = 7.0  # inches, of a page's column
COLUMNS = 4  # panels in a row
PANEL = WIDTH / COLUMNS  # inches; two of them fit a phone side by side
POINTS = 9  # the size of a panel's text; nothing is drawn smaller
DPI = 96  # CSS pixels in an inch; twice as many are drawn, for sharp screens


@dataclass(frozen=True)
class Panel:
    """What a panel shows: pixels or cells, a label above and a note below."""

    values: np.ndarray
    label: str
    note: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)


def size_of(array: np.ndarray) -> str:
    """Returns the sides of a picture or map, in words."""
    return f"{array.shape[0]} x {array.shape[1]}"


def drawable(text: str, family: str = "DejaVu Sans") -> str:
    """Returns the text with a box for every character that the font lacks (emoji, controls)."""
    from matplotlib.font_manager import findfont, get_font

    known = get_font(findfont(family)).get_charmap()
    return "".join(c if c.isprintable() and ord(c) in known else "\ufffd" for c in text)


def laid_out(panels: Sequence[Panel]) -> list[Sequence[Drawing]]:
    """Draws panels in rows of nearly equal length, so that none stands alone."""
    count = -(-len(panels) // COLUMNS)
    drawn = draw(panels, PANEL)
    ends = [-(-len(panels) * row // count) for row in range(count + 1)]
    return [drawn[a:b] for a, b in pairwise(ends)]


def draw(panels: Sequence[Panel], side: float) -> list[Drawing]:
    """Draws panels of one width, their pictures on one line.

    Args:
        panels: What they show.
        side: The width of each in inches, its margin included.
    """
    from matplotlib.figure import Figure

    limit = int(side * 13.5)  # characters
    titles = [_wrap(panel.label, limit) for panel in panels]
    notes = [_wrap(panel.note, limit) for panel in panels]
    line = 1.3 * POINTS / 72  # inches
    above = line * max(map(len, titles)) + 0.06
    below = line * max(map(len, notes)) + 0.1
    inner, drawn = side - 0.1, []
    for panel, title, note in zip(panels, titles, notes, strict=True):
        left, right, bottom, top = panel.options.get(
            "extent", (0, panel.values.shape[1], panel.values.shape[0], 0)
        )
        sides = abs(bottom - top), abs(right - left)
        h, w = (max(length / max(sides), 1 / 4) * inner for length in sides)
        if max(sides) > 4 * min(sides):
            note = [*note, "not to scale"]
        size = side, above + below + (line if "not to scale" in note else 0) + h
        figure = Figure(figsize=size, facecolor="white")
        box = ((side - w) / 2 / side, 1 - (above + h) / size[1], w / side, h / size[1])
        axis = figure.add_axes(box, aspect="auto")
        axis.set_axis_off()
        axis.imshow(panel.values, **{"aspect": "auto", **panel.options})
        font: dict[str, Any] = {"fontsize": POINTS, "color": DARK, "parse_math": False}
        font |= {"ha": "center", "linespacing": 1.2}
        figure.text(0.5, 1 - (above - 0.07) / size[1], "\n".join(title), va="baseline", **font)
        figure.text(0.5, box[1] - 0.04 / size[1], "\n".join(note), va="top", **font)
        said = f"{panel.label or 'a panel'}: {panel.note or size_of(panel.values) + ' pixels'}"
        drawn.append(finish(figure, said))
    return drawn


def _wrap(text: str, limit: int) -> list[str]:
    """Lays a text in two lines of so many characters at the most; what is left out is marked."""
    plain = " ".join(str(text).split())
    plain = re.sub(r"(?<=\d) x (?=\d)", "\xa0x\xa0", plain)  # a line breaks before a size
    lines = [drawable(line.replace("\xa0", " ")) for line in textwrap.wrap(plain, limit)]
    return lines if len(lines) <= 2 else [lines[0], lines[1][: limit - 1] + "…"]


def colored(image: np.ndarray, limits: tuple[float, float]) -> dict[str, Any]:
    """Tells how a map of a picture is colored: cells over the whole picture, on a common scale."""
    h, w = image.shape[:2]
    return {"cmap": HEAT, "vmin": limits[0], "vmax": limits[1], "extent": (0, w, h, 0)}


def scale(limits: tuple[float, float]) -> Drawing:
    """Returns the colors of a map from its least to its largest value."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2.6, 0.44), facecolor="white")
    axis = figure.add_axes((0.08, 0.58, 0.84, 0.3))
    axis.imshow(np.linspace(0, 1, 256)[None], cmap=HEAT, aspect="auto", extent=(*limits, 0, 1))
    axis.set_yticks([])
    ticks = np.linspace(*limits, 3)
    axis.set_xticks(ticks, [f"{tick:.2g}" for tick in ticks])
    axis.tick_params(labelsize=POINTS, colors=DARK, length=2)
    for edge in axis.spines.values():
        edge.set_visible(False)
    return finish(figure, f"The scale of the maps' colors, from {limits[0]:g} to {limits[1]:g}")


def legend() -> Drawing:
    """Returns what the three colors of a mask beside its truth say."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.5, 0.3), facecolor="white")
    words = ("found correctly", "found wrongly", "missed")
    for at, word, color in zip((0.03, 0.4, 0.78), words, (FOUND, EXTRA, MISSED), strict=True):
        share = np.array(color) / 255
        figure.add_axes((at, 0.25, 0.035, 0.5), xticks=[], yticks=[], facecolor=share)
        style: dict[str, Any] = {"fontsize": POINTS, "color": DARK, "va": "center"}
        figure.text(at + 0.05, 0.5, word, **style)
    return finish(figure, "Colors: blue was found correctly, orange found wrongly, yellow missed")


def finish(figure: Any, alt: str) -> Drawing:
    """Returns the drawn figure; drawn twice, it has the same bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=2 * DPI, metadata={"Software": None})
    return Drawing(buffer.getvalue(), alt, round(figure.get_figwidth() * DPI))
