"""Figures: drawn as given, never stretched in silence, said in words too."""

import ast
import inspect
import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import spacy
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from spacy.tokens import Doc

import nbhelpers as nb
from nbhelpers.figures import images as figures
from nbhelpers.figures import (
    overlay,
    panels,
    show_captions,
    show_chunks,
    show_image,
    show_maps,
    show_masks,
    show_tree,
)

unchecked = inspect.unwrap  # as users call it: the tests' checks of the signature are theirs alone
RED = (200, 30, 30)


def pixels(drawing):
    with Image.open(io.BytesIO(drawing.png)) as picture:
        return np.asarray(picture.convert("RGB")).astype(int)


def share(drawing, color, tolerance=2):
    """Of a drawing's pixels, the share that has a color."""
    return (np.abs(pixels(drawing) - np.array(color)).max(-1) <= tolerance).mean()


@pytest.fixture
def image():
    """A red square, twice as far from the left as from the top, on gray."""
    drawn = np.full((48, 64, 3), 200, np.uint8)
    drawn[10:20, 20:30] = RED
    return drawn


@pytest.fixture
def mask(image):
    return image[..., 1] == RED[1]


# Overlay ----------------------------------------------------------------------------------------


def test_overlay_tints_the_mask_over_a_gray_picture(image, mask):
    before = image.copy()
    drawn = overlay(image, mask).astype(int)
    assert drawn.shape == image.shape
    gray = round(0.299 * 200 + 0.587 * 30 + 0.114 * 30)
    blue = [round(0.4 * gray + 0.6 * part) for part in (0, 114, 178)]
    assert np.abs(drawn[mask] - blue).max() <= 1
    assert (drawn[~mask] == 200).all()
    assert (image == before).all()


def test_overlay_keeps_white_things_visible(mask):
    """White on a light ground, inside and outside of the mask, and its shading."""
    image = np.full((48, 64, 3), 220, np.uint8)
    image[10:20, 20:40] = 255  # half of it is in the mask
    image[12:14, 22:28] = 180
    drawn = overlay(image, mask).astype(int)
    assert np.abs(drawn[15, 35] - drawn[30, 5]).max() >= 30  # outside: white on light gray
    assert np.abs(drawn[15, 25] - drawn[15, 35]).max() >= 100  # the tint on white
    assert np.abs(drawn[13, 25] - drawn[15, 25]).max() >= 25  # shading below the tint


def test_overlay_parts_right_wrong_and_missed_by_color(image, mask):
    truth = np.roll(mask, 4, axis=1)
    drawn = overlay(image, mask, truth).astype(int)
    kinds = {
        (0, 114, 178): mask & truth,
        (213, 94, 0): mask & ~truth,
        (240, 228, 66): truth & ~mask,
    }
    gray = (image @ np.array([0.299, 0.587, 0.114]))[..., None]
    for color, where in kinds.items():
        assert where.sum() == (60 if color == (0, 114, 178) else 40)
        assert np.abs(drawn[where] - (0.4 * gray[where] + 0.6 * np.array(color))).max() <= 1
    assert (drawn[~(mask | truth)] == 200).all()
    assert (overlay(image, mask, mask) == overlay(image, mask)).all()


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.randoms(use_true_random=False))
def test_overlay_of_anything(h, w, random):
    rng = np.random.default_rng(random.randrange(2**32))
    image = rng.integers(0, 256, (h, w, 3), dtype=np.uint8)
    mask, truth = rng.random((2, h, w)) < random.random()
    drawn = overlay(image, mask, truth)
    gray = drawn.max(-1) == drawn.min(-1)
    assert (gray == ~(mask | truth)).all()  # the tint is the only color


def test_overlay_refuses_what_does_not_fit(image, mask):
    for wrong in (mask.T, mask.astype(float), mask[None], mask[:-1]):
        with pytest.raises(ValueError, match=r"masks are bool .* size \(48, 64\)"):
            unchecked(overlay)(image, wrong)
        with pytest.raises(ValueError, match=r"masks are bool .* size \(48, 64\)"):
            unchecked(overlay)(image, mask, wrong)
    for wrong in (image / 255, image[..., 0], image[:0], np.zeros((4, 4, 4), np.uint8)):
        with pytest.raises(ValueError, match=r"a picture is a uint8 array \(h, w, 3\).*; got"):
            unchecked(overlay)(wrong, mask)


