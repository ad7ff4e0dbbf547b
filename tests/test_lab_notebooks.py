"""The labs of the chapters and the notebooks made of them: whole, plain, and without solutions."""

import ast
import contextlib
import itertools
import os
import re
import subprocess
import sys
import textwrap
from email.message import Message
from importlib.metadata import version
from pathlib import Path

import jupytext
import nbformat
import pytest
import torch
from nbclient.exceptions import CellExecutionError

import nbhelpers as nb
import nblabs
from book.tools.memory import measure
from book.tools.notebooks import (
    STUB,
    instructor_notebook,
    is_notebook,
    main,
    run,
    student_notebook,
    wheel,
)

BOOK = Path(__file__).parents[1] / "book"
PAGES = [path for path in sorted(BOOK.glob("*.md")) if is_notebook(path)]
CHAPTERS = [path for path in PAGES if re.match(r"\d\d_", path.name)]
MYST = re.compile(r"\{[\w:]+\}`|^(```|:::)\{|^\([\w-]+\)=|\$\$ \(", re.MULTILINE)


def exercises(path):
    """The source of a chapter's exercises, with their solutions."""
    cells = jupytext.read(path, fmt="md:myst").cells
    return [cell.source for cell in cells if "exercise" in cell.metadata.get("tags", ())]


def code(notebook, tag=None):
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return [c.source for c in cells if tag is None or tag in c.metadata.get("tags", ())]


def name(path):
    return path.stem


@pytest.mark.parametrize("path", CHAPTERS, ids=name)
def test_a_chapter_ends_in_a_lab(path):
    text = path.read_text(encoding="utf-8")
    lab = text[text.index("\n## Lab\n") :]
    assert "\n## " not in lab[2:]
    kinds = re.findall(r"\{admonition\} Exercise \d: (on paper|in code|open)", lab)
    assert kinds[0] == "on paper"
    assert kinds[-1] == "open"
    assert kinds.count("on paper") == kinds.count("open") == 1
    assert kinds.count("in code") == len(exercises(path))
    assert 2 <= len(exercises(path)) <= 3
    assert "*Hint.*" in lab[lab.index(": open\n") :]
    for solution in re.findall(r"\{admonition\} Solution.*?\n(.*)", lab):
        assert solution == ":class: dropdown"  # folded
    for cell in jupytext.read(path, fmt="md:myst").cells:
        if "exercise" in cell.metadata.get("tags", ()):
            assert "hide-cell" in cell.metadata["tags"]  # folded too


def test_every_check_has_its_exercise():
    used = [check for path in PAGES for s in exercises(path) for check in re.findall(
        r"nblabs\.(check_\w+)", s)]  # fmt: skip
    assert sorted(used) == sorted(n for n in nblabs.__all__ if n.startswith("check_"))


def pasted(path, exercise):
    """An exercise answered by each of its chapter's cells: the cell, then each of its results.

    Yields what runs beforehand and the answer: a cell that reads no argument runs once for all of
    its results.
    """
    tree = ast.parse(exercise)
    (function,) = (node for node in tree.body if isinstance(node, ast.FunctionDef))
    names = [argument.arg for argument in function.args.args]
    for cell in jupytext.read(path, fmt="md:myst").cells:
        if cell.cell_type != "code" or "exercise" in cell.metadata.get("tags", ()):
            continue
        if "load_models" in cell.source or "skip-execution" in cell.metadata.get("tags", ()):
            continue
        body = ast.parse(cell.source)
        made = [
            n.id
            for n in ast.walk(body)
            if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)
        ]
        functions = [n.name for n in body.body if isinstance(n, ast.FunctionDef)]
        results = [*dict.fromkeys(made), *(f"{f}({', '.join(names)})" for f in functions)]
        if {"low", "high"} <= {*made}:
            results.append("(low, high)")
        reads = not {*map(ident, ast.walk(body))}.isdisjoint(names)
        before, code = ("", textwrap.indent(cell.source, "    ")) if reads else (cell.source, "")
        for result in results:
            head = f"def {function.name}({', '.join(names)}):"
            yield before, f"{head}\n{code}\n    return {result}\n"


