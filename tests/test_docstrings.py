"""One dialect for all docstrings."""

import ast
import re
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SECTIONS = ("Attributes", "Args", "Returns", "Yields", "Raises", "Example")
NAMED = {"Attributes", "Args", "Raises"}  # sections of items that each begin with a name
# With these a function's docstring may begin; what it does is said in the third person.
VERBS = set(
    "Adds Applies Averages Carries Checks Chooses Compares Completes Computes Converts Counts "
    "Does Draws Embeds Encodes Ends Enlarges Finds Forgets Gathers Gives Holds Imports Joins "
    "Keeps Lays Lets Lists Loads Locks Makes Measures Moves Names Opens Parses Picks Predicts "
    "Prints Puts Raises Reads Records Refuses Replaces Reports Returns Runs Says Scores "
    "Segments Shows Sorts Splits Stretches Sums Takes Tells Tidies Trims Words Writes "
    "Yields".split()
)
FILES = sorted([*(ROOT / "nbhelpers").rglob("*.py"), *(ROOT / "book/nblabs").rglob("*.py")])


def faults(source):
    """What in a module's docstrings is not in the dialect, as "name: fault"."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            text = ast.get_docstring(node)
            name = getattr(node, "name", "module")
            yield from (f"{name}: {fault}" for fault in (text and of_docstring(node, text)) or ())


def of_docstring(node, text):
    """What is wrong with one docstring."""
    first = text.split()[0].strip(",.:")
    noun = isinstance(node, ast.Module | ast.ClassDef) or any(
        "property" in ast.unparse(decorator) for decorator in node.decorator_list
    )
    if noun and first in VERBS - {"Records"}:
        yield f"a noun phrase was wanted, it begins with {first}"
    if not noun and first not in VERBS:
        yield f"a verb in the third person was wanted, it begins with {first}"
    if not re.search(r"[.:]$", text.partition("\n\n")[0]):
        yield "its summary ends without a full stop"
    if re.search(r"\b[Ll]ook(s|ed|ing)?\b(?! for)", text):
        yield "attention looks at nothing: say attend, read, check or search"
    titles = re.findall(r"^(\w+):$", text, re.MULTILINE)
    if titles != sorted(titles, key=lambda t: (*SECTIONS, t).index(t)) or set(titles) - {
        *SECTIONS
    }:
        yield f"its sections are {titles}"
    for title, body in re.findall(r"^(\w+):\n((?:(?:    .*)?\n?)+)", text, re.MULTILINE):
        if title != "Example":
            items = re.split(r"\n(?=\S)", textwrap.dedent(body)) if title in NAMED else [body]
            yield from (fault for item in items if (fault := of_item(title, item.strip())))


def of_item(title, item):
    """What is wrong with one item of a section."""
    name, _, words = item.partition(": ") if title in NAMED else ("", "", item)
    if title in NAMED and not re.fullmatch(r"\*{0,2}\w+", name):
        return f"{title} has an item without a name: {item[:40]}"
    if not re.match(r"[^a-z]|[a-z]+\d", words.lstrip("`")) or not words.endswith("."):
        return f"{title} has an item that is no sentence: {item[:40]}"
    return None


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_docstrings_of_a_file_speak_one_dialect(path):
    assert list(faults(path.read_text(encoding="utf-8"))) == []


def test_no_room_is_left_out():
    folders = {path.parent.relative_to(ROOT).as_posix() for path in FILES}
    rooms = {f"nbhelpers/{room}" for room in ("kernels", "family/evaluation", "cli")}
    assert {"nbhelpers", "book/nblabs"} | rooms <= folders


@pytest.mark.parametrize(
    ("docstring", "fault"),
    [
        ("Returns the mask.", None),
        ("The mask.", "a verb in the third person was wanted, it begins with The"),
        ("Return the mask.", "a verb in the third person was wanted, it begins with Return"),
        ("Returns the mask", "its summary ends without a full stop"),
        ("Returns what the pixels look at.", "attention looks at nothing"),
        ("Returns it.\n\nReturns:\n    float32.", None),
        ("Returns it.\n\nReturns:\n    A mask", "Returns has an item that is no sentence"),
        ("Returns it.\n\nReturns:\n    the mask.", "Returns has an item that is no sentence"),
        ("Returns it.\n\nArgs:\n    a: The map.\n        Of any range.\n    b: A size.", None),
        ("Returns it.\n\nArgs:\n    a: The map.\n    b: a size.", "Args has an item that is no"),
        ("Returns it.\n\nRaises:\n    OSError, ValueError: As it.", "Raises has an item without"),
        ("Returns it.\n\nNote:\n    It is.", "its sections are ['Note']"),
        ("Returns it.\n\nRaises:\n    A: B.\n\nArgs:\n    a: B.", "its sections are ['Raises'"),
    ],
)
def test_the_check_of_a_docstring(docstring, fault):
    found = list(of_docstring(ast.parse("def f(): ...").body[0], docstring))
    assert found == [] if fault is None else len(found) == 1 and found[0].startswith(fault)


def test_classes_modules_and_properties_are_named_by_nouns():
    source = '''"""Writes files."""
class A:
    """Keeps a value."""
    @property
    def b(self):
        """Returns it."""
    def c(self):
        """Returns it."""
'''
    assert [fault.partition(":")[0] for fault in faults(source)] == ["module", "A", "b"]
