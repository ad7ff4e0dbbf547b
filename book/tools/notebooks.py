"""The labs as notebooks, made of the chapters: `python -m book.tools.notebooks`.

A student's has the exercises' signatures and checks, an instructor's the solutions too, marked as
nbgrader wants them.
"""

import argparse
import ast
from collections.abc import Iterator
from importlib.metadata import metadata
from pathlib import Path
from typing import Any

from nbformat import NotebookNode, v4, write
from tqdm import tqdm

from book.tools.markdown import Page, split_solutions

SET_UP = """\
# Installs the book's packages where they are missing, from the wheel that the site offers.
import importlib.util

if not all(map(importlib.util.find_spec, ["nbhelpers", "nblabs"])):
    %pip install --quiet {wheel}"""
SKIP = "skip-execution"  # of cells that want more than a kernel; nbclient passes them by
STUB = 'raise NotImplementedError("write this function")'
ANSWER = "*Write your answer here.*"
OTTER = """\
from otter.test_files import test_case

OK_FORMAT = False
name = {name!r}
points = 1


@test_case()
def test_it(env):
    exec({check!r}, dict(env))
"""


def student_notebook(path: Path) -> NotebookNode:
    """A chapter as a student gets it: no solutions, no outputs, plain Markdown.

    Args:
        path: The chapter's source in the book's folder.

    Returns:
        A notebook that runs to its first exercise in any folder, beside the wheel or with the
        packages installed.
    """
    return _notebook(path, solved=False)


def instructor_notebook(path: Path) -> NotebookNode:
    """The same with its solutions, between nbgrader's marks, so that it can be graded by it."""
    return _notebook(path, solved=True)


def wheel() -> str:
    """What pip is to install: the site's wheel at its address, or the file beside the notebook.

    Returns:
        An address where ``[project.urls]`` of pyproject.toml names the site as ``Book``.
    """
    about = metadata("nbhelpers")
    name = f"nbhelpers-{about['Version']}-py3-none-any.whl"
    urls = dict(line.split(", ", 1) for line in about.get_all("Project-URL") or ())
    return f"{urls['Book'].rstrip('/')}/{name}" if "Book" in urls else name


def is_notebook(path: Path) -> bool:
    """Whether a page of the book has cells to run."""
    return "kernelspec:" in path.read_text(encoding="utf-8")[:400]


def _notebook(path: Path, solved: bool) -> NotebookNode:
    page = Page(path)
    cells = [
        v4.new_markdown_cell("Run this cell first."),
        v4.new_code_cell(SET_UP.format(wheel=wheel())),
    ]
    answers = 0
    for cell in page.notebook.cells:
        if cell.cell_type == "markdown":
            for part, is_solution in split_solutions(cell.source):
                text = page.plain(part)
                if is_solution:
                    answers += 1
                    cells.append(_answer(text if solved else ANSWER, answers))
                elif text:
                    cells.append(v4.new_markdown_cell(text))
        elif "exercise" in cell.metadata.get("tags", ()):
            cells += _exercise(cell.source, solved)
        elif solved or "solution" not in cell.metadata.get("tags", ()):
            skipped = {"tags": [SKIP]} if SKIP in cell.metadata.get("tags", ()) else {}
            cells.append(v4.new_code_cell(cell.source, metadata=skipped))
            figure = cell.metadata.get("mystnb", {}).get("figure")
            cells += [v4.new_markdown_cell(page.caption(figure))] if figure else []
    for number, cell in enumerate(cells):
        cell["id"] = f"{path.stem.replace('_', '-')}-{number}"  # the same each time
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})


def _exercise(source: str, solved: bool) -> Iterator[NotebookNode]:
    """The cell to be written, and the cell that checks it."""
    lines, tree = source.splitlines(), ast.parse(source)
    first = next(node for node in tree.body if ast.unparse(node).startswith("nblabs.check_"))
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    written, checks = lines[: first.lineno - 1], lines[first.lineno - 1 :]
    for function in reversed(functions):
        body = function.body[1:] if ast.get_docstring(function) else function.body
        start, end = body[0].lineno - 1, body[-1].end_lineno
        kept = ["    ### BEGIN SOLUTION", *written[start:end], "    ### END SOLUTION"]
        written[start:end] = kept if solved else [f"    {STUB}"]
    name = functions[-1].name
    yield _cell(written, name, solution=True)
    yield _cell(checks, f"check_{name}", solution=False)