# Masks ------------------------------------------------------------------------------------------


def test_show_masks_draws_every_mask(image, mask):
    one = show_masks(image, mask[None], ["the red square"])
    two = show_masks(image, np.stack([mask, ~mask]), ["square", "ground"])
    assert one.alt == (
        "A picture of 48 x 64 pixels and its masks. the red square: 3.3% of the picture."
    )
    assert "square: 3.3% of the picture; ground: 96.7%" in two.alt
    assert pixels(two).shape[1] > pixels(one).shape[1]
    assert pixels(one).shape[1] == pytest.approx(2 * one.width, abs=2)
    inner = (2 * panels.DPI * (panels.PANEL - 0.1)) ** 2 * 48 / 64  # pixels of one picture
    for color in (RED, overlay(image, mask)[15, 25]):  # in the picture, in the overlay
        area = share(one, color) * pixels(one)[..., 0].size
        assert area == pytest.approx(mask.mean() * inner, rel=0.1)


def test_show_masks_beside_the_truth_says_how_good_they_are(image, mask):
    truth = np.roll(mask, 5, axis=1)
    shown = show_masks(image, np.stack([mask, truth]), ["one", "two"], truth=truth)
    assert "one: IoU 0.33; two: IoU 1.00." in shown.alt
    assert shown.rows[-1][0].alt.startswith("Colors: blue was found correctly")
    each = show_masks(image, np.stack([mask, truth]), truth=[mask, truth])
    assert each.alt.count("IoU 1.00") == 2
    assert show_masks(image, mask[None]).rows[-1][-1].alt == "a panel: 3.3% of the picture"
    with pytest.raises(ValueError, match="2 masks need as many true masks; got 1"):
        show_masks(image, np.stack([mask, mask]), truth=[mask])


def test_labels_are_text_or_chunks(image, mask, chunk_at):
    caption = "a red square"
    drawn = show_masks(image, mask[None], [chunk_at(caption, "a red square", "square")])
    assert "a red square: 3.3%" in drawn.alt
    with pytest.raises(ValueError, match="one label for each panel: 1 for 2"):
        show_masks(image, np.stack([mask, mask]), ["one"])


def test_tensors_are_drawn_too(image, mask):
    assert show_masks(image, torch.from_numpy(mask)[None]).alt.endswith(
        "a mask: 3.3% of the picture."
    )
    for kind in (torch.float32, torch.float16, torch.bfloat16):
        assert "1.00" in show_maps(image, torch.ones(1, 3, 4, dtype=kind)).alt


@pytest.mark.parametrize("count", range(1, 14))
def test_panels_fill_rows_and_none_stands_alone(image, mask, count):
    lengths = [len(row) for row in show_masks(image, np.stack([mask] * count)).rows]
    assert sum(lengths) == count + 1  # the picture is one, too
    assert max(lengths) <= panels.COLUMNS
    assert min(lengths) >= 2
    assert max(lengths) - min(lengths) <= 1


def test_rows_fit_a_page_and_two_panels_a_phone(image, mask):
    shown = show_masks(image, np.stack([mask] * 7), truth=mask)
    assert shown.width <= 704  # CSS pixels of the site's column at a width of 1300
    assert all(2 * panel.width <= 358 for row in shown.rows[:-1] for panel in row)  # at 390
    assert shown.rows[-1][0].width <= 358


def test_no_text_of_a_figure_is_smaller_than_nine_points(image, mask, monkeypatch):
    """At the size at which it is drawn: nothing is wider than the page's column."""
    from matplotlib.figure import Figure
    from matplotlib.text import Text

    sizes, save = [], Figure.savefig

    def noted(figure, *given, **more):
        sizes.extend(t.get_fontsize() for t in figure.findobj(Text) if t.get_text().strip())
        return save(figure, *given, **more)

    monkeypatch.setattr(Figure, "savefig", noted)
    maps = np.linspace(0, 1, 12).reshape(1, 3, 4)
    names = ["alone", "second of two"]
    spans = {"paper": [(0.1, 0.0, 0.2)] * 2, "sealed": [(0.2, 0.1, 0.3)] * 2}
    parsed = Doc(
        spacy.blank("en").vocab, words=["red", "ring"], heads=[1, 1], deps=["amod", "ROOT"],
        pos=["ADJ", "NOUN"],
    )  # fmt: skip
    drawn = [
        show_image(image, "a ring"),
        show_masks(image, mask[None], ["a ring"], truth=mask),
        show_maps(image, maps, ["a ring"]),
        show_chunks("a ring", []),
        nb.show_rows([image], [[mask, maps[0]]], ["a", "b"], ["c"], [["d", "e"]], truths=[mask]),
        nb.show_matrix(maps[0], "abc", "defg", limits=(0, 1), label="l", row_label="r"),
        nb.show_lines([1, 2], spans, x_label="x", y_label="y", marks={"m": 1}),
        nb.show_intervals(names, spans, x_label="gain"),
        show_captions(image, ["a ring"], labels=["free"]),
        show_tree(parsed),
    ]
    assert len(sizes) > 40
    assert min(sizes) >= 9
    assert max(drawing.width for drawing in drawn) <= 704


