"""Numbers as figures: what doesn't fit is refused, what is drawn is said in words as well."""

import io

import numpy as np
import pytest
from PIL import Image

import nbhelpers as nb


def pixels(drawing):
    return np.asarray(Image.open(io.BytesIO(drawing.png)).convert("RGB")).astype(int)


def test_a_matrix_says_its_largest_cells_and_leaves_empty_ones_white():
    values = np.array([[0.0, np.nan], [0.25, 1.0]])
    shown = nb.show_matrix(values, ["a", "b"], ["c", "d"], limits=(0, 1), label="change")
    assert shown.alt.startswith("A matrix of change. Largest: b and d: 1.00; b and c: 0.25; ")
    full = nb.show_matrix(np.nan_to_num(values), ["a", "b"], ["c", "d"], limits=(0, 1), label="x")
    white = [(pixels(drawing).min(axis=2) == 255).sum() for drawing in (shown, full)]
    assert white[0] > white[1] + 500


def test_lines_carry_intervals_marks_and_words():
    lines = {"ours": [(0.2, 0.1, 0.3), (0.5, 0.4, 0.6)], "theirs": [0.1, 0.3]}
    labels = {"x_label": "weight", "y_label": "mIoU"}
    shown = nb.show_lines([0.5, 1.0], lines, **labels)
    assert "ours: 0.2 at 0.5, highest 0.5 at 1, 0.5 at 1" in shown.alt
    marked = nb.show_lines([0.5, 1.0], lines, marks={"the paper's": 0.9}, **labels)
    assert (pixels(shown) != pixels(marked)).any()
    bare = nb.show_lines([0.5, 1.0], {"ours": [0.2, 0.5], "theirs": [0.1, 0.3]}, **labels)
    assert (pixels(shown) != pixels(bare)).sum() > 5000  # the band


def test_between_whole_numbers_there_is_no_tick():
    def ticks(*x):
        drawn = pixels(nb.show_lines(x, {"a": [0.0, 1.0]}, x_label="batch", y_label="y"))
        below = drawn[-70:-45, 60:]  # the numbers under the axis
        dark = (below.min(axis=2) < 160).any(axis=0)
        return int((dark[1:] & ~dark[:-1]).sum())

    assert ticks(1, 2) < ticks(1.0, 2.0) / 2


def test_intervals_say_every_number():
    shown = nb.show_intervals(["alone"], {"sealed": [(0.12, 0.1, 0.14)]}, x_label="gain in mIoU")
    assert "sealed: alone +0.120 [+0.100, +0.140]" in shown.alt


@pytest.mark.parametrize(
    ("draw", "words"),
    [
        (
            lambda: nb.show_matrix(np.zeros((1, 2)), ["a"], ["b"], limits=(0, 1), label="x"),
            "1 x 2 cells have 1 names of rows and 1 of columns",
        ),
        (
            lambda: nb.show_matrix(np.full((1, 1), 2.0), ["a"], ["b"], limits=(0, 1), label="x"),
            "outside the color scale's 0 to 1",
        ),
        (
            lambda: nb.show_lines([1, 2], {"a": [1.0]}, x_label="x", y_label="y"),
            "'a' has 1 points, x has 2",
        ),
        (
            lambda: nb.show_intervals(["a", "b"], {"c": [(0.0, 0.0, 0.0)]}, x_label="x"),
            "'c' has 1 intervals for 2 rows",
        ),
    ],
)
def test_what_does_not_fit_is_refused(draw, words):
    with pytest.raises(ValueError, match=words):
        draw()


def test_intervals_reach_both_ends_and_the_first_row_is_above():
    def drawn(*interval):
        return nb.show_intervals(["a"], {"s": [interval]}, x_label="gain", alt="x").png

    assert len({drawn(0.5, 0.1, 0.6), drawn(0.5, 0.1, 0.9), drawn(0.5, 0.2, 0.6)}) == 3
    two = nb.show_intervals(["a", "b"], {"s": [(0.5, 0, 1), (0.5, 0.49, 0.51)]}, x_label="gain")
    blue = (pixels(two) == (0, 0x72, 0xB2)).all(axis=2)
    assert np.argwhere(blue)[:, 0].mean() < len(blue) / 2  # the first row's long line is above


def test_marks_stand_at_their_values():
    labels = {"x_label": "weight", "y_label": "mIoU"}
    shown, marked = (
        pixels(nb.show_lines([0, 1, 2], {"a": [0.0, 1.0, 0.0]}, marks={".": at}, **labels))
        for at in (0.5, 1.5)
    )
    for drawing, other, side in ((shown, marked, 0), (marked, shown, 1)):
        darker = (drawing.sum(axis=2) < other.sum(axis=2) - 90).sum(axis=0)
        assert (darker.argmax() > len(darker) / 2) == side
