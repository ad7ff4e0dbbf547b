"""The sticker world's pictures: masks, captions, and what is kept apart from training."""

import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from caption_truth import falsehoods
from PIL import Image
from recipe import benchmark
from recipe.art import (
    CODE_POINTS,
    COLORS_OF,
    FOLDER,
    HELD_OUT_STYLE,
    NOUNS,
    STYLES,
    UNSEEN,
    body,
    cut_out,
    sprite,
    windows,
)
from recipe.captions import BRIEF, CAREFUL, ORDINARY, describe, said_of, write_caption
from recipe.color import COLORS, to_lab, to_rgb
from recipe.scenes import SIZE, Thing, draw, sample_scene, sticker, visible_shares

from nbhelpers.datasets import referring

ALL_STYLES = (*STYLES, HELD_OUT_STYLE)


def scenes(number, seed=5, **more):
    return [sample_scene(np.random.default_rng((seed, i)), **more) for i in range(number)]


def test_masks_are_the_alpha_composed_by_a_plain_loop():
    for scene in scenes(40, count=3):
        expected = [np.zeros(SIZE, dtype=bool) for _ in scene.things]
        for number, thing in enumerate(scene.things):
            rgba, (top, left) = sticker(thing, scene.style, SIZE)
            for row in range(rgba.shape[0]):
                for column in range(rgba.shape[1]):
                    y, x = top + row, left + column
                    inside = 0 <= y < SIZE[0] and 0 <= x < SIZE[1]
                    if inside and rgba[row, column, 3] >= 127.5:
                        for nearer in expected[:number]:
                            nearer[y, x] = False
                        expected[number][y, x] = True
        np.testing.assert_array_equal(draw(scene)[1], expected)


def test_a_picture_shows_each_thing_where_its_mask_is():
    for scene in scenes(20, count=2):
        picture, masks = draw(scene)
        bare, _ = draw(type(scene)((), scene.style, scene.ground))
        changed = np.abs(picture.astype(int) - bare).sum(-1) > 24
        for mask in masks:
            assert changed[mask].mean() > 0.75
        assert not changed[: int(0.05 * SIZE[0])][~masks.any(0)[: int(0.05 * SIZE[0])]].any()


@pytest.mark.parametrize(
    ("first", "style"),
    [(0, BRIEF), (3400, ORDINARY), (6800, CAREFUL)],
    ids=["brief", "ordinary", "careful"],
)
def test_every_caption_is_true(first, style):
    """Of 10,200 scenes."""
    for number in range(first, first + 3400):
        rng = np.random.default_rng((11, number))
        scene = sample_scene(rng)
        caption = write_caption(scene, rng, style=style)
        assert not falsehoods(caption, scene), (caption, scene.things)


def test_the_checker_of_captions_finds_what_is_false():
    scene = next(s for s in scenes(200, count=2, twins=True) if s.things[0].noun == "car")
    colors = {thing.color for thing in scene.things}
    other = next(color for color in COLORS_OF["car"] if color not in colors)
    style = {"fluent3d": "a drawing of", "flat": "a picture of", "noto": "a photograph of"}
    for caption in (
        f"a {other} car",
        "a car and a dog",
        "three cars",
        "a car wearing a car",
        f"{style[scene.style]} a car",
        "a car to the left of a car to the left of a car",
    ):
        assert falsehoods(caption, scene), caption
    assert not falsehoods("two cars", scene)


def test_careful_captions_name_everything():
    for number in range(500):
        rng = np.random.default_rng((12, number))
        scene = sample_scene(rng)
        caption = write_caption(scene, rng, style=CAREFUL)
        assert Counter(said_of(caption)) == Counter((t.noun, t.color) for t in scene.things)


def test_a_caption_tells_two_of_one_kind_together():
    thing = Thing("dog", "black", (0.9, 0.5), 0.4)
    assert describe(thing, np.random.default_rng(0), number=2) == "two black dogs"
    assert said_of("a white dog playing with two black dogs") == [
        ("dog", "white"),
        ("dog", "black"),
        ("dog", "black"),
    ]
    assert said_of("two children in red shirts and a woman in blue") == [
        ("child", "red"),
        ("child", "red"),
        ("woman", "blue"),
    ]


def test_two_thirds_of_everything_are_visible():
    shares = [visible_shares(scene) for scene in scenes(300)]
    assert min(share.min() for share in shares) >= 2 / 3


