"""The order of the packages: who may import whom and what, and how weights may be loaded."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from nbhelpers.family import SYSTEMS
from nbhelpers.weights import data_folder

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "nbhelpers"
LABS = ROOT / "book" / "nblabs"
# From what everything stands on to what stands on everything.
ORDER = (
    *("errors", "kernels", "versions", "weights", "calibration", "models", "datasets", "words"),
    *("captions", "chunks"),
    *("tokens", "embeddings", "attention", "denoising", "scores", "completion", "masks"),
    *("metrics", "display", "settings", "segment", "batches"),
    *("figures", "benchmarks", "files", "family", "evaluation", "family.evaluation"),
    *("cli", "__main__"),
    "nblabs",  # a package beside the package
)
# Imported only inside of functions, or only by these modules.
HEAVY = {
    "spacy": {"chunks"},
    "matplotlib": set(),
    "pycocotools": set(),
    "diffusers": set(),
    "transformers": set(),
    "IPython": set(),
    "jupyter_book": set(),
}
SOURCES = sorted([*PACKAGE.rglob("*.py"), *LABS.rglob("*.py")])
RECIPE = sorted((ROOT / "data" / "recipe").glob("*.py"))


def room(path):
    """The module, or the folder of modules, that a file belongs to: the innermost in `ORDER`."""
    return room_of(module(path).removeprefix("nbhelpers."))


def module(path):
    """The dotted name by which a file is imported."""
    above = LABS.parent if path.is_relative_to(LABS) else ROOT
    return ".".join(path.relative_to(above).with_suffix("").parts)


def shown(path):
    """A file's name in the list of tests."""
    return str(path.relative_to(ROOT))


def room_of(name):
    """The room of a module, or of a name in one, from its dotted name within the package."""
    parts = name.split(".")
    rooms = (".".join(parts[:count]) for count in range(len(parts), 0, -1))
    return next((found for found in rooms if found in ORDER), parts[0])


def imports(tree):
    """The names of all imported modules, wherever they stand."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            if node.module != "nbhelpers":  # `from nbhelpers import kernels` needs the room alone
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


@pytest.mark.parametrize("path", SOURCES, ids=shown)
def test_imports_point_up_the_pipeline(path):
    mine = room(path)
    heads = {name.partition(".")[0] for name in imports(ast.parse(path.read_text("utf-8")))}
    assert not heads & {"book", "tests", "data", "recipe"}, f"{mine} imports {heads}"
    assert mine == "nblabs" or "nblabs" not in heads, f"{mine} imports the labs"
    if mine == "__init__":
        return  # the public names, of all rooms
    assert mine in ORDER, f"{mine} is missing from the order"
    for name in imports(ast.parse(path.read_text(encoding="utf-8"))):
        head, _, rest = name.partition(".")
        if head == "nbhelpers" and not rest:  # the public names, which stand on all stages
            assert ORDER.index(mine) >= ORDER.index("evaluation"), mine
        elif head == "nbhelpers":
            theirs = room_of(rest)
            found = PACKAGE / theirs.replace(".", "/")
            if found.is_dir() or found.with_suffix(".py").is_file():
                assert ORDER.index(theirs) <= ORDER.index(mine), f"{mine} imports {theirs}"


@pytest.mark.parametrize("path", SOURCES, ids=shown)
def test_heavy_imports_stand_where_they_may(path):
    for name in at_import(ast.parse(path.read_text(encoding="utf-8"))):
        head = name.partition(".")[0]
        assert room(path) in HEAVY.get(head, {room(path)}), f"{head} is imported by {path.name}"


def importers():
    """For every module in a room, the modules of the package that import it."""
    found = {
        module(path): set()
        for path in SOURCES
        if path.parent != PACKAGE and not path.stem.startswith("__")
    }
    for path in SOURCES:
        for name in imports(ast.parse(path.read_text(encoding="utf-8"))):
            if name in found:
                found[name].add(path)
    return found


def test_what_one_sibling_alone_imports_is_marked_private():
    by_recipe = {name for p in RECIPE for name in imports(ast.parse(p.read_text("utf-8")))}
    by_name = {system.maps.rpartition(".")[0] for system in SYSTEMS.values()}  # on first use
    for name, paths in importers().items():
        private = name.rpartition(".")[2].startswith("_")
        fronts = [path for path in paths if path.stem == "__init__" or room(path) == "cli"]
        assert not (private and (len(paths) > 1 or fronts)), f"{name} is imported by {paths}"
        alone = len(paths) == 1 and not fronts and name not in by_name | by_recipe
        assert private or not alone, f"{name} is imported by {paths} alone"


CODE = sorted(
    [
        *SOURCES,
        *RECIPE,
        *(ROOT / "tests").rglob("*.py"),
        *(ROOT / "book" / "tools").glob("*.py"),
        *(ROOT / "book").glob("*.md"),
    ]
)
# What reads weights by other ways than those that are checked here.
UNCHECKED = {
    *("snapshot_download", "from_single_file", "load_state_dict_from_url", "pickle.load"),
    *("load_lora_weights", "load_textual_inversion", "load_attn_procs", "torch.hub.load"),
}


def code_of(path):
    """The parsed Python of a module, or of all of a chapter's cells."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        cell = r"^```\{code-cell\}[^\n]*\n(?:---\n.*?^---\n)?(.*?)^```"
        cells = "".join(re.findall(cell, text, re.DOTALL | re.MULTILINE))
        text = re.sub(r"^[:%!].*", "", cells, flags=re.MULTILINE)
    return ast.parse(text)


