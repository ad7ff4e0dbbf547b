"""What a notebook, a site and a terminal are given to display: a figure with its words, code."""

import ast
import base64
import html
import inspect
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any


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

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        """The figure as a notebook, a site, a printed page and a terminal want it."""
        alt = html.escape(self.alt, quote=True)
        data = base64.b64encode(self.png).decode("ascii")
        return {
            "text/html": (
                f'<img src="data:image/png;base64,{data}" alt="{alt}" '
                f'width="{self.width}" style="max-width: 100%; height: auto">'
            ),
            "image/png": data,
            "text/plain": self.alt,
        }


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