def ident(node):
    """The name in a node, None where it has none."""
    return getattr(node, "id", getattr(node, "arg", None))


def copied(path, exercise):
    """An exercise answered by each function of its chapter that takes as many arguments.

    Alone and with its arguments in any order, beside all that the chapter defines.
    """
    (function,) = (node for node in ast.parse(exercise).body if isinstance(node, ast.FunctionDef))
    names = [argument.arg for argument in function.args.args]
    defined = []
    for cell in jupytext.read(path, fmt="md:myst").cells:
        if cell.cell_type == "code" and "exercise" not in cell.metadata.get("tags", ()):
            defined += [node for node in ast.parse(cell.source).body if defines(node)]
    known = "\n".join(map(ast.unparse, defined))
    for node in defined:
        if isinstance(node, ast.FunctionDef) and len(node.args.args) == len(names):
            own = f"_{node.name}"  # a chapter's function may have the exercise's name
            for order in itertools.permutations(names):
                call = f"return {own}({', '.join(order)})"
                head = f"def {function.name}({', '.join(names)}):"
                yield known, f"{own} = {node.name}\n{head}\n    {call}\n"


def defines(node):
    """Whether a statement needs nothing to have run: an import, a function, a literal."""
    if isinstance(node, ast.Assign):
        named = all(isinstance(target, ast.Name) for target in node.targets)
        return named and not any(
            isinstance(n, ast.Call | ast.Name | ast.Attribute) for n in ast.walk(node.value)
        )
    return isinstance(node, ast.Import | ast.ImportFrom | ast.FunctionDef)


def passes(answer, check, models, ran):
    """Whether a check takes an answer; what a pasted cell lacks is an answer too, a wrong one.

    `ran` keeps what each cell has left, None where it broke.
    """
    before, function = answer
    if before not in ran:
        ran[before] = None
        with contextlib.suppress(Exception):
            spoken = run_time(models)
            exec(before, spoken)
            ran[before] = spoken
    if ran[before] is None:
        return False
    spoken = {**ran[before]}
    exec(function, spoken)
    with contextlib.suppress(Exception):
        exec(check, spoken)
        return True
    return False


@pytest.mark.parametrize("path", CHAPTERS, ids=name)
def test_one_exercise_at_least_is_not_answered_by_a_cell_of_its_chapter(path, models, capsys):
    ran = {}
    for exercise in exercises(path):
        (check,) = re.findall(r"nblabs\.check_\w+\(.*\)", exercise)
        answers = itertools.chain(pasted(path, exercise), copied(path, exercise))
        if not any(passes(answer, check, models, ran) for answer in answers):
            return
    pytest.fail("each exercise is answered by a cell of the chapter")


def test_a_copied_answer_is_found(tmp_path, models, capsys):
    (tmp_path / "references.bib").touch()
    page = tmp_path / "page.md"
    code = (
        "def by_hand(mask, truth):\n"
        "    both = mask & truth\n"
        "    return both.sum() / max(1, (mask | truth).sum())"
    )
    page.write_text(PAGE.format(union="1") + CELL.format(tag="hide-input", code=code))
    (exercise,) = exercises(page)
    ran = {}

    def taken(answer):
        return passes(answer, "nblabs.check_overlap(overlap)", models, ran)

    passed = [a for _, a in filter(taken, pasted(page, exercise))]
    assert len(passed) == 1
    assert passed[0].endswith("return by_hand(mask, truth)\n")
    passed = [a for _, a in filter(taken, copied(page, exercise))]
    assert [answer.splitlines()[-1].strip() for answer in passed] == (
        ["return _by_hand(mask, truth)", "return _by_hand(truth, mask)"]
    )


@pytest.mark.parametrize("path", CHAPTERS, ids=name)
def test_the_solutions_pass_their_checks(path, models):
    for source in exercises(path):
        exec(compile(source, path.name, "exec"), run_time(models))


