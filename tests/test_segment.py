"""The whole way on small random models: what it joins, what it records, what it refuses."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import nbhelpers as nb
from nbhelpers.calibration import Calibration, Gathering
from nbhelpers.settings import SETTINGS, Settings, resolve

PHRASE = "the red ring and a blue moon"
REAL = Path(__file__).parents[2] / "shared" / "data" / "real-images"


@pytest.mark.parametrize("kind", ["models", "models_15", "models_21", "models_xl"])
@pytest.mark.parametrize("method", SETTINGS)
def test_every_method_on_every_kind_of_model(kind, method, request, image):
    models = request.getfixturevalue(kind)
    found = nb.segment(image, PHRASE, models, method=method)
    assert found.mask.shape == found.map.shape == image.shape[:2]
    assert 0 < found.mask.sum() < found.mask.size
    assert np.array_equal(found.mask, found.map >= 0.5)
    assert found.caption == "a photograph of the red ring and a blue moon"
    assert [chunk.text for chunk in found.prompt.chunks] == ["the red ring", "a blue moon"]
    assert found.chunk.noun == "ring"
    assert found.method == method
    again = nb.segment(image, PHRASE, models, method=method)
    assert np.array_equal(again.map, found.map)


@pytest.mark.parametrize("method", SETTINGS)
def test_it_is_its_stages_one_after_the_other(models_15, image, method):
    caption = f"a photograph of {PHRASE}"
    chunks = [c for c in nb.noun_chunks(caption, models_15.parser) if c.noun != "photograph"]
    changes = {
        "plain": {"isolate": "none"},
        "chunk": {"isolate": "target"},
        "paper": {"isolate": "target", "alpha": 0.9},
        "diffsegmenter": {"isolate": "none", "alpha": 1.21},
        "sealed": {"isolate": "every", "by": "masking", "tail": "empty"},
    }[method]
    prompt = nb.embed(caption, chunks, models_15.text, target=0, **changes)
    with nb.record_attention(models_15.unet) as attention:
        nb.denoise_once(image, prompt, models_15, timestep=100, seed=0)
    scores = nb.score_maps(
        attention.cross_layers,
        prompt.spans,
        weights={8: 0.3, 4: 0.5, 2: 0.1, 1: 0.1},
        subtokens="last" if method == "diffsegmenter" else "all",
    )
    maps = nb.complete(scores, attention.self_layers)
    masks = nb.to_masks(maps, size=image.shape[:2], threshold=0.5)
    found = nb.segment(image, PHRASE, models_15, method=method)
    assert (found.mask == masks[0]).mean() > 0.999
    assert np.allclose(found.score, scores[0].numpy(), atol=1e-4)
    if method == "plain":  # whose prompt doesn't depend on the target
        moon = nb.segment(image, PHRASE, models_15, method=method, target="moon")
        assert np.allclose(moon.score, scores[1].numpy(), atol=1e-4)
        assert not np.allclose(moon.score, found.score, atol=0.05)


def test_methods_and_settings_make_a_difference(models, image):
    maps = {m: nb.segment(image, PHRASE, models, method=m).map for m in SETTINGS}
    changes = [
        {"by": "encoding"},
        {"tail": "empty-eos"},
        {"tail": "empty-padding"},
        {"alpha": 0.5},
        {"alpha": 0.5, "unconditional": "pooled"},
        {"alpha": 0.5, "unconditional": "masked"},
        {"into": "keys"},
        {"into": "values"},
        {"timesteps": (400, 700)},
        {"seed": 1},
        {"softmax_over": "words"},
        {"weights": {1: 1.0}},
        {"transpose": True},
        {"steps": 2},
        {"size": (64, 96)},
    ]
    for change in changes:
        maps[str(change)] = nb.segment(image, PHRASE, models, **change).map
    names = list(maps)
    for i, one in enumerate(names):
        for two in names[:i]:
            assert np.abs(maps[one] - maps[two]).max() > 1e-3, (one, two)


def test_a_target_and_a_caption_of_ones_own(models, image):
    moon = nb.segment(image, PHRASE, models, target="moon")
    assert moon.chunk.text == "a blue moon"
    caption = "a picture of a dog next to the red ring"
    found = nb.segment(image, "the red ring", models, caption=caption)
    assert found.caption == caption
    assert [chunk.text for chunk in found.prompt.chunks] == ["a dog", "the red ring"]
    assert found.target == 1
    assert nb.segment(image, "red rings", models, caption=caption).target == 1


@pytest.mark.parametrize(
    "how", [{"prompt_from": "blip"}, {"settings": Settings(prompt_from="blip")}]
)
def test_blip_may_go_on_from_the_phrase(models, image, how):
    found = nb.segment(image, "the red ring", models, **how)
    assert found.caption.startswith("a photograph of the red ring ")
    assert len(found.caption) > len("a photograph of the red ring ")
    assert found.target == 0
    assert found.settings.prompt_from == "blip"


def test_a_latent_is_encoded_once_for_many_phrases(models, image):
    latent = nb.encode_image(image, models)
    for phrase in ("the red ring", "a blue moon"):
        given = nb.segment(image, phrase, models, latent=latent)
        assert np.array_equal(given.map, nb.segment(image, phrase, models).map)
    other = nb.segment(image, phrase, models, latent=nb.encode_image(255 - image, models))
    assert not np.allclose(other.map, given.map, atol=0.01)


def test_progress_is_told(models, image):
    stages = []
    nb.segment(image, "the ring", models, progress=stages.append)
    assert stages == [
        *("caption", "chunks", "embedding", "attention", "score map", "completion", "mask")
    ]


def test_the_record_is_json_and_complete(models, image):
    found = nb.segment(image, PHRASE, models, method="paper", seed=5, size=(64, 96))
    record = json.loads(json.dumps(found.record(), allow_nan=False))
    assert record["prompt"] == f"a photograph of {PHRASE}"
    assert record["chunks"] == ["the red ring", "a blue moon"]
    assert (record["chunk"], record["target"]) == ("the red ring", "ring")
    assert (record["method"], record["model"], record["seed"]) == ("paper", "tiny stickers", 5)
    assert record["settings"]["alpha"] == 0.9
    assert record["settings"]["timesteps"] == [100]
    assert record["settings"]["weights"] == {"8": 0.3, "4": 0.5, "2": 0.1, "1": 0.1}
    assert record["settings"]["threshold"] == 0.5
    assert None not in (record["score"]["grid"], *record["map"].values())
    assert record["score"]["grid"] == [16, 24]
    assert record["map"]["min"] == 0
    assert record["map"]["max"] == 1
    assert record["mask"]["pixels"] == int(found.mask.sum())
    assert record["mask"]["fraction"] == pytest.approx(found.mask.mean(), abs=1e-6)


def test_the_papers_numbers(models):
    assert SETTINGS["plain"] == Settings(isolate="none", alpha=1.0, calibrated_for="plain")
    assert SETTINGS["paper"] == Settings(
        isolate="target", by="encoding", alpha=0.9, calibrated_for="paper"
    )
    paper = resolve(models, "paper")
    assert paper.timesteps == (100,)
    assert paper.threshold == 0.5
    assert paper.weights == {8: 0.3, 4: 0.5, 2: 0.1, 1: 0.1}
    assert SETTINGS["diffsegmenter"].alpha == pytest.approx(1.1**2)
    for name, settings in SETTINGS.items():
        with pytest.raises(dataclasses.FrozenInstanceError):
            settings.alpha = 0
        assert resolve(models, name).prompt_from == "phrase"


def test_a_model_may_be_read_in_its_own_way(models, image):
    own = Gathering((300, 600), None, "up", "none", "words", 0.3)
    calibration = Calibration(timesteps=(40,), layers="down", methods={"sealed": own})
    other = dataclasses.replace(models, calibration=calibration)
    found = nb.segment(image, PHRASE, other)
    assert found.settings.timesteps == (300, 600)
    assert found.settings.weights == "equal"
    assert found.settings.threshold == 0.3
    words = {"layers": "up", "normalize": "none", "softmax_over": "words", "threshold": 0.3}
    assert words.items() <= dataclasses.asdict(found.settings).items()
    plain = resolve(other, "plain")
    assert (plain.timesteps, plain.layers, plain.threshold) == ((40,), "down", 0.5)
    same = nb.segment(image, PHRASE, models, timesteps=(300, 600), weights="equal", **words)
    assert np.array_equal(found.mask, same.mask)
    assert np.array_equal(found.map, same.map)
    for number in range(1, 7):  # what a person gives wins, also where only part is given
        given = {"timesteps": (5,), "weights": {1: 1.0}, "threshold": 0.0, "layers": "all"}
        given |= {"normalize": "min-max", "softmax_over": "all"}
        given = dict(list(given.items())[:number])
        assert given.items() <= dataclasses.asdict(resolve(other, **given)).items()
        alike = Settings(isolate="every", by="masking", tail="empty", **given)
        assert resolve(other, "sealed", alike) == dataclasses.replace(
            resolve(other, **given), calibrated_for=None
        )
    mine = resolve(other, settings=dataclasses.replace(SETTINGS["sealed"], alpha=0.5))
    assert (mine.timesteps, mine.threshold) == ((300, 600), 0.3)
    assert resolve(other, settings=Settings(alpha=0.5)).timesteps == (40,)


@pytest.mark.parametrize("shape", [(1, 2), (1, 400), (400, 1), (7, 13), (33, 250)])
def test_pictures_of_odd_shapes(models, shape):
    picture = np.random.default_rng(1).integers(0, 256, (*shape, 3), dtype=np.uint8)
    found = nb.segment(picture, "the red ring", models)
    assert found.mask.shape == shape


def test_one_pixel_has_no_inside_and_outside(models):
    with pytest.raises(ValueError, match=r"the same everywhere .*size \(1, 1\)"):
        nb.segment(np.zeros((1, 1, 3), dtype=np.uint8), "the red ring", models)


@pytest.mark.parametrize(
    "phrase", ["the «red» ring", "the ring 🐶 on a hat", "\u202ethe ring", "the\nred\tring"]
)
def test_phrases_with_odd_characters(models, image, phrase):
    assert nb.segment(image, phrase, models).chunk.noun == "ring"


@pytest.mark.parametrize(
    ("phrase", "change", "message"),
    [
        ("", {}, "the phrase is empty"),
        (" \n", {}, "the phrase is empty"),
        ("red and blue", {}, "no noun chunk was found in 'red and blue'"),
        ("the", {}, "found in 'the'; name a thing, as in 'the black horse'"),
        ("of the", {}, "no noun chunk was found in 'of the'; name a thing"),
        ("and", {}, "no noun chunk was found in 'and'; name a thing"),
        ("the ring", {"target": "zebra"}, "'zebra' is in no noun chunk"),
        ("the ring", {"method": "best"}, "method is one of plain, .* got 'best'"),
        ("the ring", {"beta": 1}, "there is no setting beta; there are isolate"),
        ("the ring", {"alpha": 2.5}, r"alpha is a weight in \[0, 2\]"),
        ("the ring", {"alpha": float("nan")}, r"alpha is a weight in \[0, 2\]"),
        ("the ring", {"threshold": 1.5}, "threshold lies in"),
        ("the ring", {"threshold": float("nan")}, "threshold lies in"),
        ("the ring", {"timesteps": (1000,)}, "from 0 to 999"),
        ("the ring", {"timesteps": ()}, "at least one"),
        ("the ring", {"steps": 0}, "at least once"),
        ("the ring", {"size": (97, 96)}, r"the nearest is \(96, 96\)"),
        ("the " + "very " * 80 + "red ring", {}, "is cut off"),
    ],
)
def test_what_cannot_be_segmented_is_refused(models, image, phrase, change, message):
    with pytest.raises(ValueError, match=message):
        nb.segment(image, phrase, models, **change)


def test_half_precision_that_overflows_is_an_error(models, image):
    """Never a silent mask: a UNet whose queries overflow says so."""
    query = models.unet.mid_block.attentions[0].transformer_blocks[0].attn2.to_q
    before = query.weight.clone()
    query.weight.fill_(float("inf"))
    try:
        with pytest.raises(ValueError, match="NaN or infinity"):
            nb.segment(image, "the ring", models, weights="equal")
    finally:
        query.weight.copy_(before)


@pytest.mark.skipif(not REAL.is_dir(), reason="needs the photographs in ../shared/data")
def test_a_real_photograph(models_15):
    path = REAL / "ovam_cat" / "cat.jpg"
    image = nb.load_image(path)
    found = nb.segment(image, "the cat", models_15)
    with Image.open(path) as picture:
        assert found.mask.shape == picture.size[::-1]
    assert 0 < found.mask.mean() < 1


def test_bfloat16_runs_too(models, image):
    """A model in another precision than its autoencoder: nothing is mixed up."""
    import copy

    half = dataclasses.replace(
        models,
        unet=copy.deepcopy(models.unet).to(torch.bfloat16),
        text=dataclasses.replace(
            models.text,
            encoders=tuple(copy.deepcopy(e).to(torch.bfloat16) for e in models.text.encoders),
        ),
        dtype=torch.bfloat16,
    )
    for into in ("both", "keys"):
        found = nb.segment(image, PHRASE, half, alpha=0.9, into=into)
        assert np.isfinite(found.map).all()
