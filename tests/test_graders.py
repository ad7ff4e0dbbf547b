"""A whole lab through both graders: the solved notebook has all points, an unwritten one none.

The graders run in an environment of their own, which `make graders` makes.
"""

import csv
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import nbformat
import pytest

from book.tools.markdown import Page, split_solutions
from book.tools.notebooks import instructor_notebook, otter_tests, student_notebook

ROOT = Path(__file__).parents[1]
LAB = ROOT / "book" / "02_chunks.md"
BIN = ROOT / ".venv" / "graders" / "bin"
CHECKS = [name.removesuffix(".py") for name in otter_tests(LAB)]


@pytest.fixture(scope="module")
def call():
    """Run a command of the graders in a folder; what it wrote."""
    if not (BIN / "nbgrader").exists() or not (BIN / "otter").exists():
        reason = "the graders aren't installed; `make graders` installs them"
        (pytest.fail if os.environ.get("GRADERS") == "required" else pytest.skip)(reason)

    def run(folder, *command):
        path = f"{BIN}{os.pathsep}{os.environ['PATH']}"  # nbgrader looks for alembic there
        plain = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONWARNINGS")}
        done = subprocess.run(
            [BIN / "python", BIN / command[0], *command[1:]],
            cwd=folder,
            env=plain | {"PATH": path, "IPYTHONDIR": str(folder / ".ipython")},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout + done.stderr

    return run


def solutions():
    """Every line of the lab's solutions, written and in code."""
    page = Page(LAB)
    for cell in page.notebook.cells:
        if cell.cell_type == "markdown":
            for part, is_solution in split_solutions(cell.source):
                yield from page.plain(part).splitlines() if is_solution else ()
    for cell in instructor_notebook(LAB).cells:
        yield from re.findall(r"BEGIN SOLUTION\n(.*?)\n.*END", cell.source, re.DOTALL)


def test_nbgrader_strips_every_solution_and_grades_a_whole_lab(call, tmp_path):
    source = tmp_path / "source" / "lab"
    source.mkdir(parents=True)
    nbformat.write(instructor_notebook(LAB), source / LAB.with_suffix(".ipynb").name)
    call(tmp_path, "nbgrader", "generate_assignment", "lab", "--create")
    (release,) = (tmp_path / "release" / "lab").glob("*.ipynb")
    given = "\n".join(cell.source for cell in nbformat.read(release, 4).cells)
    told = [line for line in solutions() if len(line) > 30]
    assert len(told) >= 4
    assert [line for line in told if line in given] == []
    assert "Solution" not in given and "SOLUTION" not in given
    for student, notebook in {"solved": source / release.name, "unwritten": release}.items():
        folder = tmp_path / "submitted" / student / "lab"
        folder.mkdir(parents=True)
        shutil.copy(notebook, folder)
    call(tmp_path, "nbgrader", "autograde", "lab")
    call(tmp_path, "nbgrader", "export")
    with open(tmp_path / "grades.csv", encoding="utf-8") as file:
        scores = {row["student_id"]: float(row["score"]) for row in csv.DictReader(file)}
    assert scores == {"solved": len(CHECKS), "unwritten": 0}  # written answers wait for a person


def test_otter_grades_a_whole_lab(call, tmp_path):
    (tmp_path / "tests").mkdir()
    for name, text in otter_tests(LAB).items():
        (tmp_path / "tests" / name).write_text(text, encoding="utf-8")
    call(tmp_path, "otter", "generate", "-t", "tests", "-o", "autograder.zip")
    found = {}
    for kind, make in {"solved": instructor_notebook, "unwritten": student_notebook}.items():
        nbformat.write(make(LAB), tmp_path / f"{kind}.ipynb")
        out = tmp_path / kind
        out.mkdir()
        call(tmp_path, "otter", "run", "-a", "autograder.zip", "-o", kind, f"{kind}.ipynb")
        found[kind] = json.loads((out / "results.json").read_text("utf-8"))
    for kind, points in {"solved": 1, "unwritten": 0}.items():
        scores = {t["name"].split(" ")[0]: t.get("score") for t in found[kind]["tests"]}
        assert {name: scores.get(name) for name in CHECKS} == dict.fromkeys(CHECKS, points)
