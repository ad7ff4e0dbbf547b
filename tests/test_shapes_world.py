"""The drawn pictures, their masks and captions."""

import re

import numpy as np
import pytest

from nbhelpers.shapes.captions import (
    BRIEF,
    CAREFUL,
    SYNONYMS,
    name,
    position,
    write_caption,
)
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


def _said(style, scenes=800):
    """Return of many captions of three things: nouns named, colors a noun, texts."""
    plain = {synonym: word for word, synonym in SYNONYMS.items()}
    counts, colors, texts = [], 0, []
    for seed in range(scenes):
        rng = np.random.default_rng(seed)
        text = write_caption(sample_scene(rng, count=3), rng, style=style)
        said = [plain.get(word, word) for word in text.replace(",", " ").split()]
        counts.append(sum(word in NOUNS for word in said))
        colors += sum(word in COLORS for word in said)
        texts.append(text)
    return np.bincount(counts, minlength=4)[1:] / scenes, colors / sum(counts), texts


def test_captions_are_as_brief_as_their_style():
    """Shares against the style's own numbers, within four standard deviations."""
    shares, colors, texts = _said(BRIEF)
    assert shares[2] == pytest.approx(1 - BRIEF.partial, abs=0.07)
    assert min(shares[:2]) > 0.18
    assert colors == pytest.approx(1 - BRIEF.bare - BRIEF.colorless, abs=0.05)
    starts = {" ".join(text.split()[:3]) for text in texts}
    assert {f"a {kind} of" for kind in ("photograph", "picture", "drawing")} <= starts
    assert 40 < sum(" in " in text for text in texts) < 240
    behind = re.findall(r" in (?:striped |stripy |dotted |spotted )?(\w+)", " ".join(texts))
    assert set(behind) <= {*COLORS, "teal", "violet"}


def test_annotators_name_every_thing_and_its_color():
    shares, colors, texts = _said(CAREFUL)
    assert shares[2] == 1
    assert colors == 1
    assert 0.4 < np.mean(["striped" in text or "stripy" in text for text in texts]) < 0.9


def test_names_and_positions():
    thing = Thing("ring", "red", "striped", (40.0, 10.0), 9.0, 0.0, COLORS["red"])
    scene = Scene((thing,), ((0.6,) * 3, (0.6,) * 3), 0.0)
    assert name(thing) == "striped red ring"
    assert name(thing, pattern=False) == "red ring"
    assert position(thing, scene) == "on the left"
    middle = Thing("ring", "red", "plain", (40.0, 40.0), 9.0, 0.0, COLORS["red"])
    assert name(middle) == "red ring"
    assert position(middle, scene) is None
