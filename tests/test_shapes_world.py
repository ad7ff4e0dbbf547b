"""The drawn pictures, their masks and captions."""

import numpy as np
import pytest

from nbhelpers.shapes.captions import SYNONYMS, name, position, write_caption
from nbhelpers.shapes.world import (
    COLORS,
    NOUNS,
    SHAPES,
    UNSEEN,
    Scene,
    Thing,
    draw,
    sample_scene,
)


def test_a_seed_draws_the_same_picture_and_another_seed_another():
    first, again, other = (draw(sample_scene(np.random.default_rng(s)))[0] for s in (3, 3, 4))
    assert (first == again).all()
    assert not (first == other).all()


@pytest.mark.parametrize("size", [(80, 80), (60, 100), (100, 60)])
def test_masks_fit_things_and_do_not_overlap(size):
    for seed in range(30):
        scene = sample_scene(np.random.default_rng(seed), size=size)
        picture, masks = draw(scene)
        assert picture.shape == (*size, 3)
        assert masks.shape == (len(scene.things), *size)
        assert masks.sum(0).max() <= 1
        for thing, mask in zip(scene.things, masks, strict=True):
            rows, columns = np.nonzero(mask)
            y, x = thing.center
            assert np.hypot(rows + 0.5 - y, columns + 0.5 - x).max() < 1.3 * thing.radius + 1
            assert mask.sum() > 0.3 * thing.radius**2


def test_a_ball_covers_its_circle():
    thing = Thing("ball", "red", "plain", (40.0, 30.0), 15.0, 0.3, COLORS["red"])
    scene = Scene((thing,), ((0.6, 0.6, 0.6), (0.6, 0.6, 0.6)), 0.0)
    picture, (mask,) = draw(scene)
    y, x = np.mgrid[:80, :80] + 0.5
    inside = np.hypot(y - 40, x - 30) < 0.92 * 15
    assert (mask != inside).sum() < 0.05 * inside.sum()
    assert picture[40, 30, 0] > 180 > 80 > picture[40, 30, 1]
    assert abs(int(picture[5, 5, 0]) - 153) <= 1


def test_each_shape_is_its_own():
    y, x = np.mgrid[-1:1:60j, -1:1:60j]
    areas = {noun: inside(x, y) for noun, inside in SHAPES.items()}
    for noun, area in areas.items():
        assert 0.15 < area.mean() < 0.8, noun
        for other, rival in areas.items():
            if other != noun:
                assert (area & rival).sum() / (area | rival).sum() < 0.9, (noun, other)


def test_training_scenes_never_show_the_unseen_pairs_and_testb_always_does():
    seen = {
        (thing.noun, thing.color)
        for seed in range(400)
        for thing in sample_scene(np.random.default_rng((0, seed))).things
    }
    assert len(UNSEEN) == len(NOUNS)
    assert not seen & UNSEEN
    for seed in range(40):
        first, *rest = sample_scene(np.random.default_rng(seed), count=3, unseen=True).things
        assert (first.noun, first.color) in UNSEEN
        assert not {(thing.noun, thing.color) for thing in rest} & UNSEEN


def test_twins_share_their_noun_and_never_their_color():
    for seed in range(60):
        one, two, three = sample_scene(np.random.default_rng(seed), count=3, twins=True).things
        assert one.noun == two.noun != three.noun
        assert one.color != two.color


def test_twins_of_one_thing_are_refused():
    with pytest.raises(ValueError, match=r"two things or more \(got count=1\)"):
        sample_scene(np.random.default_rng(0), count=1, twins=True)


def test_captions_say_only_what_is_true():
    plain = {synonym: word for word, synonym in SYNONYMS.items()}
    for seed in range(300):
        rng = np.random.default_rng(seed)
        scene = sample_scene(rng)
        words = [plain.get(w, w) for w in write_caption(scene, rng).replace(",", " ").split()]
        nouns = [word for word in words if word in NOUNS]
        there = [thing.noun for thing in scene.things]
        assert nouns
        assert all(nouns.count(noun) <= there.count(noun) for noun in nouns)
        assert {word for word in words if word in COLORS} <= {t.color for t in scene.things}
        # the synonym of a pattern is read as the pattern
        assert {w for w in words if w in ("striped", "dotted")} <= {
            thing.pattern for thing in scene.things
        }


def test_captions_vary_and_some_leave_things_out():
    counts, openings, behind = [], set(), 0
    for seed in range(600):
        rng = np.random.default_rng(seed)
        scene = sample_scene(rng, count=3)
        text = write_caption(scene, rng)
        plain = {synonym: word for word, synonym in SYNONYMS.items()}
        said = [plain.get(w, w) for w in text.replace(",", " ").split()]
        counts.append(sum(word in NOUNS for word in said))
        openings.add(text.split()[1])
        behind += " in " in text
    shares = np.bincount(counts, minlength=4)[1:] / len(counts)
    assert 0.6 < shares[2] < 0.8
    assert shares[0] > 0.08
    assert {"photograph", "picture", "drawing"} <= openings
    assert 60 < behind < 240


def test_names_and_positions():
    thing = Thing("ring", "red", "striped", (40.0, 10.0), 9.0, 0.0, COLORS["red"])
    scene = Scene((thing,), ((0.6,) * 3, (0.6,) * 3), 0.0)
    assert name(thing) == "striped red ring"
    assert name(thing, pattern=False) == "red ring"
    assert position(thing, scene) == "on the left"
    middle = Thing("ring", "red", "plain", (40.0, 40.0), 9.0, 0.0, COLORS["red"])
    assert name(middle) == "red ring"
    assert position(middle, scene) is None
