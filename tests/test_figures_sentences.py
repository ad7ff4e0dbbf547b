"""Captions beside their picture and parse trees: what is marked, where, and in words."""

import inspect
import io

import numpy as np
import pytest
import spacy
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image
from spacy.tokens import Doc

from nbhelpers.figures import sentences, show_captions, show_tree

MARK = tuple(bytes.fromhex(sentences.MARK[1:]))
REST = tuple(bytes.fromhex(sentences.REST[1:]))
IMAGE = np.full((10, 20, 3), (10, 120, 30), np.uint8)


def colored(drawing, color):
    """Where a drawing has a color: bool (h, w)."""
    with Image.open(io.BytesIO(drawing.png)) as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    return (np.abs(pixels - np.array(color)).max(-1) <= 2).astype(bool)


def parsed(words, heads, labels, tags, spaces=None):
    return Doc(
        spacy.blank("en").vocab, words=words, heads=heads, deps=labels, pos=tags, spaces=spaces
    )


@pytest.fixture
def doc():
    """Of "a red ring near the moon" each word's head by hand."""
    return parsed(
        ["a", "red", "ring", "near", "the", "moon"],
        [2, 2, 2, 2, 5, 3],
        ["det", "amod", "ROOT", "prep", "det", "pobj"],
        ["DET", "ADJ", "NOUN", "ADP", "DET", "NOUN"],
    )


# Captions ---------------------------------------------------------------------------------------


def test_what_was_added_to_the_beginning_is_marked():
    text = "a photograph of a ring and a moon"
    beginnings = ["", "a photograph of", "a photograph of a ring", text]
    areas = [
        colored(show_captions(IMAGE, [text], given=[start]), MARK).sum() for start in beginnings
    ]
    assert areas[0] > areas[1] > areas[2] > areas[3] == 0
    cells = [len(text) - len(start) - bool(start) for start in beginnings[:3]]
    # Ink covers a part of every cell.
    assert np.allclose(areas[0] / np.array(areas[:3]), cells[0] / np.array(cells), rtol=0.12)


def test_the_mark_stands_behind_the_end_of_the_last_line():
    text = "a photograph of a striped turquoise ring and of a moon"  # two lines
    drawing = show_captions(IMAGE, [text], given=[text.removesuffix(" moon")])
    marked, whole = (colored(d, MARK) for d in (drawing, show_captions(IMAGE, [text], given=[""])))
    assert marked.any()
    assert not (marked & ~whole).any()
    rows, columns = np.nonzero(whole)
    last = rows > (rows.min() + rows.max()) / 2
    assert np.nonzero(marked)[0].min() >= rows[last].min() - 1
    assert np.nonzero(marked)[1].max() == columns[last].max()


def test_nothing_is_marked_where_no_beginnings_are_named():
    drawing = show_captions(IMAGE, ["a ring"])
    assert not colored(drawing, MARK).any()
    assert drawing.alt == "A picture of 10 x 20 pixels beside sentences. “a ring”."


def test_the_picture_keeps_its_colors_and_its_proportions():
    rows, columns = np.nonzero(colored(show_captions(IMAGE, ["a ring"]), IMAGE[0, 0]))
    assert np.ptp(columns) / np.ptp(rows) == pytest.approx(2, rel=0.03)
    assert len(rows) == pytest.approx(np.ptp(columns) * np.ptp(rows), rel=0.03)


def test_captions_are_said_in_words():
    drawing = show_captions(
        IMAGE, ["a ring and a moon", "a moon"], given=["a ring", "a moon"], labels=["first", 2]
    )
    assert "first: “a ring and a moon” (added: “and a moon”)" in drawing.alt
    assert "2: “a moon” (nothing added)" in drawing.alt
    assert show_captions(IMAGE, ["a ring"], alt="a sentence").alt == "a sentence"


def test_a_caption_that_does_not_go_on_from_its_beginning_is_refused():
    with pytest.raises(ValueError, match="'a moon' doesn't go on from the beginning 'a ring'"):
        show_captions(IMAGE, ["a moon"], given=["a ring"])


@pytest.mark.parametrize(
    ("captions", "more"),
    [([], {}), (["a"], {"given": ["a", "a"]}), (["a"], {"labels": []})],
)
def test_numbers_that_differ_are_refused(captions, more):
    with pytest.raises(ValueError, match="one beginning and one label"):
        show_captions(IMAGE, captions, **more)


@given(text=st.text("ab é\n\t-", max_size=200))
@example(text="a ring " * 30)  # the same line several times
@settings(deadline=None)
def test_lines_stand_at_their_offsets(text):
    lines = sentences._wrapped(text)
    offsets = [offset for first, line in lines for offset in range(first, first + len(line))]
    assert offsets == sorted(set(offsets))
    for first, line in lines:
        assert text[first : first + len(line)] == line
        assert len(line) <= sentences.WRAP
    left_out = set(range(len(text))) - set(offsets)
    assert not "".join(text[i] for i in left_out).strip()


# Trees ------------------------------------------------------------------------------------------


