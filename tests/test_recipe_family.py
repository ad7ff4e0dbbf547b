"""How the family's systems are trained: from what, how far, resumed, and what is shipped."""

from functools import partial

import numpy as np
import pytest
import torch
from recipe import (
    family,
    family_captions,
    family_diffumask,
    family_masks,
    family_ovdiff,
    family_reco,
)
from recipe.art import NOUNS
from recipe.captions import plural
from recipe.clip import HELD_OUT
from recipe.pictures import draw_pictures
from recipe.scenes import draw, sample_scene
from safetensors import safe_open
from safetensors.torch import load_file

from nbhelpers.datasets import referring
from nbhelpers.evaluation.classes import Drawn
from nbhelpers.family import SYSTEMS, made_with
from nbhelpers.models import Models, load_clip, load_models
from nbhelpers.weights import data_folder

needs_unet = pytest.mark.skipif(
    not (data_folder() / "stickers" / "stable-diffusion").is_dir(),
    reason="needs the UNet of data/stickers; train it",
)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    return draw_pictures(folder, count=8, seed=0, workers=1, progress=False)


@pytest.fixture(scope="module")
def clip():
    return load_clip("stickers")


def test_what_learns_from_captions_sees_no_mask(pictures):
    batch = family_captions.sample_batch(pictures, torch.Generator().manual_seed(0), 16)
    assert set(vars(batch)) == {"pixels", "captions", "nouns"}
    assert batch.pixels.shape == (16, 3, 80, 80)
    told = {text for texts in pictures.captions["ordinary"] for text in texts}
    assert set(batch.captions) <= told
    known = {*NOUNS, *map(plural, NOUNS)}
    for caption, nouns in zip(batch.captions, batch.nouns, strict=True):
        assert nouns and set(nouns) <= known
        assert all(noun in caption for noun in nouns)


def test_a_noun_of_two_words_and_a_plural_are_found_whole():
    found = family_captions._NAMED.findall("two men and a teddy bear near a hat and women")
    assert found == ["men", "teddy bear", "hat", "women"]


@pytest.mark.parametrize("name", ["clippy", "viewco"])
def test_a_resumed_training_ends_as_an_unbroken_one(name, pictures, clip, tmp_path, monkeypatch):
    monkeypatch.setattr(family_captions, "BATCH", 4)
    more = {"seed": 0, "progress": False}
    whole = family_captions.train(name, pictures, clip, tmp_path / "a", steps=3, **more)
    kind = family_captions.NETWORKS[name]
    plain, count = kind.loss, 0

    def stop(self, *args):
        nonlocal count
        count += 1
        if count == 3:
            raise KeyboardInterrupt
        return plain(self, *args)

    monkeypatch.setattr(family_captions, "fit", saving_always(family_captions.fit))
    monkeypatch.setattr(kind, "loss", stop)
    with pytest.raises(KeyboardInterrupt):
        family_captions.train(name, pictures, clip, tmp_path / "b", steps=3, **more)
    monkeypatch.setattr(kind, "loss", plain)
    resumed = family_captions.train(name, pictures, clip, tmp_path / "b", steps=3, **more)
    start = dict(kind(clip.model).named_parameters())
    for key, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[key]), key
    assert any((value != start[key]).any() for key, value in whole.named_parameters())


def saving_always(fit):
    return lambda *args, **more: fit(*args, **more, save_every_seconds=0)


def test_drawn_masks_are_those_of_scenes_that_no_one_else_draws():
    batch = family_masks.draw_batch(5, 3)
    assert family_masks.SCENES_SEED not in (0, HELD_OUT)
    for number in range(3):
        rng = np.random.default_rng((family_masks.SCENES_SEED, 5, number))
        scene = sample_scene(rng)
        masks = draw(scene)[1]
        halved = masks.reshape(len(masks), 40, 2, 40, 2).mean((2, 4))
        np.testing.assert_allclose(batch.masks[number].numpy(), halved, atol=1e-6)
        assert [names[0] for names in batch.names[number]] == [t.noun for t in scene.things]
        for names, thing in zip(batch.names[number], scene.things, strict=True):
            assert len(names) == 1 + (thing.color is not None)
            assert thing.color is None or thing.color in names[1]


@needs_unet
@pytest.mark.parametrize("name", ["tcl", "segdiff", "odise"])
def test_the_command_s_weights_are_small_and_are_read_again(name, tmp_path, monkeypatch):
    monkeypatch.setattr(family_captions, "BATCH", 2)
    monkeypatch.setattr(family_masks, "BATCH", 2)
    family.train([name], tmp_path / "work", tmp_path / "out", steps=1, count=8)
    path = tmp_path / "out" / "family" / f"{name}.safetensors"
    assert path.stat().st_size <= 2e6
    assert {value.dtype for value in load_file(path).values()} == {torch.float16}
    models = load_models("stickers")
    _ = models.clip  # loaded on first use, which has to come before the folder is another
    with safe_open(path, "pt") as file:
        assert file.metadata() == {"format": "pt", **made_with(SYSTEMS[name], models)}
    image = referring("stickers", "val").image(1)
    monkeypatch.setenv("NBHELPERS_DATA", str(tmp_path / "data"))
    (tmp_path / "data" / "stickers").mkdir(parents=True)
    (tmp_path / "out" / "family").rename(tmp_path / "data" / "stickers" / "family")
    found = SYSTEMS[name].load()(image, ["dog", "the red car"], models)
    assert found.shape == (2, 80, 80) and found.min() >= 0 and found.max() <= 1


