"""What notebooks, sites and terminals are given to display: figures with words, tables, code."""

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

INK = (27, 27, 27)
# With an interval behind it, or nothing.
NUMBER = re.compile(r"[-+−]?\d[\d,.]*(e[-+]\d+)?%?( \[.*\])?|-?")


@dataclass(frozen=True)
class Drawing:
    """A finished figure: its pixels, and the same in words.

    Attributes:
        png: The file's bytes.
        alt: What the figure shows, for who can't see it.
        width: On the page, in CSS pixels; the file holds twice as many.
    """

    png: bytes
    alt: str
    width: int

    def save(self, path: str | Path) -> None:
        """Write the PNG."""
        Path(path).write_bytes(self.png)

    def __repr__(self) -> str:
        return f"<Drawing: {self.alt}>"

    def as_html(self, *, hidden: bool = False) -> str:
        """The figure as an element of a page, which holds all of it."""
        data = base64.b64encode(self.png).decode("ascii")
        return (
            f'<img src="data:image/png;base64,{data}" alt="{html.escape(self.alt, quote=True)}" '
            f'width="{self.width}" style="max-width: 100%; height: auto"{" hidden" * hidden}>'
        )

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        """The figure as a notebook, a site, a printed page and a terminal want it."""
        data = base64.b64encode(self.png).decode("ascii")
        return {"text/html": self.as_html(), "image/png": data, "text/plain": self.alt}


def as_drawing(pixels: UInt8[np.ndarray, "h w 3"], alt: str) -> Drawing:
    """Pixels as a figure of their own size."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return Drawing(file.getvalue(), alt, pixels.shape[1])


def overlay(image: Picture, mask: Bool[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w 3"]:
    """The picture with everything but the mask faded to light gray, the mask outlined in ink.

    The pixels inside keep their values and no color is added, so that it reads the same on any
    picture and to any eye.

    Args:
        image: uint8 ``(h, w, 3)``.
        mask: True inside, of the picture's size.

    Returns:
        uint8 ``(h, w, 3)``.

    Raises:
        ValueError: The sizes differ or the values are of another type.

    Example:
        >>> overlay(np.zeros((1, 3, 3), np.uint8), np.array([[True, False, False]]))[0, :, 0]
        array([  0,  27, 153], dtype=uint8)
    """
    image, masks = as_arrays(image, [mask], bool)
    mask = masks[0]
    gray = image @ np.array([0.299, 0.587, 0.114])
    drawn = np.where(mask[..., None], image, (0.4 * gray + 0.6 * 255)[..., None]).astype(np.uint8)
    grown = mask
    for _ in range(max(1, round(min(mask.shape) / 160))):
        rows = np.pad(grown, ((1, 1), (0, 0)))
        columns = np.pad(rows[:-2] | rows[1:-1] | rows[2:], ((0, 0), (1, 1)))
        grown = columns[:, :-2] | columns[:, 1:-1] | columns[:, 2:]
    drawn[grown & ~mask] = INK
    return drawn


def as_arrays(image: Any, panels: Any, kind: type) -> tuple[np.ndarray, list[np.ndarray]]:
    """Image and panels as arrays of the promised type and size, or what is wrong with them."""
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
        """As HTML, which scrolls where the page is narrow, and as text."""

        def line(cells: Sequence[str], tag: str) -> str:
            """One row."""
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
    """Rows under headings, for a page or a terminal.

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
        """A value as the table has it."""
        if value is None:
            return "-"
        return f"{value:.3f}" if isinstance(value, float) else str(value)

    return Table(tuple(columns), tuple(tuple(map(cell, row)) for row in rows), caption)


@dataclass(frozen=True)
class Source:
    """The code of a function, as a notebook and a terminal want it."""

    code: str

    def __repr__(self) -> str:
        return self.code

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        """Highlighted where Markdown is; a fence longer than any in the code."""
        fence = "`" * (3 + self.code.count("```"))
        return {"text/markdown": f"{fence}python\n{self.code}{fence}", "text/plain": self.code}


def show_source(function: Any, *, docstring: bool = True) -> Source:
    """The code of a function as it runs and is tested, with its file and line.

    Args:
        function: A function or class.
        docstring: Leave the docstring in.

    Raises:
        TypeError: It has no Python source.
    """
    function = inspect.unwrap(function)
    lines, first = inspect.getsourcelines(function)
    code = textwrap.dedent("".join(lines))
    if not docstring:
        body = ast.parse(code).body[0].body  # type: ignore[attr-defined]
        if ast.get_docstring(ast.parse(code).body[0]) is not None and len(body) > 1:  # type: ignore[arg-type]
            kept = code.splitlines(keepends=True)
            del kept[body[0].lineno - 1 : body[0].end_lineno]
            code = "".join(kept)
    package = sys.modules.get(function.__module__.partition(".")[0])
    file, root = inspect.getsourcefile(function), getattr(package, "__file__", None)
    if file and root and Path(file).is_relative_to(Path(root).parents[1]):
        place = Path(file).relative_to(Path(root).parents[1]).as_posix()
        code = f"# {place}, line {first}\n{code}"
    return Source(code)