def is_unsafe(call, *, located=False):
    """Whether a call might read other weights than those meant, pickled ones, or remote code.

    `located`: whether a variable's revision is one that `nbhelpers.weights.locate` has checked.
    """
    whole = ast.unparse(call.func)
    given = {keyword.arg: keyword.value for keyword in call.keywords}
    shown = {name: ast.unparse(value) for name, value in given.items()}
    revision = getattr(given.get("revision"), "value", "")
    pinned = revision is None or bool(re.fullmatch(r"[0-9a-f]{40}", str(revision)))
    pinned = pinned or (located and shown.get("revision") == "commit")
    if whole.endswith(".from_pretrained"):
        tensors, code = shown.get("use_safetensors"), shown.get("trust_remote_code")
        return not pinned or (tensors, code) != ("True", "False")
    if whole.endswith("hf_hub_download"):
        return not pinned
    if whole == "torch.load":
        return shown.get("weights_only") != "True"
    return bool({whole, whole.rpartition(".")[2]} & UNCHECKED)


def calls(path):
    """All calls in a file."""
    return [node for node in ast.walk(code_of(path)) if isinstance(node, ast.Call)]


@pytest.mark.parametrize("path", CODE, ids=shown)
def test_weights_are_pinned_safetensors_without_remote_code(path):
    located = path == PACKAGE / "weights.py"
    found = [ast.unparse(call) for call in calls(path) if is_unsafe(call, located=located)]
    assert not found


@pytest.mark.parametrize("path", [*SOURCES, *RECIPE], ids=shown)
def test_nothing_is_unpickled_but_by_the_closed_reader(path):
    assert not [c for c in calls(path) if ast.unparse(c.func) in {"pickle.load", "pickle.loads"}]


def test_a_variable_revision_is_one_that_was_located():
    """Where `from_pretrained` gets its commit: `locate`, which lets none pass but 40 digits."""
    for path in [*SOURCES, *RECIPE]:
        for call in calls(path):
            if ast.unparse(call.func) == "from_pretrained":
                _, source, commit = map(ast.unparse, call.args[:3])
                local = (source, commit) == ("str(folder)", "None")  # a Path is no Hub's name
                assert local or commit == "commit", f"{path.name}: {ast.unparse(call)}"
    text = (PACKAGE / "models.py").read_text(encoding="utf-8")
    made = re.findall(r"commit = (\w+)\(", text)
    assert made
    assert made == ["locate"] * text.count("commit = ")


