"""The book's sources: cells a reader can take in, figures that can be read aloud."""

import ast
import re
from pathlib import Path

import jupytext
import numpy as np
import pytest
import yaml

import nbhelpers as nb

BOOK = Path(__file__).parents[1] / "book"
TOC = yaml.safe_load((BOOK / "_toc.yml").read_text(encoding="utf-8"))
PAGES = [TOC["root"], *(chapter["file"] for chapter in TOC["chapters"])]
DRAWN = re.compile(r"\bnb\.show_(image|masks|maps|chunks)\(")  # a Drawing has alt text of its own
CHAPTERS = [page for page in PAGES if re.match(r"\d\d_", page)]
KEYS = re.findall(r"^@\w+\{([^,\s]+),", (BOOK / "references.bib").read_text("utf-8"), re.MULTILINE)


def source(page):
    return (BOOK / f"{page}.md").read_text(encoding="utf-8")


def cells(page, kind="code"):
    notebook = jupytext.reads(source(page), fmt="md:myst")
    return [cell for cell in notebook.cells if cell.cell_type == kind]


def test_the_table_of_contents_and_the_folder_agree():
    assert sorted(PAGES) == sorted(path.stem for path in BOOK.glob("*.md"))
    other = yaml.safe_load((BOOK / "myst.yml").read_text(encoding="utf-8"))
    assert [Path(entry["file"]).stem for entry in other["project"]["toc"]] == PAGES


def test_no_notebook_with_outputs_is_kept():
    assert not [path for path in BOOK.rglob("*.ipynb") if "_build" not in path.parts]


@pytest.mark.parametrize("page", CHAPTERS)
def test_chapter_is_a_notebook_of_the_environments_kernel(page):
    header = yaml.safe_load(source(page).split("---")[1])
    assert header["kernelspec"]["name"] == "python3"
    assert header["jupytext"]["text_representation"]["format_name"] == "myst"


@pytest.mark.parametrize("page", CHAPTERS)
def test_cells_are_short_and_narrow_python(page):
    assert cells(page)
    for cell in cells(page):
        lines = cell.source.splitlines()
        assert len(lines) <= 25, cell.source
        assert max(map(len, lines)) <= 79, max(lines, key=len)
        ast.parse(cell.source)  # also refuses "!pip" and other magic
        assert "filterwarnings" not in cell.source
        assert "simplefilter" not in cell.source


@pytest.mark.parametrize("page", CHAPTERS)
def test_six_import_lines_at_most(page):
    lines = [line for cell in cells(page) for line in cell.source.splitlines()]
    assert len([line for line in lines if re.match(r"\s*(import|from)\s", line)]) <= 6


@pytest.mark.parametrize("page", CHAPTERS)
def test_prose_comes_before_every_cell(page):
    notebook = jupytext.reads(source(page), fmt="md:myst")
    for before, cell in zip(notebook.cells, notebook.cells[1:], strict=False):
        if cell.cell_type == "code":
            assert before.cell_type == "markdown", f"no prose before: {cell.source}"
            last = before.source.strip().splitlines()[-1]
            assert not last.startswith("#"), f"only a heading before: {cell.source}"


@pytest.mark.parametrize("page", CHAPTERS)
def test_every_drawn_figure_has_a_number_and_a_caption(page):
    drawn = [cell for cell in cells(page) if DRAWN.search(cell.source)]
    assert drawn
    for cell in drawn:
        figure = cell.metadata.get("mystnb", {}).get("figure", {})
        assert figure.get("name", "").startswith("fig-"), cell.source
        assert len(figure.get("caption", "")) > 40, cell.source


def test_drawn_figures_come_with_words():
    image = np.zeros((4, 6, 3), np.uint8)
    shown = nb.show_masks(image, image[None, ..., 0] > 0, ["a ring"])._repr_mimebundle_()
    assert re.search(r'<img [^>]*alt="[^"]*a ring[^"]*"', shown["text/html"])


@pytest.mark.parametrize("page", PAGES)
def test_every_still_picture_has_a_caption_and_words_for_it(page):
    text = source(page)
    assert not re.search(r"!\[\s*\]\(", text)
    for body in re.findall(
        r"^(?:```|:::)\{(?:figure|image)\}(.*?)^(?:```|:::)", text, re.M | re.S
    ):
        path, *options = body.strip().splitlines()
        assert (BOOK / path.strip()).is_file(), path
        assert any(re.match(r":alt:\s*\S", line) for line in options), path
        assert any(line and not line.startswith(":") for line in options), path


@pytest.mark.parametrize("page", PAGES)
def test_every_citation_is_in_the_bibliography(page):
    for names in re.findall(r"\{cite(?::\w+)?\}`([^`]+)`", source(page)):
        for name in names.split(","):
            assert name.strip() in KEYS, name


def test_the_bibliography_has_each_work_once_and_dated():
    text = (BOOK / "references.bib").read_text(encoding="utf-8")
    assert len(KEYS) == len(set(KEYS))
    for field in ("author", "title", "year"):
        assert len(re.findall(rf"^\s+{field}\s*=", text, re.MULTILINE)) == len(KEYS), field