def test_show_image(image):
    drawn = show_image(image, "000017.png")
    assert drawn.alt == "A picture of 48 x 64 pixels: 000017.png"
    assert share(drawn, RED) > 0.01


def test_pictures_stand_side_by_side(image):
    other = np.full((30, 30, 3), 90, np.uint8)
    shown = nb.show_images([image, other], ["a ring", "gray"])
    assert shown.alt == "Pictures side by side: a ring, 48 x 64 pixels; gray, 30 x 30 pixels."
    assert [len(row) for row in shown.rows] == [2]
    gray = (pixels(shown) == 90).all(-1).sum(0)  # also in the edges of letters, a few a column
    columns = np.nonzero(gray > 20)[0]
    assert columns.min() > pixels(shown).shape[1] / 2
    with pytest.raises(ValueError, match="one label for each panel: 1 for 2"):
        nb.show_images([image, other], ["one"])
    with pytest.raises(ValueError, match="at least one picture"):
        nb.show_images([], [])


# Maps -------------------------------------------------------------------------------------------


def test_maps_are_never_stretched(image):
    """A map from 0.4 to 0.5 shows the middle of the scale, and says its range."""
    from matplotlib import colormaps

    values = np.linspace(0.4, 0.5, 12, dtype=np.float32).reshape(1, 3, 4)
    drawn = show_maps(image, values, ["square"])
    assert (
        "square: 0.40 to 0.50, 3 x 4 cells, highest 88% from the left, 83% from the top"
        in drawn.alt
    )
    for value in values.ravel():
        color = np.array(colormaps["viridis"](float(value))[:3]) * 255
        assert share(drawn, color) > 0.005, value
    ends = np.array(colormaps["viridis"]([0.0, 1.0]))[:, :3] * 255
    assert all(share(drawn, color) < 0.001 for color in ends)  # in the scale's bar alone
    stretched = show_maps(image, values, limits=(0.4, 0.5))
    assert all(share(stretched, color) > 0.005 for color in ends)


def test_a_small_map_says_more_digits(image):
    faint = np.array([[[0.0012, 0.0631]], [[0.00012, 0.0631]]])
    drawn = show_maps(image, faint, ["faint", "from none"], limits=(0, 0.0631))
    assert "faint: 0.0012 to 0.063, 1 x 2" in drawn.alt
    assert "from none: 0 to 0.063, 1 x 2" in drawn.alt


def test_rows_and_columns_are_not_exchanged(image):
    values = np.zeros((1, 3, 8), np.float32)
    values[0, 0, 7] = 1  # top right
    alt = show_maps(image, values).alt
    assert "highest 94% from the left, 17% from the top" in alt
    drawn = pixels(show_maps(image, values))
    yellow = np.argwhere(np.abs(drawn - [253, 231, 36]).max(-1) <= 3)
    cell = yellow[yellow[:, 0] < 0.7 * drawn.shape[0]]  # without the scale below
    middle = np.array([0.42, 0.75]) * drawn.shape[:2]  # of the right one of two panels
    assert cell[:, 0].mean() < middle[0]
    assert cell[:, 1].mean() > middle[1]


def test_maps_outside_the_scale_are_refused(image):
    with pytest.raises(ValueError, match=r"run from -1 to 2, .* 0 to 1; pass limits=\(-1, 2\)"):
        show_maps(image, np.array([[[-1.0, 2.0]]]))
    with pytest.raises(ValueError, match="NaN or infinity"):
        show_maps(image, np.array([[[0.0, np.nan]]]))
    with pytest.raises(ValueError, match="limits are"):
        show_maps(image, np.zeros((1, 2, 2)), limits=(1, 1))
    with pytest.raises(ValueError, match="maps are numbers"):
        unchecked(show_maps)(image, np.zeros((2, 2)))
    rounding = np.array([[[0.0, 1 + 1e-7]]])
    assert "1.00" in show_maps(image, rounding).alt


