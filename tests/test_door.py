"""The public door: what `segment` takes, gives and shows, and what around it may not matter."""

import copy
import dataclasses
import html
import inspect
import json
import threading

import numpy as np
import pytest
import torch
from PIL import Image

import nbhelpers as nb
from nbhelpers.calibration import Calibration, Gathering
from nbhelpers.settings import SETTINGS, Settings, resolve

PHRASES = ["the red ring", "a blue moon"]


# --- settings and names ----------------------------------------------------------------------


def test_settings_of_ones_own_are_called_custom(models, image):
    cuts = {"sealed": 0.9, "plain": 0.2}
    own = {name: Gathering(threshold=threshold) for name, threshold in cuts.items()}
    read = dataclasses.replace(models, calibration=Calibration(methods=own))
    found = nb.segment(image, "the ring", read, settings=Settings(alpha=0.9))
    assert (found.record()["method"], found.settings.threshold) == ("custom", 0.5)
    assert found.settings.alpha == 0.9
    cut = nb.segment(image, "the ring", read, settings=Settings(alpha=0.9), method="plain")
    assert (cut.method, cut.settings.threshold) == ("custom", 0.2)
    assert nb.segment(image, "the ring", read).method == "sealed"
    assert nb.segment(image, "the ring", read).settings.threshold == 0.9
    ((batched,),) = nb.segment_batch([image], [["the ring"]], read, settings=Settings(alpha=0.9))
    assert (batched.method, batched.settings.threshold) == ("custom", 0.5)


def test_an_unknown_method_is_refused_beside_settings_too(models, image):
    for more in ({}, {"settings": Settings()}):
        with pytest.raises(ValueError, match="method is one of plain, .* got 'best'"):
            nb.segment(image, "the ring", models, method="best", **more)
    with pytest.raises(ValueError, match="prompt_from is 'phrase' or 'blip'; got 'words'"):
        nb.segment(image, "the ring", models, prompt_from="words")
    with pytest.raises(ValueError, match="there is no setting caption_from"):
        resolve(models, caption_from="blip")


def test_a_caption_is_always_a_prompt(models, image):
    for word in ("phrase", "blip"):
        with pytest.raises(ValueError, match=f"in no noun chunk|no noun was found in '{word}'"):
            nb.segment(image, "the ring", models, caption=word)


# --- several phrases, any picture ------------------------------------------------------------


@pytest.mark.parametrize("method", SETTINGS)
def test_several_phrases_are_found_as_one_by_one(models, image, method, monkeypatch):
    from sys import modules

    door = modules["nbhelpers.segment"]
    encoded, passes = [], []
    for name, calls in (("encode_image", encoded), ("predict_noise", passes)):
        real = getattr(door, name)
        monkeypatch.setattr(
            door, name, lambda *a, real=real, calls=calls, **k: calls.append(1) or real(*a, **k)
        )
    found = nb.segment(image, PHRASES, models, method=method, timesteps=(50, 300))
    assert (len(encoded), len(passes)) == (1, 1)
    for phrase, one in zip(PHRASES, found, strict=True):
        alone = nb.segment(image, phrase, models, method=method, timesteps=(50, 300))
        assert (one.phrase, one.chunk.text, one.method) == (phrase, phrase, method)
        assert np.abs(one.map - alone.map).max() < 1e-4
        assert one.peak == pytest.approx(alone.peak, abs=1e-4)
    assert nb.segment(image, [], models) == []
    both = nb.segment(image, PHRASES, models, caption="a blue moon over a red ring")
    assert [one.target for one in both] == [1, 0]
    with pytest.raises(ValueError, match="a target belongs to one phrase"):
        nb.segment(image, PHRASES, models, target="moon")


