"""What the chapters showed on one machine, kept to be shown where that machine isn't at hand.

On a GPU box, `NBHELPERS_MODEL=... NBHELPERS_DEVICE=cuda make record` runs the chapters that read
these names and keeps each, outputs and all, in book/recorded. From then on `make book` shows the
record in place of a run. Prose and captions may change under it; once a chapter's code changes,
its record is stale: the chapter runs again, and a test names it. Deleting book/recorded (and
`make clean`) undoes it. `python -m book.tools.record fetch user@box:FOLDER` brings the records of
a copy of the project on another machine here.
"""

import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import jupytext
import nbformat
from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn
from myst_nb.core.read import read_myst_markdown_notebook
from nbformat import NotebookNode
from tqdm import tqdm

from book.tools.measure import BOOK, notebooks, run, surroundings
from nbhelpers.files import write_whole

RECORDED = BOOK / "recorded"
CACHE = BOOK / "_build" / ".jupyter_cache"


def code(notebook: NotebookNode) -> list[NotebookNode]:
    """The cells that run."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def is_stale(record: Path, book: Path = BOOK) -> bool:
    """Whether a record's chapter is gone, or has other code than was recorded."""
    page = book / f"{record.stem}.md"
    if not page.is_file():
        return True
    now, then = jupytext.read(page, fmt="md:myst"), nbformat.read(record, as_version=4)
    return [cell.source for cell in code(now)] != [cell.source for cell in code(then)]


def stale(recorded: Path = RECORDED, book: Path = BOOK) -> list[str]:
    """The chapters to be recorded anew."""
    return [path.stem for path in sorted(recorded.glob("*.ipynb")) if is_stale(path, book)]


def bring_back(recorded: Path = RECORDED, book: Path = BOOK, cache: Path = CACHE) -> list[str]:
    """Lay every record that isn't stale where the book's engine looks for finished runs.

    The outputs go into the page as it stands today, so that captions may have changed since.

    Returns:
        The names of the chapters that will be shown from their record.
    """
    shown = []
    for path in sorted(recorded.glob("*.ipynb")):
        if is_stale(path, book):
            print(f"the record of {path.stem} is stale: `make record` on its machine renews it")
            continue
        page, record = book / f"{path.stem}.md", nbformat.read(path, as_version=4)
        notebook = read_myst_markdown_notebook(page.read_text(encoding="utf-8"))
        for cell, kept in zip(code(notebook), code(record), strict=True):
            cell.outputs, cell.execution_count = kept.outputs, kept.execution_count
        seconds = record.metadata["recorded"]["seconds"]
        bundle = CacheBundleIn(notebook, str(page), data={"execution_seconds": seconds})
        get_cache(cache).cache_notebook_bundle(bundle, check_validity=False, overwrite=True)
        shown.append(path.stem)
    return shown


def record(recorded: Path = RECORDED, pages: list[Path] | None = None) -> None:
    """Run the chapters that read the model's name and keep what they showed."""
    if pages is None:
        pages = [page for page in notebooks() if "NBHELPERS_MODEL" in page.read_text("utf-8")]
    for page in tqdm(pages, "chapters"):
        notebook, cost = run(page)
        notebook.metadata["recorded"] = surroundings() | cost
        write_whole(recorded / f"{page.stem}.ipynb", nbformat.writes(notebook).encode())


def fetch(source: str, recorded: Path = RECORDED) -> list[str]:
    """Copy the records of another copy of the project here, over ssh or from a folder.

    Args:
        source: The project's folder there, ``user@box:FOLDER``, or a folder of this machine.
        recorded: Where the records go; of one chapter the fetched one replaces the one here.

    Returns:
        The names of the chapters that were fetched.

    Raises:
        OSError: There is no scp, it failed, or there are no records in that folder.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = ["scp", "-q", "-r", f"{source}/book/recorded", folder]
        if ":" not in source:
            command = ["cp", "-r", *command[3:]]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise OSError(f"{shlex.join(command)} failed: {done.stderr.strip()[-300:]}")
        found = sorted(Path(folder, "recorded").glob("*.ipynb"))
        if not found:
            raise OSError(f"{source}/book/recorded holds no record; run `make record` there first")
        for path in found:
            write_whole(recorded / path.name, path.read_bytes())
    return [path.stem for path in found]


if __name__ == "__main__":
    if sys.argv[1:] == ["make"]:
        if "NBHELPERS_MODEL" not in os.environ:
            sys.exit("a record is of a real model: NBHELPERS_MODEL=owner/name make record")
        record()
    elif sys.argv[1:] == ["show"]:
        print("shown from their record:", ", ".join(bring_back()) or "no chapter")
    elif sys.argv[1:2] == ["fetch"] and len(sys.argv) == 3:
        print("fetched:", ", ".join(fetch(sys.argv[2])))
    else:
        sys.exit("wanted: python -m book.tools.record make, or ... show, or ... fetch SOURCE")