LOCAL = "use_safetensors=True, trust_remote_code=False"
HEX = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("call", "caught"),
    [
        (f"CLIP.from_pretrained('a/b', revision='{HEX}', {LOCAL})", False),
        (f"CLIP.from_pretrained(folder, revision=None, {LOCAL})", False),
        (f"CLIP.from_pretrained('a/b', revision='main', {LOCAL})", True),
        (f"CLIP.from_pretrained('a/b', revision='{HEX[:7]}', {LOCAL})", True),
        (f"CLIP.from_pretrained('a/b', revision=commit, {LOCAL})", True),
        (f"CLIP.from_pretrained('a/b', {LOCAL})", True),
        ("CLIP.from_pretrained('a', revision=None, use_safetensors=True)", True),
        ("CLIP.from_pretrained('a', revision=None, trust_remote_code=False)", True),
        ("A.from_pretrained('a', revision=None, trust_remote_code=1, use_safetensors=1)", True),
        (
            "A.from_pretrained('a', revision=None, trust_remote_code=True, use_safetensors=True)",
            True,
        ),
        ("torch.load(path)", True),
        ("torch.load(path, weights_only=False)", True),
        ("torch.load(path, weights_only=True)", False),
        ("huggingface_hub.hf_hub_download('a/b', 'c.json')", True),
        ("pickle.load(file)", True),
        ("pipeline.load_lora_weights('a/b')", True),
    ],
)
def test_the_check_itself(call, caught):
    assert is_unsafe(ast.parse(call, mode="eval").body) == caught


@pytest.mark.parametrize("path", [*SOURCES, *RECIPE], ids=shown)
def test_no_room_is_too_large(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400


# What the family's systems share; every other file there is one system.
SHARED = {"sampling.py", "trained.py", "__init__.py"}


def test_a_system_is_one_short_file():
    systems = [
        path for path in (ROOT / "nbhelpers/family").glob("*.py") if path.name not in SHARED
    ]
    assert len(systems) > 20
    assert {p.name: n for p in systems if (n := len(p.read_text().splitlines())) > 150} == {}


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


WITHOUT = {
    *("spacy", "pycocotools", "matplotlib", "ipywidgets", "IPython", "ipykernel", "traitlets"),
    *("jupyter", "jupyter_core", "jupyter_client", "jupyter_book", "notebook", "nbformat"),
}
WHOLE_WAY = """
import sys
sys.modules.update(dict.fromkeys({absent!r}))  # each import of them fails
import nbhelpers as nb
image = nb.load_image(nb.weights.data_folder() / "stickers" / "images" / "000002.png")
models = nb.load_models("stickers")
chunk = nb.Chunk("a red cup", 16, 25, "cup", 22, 25)
prompt = nb.embed("a photograph of a red cup", (chunk,), models.text)
with nb.record_attention(models.unet) as attention:
    nb.denoise_once(image, prompt, models)
scores = nb.score_maps(attention.cross_layers, prompt.spans)
maps = nb.complete(scores, attention.self_layers)
print(nb.to_masks(maps, size=image.shape[:2]).shape == (1, *image.shape[:2]))
"""


@pytest.mark.skipif(
    not (data_folder() / "stickers" / "stable-diffusion").is_dir(),
    reason="needs the models of data/stickers; train them: make weights",
)
def test_the_stages_run_without_spacy_pycocotools_and_jupyter():
    code = WHOLE_WAY.format(absent=sorted(WITHOUT))
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=PACKAGE.parent
    )
    assert done.stdout.strip() == "True", done.stderr


def test_the_public_names_are_there():
    import nbhelpers as nb
    import nbhelpers.segment

    for name in nb.__all__:
        found = getattr(nb, name)
        assert callable(found) or name == "SETTINGS" or found.__name__ == f"nbhelpers.{name}", name
        assert name in dir(nb)
    assert callable(nb.segment)  # the function, not the module of the same name
    assert nbhelpers.segment is nb.segment
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = nb.nothing