def run_time(models):
    """What an exercise of a chapter finds in its notebook."""
    import numpy as np

    return {"nb": nb, "nblabs": nblabs, "torch": torch, "np": np, "models": models}


@pytest.mark.parametrize("path", CHAPTERS, ids=name)
def test_a_students_notebook_holds_no_solution(path, models):
    student, instructor = student_notebook(path), instructor_notebook(path)
    nbformat.validate(student)
    nbformat.validate(instructor)
    everything = "\n".join(cell.source for cell in student.cells)
    assert "Solution" not in everything
    assert "SOLUTION" not in everything
    assert not any(cell.get("outputs") for cell in student.cells)
    written = code(student, "exercise")
    assert len(written) == len(exercises(path))
    for source, check, solved in zip(
        written, code(student, "check"), code(instructor, "exercise"), strict=True
    ):
        body = ast.parse(source).body[-1].body
        assert ast.get_docstring(ast.parse(source).body[-1])
        assert len(body) == 2
        assert ast.unparse(body[1]) == ast.unparse(ast.parse(STUB))
        spoken = run_time(models)
        exec(source, spoken)
        with pytest.raises(nblabs.Wrong, match="isn't written yet"):
            exec(check, spoken)
        assert solved.count("### BEGIN SOLUTION") == solved.count("### END SOLUTION") == 1
        exec(solved, spoken)
        exec(check, spoken)


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_a_notebook_is_the_page_in_plain_markdown(path):
    student = student_notebook(path)
    chapter = jupytext.read(path, fmt="md:myst")
    theirs = [
        cell.source
        for cell in chapter.cells
        if cell.cell_type == "code" and "exercise" not in cell.metadata.get("tags", ())
    ]
    ours = [
        cell.source
        for cell in student.cells
        if cell.cell_type == "code" and "nbgrader" not in cell.metadata
    ]
    assert ours[1:] == theirs  # what the book ran, to the first exercise and beyond
    assert ours[0].startswith("# Installs the book's package")
    for cell in student.cells:
        if cell.cell_type == "markdown":
            assert not MYST.search(cell.source), MYST.search(cell.source)[0]
    assert [c.id for c in student.cells] == [c.id for c in student_notebook(path).cells]


def test_figures_equations_and_works_are_numbered_and_named():
    text = "\n".join(c.source for c in student_notebook(BOOK / "03_embeddings.md").cells)
    assert r"\tag{1}" in text
    assert "**Figure 2.** How much each token's embedding changes" in text
    assert re.search(r"\(Radford et al\., 2021\)", text)
    assert "In Figure 2, which cells" in text
    way = "\n".join(c.source for c in student_notebook(BOOK / "00_whole_way.md").cells)
    assert re.search(r"!\[[^\]]{40,}\]\(data:image/png;base64,iVBOR", way)


def test_the_first_cell_installs_the_wheel_where_the_package_is_missing(tmp_path, monkeypatch):
    asked = []
    first = code(student_notebook(CHAPTERS[0]))[0]
    (line,) = (line for line in first.splitlines() if "%pip" in line)
    plain = first.replace(line.strip(), f"asked.append({line.strip()!r})")
    exec(plain, {"asked": asked})
    assert asked == []  # it is here
    for here in ([], ["nbhelpers"], ["nblabs"]):
        monkeypatch.setattr("importlib.util.find_spec", lambda name, here=here: name in here)
        exec(plain, {"asked": asked})
    wanted = f"%pip install --quiet nbhelpers-{version('nbhelpers')}-py3-none-any.whl"
    assert asked == [wanted] * 3


def test_the_wheel_is_fetched_from_the_address_that_the_project_names(monkeypatch):
    about = Message()
    about["Version"] = "3.4"
    about["Project-URL"] = "Issues, https://example.org/issues"
    monkeypatch.setattr("book.tools.notebooks.metadata", lambda name: about)
    assert wheel() == "nbhelpers-3.4-py3-none-any.whl"
    about["Project-URL"] = "Book, https://example.org/words/"
    assert wheel() == "https://example.org/words/nbhelpers-3.4-py3-none-any.whl"
    assert wheel() in code(student_notebook(CHAPTERS[0]))[0]


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_a_notebook_runs_in_any_folder(path):
    """No cell goes to another folder or reads from one that a download hasn't got."""
    for source in code(instructor_notebook(path)):
        assert "chdir" not in source
        assert "../" not in source