def test_a_picture_may_come_in_any_form(models, image, tmp_path):
    Image.fromarray(image).save(tmp_path / "scene.png")
    wanted = nb.segment(image, "the ring", models)
    latent = nb.encode_image(image, models)
    with Image.open(tmp_path / "scene.png") as lazy:
        forms = [Image.fromarray(image), lazy, tmp_path / "scene.png", str(tmp_path / "scene.png")]
        for form in forms:
            for more in ({}, {"latent": latent}):
                found = nb.segment(form, "the ring", models, **more)
                assert np.array_equal(found.map, wanted.map)
                assert np.array_equal(found.image, image)
            assert nb.segment(form, "the ring", models, prompt_from="blip").mask.shape == (40, 56)
            assert nb.caption(form, models.captioner) == nb.caption(image, models.captioner)
            ((batched,),) = nb.segment_batch([form], [["the ring"]], models)
            assert np.abs(batched.map - wanted.map).max() < 1e-4
            assert nb.show_masks(form, wanted).png == nb.show_masks(image, wanted).png


def test_a_pillow_picture_is_converted_as_a_file_is(models, tmp_path):
    rgba = np.zeros((40, 56, 4), np.uint8)
    rgba[:20] = (200, 10, 10, 255)
    clear = Image.fromarray(rgba)
    clear.save(tmp_path / "clear.png")
    found = nb.segment(clear, "the ring", models).image
    assert np.array_equal(found, nb.load_image(tmp_path / "clear.png"))
    assert (found[20:] == 255).all()
    gray = Image.fromarray(np.arange(2240, dtype=np.uint8).reshape(40, 56))
    assert nb.segment(gray, "the ring", models).image.shape == (40, 56, 3)


NO_PICTURES = [
    (None, "got NoneType"),
    (np.zeros((3, 40, 56), np.uint8), r"\(3, 40, 56\): channels come last"),
    (np.zeros((40, 56, 3), np.float32), "255 [*] image"),
    (np.zeros((40, 56), np.uint8), "repeat gray"),
    (np.zeros((40, 56, 4), np.uint8), "transparent"),
    (np.zeros((0, 56, 3), np.uint8), r"got uint8 \(0, 56, 3\)"),
    (b"bytes", "got bytes"),
    ("gone.png", "doesn't exist"),
]


@pytest.mark.parametrize(("picture", "words"), NO_PICTURES)
def test_what_is_no_picture_is_refused_at_every_door(models, image, picture, words):
    latent = nb.encode_image(image, models)
    unchecked = inspect.unwrap(nb.segment)
    calls = [
        lambda: unchecked(picture, "the ring", models),
        lambda: unchecked(picture, "the ring", models, latent=latent),
        lambda: unchecked(picture, "the ring", models, prompt_from="blip"),
        lambda: inspect.unwrap(nb.caption)(picture, models.captioner),
        lambda: inspect.unwrap(nb.encode_image)(picture, models),
        lambda: inspect.unwrap(nb.segment_batch)([picture], [["the ring"]], models),
        lambda: inspect.unwrap(nb.show_image)(picture),
    ]
    for call in calls:
        with pytest.raises((ValueError, FileNotFoundError), match=words):
            call()


def test_a_latent_of_another_size_is_refused(models, image):
    latent = nb.encode_image(image, models, size=(64, 96))
    assert nb.segment(image, "the ring", models, latent=latent, size=(64, 96)).mask.any()
    with pytest.raises(ValueError, match=r"of size \(64, 96\), and size is \(96, 96\)"):
        nb.segment(image, "the ring", models, latent=latent, size=(96, 96))


# --- what it shows ---------------------------------------------------------------------------


def test_a_segmentation_shows_itself(models, image):
    found = nb.segment(image, "the <b>red</b> ring", models, method="paper")
    share = f"{found.mask.mean():.1%} of the picture"
    assert share in repr(found)
    assert "by paper of tiny stickers" in repr(found)
    assert "ring" in repr(found)
    assert len(repr(found)) < 250
    page = found._repr_html_()
    assert html.escape(repr(found)[1:-1]) in page
    assert "<b>" not in page
    assert 'src="data:image/png;base64,' in page
    moon = nb.segment(image, PHRASES[0], models, target="ring")
    assert repr(moon).count("the red ring") == 1


def test_the_peak_is_the_maps_before_stretching(models, image):
    found = nb.segment(image, "the ring", models, method="plain")
    prompt = found.prompt
    with nb.record_attention(models.unet) as attention:
        nb.denoise_once(image, prompt, models, timestep=100, seed=0)
    scores = nb.score_maps(
        attention.cross_layers, prompt.spans, weights={8: 0.3, 4: 0.5, 2: 0.1, 1: 0.1}
    )
    completed = nb.complete(scores, attention.self_layers)[found.target]
    assert found.peak == pytest.approx(float(completed.max()), abs=1e-5)
    assert 0 < found.peak < 1 == found.map.max()
    assert found.record()["map"]["peak"] == pytest.approx(found.peak, abs=1e-6)
    json.dumps(found.record(), allow_nan=False)


