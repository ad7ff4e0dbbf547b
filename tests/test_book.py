"""The book's sources: cells a reader can take in, figures that can be read aloud."""

import ast
import functools
import re
import subprocess
import sys
from pathlib import Path

import jupytext
import numpy as np
import pytest
import yaml
from pybtex.database import parse_file

import nbhelpers as nb

BOOK = Path(__file__).parents[1] / "book"
TOC = yaml.safe_load((BOOK / "_toc.yml").read_text(encoding="utf-8"))
PAGES = [TOC["root"], *(page["file"] for part in TOC["parts"] for page in part["chapters"])]
HIDDEN = ["status"]  # built, and linked from the index, and in no menu
CHAPTERS = [page for page in PAGES if re.match(r"\d\d_", page)]
KEYS = re.findall(r"^@\w+\{([^,\s]+),", (BOOK / "references.bib").read_text("utf-8"), re.MULTILINE)


def source(page):
    return (BOOK / f"{page}.md").read_text(encoding="utf-8")


@functools.cache
def cells(page, kind="code"):
    notebook = jupytext.reads(source(page), fmt="md:myst")
    return [cell for cell in notebook.cells if cell.cell_type == kind]


HEADER = """---
jupytext: {text_representation: {extension: .md, format_name: myst}}
kernelspec: {display_name: Python 3, language: python, name: python3}
---

"""


def draws(cell):
    """Whether a cell ends by showing a figure: `nb.show_maps(...)`, `nb.sliders(...)`."""
    last = ast.parse(cell.source).body[-1]
    if not isinstance(last, ast.Expr) or not isinstance(last.value, ast.Call):
        return False
    name = ast.unparse(last.value.func).rpartition(".")[2]
    return name == "sliders" or (name.startswith("show_") and name != "show_source")


def test_the_table_of_contents_and_the_folder_agree():
    assert sorted([*PAGES, *HIDDEN]) == sorted(path.stem for path in BOOK.glob("*.md"))
    other = yaml.safe_load((BOOK / "myst.yml").read_text(encoding="utf-8"))
    first, *parts = other["project"]["toc"]
    assert [part["title"] for part in parts] == [part["caption"] for part in TOC["parts"]]
    pages = [first, *(page for part in parts for page in part["children"])]
    assert [page["file"].removesuffix(".md") for page in pages] == PAGES


def test_a_chapters_number_is_its_files():
    """The first chapter is the way in and has none; the menu numbers the others from 1."""
    (numbered,) = (part for part in TOC["parts"] if part.get("numbered"))
    files = [page["file"] for page in numbered["chapters"]]
    assert [int(file[:2]) for file in files] == [*range(1, len(files) + 1)]
    assert [f"00_{CHAPTERS[0][3:]}", *files] == CHAPTERS


def test_hidden_pages_are_built_and_linked():
    config = yaml.safe_load((BOOK / "_config.yml").read_text(encoding="utf-8"))
    assert not config["only_build_toc_files"]
    assert {"_build", "recorded", "**.ipynb"} <= set(config["exclude_patterns"])
    for page in HIDDEN:
        assert yaml.safe_load(source(page).split("---")[1])["orphan"]
        assert any(f"{{doc}}`{page}`" in source(other) for other in PAGES)


def prose(page):
    """What a reader reads of a page: no code, no commands, no equations, no options."""
    kept, opened = [], []  # the fences that a line stands in
    for line in "\n".join(cell.source for cell in cells(page, "markdown")).splitlines():
        fence = re.match(r"(`{3,}|\$\$)(.*)", line)
        if fence and fence[1] in opened:
            opened.remove(fence[1])
        elif fence:
            opened.append(fence[1])
            is_text = fence[2].startswith("{")  # of a directive
        elif not (opened and not is_text) and not re.match(r":[\w-]+:", line):
            kept.append(line)
    return "\n".join(kept)


def captions(page):
    """The captions of the figures that a page's cells draw."""
    if (BOOK / f"{page}.md").read_text(encoding="utf-8").startswith("---"):
        figures = [cell.metadata.get("mystnb", {}).get("figure", {}) for cell in cells(page)]
        return "\n".join(figure.get("caption", "") for figure in figures)
    return ""


@pytest.mark.parametrize("page", CHAPTERS)
def test_a_chapter_is_read_in_half_an_hour(page):
    assert 1500 <= len(f"{prose(page)} {captions(page)}".split()) <= 2500


