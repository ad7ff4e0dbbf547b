"""What notebooks, sites and terminals display: figures with alt text, tables, code."""

import ast
import base64
import html
import inspect
import io
import re
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image
from torch import Tensor

from nbhelpers.datasets import Picture, as_image

# Okabe and Ito's, told apart by any eye and by their lightness.
FOUND = (0, 114, 178)  # in the mask; of a mask whose truth is known, in both
EXTRA = (213, 94, 0)  # in the mask alone: a false positive
MISSED = (240, 228, 66)  # in the truth alone
TINT = 0.6  # how much of a tinted pixel is its color; the rest is the picture's gray
CORE = 25  # lines of code that a reader takes in at once
# With an interval behind it, or nothing.
NUMBER = re.compile(r"[-+−]?\d[\d,.]*(e[-+]\d+)?%?( \[.*\])?|-?")


@dataclass(frozen=True)
class Drawing:
    """A finished figure: its pixels, and the same in words.

    Attributes:
        png: The file's bytes.
        alt: What the figure shows, for readers who can't see it.
        width: On the page, in CSS pixels; the file holds twice as many.
        rows: The panels that it is composed of, row by row; a narrow page wraps each row. Empty
            for a figure in one piece.
    """

    png: bytes
    alt: str
    width: int
    rows: tuple[tuple["Drawing", ...], ...] = ()

    def save(self, path: str | Path) -> None:
        """Writes the PNG."""
        Path(path).write_bytes(self.png)

    def __repr__(self) -> str:
        return f"<Drawing: {self.alt}>"

    def as_html(self) -> str:
        """Returns the figure as an element of a page, which holds all of it."""
        alt = html.escape(self.alt, quote=True)
        if not self.rows:
            data = base64.b64encode(self.png).decode("ascii")
            return (
                f'<img src="data:image/png;base64,{data}" alt="{alt}" '
                f'width="{self.width}" style="max-width: 100%; height: auto">'
            )
        lines = "".join(
            f'<div style="text-align: center">{"".join(panel.as_html() for panel in row)}</div>'
            for row in self.rows
        )
        return f'<div class="nb-panels" role="group" aria-label="{alt}">{lines}</div>'

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        """Returns the figure as a notebook, a site, a printed page and a terminal want it."""
        data = base64.b64encode(self.png).decode("ascii")
        return {"text/html": self.as_html(), "image/png": data, "text/plain": self.alt}


def stack(rows: Sequence[Sequence[Drawing]], alt: str) -> Drawing:
    """Returns panels composed into one figure: rows from top to bottom, each centered.

    Args:
        rows: The panels of each row, from left to right.
        alt: The figure in words.
    """
    pictures = [[Image.open(io.BytesIO(panel.png)) for panel in row] for row in rows]
    heights = [max(picture.height for picture in row) for row in pictures]
    width = max(sum(picture.width for picture in row) for row in pictures)
    sheet, top, file = Image.new("RGB", (width, sum(heights)), "white"), 0, io.BytesIO()
    for row, height in zip(pictures, heights, strict=True):
        left = (width - sum(picture.width for picture in row)) // 2
        for picture in row:
            sheet.paste(picture, (left, top))
            left += picture.width
        top += height
    sheet.save(file, "PNG")
    wide = max(sum(panel.width for panel in row) for row in rows)
    return Drawing(file.getvalue(), alt, wide, tuple(map(tuple, rows)))