PAGE = """---
kernelspec:
  display_name: Python 3
  language: python
  name: python3
---

# A page

```{{code-cell}} ipython3
:tags: [exercise]

import nblabs


def overlap(mask, truth):
    \"\"\"Intersection over union.\"\"\"
    return (mask & truth).sum() / {union}


nblabs.check_overlap(overlap)
```
"""


def test_both_kinds_run_and_a_wrong_solution_does_not(tmp_path):
    (tmp_path / "references.bib").touch()
    page = tmp_path / "page.md"
    page.write_text(PAGE.format(union="max(1, (mask | truth).sum())"))
    here = Path.cwd()
    solved = instructor_notebook(page)
    run(solved, tmp_path)
    assert "is right on 4 inputs" in solved.cells[-1].outputs[0].text
    run(student_notebook(page), tmp_path)
    page.write_text(PAGE.format(union="mask.size"))
    with pytest.raises(CellExecutionError, match="divide by the union"):
        run(instructor_notebook(page), tmp_path)
    assert Path.cwd() == here


CELL = "\n```{{code-cell}} ipython3\n:tags: [{tag}]\n\n{code}\n```\n"
HEAD = PAGE[: PAGE.index("```")]


@pytest.fixture
def made(tmp_path, monkeypatch):
    """What the command makes of pages: each notebook by kind and page."""

    def make(**pages):
        (tmp_path / "references.bib").touch()
        for stem, text in pages.items():
            (tmp_path / f"{stem}.md").write_text(text)
        out = tmp_path / "out"
        monkeypatch.setattr(sys, "argv", ["notebooks", "--book", str(tmp_path), "--out", str(out)])
        main()
        return {
            (path.parent.name, path.stem): nbformat.read(path, 4) for path in out.rglob("*.ipynb")
        }

    return make


def outputs(notebook):
    return ["".join(o.get("text", "") for o in c.get("outputs", ())) for c in notebook.cells]


def test_the_command_runs_what_there_is_to_run(made):
    exercise = PAGE.format(union="max(1, (mask | truth).sum())")
    prints = CELL.format(tag="hide-input", code="print('ran')")
    skipped = CELL.format(tag="skip-execution", code="print('skipped')")
    plain, idle = HEAD + prints + skipped, HEAD + skipped
    notebooks = made(lab=exercise, plain=plain, idle=idle)
    assert len(notebooks) == 6
    for stem, said in (("lab", ["is right on 4"]), ("plain", ["ran"]), ("idle", [])):
        found = [text for text in outputs(notebooks["instructor", stem]) if text]
        assert len(found) == len(said), (stem, found)
        assert all(a in b for a, b in zip(said, found, strict=True))
        assert not any(outputs(notebooks["student", stem]))
    assert not any(cell.get("execution_count") for cell in notebooks["instructor", "idle"].cells)


def test_the_command_fails_with_a_page_without_exercises(made):
    with pytest.raises(CellExecutionError, match="out of paper"):
        made(plain=HEAD + CELL.format(tag="hide-input", code="raise OSError('out of paper')"))


def test_the_command_runs_a_students_notebook_to_its_exercise(made):
    page = PAGE.format(union="1").replace("check_overlap(overlap)", "check_overlap")
    with pytest.raises(ValueError, match="of an empty cell"):
        made(lab=page)


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="only Linux tells")
def test_what_a_kernel_holds_is_read_from_the_system(tmp_path):
    (tmp_path / "references.bib").touch()
    page = tmp_path / "page.md"
    page.write_text(PAGE.format(union="max(1, (mask | truth).sum())"))
    page.write_text(page.read_text() + "\n```{code-cell} ipython3\nown = bytearray(2**28)\n```\n")
    (held,) = measure(page, 1)
    assert 256 + 20 < held["own"] < held["pss"] <= held["rss"] <= held["peak"] < 4000  # MiB