def test_the_prose_says_findings_and_does_not_ask_to_look():
    said = [word for page in [*PAGES, *HIDDEN] for word in re.findall(
        r"\blook(?:s|ed|ing)?\b", f"{prose(page)} {captions(page)}", re.IGNORECASE)]  # fmt: skip
    assert len(said) <= 10
    asked = re.compile(r"^(?:Look|See (?:what|how|whether|that)|Watch)\b|[.:] (?:Look|Watch)\b")
    for page in PAGES:
        for line in prose(page).splitlines():
            assert not asked.search(line), f"{page}: {line[:80]}"


PLACE = re.compile(r"\b(?:an?|the|its|their|this|each|every|natural|in|at) places?\b(?! of)")


@pytest.mark.parametrize("page", [*PAGES, *HIDDEN])
def test_a_token_has_a_position_and_a_picture_has_locations(page):
    """One word each, as in the notation; "place" is neither."""
    assert not PLACE.search("masked where it stands, in place of the word, in the first place")
    for said in ("puts it in its place", "at each place", "masked in place"):
        assert PLACE.search(said), said
    text = re.sub(r"`[^`]*`", "", f"{prose(page)}\n{captions(page)}")
    assert [text[max(0, m.start() - 60) : m.end() + 20] for m in PLACE.finditer(text)] == []


AMOUNT = re.compile(
    r"\d|\b(?:one|two|three|four|five|six|seven|eight|nine|ten|half|third|twice|double|zero"
    r"|all|both|each|every|no|none|nothing)\b",
    re.IGNORECASE,
)


def calls(code):
    """The names of what a cell calls, in order; what its functions call isn't called yet."""
    waiting = [*code.body]
    while waiting:
        node = waiting.pop(0)
        if isinstance(node, ast.FunctionDef):
            continue
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func).rpartition(".")[2]
        waiting = [*ast.iter_child_nodes(node), *waiting]


def shows(name, own):
    """Whether a call shows a figure or a table, by itself or as a function of the page does."""
    is_figure = name == "sliders" or (name.startswith("show_") and name != "show_source")
    return is_figure or name in {"tabulate", *own}


def told(notebook):
    """Each cell that shows a figure or a table, and what is said of it.

    That is the prose after it, up to a heading. "1" stands for what is printed in words: by the
    cell itself, below what it shows, or by the next one.
    """
    own = set()  # functions of the page that show a table
    for index, cell in enumerate(notebook.cells):
        if cell.cell_type != "code":
            continue
        code = ast.parse(cell.source)
        own |= {
            one.name
            for one in code.body
            if isinstance(one, ast.FunctionDef) and "display" in {*calls(ast.Module(one.body, []))}
        }
        names = [*calls(code)]
        shown = [at for at, name in enumerate(names) if shows(name, own)]
        if not shown:
            continue
        said = "1" if "print" in names[shown[-1] :] else ""
        for after in notebook.cells[index + 1 : index + 3]:
            if after.cell_type == "markdown":
                text, *rest = re.split(r"^#", after.source, maxsplit=1, flags=re.MULTILINE)
                said += text
                if rest:
                    break
            else:
                printed = [*calls(ast.parse(after.source))]
                if "print" in printed and not any(shows(name, own) for name in printed):
                    said += "1"
        yield cell, said


@pytest.mark.parametrize("page", [*PAGES, *HIDDEN])
def test_a_finding_with_an_amount_follows_every_figure_and_table(page):
    """Prose, or a cell that says it in words; not the next figure, and not the next section."""
    if not source(page).startswith("---"):
        return
    for cell, said in told(jupytext.reads(source(page), fmt="md:myst")):
        assert AMOUNT.search(said), f"{page}: no finding, but {said!r}, after {cell.source[-80:]}"


def test_a_figure_without_a_finding_is_found():
    page = """A table:\n\n```{code-cell}\nnb.tabulate([], [])\n```\n\n%s\n## Next\n\nIt has 3.\n"""
    lead = "In words:\n\n```{code-cell}\n%s\n```\n"
    for text, finds in {
        "": False,
        "The masks:\n": False,
        "Two masks differ.\n": True,
        lead % "print('two')": True,
        lead % "nb.show_maps(two)": False,
    }.items():
        ((_, said),) = list(told(jupytext.reads(HEADER + page % text, fmt="md:myst")))[:1]
        assert bool(AMOUNT.search(said)) == finds, text


