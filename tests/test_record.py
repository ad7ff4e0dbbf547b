"""Records of what chapters showed elsewhere: shown as they were, stale once code moves."""

import os

import nbformat
import pytest
from jupyter_cache import get_cache
from myst_nb.core.read import read_myst_markdown_notebook

from book.tools import record

PAGE = """---
jupytext:
  text_representation:
    format_name: myst
kernelspec:
  display_name: Python 3
  language: python
  name: python3
---

# A chapter

Look at the number.

```{code-cell} ipython3
---
mystnb:
  figure:
    caption: A number.
---
import os
os.environ["NBHELPERS_MODEL"] + "!"
```
"""


@pytest.fixture
def recorded(tmp_path, monkeypatch):
    """A book of one page with the record of a model that this machine doesn't have."""
    (tmp_path / "page.md").write_text(PAGE, encoding="utf-8")
    monkeypatch.setenv("NBHELPERS_MODEL", "someone/large")
    record.record(tmp_path / "recorded", [tmp_path / "page.md"])
    monkeypatch.delenv("NBHELPERS_MODEL")
    return tmp_path


def shown(book):
    """What the book's engine would find for the page as it stands; KeyError where it would run."""
    page = read_myst_markdown_notebook((book / "page.md").read_text(encoding="utf-8"))
    _, notebook = get_cache(book / "cache").merge_match_into_notebook(page)
    return notebook.cells[1].outputs[0]["data"]["text/plain"]


def rewrite(book, old, new):
    text = (book / "page.md").read_text(encoding="utf-8")
    assert old in text
    (book / "page.md").write_text(text.replace(old, new), encoding="utf-8")


def test_a_record_is_shown_in_place_of_a_run(recorded):
    made = nbformat.read(recorded / "recorded" / "page.ipynb", as_version=4).metadata["recorded"]
    assert made["model"] == "someone/large"
    assert {"device", "machine", "python", "versions", "seconds", "peak_mib"} <= set(made)
    rewrite(recorded, "Look at", "Keep an eye on")
    rewrite(recorded, "caption: A number.", "caption: A text.")
    assert record.stale(recorded / "recorded", recorded) == []
    args = (recorded / "recorded", recorded, recorded / "cache")
    assert record.bring_back(*args) == ["page"]
    assert shown(recorded) == "'someone/large!'"
    assert record.bring_back(*args) == ["page"]  # again, as each build does


def test_other_code_makes_a_record_stale(recorded, capsys):
    rewrite(recorded, '+ "!"', '+ "?"')
    assert record.stale(recorded / "recorded", recorded) == ["page"]
    args = (recorded / "recorded", recorded, recorded / "cache")
    assert record.bring_back(*args) == []
    assert "the record of page is stale" in capsys.readouterr().out
    with pytest.raises(KeyError):
        shown(recorded)


def test_a_record_without_its_chapter_is_stale(recorded):
    (recorded / "page.md").unlink()
    assert record.stale(recorded / "recorded", recorded) == ["page"]


def test_no_record_of_the_book_is_stale():
    assert record.stale() == [], "record these chapters anew: NBHELPERS_MODEL=... make record"


def test_a_book_without_records_is_built_as_ever(tmp_path):
    assert record.bring_back(tmp_path / "recorded", tmp_path, tmp_path / "cache") == []
    assert not (tmp_path / "cache").exists()


def test_only_pages_that_ask_for_a_model_are_recorded(tmp_path, monkeypatch):
    pages = {"a.md": "kernelspec: ... NBHELPERS_MODEL", "b.md": "kernelspec: ..."}
    for file, text in pages.items():
        (tmp_path / file).write_text(text)
    monkeypatch.setattr(record, "notebooks", lambda: sorted(tmp_path.glob("*.md")))
    ran = []

    class Stop(Exception):
        pass

    def fake(page):
        import nbformat

        ran.append(page.name)
        return nbformat.v4.new_notebook(), {"seconds": 1, "peak_mib": 1}

    monkeypatch.setattr(record, "run", fake)
    record.record(tmp_path / "recorded")
    assert ran == ["a.md"]


def test_records_are_fetched_from_another_copy_of_the_project(tmp_path, monkeypatch):
    there, here = tmp_path / "there" / "book" / "recorded", tmp_path / "here"
    there.mkdir(parents=True)
    with pytest.raises(OSError, match="holds no record; run `make record` there first"):
        record.fetch(str(tmp_path / "there"), here)
    (there / "00_page.ipynb").write_text("new")
    (there / "notes.txt").write_text("no record")
    here.mkdir()
    (here / "00_page.ipynb").write_text("old")
    (here / "01_other.ipynb").write_text("mine")
    assert record.fetch(str(tmp_path / "there"), here) == ["00_page"]
    kept = {path.name: path.read_text() for path in here.iterdir()}
    assert kept == {"00_page.ipynb": "new", "01_other.ipynb": "mine"}
    with pytest.raises(OSError, match=r"cp -r .*nowhere.* failed"):
        record.fetch(str(tmp_path / "nowhere"), here)


def test_records_of_a_box_come_by_scp(tmp_path, monkeypatch):
    programs = tmp_path / "bin"
    programs.mkdir()
    script = '#!/bin/sh\necho "$*" > "$NOTES"\nmkdir "$4/recorded"\ntouch "$4/recorded/a.ipynb"\n'
    (programs / "scp").write_text(script)
    (programs / "scp").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("NOTES", str(tmp_path / "notes"))
    assert record.fetch("ann@box:words", tmp_path / "here") == ["a"]
    assert (tmp_path / "notes").read_text().startswith("-q -r ann@box:words/book/recorded ")