def as_drawing(pixels: UInt8[np.ndarray, "h w 3"], alt: str) -> Drawing:
    """Shows pixels as a figure of their own size."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return Drawing(file.getvalue(), alt, pixels.shape[1])


def overlay(
    image: Picture, mask: Bool[np.ndarray, "h w"], truth: Bool[np.ndarray, "h w"] | None = None
) -> UInt8[np.ndarray, "h w 3"]:
    """Returns the picture in gray, with the mask as a colored tint over it.

    Shading shows through the tint, and what lies outside keeps its lightness, so that white things
    stay visible inside and outside. Where the true mask is known, three colors part the pixels
    that both have (blue), that the mask has alone (orange) and that it misses (yellow).

    Args:
        image: uint8 ``(h, w, 3)``.
        mask: True inside, of the picture's size.
        truth: The true mask, of the picture's size, where it is known.

    Returns:
        uint8 ``(h, w, 3)``.

    Raises:
        ValueError: The sizes differ or the values are of another type.

    Example:
        >>> overlay(np.full((1, 2, 3), 100, np.uint8), np.array([[True, False]]))[0].tolist()
        [[40, 108, 147], [100, 100, 100]]
    """
    image, masks = as_arrays(image, [mask] if truth is None else [mask, truth], bool)
    found, true = masks[0], masks[-1]
    gray = np.repeat((image @ np.array([0.299, 0.587, 0.114]))[..., None], 3, axis=2)
    for where, color in ((found & true, FOUND), (found & ~true, EXTRA), (true & ~found, MISSED)):
        gray[where] += TINT * (color - gray[where])
    return gray.round().astype(np.uint8)


def as_arrays(image: Any, panels: Any, kind: type) -> tuple[np.ndarray, list[np.ndarray]]:
    """Checks image and panels: returns arrays of the promised type and size, or what is wrong."""
    image = as_image(image)
    panels = [
        p.float() if isinstance(p, Tensor) and p.dtype.is_floating_point else p for p in panels
    ]
    arrays = [p.numpy(force=True) if isinstance(p, Tensor) else p for p in panels]
    for array in arrays:
        if kind is bool and (array.dtype != bool or array.shape != image.shape[:2]):
            raise ValueError(
                f"masks are bool (chunk, h, w) with the picture's size {image.shape[:2]}, as "
                f"to_masks gives them; got one of {array.dtype} {array.shape}"
            )
        if kind is float and (array.ndim != 2 or not array.size or array.dtype.kind != "f"):
            raise ValueError(
                "maps are numbers (chunk, h, w), as score_maps gives them; got one of "
                f"{array.dtype} {array.shape}"
            )
        if kind is float and not np.isfinite(array).all():
            raise ValueError("a map holds NaN or infinity, which no color stands for")
    return image, arrays


@dataclass(frozen=True)
class Table:
    """Rows under headings.

    Attributes:
        columns: The headings.
        rows: One text a column each.
        caption: A line above it; "" for none.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str = ""

    @property
    def _right(self) -> list[bool]:
        """For each column, whether it holds numbers alone: those are read under each other."""
        cells = zip(*self.rows, strict=True) if self.rows else ((),) * len(self.columns)
        return [all(NUMBER.fullmatch(cell) for cell in column) for column in cells]

    def __repr__(self) -> str:
        lines = [self.columns, *self.rows]
        wide = [max(map(len, column)) for column in zip(*lines, strict=True)]
        lines.insert(1, tuple("-" * w for w in wide))
        text = [
            "  ".join(
                cell.rjust(w) if right else cell.ljust(w)
                for cell, w, right in zip(line, wide, self._right, strict=True)
            ).rstrip()
            for line in lines
        ]
        return "\n".join([self.caption] * bool(self.caption) + text)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        """Returns HTML, which scrolls where the page is narrow, and text."""

        def line(cells: Sequence[str], tag: str) -> str:
            """Returns one row."""
            sides = ["right" if right else "left" for right in self._right]
            return "".join(
                f'<{tag} style="text-align: {side}">{html.escape(cell)}</{tag}>'
                for cell, side in zip(cells, sides, strict=True)
            )

        body = "".join(f"<tr>{line(row, 'td')}</tr>" for row in self.rows)
        caption = f"<caption>{html.escape(self.caption)}</caption>" if self.caption else ""
        page = (
            f'<div style="overflow-x: auto"><table class="table">{caption}<thead><tr>'
            f"{line(self.columns, 'th')}</tr></thead><tbody>{body}</tbody></table></div>"
        )
        return {"text/html": page, "text/plain": repr(self)}