@pytest.mark.parametrize("name", ["weight", "into", "completion", "timesteps", "kinds", "gains"])
def test_what_the_knobs_measure_is_shown_on_their_page_alone(name):
    reads = re.compile(rf'results\.(?:rows?|table)\(\s*"{name}"')
    shown = [page for page in PAGES for cell in cells(page) if reads.search(cell.source)]
    assert {*shown} - {"index"} == {"knobs"}  # the index sums the sealed prompt up


NAMES = re.compile(r"\\(?:mathrm|text|operatorname\*?)\{[^{}]*\}")
GREEK = "alpha varepsilon mu ell sigma kappa Delta"
LETTER = re.compile(rf"(?P<bar>\\bar\s*\{{?)?(?P<letter>\\(?:{GREEK.replace(' ', '|')})(?![a-z])"
                    r"|(?<![\\A-Za-z])[A-Za-z](?![A-Za-z]))(?P<prime>\}?')?")  # fmt: skip


def letters(formula):
    """The letters of a formula; one with a bar or a prime is another letter."""
    plain = re.sub(
        r"\\(?!bar|" + GREEK.replace(" ", "|") + r")[A-Za-z]+", " ", NAMES.sub(" ", formula)
    )
    found = LETTER.finditer(plain)
    return {
        ("bar " if m["bar"] else "") + m["letter"] + ("'" if m["prime"] else "") for m in found
    }


def symbols():
    """What the notation explains: of each row of its table the formulas of its first column."""
    table = source("notation").partition("```{list-table}")[2]
    rows = re.findall(r"^\* - (.*)$", table.partition("\n```")[0], re.MULTILINE)[1:]
    return [re.findall(r"\$([^$]+)\$", row) for row in rows]


def test_a_letter_has_one_meaning():
    """Of each symbol the letter before its index; an index has a row of its own."""
    of_rows = [
        {letter for symbol in row for letter in letters(re.split(r"[_^(]", symbol)[0])}
        for row in symbols()
    ]
    every = [letter for row in of_rows for letter in row]
    assert len(every) > 30
    assert sorted(every) == sorted(set(every))


@pytest.mark.parametrize("page", [*CHAPTERS, "knobs", "formula_to_bytes"])
def test_the_notation_explains_every_letter(page):
    known = {letter for row in symbols() for symbol in row for letter in letters(symbol)}
    text = source(page).partition("\n## Lab")[0]
    displayed = re.findall(r"^\$\$\n(.*?)^\$\$", text, re.MULTILINE | re.DOTALL)
    inline = re.findall(
        r"(?<![$\\])\$([^$\n]+)\$(?!\$)",
        re.sub(r"^\$\$\n.*?^\$\$.*$", "", text, flags=re.M | re.S),
    )
    for formula in [*displayed, *inline]:
        assert letters(formula) <= known | {"e"}, formula


@pytest.fixture(scope="module")
def parser():
    return nb.load_models("stickers").parser


@pytest.mark.parametrize(
    ("phrase", "chunks"),
    [
        ("a photograph of children in red", ["a photograph", "children", "red"]),
        ("a photograph of white dog playing", ["a photograph", "white dog"]),
        ("a black and white horse", ["a black and white horse"]),
        ("a red hat and umbrella", ["a red hat", "umbrella"]),
        ("red orange and green strawberry", ["red orange and green strawberry"]),
        ("a red orange and a green strawberry", ["a red orange", "a green strawberry"]),
        ("a woman on a horse with a hat", ["a woman", "a horse", "a hat"]),
        ("red shirt", ["red shirt"]),
        ("second from left", ["left"]),
    ],
)  # fmt: skip
def test_chunks_are_those_that_the_chapter_speaks_of(parser, phrase, chunks):
    assert re.search(rf"\b{re.escape(phrase)}\b", source("02_chunks"))
    assert [chunk.text for chunk in nb.noun_chunks(phrase, parser)] == chunks


def test_a_picture_is_described_in_one_way():
    pages = [source(page) for page in PAGES] + [(BOOK.parent / "README.md").read_text("utf-8")]
    described = {}
    for text in pages:
        for path, alt in re.findall(r"\{figure\} (\S+)\n(?::name: .*\n)?:alt: (.*)", text):
            described.setdefault(Path(path).name, set()).add(alt)
        for alt, path in re.findall(r"!\[(.*?)\]\((\S+)\)", text):
            described.setdefault(Path(path).name, set()).add(alt)
    assert {"pipeline.png", "unet.png", "tiles.png"} <= set(described)
    for name, alts in described.items():
        assert len(alts) == 1, f"{name} is described as {alts}"


