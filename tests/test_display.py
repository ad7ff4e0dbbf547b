"""What notebooks are given: pictures with alt text, tables, code with its place."""

import base64
import html
import re

import numpy as np
import pytest

import nbhelpers as nb
from nbhelpers import masks
from nbhelpers.display import Drawing, Source, show_source
from nbhelpers.figures import show_image


def test_a_drawing_carries_its_words():
    drawing = show_image(np.zeros((2, 3, 3), np.uint8), "zeros")
    bundle = drawing._repr_mimebundle_()
    assert base64.b64decode(bundle["image/png"]) == drawing.png
    assert bundle["text/plain"] == drawing.alt == "A picture of 2 x 3 pixels: zeros"
    assert f'alt="{drawing.alt}"' in bundle["text/html"]
    assert f'width="{drawing.width}"' in bundle["text/html"]
    assert bundle["image/png"] in bundle["text/html"]
    assert repr(drawing) == f"<Drawing: {drawing.alt}>"


@pytest.mark.parametrize("alt", ['"><script>alert(1)</script>', "' onload='x", "a & b < c"])
def test_alt_text_is_escaped(alt):
    text = Drawing(b"", alt, 10)._repr_mimebundle_()["text/html"]
    assert text.count("<") == 1
    assert "'" not in text
    assert html.unescape(re.search('alt="([^"]*)"', text)[1]) == alt


def test_a_drawing_is_saved(tmp_path):
    drawing = show_image(np.zeros((2, 3, 3), np.uint8))
    drawing.save(tmp_path / "zeros.png")
    assert (tmp_path / "zeros.png").read_bytes() == drawing.png


def test_a_table_lines_up_numbers_and_leaves_words_to_the_left():
    shown = nb.tabulate(
        ["method", "mIoU", "gain", "note"],
        [["a", 0.5, "+0.04 [-0.02, +0.10]", 1], ["longer", None, "−3.1 [−4, −2]", "b"]],
        caption="Ours",
    )
    assert repr(shown).splitlines() == [
        "Ours",
        "method   mIoU                  gain  note",
        "------  -----  --------------------  ----",
        "a       0.500  +0.04 [-0.02, +0.10]  1",
        "longer      -         −3.1 [−4, −2]  b",
    ]
    page = shown._repr_mimebundle_()["text/html"]
    assert re.findall(r'<th style="text-align: (\w+)">', page) == [
        "left",
        "right",
        "right",
        "left",
    ]
    assert page.count("<tr>") == 3
    assert "<caption>Ours</caption>" in page


def test_powers_of_ten_are_numbers_and_error_messages_are_not():
    lines = repr(nb.tabulate(["off by", "said"], [["3e-06", "1e-06"], ["", "e-06"]])).splitlines()
    assert lines[2:] == [" 3e-06  1e-06", "        e-06"]


def test_a_table_without_rows_has_its_headings():
    assert repr(nb.tabulate(["a", "b"], [])) == "a  b\n-  -"


def test_a_table_of_ragged_rows_is_refused():
    with pytest.raises(ValueError, match=r"2 columns \(a, b\), 1 cells"):
        nb.tabulate(["a", "b"], [["x"]])


def test_the_cells_of_a_table_are_escaped():
    hostile = "<img src=x onerror=alert(1)>"
    page = nb.tabulate([hostile], [[hostile]], caption=hostile)._repr_mimebundle_()["text/html"]
    assert "<img" not in page
    assert page.count(html.escape(hostile)) == 3


def test_show_source_is_the_file():
    source = show_source(masks.to_masks)
    lines = source.code.splitlines()
    with open(masks.__file__, encoding="utf-8") as file:
        written = file.read().splitlines()
    place = re.fullmatch(r"# nbhelpers/masks\.py, line (\d+)", lines[0])
    first = int(place[1]) - 1
    assert lines[1:] == written[first : first + len(lines) - 1]
    assert lines[1].startswith("def to_masks(")
    assert repr(source) == source.code
    assert source._repr_mimebundle_() == {
        "text/markdown": f"```python\n{source.code}```",
        "text/plain": source.code,
    }


def test_show_source_without_docstring():
    whole, bare = show_source(masks.to_masks), show_source(masks.to_masks, docstring=False)
    assert '"""' in whole.code
    assert '"""' not in bare.code
    assert bare.code.splitlines()[-1] == whole.code.splitlines()[-1]
    compile(bare.code, "bare", "exec")


def test_show_source_of_other_things():
    assert "class Drawing:" in show_source(Drawing).code
    method = show_source(Drawing.save, docstring=False).code
    assert method.splitlines()[1].startswith("def save(")  # no indentation left

    def nothing_but_words():
        """Words."""

    assert '"""Words."""' in show_source(nothing_but_words, docstring=False).code
    for wrong in (len, 3, "to_masks"):
        with pytest.raises(TypeError):
            show_source(wrong)


def test_code_with_fences_stays_whole():
    text = Source('"""```\n```"""\n')._repr_mimebundle_()["text/markdown"]
    fence = text.partition("python")[0]
    assert fence.count("`") > 3
    assert text.endswith(f"\n{fence}")
