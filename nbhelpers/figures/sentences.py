"""Sentences, drawn: beside the picture that they describe, and as the tree that a parser makes.

The style, the fonts and the alt text are those of `nbhelpers.figures.images`.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from nbhelpers.datasets import Picture
from nbhelpers.display import Drawing, as_arrays
from nbhelpers.figures.images import MARK, MONO, REST
from nbhelpers.figures.panels import DARK, PANEL, POINTS, drawable, finish, size_of

if TYPE_CHECKING:
    from spacy.tokens import Doc, Token

WRAP = 46  # characters of a caption in a line
CELL = 0.092  # inches that a character of the monospaced font takes at the size used here
SMALL = 0.9  # a label's size in that of a word
STEP = 0.3  # inches between one level of arcs and the next
GRAY = "#5a6270"  # on white 6 : 1, readable


def show_captions(
    image: Picture,
    captions: Sequence[str],
    *,
    given: Sequence[str] | None = None,
    labels: Sequence[Any] | None = None,
    alt: str | None = None,
) -> Drawing:
    """Shows a picture beside sentences about it, with what was added to their beginnings marked.

    Args:
        image: uint8 ``(h, w, 3)``.
        captions: The sentences, from top to bottom.
        given: For each the beginning that it was made to go on from, "" where there was none;
            nothing is marked when None.
        labels: A line above each.
        alt: The figure in words; the sentences and what was added when None.

    Raises:
        ValueError: No caption, or one that doesn't begin as `given` says, or numbers that differ.
    """
    from matplotlib.figure import Figure

    image, _ = as_arrays(image, [], bool)
    starts = list(given) if given is not None else list(captions)
    above = [""] * len(captions) if labels is None else [str(label) for label in labels]
    if not captions or not len(captions) == len(starts) == len(above):
        raise ValueError(
            f"each caption needs one beginning and one label: got {len(captions)} captions, "
            f"{len(starts)} beginnings and {len(above)} labels"
        )
    for caption, start in zip(captions, starts, strict=True):
        if not caption.startswith(start):
            raise ValueError(f"{caption!r} doesn't go on from the beginning {start!r}")
    rows = [_wrapped(caption) for caption in captions]
    h, w = (side / max(image.shape[:2]) * PANEL for side in image.shape[:2])
    text = sum(0.42 + 0.24 * len(lines) for lines in rows)
    height = max(h, text) + 0.16
    size = (w + 0.4 + CELL * WRAP, height)
    figure = Figure(figsize=size, facecolor="white")
    panel = figure.add_axes(
        (0.04 / size[0], (height - h) / 2 / height, w / size[0], h / height), xticks=[], yticks=[]
    )
    panel.imshow(image)
    panel.set_axis_off()
    axis = figure.add_axes((0, 0, 1, 1), xlim=(0, size[0]), ylim=(height, 0))
    axis.set_axis_off()
    font: dict[str, Any] = {"family": MONO, "color": DARK, "parse_math": False, "va": "center"}
    left, y, said = w + 0.3, (height - text) / 2, []
    for caption, start, label, lines in zip(captions, starts, above, rows, strict=True):
        axis.text(
            left,
            y + 0.12,
            drawable(label),
            fontsize=POINTS,
            parse_math=False,
            color=GRAY,
            va="center",
        )
        y += 0.26
        for first, line in lines:
            new = max(0, len(start) - first)
            new += len(line[new:]) - len(line[new:].lstrip())
            if new < len(line):
                axis.barh(y + 0.12, CELL * (len(line) - new), 0.22, left + CELL * new, color=MARK)
            for i, character in enumerate(drawable(line, MONO)):
                axis.text(
                    left + CELL * (i + 0.5),
                    y + 0.12,
                    character,
                    fontsize=10.5,
                    ha="center",
                    **font,
                )
            y += 0.24
        y += 0.16
        added = caption[len(start) :].strip()
        tail = "" if given is None else f" (added: “{added}”)" if added else " (nothing added)"
        said.append(f"{label + ': ' if label else ''}“{caption}”{tail}")
    words = f"A picture of {size_of(image)} pixels beside sentences. {'; '.join(said)}."
    return finish(figure, alt or words)


def _wrapped(text: str) -> list[tuple[int, str]]:
    """Returns the lines of a text, each with the offset at which it begins."""
    lines, at = [], 0
    kept: dict[str, Any] = {
        "expand_tabs": False,
        "replace_whitespace": False,
        "break_on_hyphens": False,
    }
    for line in textwrap.wrap(text, WRAP, **kept) or [""]:
        at = text.index(line, at)
        lines.append((at, line))
        at += len(line)
    return lines


def show_tree(
    doc: Doc, chunks: Sequence[Any] = (), target: int | None = None, *, alt: str | None = None
) -> Drawing:
    """Draws a parsed sentence: words with parts of speech, an arc from each head to its dependent.

    Args:
        doc: From a spaCy pipeline, ``models.parser(caption)``.
        chunks: Noun chunks of the same text, to be marked behind the words.
        target: The index of the chunk that is asked for, marked warmer.
        alt: The figure in words; every word's label and head when None.

    Raises:
        ValueError: There is no word, or no parse, or a chunk isn't at its offset in the text.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    words = [token for token in doc if not token.is_space]
    if not words or not doc.has_annotation("DEP"):
        raise ValueError(
            f"a tree needs words and dependencies; {doc.text!r} has {len(words)} words and "
            f"{'a' if doc.has_annotation('DEP') else 'no'} parse; make it with models.parser"
        )
    for chunk in chunks:
        if doc.text[chunk.start : chunk.end] != chunk.text:
            raise ValueError(
                f"the chunk {chunk.text!r} isn't at characters {chunk.start} to {chunk.end} of "
                f"{doc.text!r}; parse the very caption that the chunks came from"
            )
    widths = [_column(token) for token in words]
    lefts = [CELL * sum(widths[:i], start=1.0) for i in range(len(words))]
    middle = {t.i: left + CELL * w / 2 for t, left, w in zip(words, lefts, widths, strict=True)}
    levels = _levels([(t.i, t.head.i) for t in words if t.head.i != t.i and t.head.i in middle])
    top = 0.34 + STEP * max([*levels.values(), 1])
    size = (CELL * (sum(widths) + 2), top + 0.62)
    figure = Figure(figsize=size, facecolor="white")
    axis = figure.add_axes((0, 0, 1, 1), xlim=(0, size[0]), ylim=(-0.62, top))
    axis.set_axis_off()
    for index, chunk in enumerate(chunks):
        inside = [
            i for i, t in enumerate(words) if t.idx < chunk.end and t.idx + len(t) > chunk.start
        ]
        first, last = lefts[inside[0]], lefts[inside[-1]] + CELL * widths[inside[-1]]
        color = MARK if index == target else REST
        axis.barh(-0.27, last - first - 0.06, 0.5, first + 0.03, color=color)
    font: dict[str, Any] = {"ha": "center", "va": "center", "parse_math": False}
    for token in words:
        x = middle[token.i]
        axis.text(
            x, -0.17, drawable(token.text, MONO), family=MONO, fontsize=11, color=DARK, **font
        )
        axis.text(x, -0.4, token.pos_, fontsize=POINTS, color=GRAY, **font)
        if token.i not in {child for child, _ in levels}:
            stem = {"arrowstyle": "->", "color": DARK, "lw": 1}
            axis.annotate("", (x, 0.02), (x, STEP), arrowprops=stem)
            axis.text(x, STEP + 0.04, token.dep_, fontsize=POINTS, color=DARK, **font)
    font["bbox"] = {"facecolor": "white", "edgecolor": "none", "pad": 0.8}
    for (child, head), level in levels.items():
        # Of the arcs that leave a head to one side the longer start farther in: none cross.
        longer = sum(
            h == head and (c < h) == (child < h) and abs(c - h) > abs(child - h) for c, h in levels
        )
        side = 1 if head < child else -1
        start, end = middle[head] + side * (0.1 + 0.07 * longer), middle[child] - side * 0.025
        height = STEP * level
        bend = 4 / 3 * height  # the curve's own height is three quarters of its handles'
        path = Path([(start, 0.02), (start, bend), (end, bend), (end, 0.03)], [1, 4, 4, 4])
        axis.add_patch(PathPatch(path, facecolor="none", edgecolor=DARK, linewidth=1))
        tip = {"arrowstyle": "-|>", "color": DARK, "lw": 0}
        axis.annotate("", (end, 0.0), (end, 0.1), arrowprops=tip)
        axis.text((start + end) / 2, height, doc[child].dep_, fontsize=POINTS, color=DARK, **font)
    parts = [
        f"{t.text} ({t.pos_}) is "
        + (f"the {t.dep_}" if t.head.i == t.i else f"{t.dep_} of {t.head.text}")
        for t in words
    ]
    marked = [
        f"“{chunk}”{', the target' if index == target else ''}"
        for index, chunk in enumerate(chunks)
    ]
    said = f"The tree of “{doc.text}”: {'; '.join(parts)}."
    return finish(figure, alt or said + (f" Chunks: {'; '.join(marked)}." if chunks else ""))


def _column(token: Token) -> float:
    """Returns a word's column width in characters, so that its labels fit beside the next's."""
    return max(len(token.text), SMALL * len(token.pos_), SMALL * len(token.dep_)) + 2


def _levels(arcs: Sequence[tuple[int, int]]) -> dict[tuple[int, int], int]:
    """Returns for each arc (child, head) a height above all arcs that it spans.

    Example:
        >>> _levels([(0, 2), (1, 2), (3, 2)])
        {(1, 2): 1, (3, 2): 1, (0, 2): 2}
    """
    levels: dict[tuple[int, int], int] = {}
    for arc in sorted(arcs, key=lambda arc: abs(arc[0] - arc[1])):
        low, high = min(arc), max(arc)
        under = [n for other, n in levels.items() if min(other) < high and max(other) > low]
        levels[arc] = 1 + max(under, default=0)
    return levels