@pytest.mark.parametrize("size", [(1, 1), (1, 4000), (4000, 1)])
def test_extreme_pictures_are_visible(size):
    picture = np.full((*size, 3), RED, np.uint8)
    mask = np.ones(size, bool)
    drawn = show_masks(picture, mask[None])
    assert share(drawn, RED) + share(drawn, overlay(picture, mask)[0, 0]) > 0.1
    assert pixels(drawn).shape[0] < 1000
    maps = show_maps(picture, np.ones((1, *(min(side, 8) for side in size)), np.float32))
    assert share(maps, RED) > 0.05


# Chunks -----------------------------------------------------------------------------------------

CAPTION = "a photograph of a striped red ring and a blue moon"


def test_show_chunks(chunk_at):
    chunks = [
        chunk_at(CAPTION, "a striped red ring", "ring"),
        chunk_at(CAPTION, "a blue moon", "moon"),
    ]
    drawn = show_chunks(CAPTION, chunks, target=0)
    assert drawn.alt == (
        f"The caption “{CAPTION}” with its noun chunks marked: "
        "a striped red ring (noun: ring, the target); a blue moon (noun: moon)."
    )
    mark, rest = (255, 216, 168), (227, 232, 238)
    assert share(drawn, mark) / share(drawn, rest) == pytest.approx(18 / 11, rel=0.1)
    assert share(show_chunks(CAPTION, chunks), mark) < 0.001
    with pytest.raises(ValueError, match="'a striped red ring' stands at 16 to 34, where"):
        show_chunks("another caption, much longer than that", chunks)


@settings(max_examples=8, deadline=None)
@given(st.text(max_size=90))
def test_any_text_can_be_drawn(text):
    """Emoji, mathtext, control characters, right-to-left: no warning (they are errors here)."""
    drawn = show_chunks(text, [])
    assert text in drawn.alt
    image = np.zeros((4, 4, 3), np.uint8)
    assert text in show_masks(image, np.ones((1, 4, 4), bool), [text]).alt


def test_long_captions_wrap_between_words():
    short, long = show_chunks("dog " * 10, []), show_chunks("dog " * 40, [])
    assert pixels(long).shape[0] > pixels(short).shape[0]
    assert pixels(long).shape[1] == pixels(short).shape[1]
    assert show_chunks("x" * 200, []).width == short.width
    assert show_chunks("", []).alt == "The caption “” with its noun chunks marked: none."


def test_a_line_breaks_before_a_size_and_not_in_it():
    assert panels._wrap("0.0016 to 0.022, 10 x 10", 22) == ["0.0016 to 0.022,", "10 x 10"]
    assert panels._wrap("a fox x a dog", 8) == ["a fox x", "a dog"]


# The house's rules ------------------------------------------------------------------------------


def test_same_input_same_bytes(image, mask):
    assert show_masks(image, mask[None]).png == show_masks(image, mask[None]).png


def test_nothing_global_is_touched(image, mask):
    """No pyplot, no changed defaults, no display: it works where there is no screen."""
    code = (
        "import sys, numpy as np, matplotlib\n"
        "before = matplotlib.rcParams.copy()\n"
        "from nbhelpers.figures import show_masks\n"
        "show_masks(np.zeros((4, 4, 3), np.uint8), np.ones((1, 4, 4), bool), ['x'])\n"
        "assert matplotlib.rcParams.copy() == before\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    environment = {**os.environ, "DISPLAY": "", "MPLBACKEND": ""}
    root = Path(figures.__file__).parents[2]
    subprocess.run([sys.executable, "-c", code], check=True, env=environment, cwd=root)


def test_matplotlib_is_imported_by_what_draws_alone():
    root, users = Path(figures.__file__).parents[2], set()
    for path in [*(root / "nbhelpers").rglob("*.py"), *(root / "book/nblabs").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            if any(name.split(".")[0] == "matplotlib" for name in names):
                users.add(path.relative_to(root).as_posix())
    files = {"images.py", "charts.py", "panels.py", "sentences.py"}
    assert users == {f"nbhelpers/figures/{name}" for name in files}