def _cell(lines: list[str], name: str, solution: bool) -> NotebookNode:
    """A cell with what nbgrader wants to know of it."""
    points = {} if solution else {"points": 1}
    marks = _marks(name, "code", solution=solution, grade=not solution, **points)
    tags = ["exercise" if solution else "check"]
    metadata = {"tags": tags, "nbgrader": marks}
    return v4.new_code_cell("\n".join(lines).strip(), metadata=metadata)


def _answer(text: str, number: int) -> NotebookNode:
    """A cell of a written answer, to which a person gives the points."""
    marks = _marks(f"answer_{number}", "markdown", solution=True, grade=True, points=2)
    return v4.new_markdown_cell(text, metadata={"nbgrader": marks})


def _marks(name: str, kind: str, *, solution: bool, grade: bool, **points: int) -> dict[str, Any]:
    """What nbgrader asks of a cell; one that students don't write is locked."""
    marks = {"grade_id": name, "schema_version": 3, "task": False, "cell_type": kind}
    return {**marks, "solution": solution, "grade": grade, "locked": not solution, **points}


def otter_tests(path: Path) -> dict[str, str]:
    """A file for each check of a chapter, by name, as otter-grader wants them."""
    checks = [
        cell for cell in student_notebook(path).cells if "check" in cell.metadata.get("tags", ())
    ]
    names = [cell.metadata.nbgrader.grade_id for cell in checks]
    return {
        f"{name}.py": OTTER.format(name=name, check=cell.source)
        for name, cell in zip(names, checks, strict=True)
    }


def run(notebook: NotebookNode, folder: Path, *, seconds: int = 300) -> None:
    """Run a notebook in place: an instructor's to its end, a student's to its first check.

    Cells that the book skips are skipped here too.

    Raises:
        CellExecutionError: A cell failed; a student's first check, which says that nothing is
            written yet, is the one that may.
        ValueError: A student's first check passed.
    """
    from nbclient import NotebookClient

    client = NotebookClient(
        notebook, timeout=seconds, kernel_name="python3", resources={"metadata": {"path": folder}}
    )
    is_student = _has_exercises(notebook)
    with client.setup_kernel():
        for number, cell in enumerate(notebook.cells):
            if is_student and "check" in cell.metadata.get("tags", ()):
                client.allow_errors = True
                client.execute_cell(cell, number)
                said = "".join(str(output.get("evalue", "")) for output in cell.outputs)
                if "isn't written yet" not in said:
                    raise ValueError(f"{cell.source} said {said or 'nothing'!r} of an empty cell")
                return
            client.execute_cell(cell, number)


def _has_exercises(notebook: NotebookNode) -> bool:
    """Whether there is something left to write."""
    return any(STUB in cell.source for cell in notebook.cells[2:])


def _has_work(notebook: NotebookNode) -> bool:
    """Whether a cell behind the set-up is there to be run."""
    code = [cell for cell in notebook.cells[2:] if cell.cell_type == "code"]
    return any(SKIP not in cell.metadata.get("tags", ()) for cell in code)


def main() -> None:
    """Write both kinds of every page; run the instructor's, and the student's to an exercise."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pages", nargs="*", help="such as 03_embeddings (default: all)")
    parser.add_argument("--book", type=Path, default=Path("book"), help="the book's folder")
    parser.add_argument("--out", type=Path, default=Path("build/labs"), help="where they go")
    parser.add_argument("--no-run", action="store_true", help="write them, run none")
    options = parser.parse_args()
    found = [path for path in sorted(options.book.glob("*.md")) if is_notebook(path)]
    chosen = [path for path in found if path.stem in (options.pages or [path.stem])]
    for path in tqdm(chosen, "labs"):
        both = {"student": student_notebook(path), "instructor": instructor_notebook(path)}
        targets = {kind: options.out / kind / f"{path.stem}.ipynb" for kind in both}
        for kind, target in targets.items():
            target.parent.mkdir(parents=True, exist_ok=True)
            write(both[kind], target)  # before it is run: a student's has no outputs
        for name, text in otter_tests(path).items():
            test = options.out / "otter" / path.stem / name
            test.parent.mkdir(parents=True, exist_ok=True)
            test.write_text(text, encoding="utf-8")
        if options.no_run or not _has_work(both["instructor"]):
            continue
        if _has_exercises(both["student"]):
            run(both["student"], targets["student"].parent)
        run(both["instructor"], targets["instructor"].parent)
        write(both["instructor"], targets["instructor"])


if __name__ == "__main__":
    main()