def test_masks_are_shown_as_they_were_found(models, image):
    found = nb.segment(image, PHRASES, models)
    drawn = nb.show_masks(image, found)
    assert all(phrase in drawn.alt for phrase in PHRASES)
    stacked = np.stack([one.mask for one in found])
    assert drawn.png == nb.show_masks(image, stacked, PHRASES).png
    one = nb.show_masks(image, found[0], ["mine"])
    assert "mine: " in one.alt
    other = nb.segment(np.zeros((8, 8, 3), np.uint8) + image[:8, :8], "the ring", models)
    with pytest.raises(ValueError, match="with the picture's size"):
        nb.show_masks(image, other)


# --- what may not matter ---------------------------------------------------------------------


@pytest.mark.parametrize("into", ["both", "keys"])
def test_threads_may_share_models(models, image, into):
    """Each thread records its own passes alone, and gives its own values."""
    wanted = [nb.segment(image, phrase, models, alpha=0.5, into=into).map for phrase in PHRASES]
    apart, failed = [], []
    start = threading.Barrier(4)

    def work(number):
        start.wait()
        for _ in range(8):
            try:
                map_ = nb.segment(image, PHRASES[number], models, alpha=0.5, into=into).map
                apart.append(float(np.abs(map_ - wanted[number]).max()))
            except Exception as error:  # noqa: BLE001 - what it was is told below
                failed.append(repr(error))

    threads = [threading.Thread(target=work, args=(i % 2,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert len(apart) == 32
    assert max(apart) < 1e-4


def test_a_recorder_keeps_nothing_of_another_thread(models, image):
    prompt = nb.segment(image, "the ring", models).prompt
    with nb.record_attention(models.unet) as attention:
        other = threading.Thread(target=nb.denoise_once, args=(image, prompt, models))
        other.start()
        other.join()
        assert attention.layers == []
        nb.denoise_once(image, prompt, models)
    count = len(attention.layers)
    with nb.record_attention(models.unet) as attention:
        nb.denoise_once(image, prompt, models)
    assert count == len(attention.layers) > 0


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_a_default_dtype_changes_no_bit(models, image, dtype):
    wanted = nb.segment(image, "the ring", models)
    blip = nb.caption(image, models.captioner)
    torch.set_default_dtype(dtype)
    try:
        found = nb.segment(image, "the ring", models)
        assert nb.caption(image, models.captioner) == blip
    finally:
        torch.set_default_dtype(torch.float32)
    assert np.array_equal(found.map, wanted.map)


def test_a_default_device_moves_nothing(models, image):
    changes = [{}, {"by": "masking"}, {"into": "keys", "alpha": 0.5}]
    wanted = [nb.segment(image, "the ring", models, **more).map for more in changes]
    torch.set_default_device("meta")  # where nothing can be computed
    try:
        found = [nb.segment(image, "the ring", models, **more).map for more in changes]
    finally:
        torch.set_default_device(None)
    for mine, theirs in zip(found, wanted, strict=True):
        assert np.array_equal(mine, theirs)


@pytest.mark.parametrize("part", ["all", "mid_block"])
def test_fused_projections_are_named(models_15, image, part):
    unet = copy.deepcopy(models_15.unet)
    fused = dataclasses.replace(models_15, unet=unet)
    before = unet.attn_processors
    unet.fuse_qkv_projections()
    if part != "all":
        kinds = {n: (now if part in n else before[n]) for n, now in unet.attn_processors.items()}
        unet.set_attn_processor(kinds)
    with pytest.raises(ValueError, match=r"fused projections.*unfuse_qkv_projections\(\) first"):
        nb.segment(image, "the ring", fused)
    unet.unfuse_qkv_projections()
    found = nb.segment(image, "the ring", fused)
    wanted = nb.segment(image, "the ring", models_15)
    assert np.allclose(found.map, wanted.map, atol=1e-4)