@needs_unet
@pytest.mark.parametrize("name", family.MADE)
def test_what_the_models_make_is_small_and_read_again(name, tmp_path, monkeypatch):
    """Two classes, and as little of everything as there can be."""
    monkeypatch.setattr(family, "NOUNS", ("teddy bear", "cat"))
    for module, less in (
        (family_reco, {"archive": 3}),
        (family_ovdiff, {"pictures": 1, "progress": False}),
        (family_diffumask, {"pictures": 1, "steps": 1, "progress": False}),
    ):
        monkeypatch.setattr(module, "make", partial(module.make, **less))
    family.train([name], tmp_path / "work", tmp_path / "out", count=8)
    path = tmp_path / "out" / "family" / f"{name}.safetensors"
    assert path.stat().st_size <= 2e6
    models = load_models("stickers")
    _ = models.clip  # loaded on first use, which has to come before the folder is another
    image = referring("stickers", "val").image(1)
    monkeypatch.setenv("NBHELPERS_DATA", str(tmp_path / "data"))
    (tmp_path / "data" / "stickers").mkdir(parents=True)
    (tmp_path / "out" / "family").rename(tmp_path / "data" / "stickers" / "family")
    found = SYSTEMS[name].load()(image, ["teddy bear", "cat"], models)
    assert found.shape == (2, 80, 80) and found.min() >= 0 and found.max() <= 1
    assert not np.array_equal(*found)


def test_reco_is_given_the_training_pictures_by_the_command(tmp_path, monkeypatch):
    asked = []

    def draw(folder, *, count, seed):
        asked.append((folder, count, seed))
        return "the training pictures"

    monkeypatch.setattr(family, "draw_pictures", draw)
    monkeypatch.setattr(family_reco, "make", lambda *given, seed: (*given, seed))
    made = family.make_one("reco", "models", tmp_path, seed=3, count=8)
    assert made == (family.NOUNS, "models", "the training pictures", 3)
    assert asked == [(tmp_path / "pictures", 8, 0)]


class Shared(Models):
    """Models of which a training asks for the CLIP and the UNet alone."""

    def __init__(self, clip):
        vars(self).update(clip=clip, unet=torch.nn.Linear(1, 1))


def test_another_seed_or_model_is_another_training(clip, tmp_path, monkeypatch):
    """A finished checkpoint would be shipped for it."""
    folders = []
    monkeypatch.setattr(
        family.family_masks, "train", lambda name, models, folder, **more: folders.append(folder)
    )
    shared, other = Shared(clip), Shared(clip)
    for models, seed in ((shared, 0), (shared, 1), (other, 0), (shared, 0)):
        family.train_one("odise", models, tmp_path, tmp_path, steps=1, seed=seed)
    first, *others, again = folders
    assert first == again and len({first, *others}) == 3


def test_a_write_that_fails_leaves_the_weights_that_were_there(clip, tmp_path, monkeypatch):
    monkeypatch.setattr(family, "load_models", lambda *args, **more: Shared(clip))
    monkeypatch.setattr(family, "train_one", lambda *args, **more: torch.nn.Linear(2, 2))
    family.train(["clippy"], tmp_path, tmp_path)
    path = tmp_path / "family" / "clippy.safetensors"
    before = path.read_bytes()

    def broken(weights, path, **more):
        path.write_bytes(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(family, "save_file", broken)
    with pytest.raises(OSError, match="no space"):
        family.train(["clippy"], tmp_path, tmp_path)
    assert path.read_bytes() == before


def test_every_system_with_weights_is_trained_by_the_command():
    assert {s.name for s in SYSTEMS.values() if s.trained} == {*family.NAMES, *family.MADE}


def test_an_unknown_system_is_refused(tmp_path):
    with pytest.raises(ValueError, match="tcl, clippy.*; got reco"):
        family.measure_terms(["reco"], tmp_path, tmp_path)  # it has no term to switch off
    with pytest.raises(ValueError, match="tcl, clippy.*; got clap"):
        family.checked(["clap", "tcl"])


def test_the_iou_of_classes_is_of_pooled_pixels():
    found = family.class_iou(np.array([3, 2, 0, 0]), np.array([4, 5, 7, 0]))
    assert found[:2].tolist() == [3 / 4, 2 / 5]
    assert found[2] == 0  # found, never true: that counts
    assert np.isnan(found[3])  # nowhere true, nowhere found
    assert np.nanmean(found) == pytest.approx(np.mean(found[:3]))


def test_maps_that_are_the_truth_score_one():
    scenes = Drawn(referring("stickers", "val"))
    pixels = {scenes.image(number).tobytes(): number for number in scenes.image_ids}

    def oracle(image, names, models, *, network):
        truth = scenes.class_map(pixels[image.tobytes()])
        return np.stack([0.7 * (truth == scenes.categories.index(n)) for n in names])

    found = family.class_ious(oracle, None, None, "val")
    assert found[50] == 1.0
    assert found[0] < 0.5  # nothing is background at a threshold of 0
    assert found[90] < 0.05  # everything is background