def tabulate(columns: Sequence[str], rows: Sequence[Sequence[Any]], *, caption: str = "") -> Table:
    """Returns rows under headings, for a page or a terminal.

    Args:
        columns: The headings.
        rows: One cell a column: text and whole numbers as they are, other numbers with three
            digits behind the point, None as a dash.
        caption: A line above it.

    Raises:
        ValueError: A row has another number of cells than there are headings.

    Example:
        >>> tabulate(["method", "mIoU"], [["plain", 0.5], ["paper", None]])
        method   mIoU
        ------  -----
        plain   0.500
        paper       -
    """
    for row in rows:
        if len(row) != len(columns):
            raise ValueError(f"{len(columns)} columns ({', '.join(columns)}), {len(row)} cells")

    def cell(value: Any) -> str:
        """Returns a value as the table has it."""
        if value is None:
            return "-"
        return f"{value:.3f}" if isinstance(value, float) else str(value)

    return Table(tuple(columns), tuple(tuple(map(cell, row)) for row in rows), caption)


@dataclass(frozen=True)
class Source:
    """The code of a function, as a notebook and a terminal want it.

    Attributes:
        code: What is shown at once.
        whole: The whole function, folded below; "" where `code` is all of it.
    """

    code: str
    whole: str = ""

    def __repr__(self) -> str:
        return self.code

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        """Returns Markdown, which is highlighted; its fence is longer than any in the code."""
        fence = "`" * (3 + (self.code + self.whole).count("```"))
        page = f"{fence}python\n{self.code}{fence}"
        if self.whole:
            folded = "<details>\n<summary>The whole function, with its checks</summary>\n\n"
            page += f"\n\n{folded}{fence}python\n{self.whole}{fence}\n\n</details>"
        return {"text/markdown": page, "text/plain": self.code}


def show_source(function: Any, *, start: str = "", stop: str = "") -> Source:
    """Returns the core of a function as it runs and is tested, with its file and line.

    The docstring and the checks that raise are left out; the whole function is folded below.

    Args:
        function: A function or class.
        start: Text in the first line to be shown; the function's first line when "".
        stop: Text in the last line to be shown, at or below `start`; its last line when "".

    Raises:
        TypeError: It has no Python source.
        ValueError: No line holds `start` or `stop`, or more than 25 lines are left to be shown.
    """
    function = inspect.unwrap(function)
    lines, first = inspect.getsourcelines(function)
    whole = textwrap.dedent("".join(lines))
    numbers = _core(whole)
    kept = whole.splitlines(keepends=True)
    begin = next((n for n in numbers if start in kept[n]), None)
    end = next((n for n in numbers if n >= (begin or 0) and stop in kept[n]), None)
    if begin is None or end is None:
        raise ValueError(f"{function.__name__} has no line with {stop if begin else start!r}")
    shown = [n for n in numbers if begin <= n and (not stop or n <= end)]
    if len(shown) > CORE:
        raise ValueError(
            f"{function.__name__} has {len(shown)} lines to be shown, and {CORE} fit a page; "
            "name its core by start= and stop="
        )
    code = textwrap.dedent("".join(kept[n] for n in shown))
    package = sys.modules.get(function.__module__.partition(".")[0])
    file, root = inspect.getsourcefile(function), getattr(package, "__file__", None)
    if file and root and Path(file).is_relative_to(Path(root).parents[1]):
        path = Path(file).relative_to(Path(root).parents[1]).as_posix()
        code = f"# {path}, line {first + shown[0]}\n{code}"
    return Source(code, whole if len(shown) < len(kept) else "")


def _core(code: str) -> list[int]:
    """Returns the lines of a function without its docstring and its checks, counted from 0."""
    left_out: set[int] = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.If) and not node.orelse and isinstance(node.body[-1], ast.Raise):
            left_out.update(range(node.lineno, (node.end_lineno or 0) + 1))
        has_body = isinstance(node, ast.FunctionDef | ast.ClassDef) and len(node.body) > 1
        if has_body and ast.get_docstring(node):  # type: ignore[arg-type]
            words = node.body[0]  # type: ignore[attr-defined]
            left_out.update(range(words.lineno, words.end_lineno + 1))
    lines = code.splitlines()
    return [n for n, line in enumerate(lines) if n + 1 not in left_out and line.strip()]