@pytest.mark.parametrize("path", CHAPTERS, ids=name)
def test_nbgraders_marks_stand_on_pairs_of_cells(path):
    for notebook in (student_notebook(path), instructor_notebook(path)):
        marked = [cell.metadata.nbgrader for cell in notebook.cells if "nbgrader" in cell.metadata]
        ids = [marks.grade_id for marks in marked]
        assert len(set(ids)) == len(ids) > 0
        answers = [marks for marks in marked if marks.cell_type == "markdown"]
        assert answers
        for marks in answers:
            assert (marks.solution, marks.grade, marks.locked, marks.points) == (1, 1, 0, 2)
        marked = [marks for marks in marked if marks.cell_type == "code"]
        for written, check in zip(marked[::2], marked[1::2], strict=True):
            assert check.grade_id == f"check_{written.grade_id}"
            assert (written.solution, written.grade, written.locked) == (True, False, False)
            assert (check.solution, check.grade, check.locked) == (False, True, True)
            assert check.points == 1 and "points" not in written


def test_a_check_that_passes_unwritten_is_refused(tmp_path):
    (tmp_path / "references.bib").touch()
    page = tmp_path / "page.md"
    page.write_text(
        PAGE.format(union="1").replace("nblabs.check_overlap(overlap)", "nblabs.check_overlap")
    )
    with pytest.raises(ValueError, match="of an empty cell"):
        run(student_notebook(page), tmp_path)


SITE = """
import sys

sys.path.insert(0, {ext!r})
extensions = ["myst_nb", "notebooks"]
html_theme = "sphinx_book_theme"
nb_execution_mode = "off"
root_doc = "page"
"""


def site(folder, notebooks):
    """A site of one page that runs and one that doesn't, built with or without a folder."""
    (folder / "conf.py").write_text(SITE.format(ext=str(BOOK / "_ext")))
    (folder / "references.bib").touch()
    cell = CELL.format(tag="hide-input", code="1")
    (folder / "page.md").write_text(f"{HEAD}{cell}\n```{{toctree}}\nprose\n```\n")
    (folder / "prose.md").write_text("# Prose\n\nNo cell.\n")
    env = {k: v for k, v in os.environ.items() if k != "NBHELPERS_NOTEBOOKS"}
    env |= {"NBHELPERS_NOTEBOOKS": notebooks} if notebooks else {}
    command = [sys.executable, "-m", "sphinx", "-q", "-E", folder, folder / "out"]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    if done.returncode:
        return done.stderr
    return [
        re.findall(
            r'href="(https://(?:colab|mybinder)[^"]*)"', (folder / "out" / name).read_text()
        )
        for name in ("page.html", "prose.html")
    ]


def test_pages_open_in_colab_and_binder_where_their_notebooks_lie_on_github(tmp_path):
    on_github = "https://github.com/ann/binding-words/tree/labs"
    for inside, path in (("/course/labs/", "course/labs/page.ipynb"), ("", "page.ipynb")):
        runs, prose = site(tmp_path, on_github + inside)
        assert runs == [
            f"https://colab.research.google.com/github/ann/binding-words/blob/labs/{path}",
            f"https://mybinder.org/v2/gh/ann/binding-words/labs?urlpath=lab/tree/{path}",
        ]
        assert prose == []
    assert site(tmp_path, None) == [[], []]
    assert not list((tmp_path / "out").glob("*.whl"))
    (tmp_path / "_build" / "wheel").mkdir(parents=True)
    (tmp_path / "_build" / "wheel" / "nbhelpers-3.4.whl").write_bytes(b"a wheel")
    site(tmp_path, None)
    assert (tmp_path / "out" / "nbhelpers-3.4.whl").read_bytes() == b"a wheel"
    for name in ("page.html", "prose.html"):
        assert 'href="nbhelpers-3.4.whl"' in (tmp_path / "out" / name).read_text()
    assert "is a folder on GitHub" in site(tmp_path, "https://example.org/labs")
