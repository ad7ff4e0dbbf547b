"""The wheel by itself: installed in an environment of its own, used in an empty folder."""

import json
import os
import re
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import nbformat
import pytest

from book.tools.notebooks import student_notebook

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    build = ["wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, ROOT]
    subprocess.run([sys.executable, "-m", "pip", *build], check=True)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture
def python(tmp_path):
    """Run Python in an empty folder, with all that is installed here but the project."""
    venv.create(tmp_path / "environment", with_pip=False)
    (site,) = (tmp_path / "environment").glob("lib/python3*/site-packages")
    (tmp_path / "others").mkdir()
    for path in Path(sysconfig.get_path("purelib")).iterdir():
        if not re.search("nbhelpers|nblabs", path.name):
            (tmp_path / "others" / path.name).symlink_to(path)
    (site / "others.pth").write_text(f"{tmp_path / 'others'}\n")
    empty = tmp_path / "empty"
    empty.mkdir()
    own = {"IPYTHONDIR": str(tmp_path / "ipython"), "PIP_NO_INDEX": "1", "HF_HUB_OFFLINE": "1"}
    env = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "NBHELPERS_DATA")}

    def run(*arguments):
        command = [tmp_path / "environment" / "bin" / "python", *arguments]
        done = subprocess.run(command, cwd=empty, env=env | own, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    return run


USE = """
import contextlib, io, json
import nbhelpers as nb, nblabs

data = nb.data_folder()
models = nb.load_models()
image = nb.load_image(sorted(data.glob("stickers/images/*.png"))[52])
text = nb.caption(image, models.captioner)
chunks = nb.noun_chunks(text, models.parser)
found = nb.segment(image, chunks[-1].text, models)
drawn = nb.show_masks(image, found.mask[None], [found.phrase])
drawn.save("figure.png")
results = nb.referring(models.name, "testA").expressions
with contextlib.redirect_stdout(io.StringIO()) as said:
    nblabs.check_overlap(nb.iou)
print(json.dumps({
    "package": nb.__file__, "data": str(data), "caption": text, "phrase": found.phrase,
    "pixels": int(found.mask.sum()), "map": found.map.tolist(), "expressions": len(results),
    "labs": nblabs.__file__, "said": said.getvalue(),
}))
"""


def test_the_installed_wheel_segments_captions_parses_draws_and_checks(
    wheel, python, tmp_path, monkeypatch, capsys
):
    python("-m", "pip", "install", "--quiet", wheel)
    told = json.loads(python("-c", USE).splitlines()[-1])
    package = Path(told["package"]).parent
    assert package.is_relative_to(tmp_path / "environment")
    assert Path(told["data"]) == package / "data"
    assert Path(told["labs"]) == package.parent / "nblabs" / "__init__.py"
    assert told["said"] == "iou is right on 4 inputs drawn just now.\n"
    monkeypatch.chdir(tmp_path)
    exec(USE, {})
    there = json.loads(capsys.readouterr().out)
    assert there["package"] == str(ROOT / "nbhelpers" / "__init__.py")
    for name in ("caption", "phrase", "pixels", "expressions"):
        assert told[name] == there[name]
    assert told["map"] == there["map"]
    assert (tmp_path / "empty" / "figure.png").read_bytes().startswith(b"\x89PNG")
    picture = str(next((package / "data").glob("stickers/images/*.png")))
    python("-m", "nbhelpers", "segment", picture, told["phrase"], "--quiet", "--out", "out")
    assert (tmp_path / "empty" / "out").is_dir()
    assert sorted(path.name for path in (tmp_path / "empty").iterdir()) == ["figure.png", "out"]


RUN = """
import nbformat
from nbclient import NotebookClient

notebook = nbformat.read("lab.ipynb", as_version=4)
NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
import nbhelpers
print(nbhelpers.__file__)
"""


def test_a_downloaded_notebook_installs_the_wheel_beside_it_and_runs(wheel, python, tmp_path):
    lab = student_notebook(ROOT / "book" / "02_chunks.md")
    first = next(i for i, c in enumerate(lab.cells) if "exercise" in c.metadata.get("tags", ()))
    lab.cells = lab.cells[:first]
    nbformat.write(lab, tmp_path / "empty" / "lab.ipynb")
    (tmp_path / "empty" / wheel.name).symlink_to(wheel)
    where = Path(python("-c", RUN).splitlines()[-1])
    assert where.is_relative_to(tmp_path / "environment")


OFFERED = """
import importlib.util

folders = ["nbhelpers", "nblabs", "book", "data", "images", "recipe", "tests", "tools"]
for name in filter(importlib.util.find_spec, folders):
    print(importlib.util.find_spec(name).origin)
"""


def test_an_editable_install_offers_the_two_packages_and_no_other_folder(python):
    pytest.importorskip("editables", reason="an editable install wants it; the extra `dev` has it")
    install = ["install", "--quiet", "--no-deps", "--no-build-isolation", "--editable", ROOT]
    python("-m", "pip", *install)
    found = [Path(line) for line in python("-c", OFFERED).splitlines()]
    assert found == [ROOT / "nbhelpers" / "__init__.py", ROOT / "book" / "nblabs" / "__init__.py"]


def test_the_wheel_holds_two_packages(wheel):
    with zipfile.ZipFile(wheel) as file:
        inside = {name.partition("/")[0] for name in file.namelist()}
        packed = {name for name in file.namelist() if name.startswith("nblabs/")}
    assert {name for name in inside if not name.endswith(".dist-info")} == {"nbhelpers", "nblabs"}
    assert packed == {f"nblabs/{path.name}" for path in (ROOT / "book" / "nblabs").glob("*.py")}


def test_the_wheel_holds_the_data_as_it_lies_here(wheel):
    with zipfile.ZipFile(wheel) as file:
        inside = {name for name in file.namelist() if name.startswith("nbhelpers/data/")}
        for name in inside:
            assert file.read(name) == (ROOT / name.removeprefix("nbhelpers/")).read_bytes()
    assert any(name.endswith("/unet/diffusion_pytorch_model.safetensors") for name in inside)
    assert wheel.stat().st_size < 100 * 2**20  # what an index takes