def test_no_notebook_with_outputs_is_kept():
    ours = {"_build", "recorded"}  # what was built, and records, which say on what they were made
    assert not [path for path in BOOK.rglob("*.ipynb") if not ours & set(path.parts)]


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


@pytest.mark.parametrize("page", PAGES)
def test_a_page_takes_its_model_and_its_device_from_the_environment(page):
    loads = [
        cell.source
        for cell in cells(page)
        if "load_models(" in cell.source and 'load_models("stickers")' not in cell.source
    ]
    for code in loads:
        assert 'os.environ.get("NBHELPERS_MODEL", "stickers")' in code
        assert 'device=os.environ.get("NBHELPERS_DEVICE", "cpu")' in code
    assert loads or page not in CHAPTERS


@pytest.mark.parametrize("page", CHAPTERS)
def test_six_import_lines_at_most(page):
    nodes = [node for cell in cells(page) for node in ast.walk(ast.parse(cell.source))]
    assert len([node for node in nodes if isinstance(node, ast.Import | ast.ImportFrom)]) <= 6


@pytest.mark.parametrize("page", CHAPTERS)
def test_prose_comes_before_every_cell(page):
    notebook = jupytext.reads(source(page), fmt="md:myst")
    for before, cell in zip(notebook.cells, notebook.cells[1:], strict=False):
        if cell.cell_type == "code":
            assert before.cell_type == "markdown", f"no prose before: {cell.source}"
            last = before.source.strip().splitlines()[-1]
            assert not last.startswith("#"), f"only a heading before: {cell.source}"


@pytest.mark.parametrize("page", PAGES)
def test_every_drawn_figure_has_a_number_and_a_caption(page):
    drawn = [cell for cell in cells(page) if draws(cell)]
    assert drawn or page not in CHAPTERS
    for cell in drawn:
        figure = cell.metadata.get("mystnb", {}).get("figure", {})
        assert figure.get("name", "").startswith("fig-"), cell.source
        assert len(figure.get("caption", "")) > 40, cell.source


@pytest.mark.parametrize("page", CHAPTERS)
def test_every_displayed_equation_can_be_cited(page):
    prose = "\n".join(cell.source for cell in cells(page, "markdown"))
    for end in re.findall(r"^\$\$(.*)$", prose, re.MULTILINE)[1::2]:
        assert re.fullmatch(r" \(eq-[\w-]+\)", end), f"an equation without a label: $${end}"
    for options in re.findall(r"^(?:```|:::)\{math\}\n(.*)$", prose, re.MULTILINE):
        assert options.startswith(":label: eq-"), options


def test_every_equation_is_cited():
    text = "\n".join(map(source, PAGES))
    labels = re.findall(r"(?:^\$\$ \(|^:label: )(eq-[\w-]+)", text, re.MULTILINE)
    assert len(labels) > 5
    assert [label for label in labels if f"{{eq}}`{label}`" not in text] == []


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


def test_words_are_spelled_as_americans_spell_them():
    root = BOOK.parent
    files = [*BOOK.glob("*.md"), *BOOK.glob("*.py"), *root.glob("*.md")]
    files += [root / "nbhelpers", BOOK / "nblabs", *(root / "data").rglob("*.md")]
    command = [sys.executable, "-m", "codespell_lib", "--toml", root / "pyproject.toml"]
    found = subprocess.run([*command, *files], capture_output=True, text=True)
    assert found.returncode == 0, found.stdout + found.stderr


def test_the_check_of_spelling_can_fail(tmp_path):
    (tmp_path / "page.md").write_text("The colour of a thresold.\n", encoding="utf-8")
    command = [sys.executable, "-m", "codespell_lib", "--toml", BOOK.parent / "pyproject.toml"]
    found = subprocess.run([*command, tmp_path / "page.md"], capture_output=True, text=True)
    assert "color" in found.stdout
    assert "threshold" in found.stdout


def test_the_bibliography_has_each_work_once_and_dated():
    text = (BOOK / "references.bib").read_text(encoding="utf-8")
    assert len(KEYS) == len(set(KEYS))
    assert [*parse_file(BOOK / "references.bib").entries] == KEYS
    for field in ("author", "title", "year"):
        assert len(re.findall(rf"^\s+{field}\s*=", text, re.MULTILINE)) == len(KEYS), field
