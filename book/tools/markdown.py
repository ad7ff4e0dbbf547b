"""The book's MyST as the plain Markdown that Colab, GitHub and Jupyter all show."""

import base64
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from jupytext import reads

BLOCK = re.compile(
    r"^(?P<fence>`{3,}|:{3,})\{(?P<kind>[\w-]+)\}(?P<title>.*)\n"
    r"(?P<body>(?:.*\n)*?)(?P=fence) *$",
    re.MULTILINE,
)
ROLE = re.compile(r"\{(?P<role>[\w:]+)\}`(?P<text>[^`]+)`")
EQUATION = re.compile(
    r"^\$\$\n(?P<body>(?:.*\n)*?)\$\$ \((?P<label>[\w-]+)\)[ \t]*$", re.MULTILINE
)


class Page:
    """A page of the book, and what its references are called.

    Args:
        path: The page's source; its pictures and the bibliography lie beside it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.notebook = reads(path.read_text(encoding="utf-8"), fmt="md:myst")
        text = "\n".join(cell.source for cell in self.notebook.cells)
        self.equations = _numbered(match["label"] for match in EQUATION.finditer(text))
        figures = []
        for cell in self.notebook.cells:
            named = cell.metadata.get("mystnb", {}).get("figure", {}).get("name")
            blocks = [b for b in BLOCK.finditer(cell.source) if b["kind"] == "figure"]
            figures += [re.search(r":name:\s*(\S+)", block["body"])[1] for block in blocks]  # type: ignore[index]
            figures += [named] if named else []
        self.figures = _numbered(figures)
        self.works = _works(path.with_name("references.bib"))

    def plain(self, text: str) -> str:
        """A cell's MyST as Markdown, without directives and roles; pictures are in it as data."""
        text = BLOCK.sub(self._block, text)
        text = EQUATION.sub(self._equation, text)
        text = re.sub(r"^\([\w-]+\)=\n", "", text, flags=re.MULTILINE)
        text = ROLE.sub(lambda found: self._role(found["role"], found["text"]), text)
        return re.sub(r"\n{3,}", "\n\n", text).strip()

    def caption(self, figure: Mapping[str, str]) -> str:
        """What stands below the figure of a code cell."""
        number = self.figures[figure["name"]]
        return self.plain(f"**Figure {number}.** {figure['caption'].strip()}")

    def _block(self, found: re.Match[str]) -> str:
        kind, title = found["kind"], found["title"].strip()
        lines = found["body"].splitlines()
        options = {}
        while lines and (option := re.fullmatch(r":([\w-]+):\s*(.*)", lines[0])):
            options[option[1]] = option[2]
            lines.pop(0)
        body = "\n".join(lines).strip()
        if kind == "figure":
            picture = (self.path.parent / title).read_bytes()
            data = base64.b64encode(picture).decode("ascii")
            number = self.figures[options["name"]]
            shown = f"![{options['alt']}](data:image/png;base64,{data})"
            return f"{shown}\n\n**Figure {number}.** {body}"
        if kind == "nb-exec-table":
            return ""
        quoted = f"**{title or kind.capitalize()}**\n\n{body}"
        return "\n".join(f"> {line}".rstrip() for line in quoted.splitlines())

    def _equation(self, found: re.Match[str]) -> str:
        body = found["body"].rstrip("\n")
        return f"$$\n{body} \\tag{{{self.equations[found['label']]}}}\n$$"

    def _number(self, label: str) -> str:
        """The number of an equation or figure, and its page where that is another one."""
        numbers = self.equations | self.figures
        if label in numbers:
            return str(numbers[label])
        for path in sorted(self.path.parent.glob("*.md")):
            if label in path.read_text(encoding="utf-8") and path != self.path:
                other = Page(path)
                numbers = other.equations | other.figures
                if label in numbers:
                    return f"{numbers[label]} of {path.stem}"
        raise ValueError(f"{self.path.name} refers to {label!r}, which no page has")

    def _role(self, role: str, text: str) -> str:
        shown, target = re.fullmatch(r"(.*?)\s*(?:<([^>]+)>)?", text, re.DOTALL).groups()  # type: ignore[union-attr]
        if role.startswith("cite"):
            return f"({'; '.join(self.works.get(key.strip(), key) for key in text.split(','))})"
        if role == "eq":
            return f"({self._number(text)})"
        if role == "numref":
            return f"Figure {self._number(target or text)}"
        return f"*{shown}*" if role == "doc" else str(shown)


def split_solutions(text: str) -> Iterator[tuple[str, bool]]:
    """The parts of a cell's MyST in order, and whether each is a written solution."""
    start = 0
    for found in BLOCK.finditer(text):
        if found["title"].strip().startswith("Solution"):
            yield text[start : found.start()], False
            yield found[0], True
            start = found.end()
    yield text[start:], False


def _numbered(names: Iterable[str]) -> dict[str, int]:
    """Numbers from 1, in order."""
    return {name: number for number, name in enumerate(names, 1)}


def _works(path: Path) -> dict[str, str]:
    """Who wrote each work of a bibliography, and when."""
    found = {}
    text = path.read_text(encoding="utf-8")
    for key, fields in re.findall(r"^@\w+\{([^,\s]+),(.*?)^\}", text, re.M | re.S):
        values = dict(re.findall(r"^\s+(\w+)\s*=\s*\{(.*)\},?$", fields, re.MULTILINE))
        names = [name.split(",")[0].strip("{} ") for name in values["author"].split(" and ")]
        who = names[0] if len(names) == 1 else f"{names[0]} and {names[1]}"
        found[key] = f"{who if len(names) < 3 else names[0] + ' et al.'}, {values['year']}"
    return found