def test_a_tree_says_every_word_with_its_head(doc):
    said = show_tree(doc).alt
    assert said.startswith("The tree of “a red ring near the moon ”: a (DET) is det of ring; ")
    for part in (
        "ring (NOUN) is the ROOT",
        "moon (NOUN) is pobj of near",
        "the (DET) is det of m",
    ):
        assert part in said
    assert show_tree(doc, alt="a tree").alt == "a tree"


def test_chunks_are_marked_behind_their_own_words(doc, chunk_at):
    chunks = [chunk_at(doc.text, "a red ring"), chunk_at(doc.text, "the moon")]
    first, second = (show_tree(doc, chunks, target) for target in (0, 1))
    whole = colored(first, MARK).shape[1]
    left, right = (np.nonzero(colored(drawing, MARK))[1] for drawing in (first, second))
    assert left.max() < whole * 0.6 < right.min()
    assert np.ptp(left) / np.ptp(right) == pytest.approx(16.1 / 11.1, rel=0.05)  # characters
    assert (colored(second, REST)[:, left.min() : left.max()]).any()
    assert not colored(show_tree(doc, chunks), MARK).any()
    assert "Chunks: “a red ring”; “the moon”, the target." in second.alt


def test_another_head_draws_another_tree(doc):
    heads = [2, 2, 2, 2, 5, 2]
    other = parsed([t.text for t in doc], heads, [t.dep_ for t in doc], [t.pos_ for t in doc])
    assert show_tree(other).png != show_tree(doc).png
    assert show_tree(doc).png == show_tree(doc).png


def test_an_arc_leads_from_the_head_to_its_dependent():
    drawing = show_tree(parsed(["a", "b", "c"], [0, 0, 0], ["ROOT", "x", "x"], ["X"] * 3))
    height, width = colored(drawing, MARK).shape
    rows, columns = np.nonzero(colored(drawing, (27, 27, 27)))
    arch = columns[rows < 0.3 * height]  # of the upper arc, from "a" to "c"
    # In characters: a margin of 1 and three columns of 5.2 ("ROOT"), 3 and 3.
    head, dependent = (1 + 5.2 / 2) / 13.2, (1 + 5.2 + 3 + 3 / 2) / 13.2
    room = 0.125 / sentences.CELL / 13.2  # beside the two words' middles, for more arrows
    # 4 t (1 - t) of its height are reached where 3 t^2 - 2 t^3 lies in the middle 68%.
    assert np.ptp(arch) / width == pytest.approx(0.68 * (dependent - head - room), rel=0.1)
    assert (arch.min() + arch.max()) / 2 / width == pytest.approx((head + dependent) / 2, abs=0.05)


def test_more_nesting_takes_more_height(doc):
    flat = parsed(["a", "b", "c"], [0, 0, 1], ["ROOT", "x", "x"], ["X"] * 3)
    deep = parsed(["a", "b", "c"], [2, 2, 2], ["x", "x", "ROOT"], ["X"] * 3)
    sizes = [colored(show_tree(tree), MARK).shape[0] for tree in (flat, deep)]
    assert sizes[0] < sizes[1]


def test_spaces_and_several_sentences_are_drawn():
    doc = parsed(
        ["rings", "  ", "moons"], [0, 0, 2], ["ROOT", "dep", "ROOT"], ["NOUN", "SPACE", "NOUN"],
        spaces=[False, False, False],
    )  # fmt: skip
    said = show_tree(doc).alt
    assert "rings (NOUN) is the ROOT; moons (NOUN) is the ROOT" in said


def test_what_is_no_tree_is_refused(doc, chunk_at):
    with pytest.raises(ValueError, match="has 1 words and no parse"):
        show_tree(spacy.blank("en")("ring"))
    with pytest.raises(ValueError, match="has 0 words"):
        show_tree(spacy.blank("en")(""))
    with pytest.raises(ValueError, match="parse the very caption"):
        show_tree(doc, [chunk_at("the moon near a red ring", "a red ring")])


@st.composite
def trees(draw):
    """Arcs (child, head) of any words to any heads."""
    count = draw(st.integers(2, 9))
    heads = draw(st.lists(st.integers(0, count - 1), min_size=count, max_size=count))
    return [(child, head) for child, head in enumerate(heads) if child != head]


@given(arcs=trees())
@settings(deadline=None)
def test_arcs_over_the_same_gap_have_levels_of_their_own(arcs):
    levels = sentences._levels(arcs)
    assert set(levels) == set(arcs)
    gaps = [set(range(min(arc), max(arc))) for arc in arcs]
    for one, mine in zip(arcs, gaps, strict=True):
        for other, theirs in zip(arcs, gaps, strict=True):
            if one != other and mine & theirs:
                assert levels[one] != levels[other]
            if mine < theirs:
                assert levels[one] < levels[other]
    assert set(levels.values()) == set(range(1, max(levels.values(), default=0) + 1))


def test_the_signatures_promise_a_drawing():
    for function in (show_captions, show_tree):
        assert inspect.signature(function).return_annotation == "Drawing"
