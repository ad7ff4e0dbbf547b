"""What notebooks are given: pictures with alt text, tables, code with its path."""

import base64
import html
import io
import re

import numpy as np
import pytest
from PIL import Image

import nbhelpers as nb
from nbhelpers import masks
from nbhelpers.display import CORE, Drawing, Source, show_source, stack
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


def test_a_stack_is_one_picture_for_paper_and_its_panels_for_a_page():
    colors = np.array([[255, 0, 0], [0, 0, 9]], np.uint8)
    red, blue = (show_image(np.broadcast_to(color, (4, 4, 3)), "x") for color in colors)
    shown = stack([[red, blue], [red]], 'two "rows"')
    assert shown.width == red.width + blue.width
    with Image.open(io.BytesIO(shown.png)) as sheet:
        size = sheet.size
        pixels = np.asarray(sheet).astype(int)
    with Image.open(io.BytesIO(red.png)) as one:
        assert size == (2 * one.width, 2 * one.height)
    is_red, is_blue = (np.abs(pixels - c).max(-1) < 3 for c in ([255, 0, 0], [0, 0, 9]))
    quarter = size[0] // 2, size[1] // 2
    assert is_red[: quarter[1], : quarter[0]].mean() > 0.5  # above to the left
    assert is_blue[: quarter[1], quarter[0] :].mean() > 0.5  # to its right
    assert is_red[quarter[1] :, size[0] // 4 : -size[0] // 4].mean() > 0.5  # below, centered
    page = shown.as_html()
    assert page.count("<img ") == 3
    assert page.count('<div style="text-align: center">') == 2  # inline: a narrow page wraps them
    assert 'aria-label="two &quot;rows&quot;"' in page


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


def written(module):
    with open(module.__file__, encoding="utf-8") as file:
        return file.read().splitlines()


def test_show_source_is_the_file_without_words_and_checks():
    source = show_source(masks.to_masks)
    lines, file = source.code.splitlines(), written(masks)
    found = re.fullmatch(r"# nbhelpers/masks\.py, line (\d+)", lines[0])
    assert lines[1] == file[int(found[1]) - 1] == "def to_masks("
    assert set(lines[1:]) < set(file)  # nothing is rewritten
    assert lines[-1] == "    return to_pixels(maps, size) >= threshold"
    assert not re.search('raise|if math|"""|Args:', source.code)
    assert re.search('""".*every chunk.*raise refused', source.whole, re.DOTALL)
    assert repr(source) == source.code
    compile(source.code, "core", "exec")
    page = source._repr_mimebundle_()
    assert page["text/plain"] == source.code
    head, folded = page["text/markdown"].split("<details>")
    assert head == f"```python\n{source.code}```\n\n"
    assert f"```python\n{source.whole}```" in folded
    assert folded.endswith("</details>")


def test_show_source_shows_what_a_reader_takes_in_at_once():
    def long(x):
        """Words."""
        assert x
        total = x
        for _ in range(3):
            total += 1  # a reason
        return total

    part = show_source(long, start="total = x", stop="# a reason").code
    assert part.splitlines()[-3:] == [
        "total = x",
        "for _ in range(3):",
        "    total += 1  # a reason",
    ]
    with pytest.raises(ValueError, match="embed has .* lines to be shown, and 25 fit a page"):
        show_source(nb.embed)
    core = show_source(nb.embed, start="spans =", stop="edited[0, first:last]").code
    assert 5 < len(core.splitlines()) <= 1 + CORE
    for wrong in ({"start": "no such line"}, {"start": "return", "stop": "total = x"}):
        with pytest.raises(ValueError, match="long has no line with"):
            show_source(long, **wrong)


def test_show_source_of_other_things():
    assert "class Drawing:" in show_source(Drawing, stop="rows:").code
    method = show_source(Drawing.save).code
    assert method.splitlines()[1].startswith("def save(")  # no indentation left

    def nothing_but_words():
        """Words."""

    bare = show_source(nothing_but_words)
    assert '"""Words."""' in bare.code
    assert bare.whole == ""
    assert "<details>" not in bare._repr_mimebundle_()["text/markdown"]
    for wrong in (len, 3, "to_masks"):
        with pytest.raises(TypeError):
            show_source(wrong)


def test_code_with_fences_stays_whole():
    text = Source('"""```\n```"""\n')._repr_mimebundle_()["text/markdown"]
    fence = text.partition("python")[0]
    assert fence.count("`") > 3
    assert text.endswith(f"\n{fence}")