def test_training_never_shows_what_testB_holds():
    shown = [(t.noun, t.color, s.style) for s in scenes(4000, seed=0) for t in s.things]
    assert not {(noun, color) for noun, color, _ in shown} & UNSEEN
    assert {style for *_, style in shown} == set(STYLES)
    assert len(UNSEEN) >= len(NOUNS) / 2
    first = 1 + benchmark.SPLITS["val"] + benchmark.SPLITS["testA"]
    for image_id in range(first, first + benchmark.SPLITS["testB"]):
        scene = benchmark.scene_of(image_id, "testB")
        assert scene.style == HELD_OUT_STYLE
        assert sum((t.noun, t.color) in UNSEEN for t in scene.things) >= 1


def test_no_scene_of_the_benchmark_is_one_of_training():
    taken = {repr(scene.things) for scene in scenes(3000, seed=0)}
    for image_id in range(1, 801):
        scene = benchmark.scene_of(image_id, benchmark.split_of(image_id))
        assert repr(scene.things) not in taken
        nouns = Counter(thing.noun for thing in scene.things)
        assert max(nouns.values()) >= 2  # something of the same noun to be told apart from
        assert len({(thing.noun, thing.color) for thing in scene.things}) == 3


def assert_alike(one, other):
    """Equal but for rounding: another CPU's powers move a few values by a few levels."""
    apart = np.abs(one.astype(int) - other)
    assert apart.max() <= 8
    assert (apart > 0).mean() < 0.005


def test_the_benchmark_in_the_repository_is_the_one_that_is_drawn():
    folder = FOLDER.parent
    instances = json.loads((folder / "instances.json").read_text())
    assert len(instances["images"]) == sum(benchmark.SPLITS.values())
    for image in instances["images"][::40]:
        scene = benchmark.scene_of(image["id"], benchmark.split_of(image["id"]))
        with Image.open(folder / "images" / image["file_name"]) as stored:
            assert_alike(np.asarray(stored), draw(scene)[0])


def test_colors_there_and_back():
    rgb = np.random.default_rng(0).random((500, 3))
    np.testing.assert_allclose(to_rgb(to_lab(rgb)), rgb, atol=1e-6)
    # two published values: pure red, and middle gray
    np.testing.assert_allclose(to_lab(np.array([1.0, 0, 0])), (53.24, 80.09, 67.20), atol=0.02)
    np.testing.assert_allclose(to_lab(np.full(3, 119 / 255)), (50.03, 0, 0), atol=0.02)


@pytest.mark.parametrize("style", ALL_STYLES)
def test_a_recolored_body_has_its_color(style):
    """The median of the body is nearer to its color than to any other of the eleven."""
    for noun, colors in COLORS_OF.items():
        area = body(noun, style)
        assert area.max() > 0.9 and windows()[noun][style], noun
        sure = (area > 0.95) & (cut_out(noun, style)[..., 3] == 255)
        assert sure.mean() > 0.02, (noun, sure.mean())
        for color in set(colors) & set(COLORS):
            painted = np.asarray(sprite(noun, style, color))[..., :3] / 255
            median = np.median(to_lab(painted[sure]), axis=0)
            far = {name: np.linalg.norm(median - np.array(lab)) for name, lab in COLORS.items()}
            assert min(far, key=lambda name: far[name]) == color, (noun, color, median)


def test_a_color_that_a_noun_does_not_take_is_refused():
    with pytest.raises(ValueError, match="its own"):
        sprite("zebra", "flat", "red")


def test_every_picture_of_the_art_has_its_license():
    text = (FOLDER / "LICENSES.md").read_text()
    for style in ALL_STYLES:
        drawn = {path.stem.replace("-", " ") for path in (FOLDER / style).glob("*.png")}
        assert drawn == set(CODE_POINTS)
        assert re.search(rf"^\| `{style}/` \|", text, re.MULTILINE), style
    for license_name in ("MIT License", "Apache License", "Attribution 4.0 International"):
        assert license_name in text
    assert {path.name for path in Path(FOLDER).iterdir() if path.is_dir()} == set(ALL_STYLES)


def test_the_benchmark_is_read():
    found = referring("stickers", "testB")
    assert len(found.expressions) > 400 and not found.broken
