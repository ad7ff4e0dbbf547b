"""Rows of pictures: drawn as given, said in words, and chosen in proportion."""

import io

import numpy as np
import pytest
from PIL import Image

import nbhelpers as nb
from nbhelpers.figures import in_proportion


def pixels(drawing):
    return np.asarray(Image.open(io.BytesIO(drawing.png)).convert("RGB")).astype(int)


def rows(**changes):
    gray = [np.full((8, 12, 3), 120, np.uint8), np.full((10, 10, 3), 60, np.uint8)]
    masks = [np.arange(96).reshape(8, 12) < 48, np.eye(10, dtype=bool)]
    maps = [np.linspace(0, 1, 6).reshape(2, 3), np.zeros((3, 3))]
    given = {
        "images": gray,
        "panels": [list(pair) for pair in zip(masks, maps, strict=True)],
        "columns": ["meant", "plain"],
        "names": ["a red ring", "the moon"],
        "notes": [["", "IoU 0.50"], ["", "IoU 0.25"]],
    }
    return nb.show_rows(**{**given, **changes})


def test_every_row_is_drawn_and_said():
    shown = rows()
    assert "a red ring: meant, plain IoU 0.50; the moon: meant, plain IoU 0.25" in shown.alt
    found = {tuple(color) for color in pixels(shown).reshape(-1, 3)}
    assert {(120, 120, 120), (60, 60, 60), (68, 1, 84), (253, 231, 36)} <= found  # viridis' ends


def test_a_flat_map_stays_flat():
    """The second map is all zeros: no yellow may come from stretching it."""
    first, second = rows(), rows(panels=[[np.zeros((3, 3))] * 2] * 2)
    yellow = [(np.abs(pixels(d) - (253, 231, 36)).max(-1) < 3).sum() for d in (first, second)]
    assert yellow[1] < yellow[0] / 2  # what is left is the scale's own


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"names": ["one"]}, r"got \[2, 2, 1, 2\] rows"),
        ({"columns": ["meant"]}, r"\[2\] panels or notes for 1 columns"),
        ({"panels": [[np.full((2, 2), 1.5)] * 2] * 2}, "from 1.5 to 1.5"),
        ({"panels": [[np.ones((8, 11), bool), np.zeros((2, 2))]] * 2}, r"size \(8, 12\)"),
        ({"panels": [[np.full((2, 2), np.nan)] * 2] * 2}, "NaN"),
    ],
)
def test_what_does_not_fit_is_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        rows(**changes)


def test_true_masks_part_the_masks_by_color_and_leave_the_maps():
    truths = [np.ones((8, 12), bool), np.eye(10, dtype=bool)]
    plain, parted = pixels(rows()), pixels(rows(truths=truths))
    gray = np.array([120, 120, 120])
    missed = (0.4 * gray + 0.6 * np.array([240, 228, 66])).round()
    shares = [(np.abs(drawn - missed).max(-1) < 2).mean() for drawn in (plain, parted)]
    assert shares[0] == 0
    assert shares[1] > 0.01
    with pytest.raises(ValueError, match="one row a picture"):
        rows(truths=truths[:1])


def test_better_alike_and_worse_are_chosen_as_they_occur():
    gains = [*np.linspace(0.1, 0.6, 50), *np.linspace(-0.05, 0.05, 30), *[-0.2] * 20]
    for seed in range(5):
        chosen = in_proportion(gains, 10, seed=seed)
        values = np.array(gains)[chosen]
        better, worse = int((values > 0.05).sum()), int((values < -0.05).sum())
        assert (better, 10 - better - worse, worse) == (5, 3, 2)
        assert (np.diff(values) <= 0).all()
        assert len(set(chosen)) == 10
    assert in_proportion(gains, 10, seed=0) != in_proportion(gains, 10, seed=1)


@pytest.mark.parametrize("rows", [0, 4])
def test_only_cases_that_are_there_are_chosen(rows):
    with pytest.raises(ValueError, match="from 1 to 3 of"):
        in_proportion([0.1, 0.2, 0.3], rows)


def test_the_largest_remainders_fill_the_rows():
    gains = [0.3] * 5 + [0.0] * 4 + [-0.3]
    chosen = in_proportion(gains, 3)  # shares 1.5, 1.2 and 0.3
    assert [gains[index] for index in chosen] == [0.3, 0.3, 0.0]
    assert in_proportion([0.05, -0.05, 0.5], 3) == [2, 0, 1]  # on the edge: alike


def test_panels_stand_in_order_on_one_scale_and_over_the_whole_picture():
    shown = pixels(rows(columns=["mask", "map"]))
    purple = (shown == (68, 1, 84)).all(axis=2)  # only maps have it
    purple = purple[: int(0.85 * len(shown))]  # without the scale below
    assert np.argwhere(purple)[:, 1].min() > shown.shape[1] / 2
    middle = pixels(rows(panels=[[np.full((3, 3), 0.5)] * 2] * 2))
    teal = (
        np.abs(middle - (33, 145, 140)).max(axis=2) < 4
    )  # viridis at 0.5, whatever else there is
    assert teal.mean() > 0.2
    one = pixels(
        rows(
            images=[np.full((8, 16, 3), 120, np.uint8)],
            panels=[[np.full((3, 3), 0.5)]],
            columns=["a"],
            names=["b"],
            notes=[[""]],
        )
    )
    teal = np.abs(one - (33, 145, 140)).max(axis=2) < 4
    high, wide = (np.sort(teal.sum(axis=axis))[-9] for axis in (0, 1))
    assert wide / high == pytest.approx(2, rel=0.2)  # over the whole picture
