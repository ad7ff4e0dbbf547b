"""Many phrases of many pictures: as one by one, in fewer passes."""

import numpy as np
import pytest

import nbhelpers as nb
from nbhelpers.batches import segment_batch
from nbhelpers.calibration import Calibration, Gathering

PHRASES = [["the red ring and a blue moon", "a blue moon"], [], ["the very old dog"]]
TOLERANCE = 1e-3  # of maps in [0, 1]; those of other phrases differ by more than ten times that


@pytest.fixture
def images():
    draw = np.random.default_rng(0).integers
    return [draw(0, 256, (*size, 3), dtype=np.uint8) for size in [(40, 56), (9, 9), (64, 32)]]


def count_passes(model):
    """A list that grows with each pass of a model, by the size of its batch."""
    sizes = []
    handle = model.register_forward_pre_hook(lambda module, args: sizes.append(len(args[0])))
    return sizes, handle


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("models", {}),
        ("models", {"method": "paper", "timesteps": (50, 300), "transpose": True, "steps": 2}),
        ("models", {"into": "keys", "alpha": 0.5, "softmax_over": "words"}),
        ("models_15", {"method": "diffsegmenter"}),
        ("models_xl", {"method": "chunk", "size": (64, 96)}),
    ],
)
def test_each_is_what_it_is_alone(kind, change, images, request):
    models = request.getfixturevalue(kind)
    sizes, handle = count_passes(models.unet)
    found = segment_batch(images, PHRASES, models, batch=4, **change)
    handle.remove()
    looks = len(change.get("timesteps", (100,)))
    assert sizes == ([4, 2] if looks == 2 else [3])
    assert [len(row) for row in found] == [2, 0, 1]
    alone = {}
    for image, row, asked in zip(images, found, PHRASES, strict=True):
        for phrase, one in zip(asked, row, strict=True):
            alone[phrase] = nb.segment(image, phrase, models, **change)
            assert one.phrase == phrase
            assert one.map.shape == image.shape[:2]
            assert np.abs(one.map - alone[phrase].map).max() < TOLERANCE
            assert (one.mask == alone[phrase].mask).mean() > 0.998
            assert np.abs(one.score - alone[phrase].score).max() < TOLERANCE
            assert one.settings == alone[phrase].settings
            assert one.chunk == alone[phrase].chunk
    ring, moon = (alone[phrase].map for phrase in PHRASES[0])
    assert np.abs(ring - moon).max() > 10 * TOLERANCE


def test_a_picture_is_encoded_once(models, images):
    sizes, handle = count_passes(models.vae.encoder)
    segment_batch(images, PHRASES, models, batch=1)
    handle.remove()
    assert sizes == [1, 1]  # the picture without a phrase isn't encoded at all


def test_a_batch_too_small_for_the_timesteps_still_holds_one_phrase(models, images):
    sizes, handle = count_passes(models.unet)
    told = []
    segment_batch(images, PHRASES, models, batch=2, timesteps=(1, 2, 3), progress=told.append)
    handle.remove()
    assert sizes == [3, 3, 3]
    assert told == [phrase for asked in PHRASES for phrase in asked]


def test_the_models_own_calibration_is_used(models, images):
    import dataclasses

    calibration = Calibration(methods={"sealed": Gathering((300,), None, threshold=0.3)})
    other = dataclasses.replace(models, calibration=calibration)
    found = segment_batch(images[:1], PHRASES[:1], other)[0][0]
    assert (found.settings.timesteps, found.settings.threshold) == ((300,), 0.3)
    assert segment_batch([], [], models) == []


@pytest.mark.parametrize(
    ("phrases", "change", "message"),
    [
        ([["the ring"]], {}, "got 3 pictures and 1 lists"),
        (["the ring"] * 3, {}, "a list of phrases for each picture"),
        ([["the ring"], [], [""]], {}, "the phrase is empty"),
        (PHRASES, {"batch": 0}, "at least 1; got 0"),
        (PHRASES, {"beta": 1}, "there is no setting beta"),
        (PHRASES, {"timesteps": ()}, "at least one"),
    ],
)
def test_what_cannot_be_segmented_is_refused(models, images, phrases, change, message):
    with pytest.raises(ValueError, match=message):
        segment_batch(images, phrases, models, **change)


def test_a_batch_has_the_seed_and_method_that_were_asked_for(models, images):
    found = segment_batch(images, PHRASES, models, batch=4, seed=3, method="paper")
    alone = nb.segment(images[0], PHRASES[0][0], models, seed=3, method="paper")
    assert np.abs(found[0][0].map - alone.map).max() < TOLERANCE
    assert found[0][0].method == alone.method
