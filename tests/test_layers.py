"""The package's order: who may import whom and what, and how weights may be loaded."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "nbhelpers"
ORDER = (
    *("kernels", "weights", "models", "datasets", "captions", "chunks", "embeddings"),
    *("latents", "anatomy", "attention", "scores", "completion", "masks", "metrics"),
    *("segment", "batches"),
    *("evaluation", "display", "knobs", "figures", "charts"),
)
# Imported only inside of functions, or only by these modules.
HEAVY = {
    "spacy": {"chunks", "shapes"},
    "matplotlib": {"figures", "charts", "shapes"},
    "pycocotools": set(),
    "diffusers": {"shapes"},
    "transformers": {"shapes"},
    "IPython": set(),
    "jupyter_book": set(),
}
SOURCES = sorted(path for path in PACKAGE.rglob("*.py"))


def room(path):
    """The module, or the folder of modules, that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(tree):
    """The names of all imported modules, wherever they stand."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def at_import(tree):
    """The imported modules that are needed as soon as a file is imported."""
    kept = []
    for node in tree.body:
        is_typing = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        if not isinstance(node, ast.FunctionDef | ast.ClassDef) and not is_typing:
            kept.append(node)
    return imports(ast.Module(body=kept, type_ignores=[]))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_up_the_pipeline(path):
    mine = room(path)
    if mine not in ORDER:
        return  # the package itself, and what stands on the whole pipeline: cli, shapes, family
    for name in imports(ast.parse(path.read_text(encoding="utf-8"))):
        if name.startswith("nbhelpers."):
            theirs = name.split(".")[1]
            assert theirs in ORDER, f"{mine} stands below {theirs}"
            assert ORDER.index(theirs) <= ORDER.index(mine), f"{mine} imports {theirs}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_heavy_imports_stand_where_they_may(path):
    for name in at_import(ast.parse(path.read_text(encoding="utf-8"))):
        head = name.partition(".")[0]
        assert room(path) in HEAVY.get(head, {room(path)}), f"{head} is imported by {path.name}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_weights_are_pinned_safetensors_without_remote_code(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        called = node.func.attr if isinstance(node.func, ast.Attribute) else ""
        if called == "from_pretrained":
            given = {k.arg: ast.unparse(k.value) for k in node.keywords}
            assert given.get("use_safetensors") == "True", ast.unparse(node)
            assert given.get("trust_remote_code") == "False", ast.unparse(node)
            assert "revision" in given, ast.unparse(node)
        whole = ast.unparse(node.func)
        assert not whole.endswith("pickle.load"), whole
        assert not whole.endswith("pickle.loads"), whole
        assert "load_lora" not in whole, whole
        if whole == "torch.load":
            given = {k.arg: ast.unparse(k.value) for k in node.keywords}
            assert given.get("weights_only") == "True", ast.unparse(node)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_room_is_too_large(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 300 or room(path) == "shapes"


BARE = """
import importlib, sys
absent = {absent!r}
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in absent:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
for name in {modules!r}:
    importlib.import_module(name)
print(sorted({{name.partition(".")[0] for name in sys.modules}} & absent))
"""
ABSENT = {"spacy", "pycocotools", "matplotlib", "IPython", "diffusers", "transformers", "jupyter"}
BARE_MODULES = ["nbhelpers", *(f"nbhelpers.{name}" for name in ORDER[: ORDER.index("metrics")])]


def test_it_is_imported_where_much_is_absent():
    code = BARE.format(modules=BARE_MODULES, absent=ABSENT)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=PACKAGE.parent
    )
    assert done.stdout.strip() == "[]", done.stderr


def test_the_public_names_are_there():
    import nbhelpers as nb
    import nbhelpers.segment

    for name in nb.__all__:
        assert callable(getattr(nb, name)) or name == "SETTINGS", name
        assert name in dir(nb)
    assert callable(nb.segment)  # the function, not the module of the same name
    assert nbhelpers.segment is nb.segment
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = nb.nothing
