"""DiffuMask: pairs whose masks are the attention's, and the segmenter that learns from them."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from recipe import family_diffumask
from recipe.family_diffumask import (
    Pairs,
    load_pairs,
    looks_right,
    make,
    splice,
    train,
    write_pairs,
)
from safetensors.torch import load_file, save_file

import nbhelpers as nb
from nbhelpers.family import digest
from nbhelpers.family.dense import text_features, to_input
from nbhelpers.family.diffumask import Segmenter, maps, read_segmenter
from nbhelpers.family.sampling import sample_support
from tests.tiny_clip import make_clip

NAMES = ("cat", "dog")


@pytest.fixture(scope="module")
def with_clip(models, text):
    return replace(models, sources={**models.sources, "clip": make_clip(text.tokenizers[0])})


@pytest.fixture(scope="module", autouse=True)
def few_steps():
    """Two steps of denoising in place of twenty."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(family_diffumask, "sample_support", partial(sample_support, steps=2))
        yield


@pytest.fixture(scope="module")
def written(with_clip, tmp_path_factory):
    """Three pairs of each of two classes."""
    folder = tmp_path_factory.mktemp("pairs")
    for number, name in enumerate(NAMES):
        write_pairs(folder, name, with_clip, pictures=3, seed=10 * number)
    return folder


@pytest.fixture
def folder(written, tmp_path):
    for name in NAMES:
        path = f"{name}.safetensors"
        (tmp_path / path).write_bytes((written / path).read_bytes())
    return tmp_path


def test_the_masks_are_those_of_the_attention(folder, with_clip):
    pairs = load_pairs(folder, NAMES, with_clip)
    assert len(pairs) == 4  # half of three, rounded to two, of each class
    found = {0: 0, 1: 0, 2: 0, 255: 0}
    for index, (picture, label) in enumerate(zip(pairs.pictures, pairs.labels, strict=True)):
        number = 1 + index // 2
        own = nb.segment(picture, NAMES[number - 1], with_clip, method="diffsegmenter").map
        sure = np.minimum(np.abs(own - 0.5), np.abs(own - 0.3)) > 0.01
        wanted = np.where(own >= 0.5, number, np.where(own <= 0.3, 0, 255))
        assert (label[sure] == wanted[sure]).all()
        for value in found:
            found[value] += (label == value).sum()
    assert min(found.values()) > 0


@pytest.mark.parametrize("index", [0, 1, 2])
def test_the_loader_refuses_masks_that_were_drawn(folder, with_clip, index):
    path = folder / "dog.safetensors"
    tensors = load_file(path)
    tensors["maps"][index] = 255 * (torch.arange(96) > 48).to(torch.uint8)  # a mask of one's own
    save_file(tensors, path, metadata={"unet": digest(with_clip.unet)})
    with pytest.raises(ValueError, match=f"mask {index} in .*dog.* learns from no other masks"):
        load_pairs(folder, NAMES, with_clip)


def test_the_loader_refuses_pictures_of_another_model(folder, with_clip):
    path = folder / "cat.safetensors"
    save_file(load_file(path), path, metadata={"unet": "another"})
    with pytest.raises(ValueError, match="was not written by this model"):
        load_pairs(folder, NAMES, with_clip)
    save_file(load_file(path), path)
    with pytest.raises(ValueError, match="was not written by this model"):
        load_pairs(folder, NAMES, with_clip)


def test_training_reads_no_dataset_and_goes_on_where_it_stopped(with_clip, tmp_path, monkeypatch):
    def refuse(*a, **k):
        pytest.fail("a data set was read")

    for name in ("nbhelpers.datasets.referring", "nbhelpers.datasets.coco"):
        monkeypatch.setattr(name, refuse)
    for name in ("load_image", "refer.load_image", "coco.load_image", "expressions.load_image"):
        monkeypatch.setattr(f"nbhelpers.datasets.{name}", refuse, raising=False)
    monkeypatch.setattr("recipe.scenes.draw", refuse)
    monkeypatch.setattr(family_diffumask, "BATCH", 2)
    more = {"pictures": 2, "seed": 3, "progress": False}
    whole = make(NAMES, with_clip, tmp_path / "whole", steps=4, **more)
    assert list(whole)[-3:] == ["heads.background", "heads.cat", "heads.dog"]
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("cat.safetensors")}
    again = make(NAMES, with_clip, tmp_path / "whole", steps=4, **more)
    assert all(torch.equal(whole[key], again[key]) for key in whole)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("cat.safetensors")} == before


def test_the_pictures_kept_are_the_nearest_by_clip(with_clip):
    blocks = np.random.default_rng(0).integers(0, 256, (6, 4, 4, 3), dtype=np.uint8)
    pictures = list(blocks.repeat(8, axis=1).repeat(8, axis=2))
    clip = with_clip.clip
    pooled = clip.model.get_image_features(to_input(pictures, clip)).pooler_output
    scores = torch.nn.functional.cosine_similarity(pooled, text_features(["cat"], clip))
    assert looks_right(pictures, "cat", with_clip) == sorted(scores.argsort()[-3:].tolist())


def colored(count=12, side=16):
    """Pairs in which the color says the class: two classes in random blocks on black."""
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 3, (count, side // 4, side // 4), dtype=np.uint8)
    labels = labels.repeat(4, axis=1).repeat(4, axis=2)
    colors = np.array([[0, 0, 0], [200, 40, 0], [20, 60, 220]], np.uint8)
    return Pairs(colors[labels], labels)


def test_spliced_labels_stay_on_their_pixels():
    pairs = colored()
    pictures, labels = splice(pairs, torch.Generator().manual_seed(0), 30)
    colors = np.array([[0, 0, 0], [200, 40, 0], [20, 60, 220]])
    assert (pictures == colors[labels.numpy()]).all()
    whole = {picture.tobytes() for picture in pairs.pictures}
    whole |= {np.ascontiguousarray(picture[:, ::-1]).tobytes() for picture in pairs.pictures}
    alone = sum(picture.tobytes() in whole for picture in pictures)
    assert 4 <= alone <= 16  # a third of 30
    again, _ = splice(pairs, torch.Generator().manual_seed(0), 30)
    assert np.array_equal(pictures, again)


def test_the_segmenter_learns_its_pairs(tmp_path, models, image):
    segmenter = train(colored(), NAMES, tmp_path, steps=60, seed=0, progress=False)
    small = replace(models, unet=models.unet)
    pairs = colored()
    right = []
    for picture, label in zip(pairs.pictures, pairs.labels, strict=True):
        pixels = torch.from_numpy(picture / 127.5 - 1).float().permute(2, 0, 1)[None]
        right.append((segmenter(pixels)[0].argmax(dim=0).numpy() == label).mean())
    assert np.mean(right) > 0.9
    assert maps(image, ["dog"], small, segmenter=segmenter).shape == (1, 40, 56)


def test_a_map_is_the_probability_among_all_classes(models):
    torch.manual_seed(0)
    segmenter = Segmenter(("cat", "red dog", "moon")).eval()
    image = np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8)  # its own size
    found = maps(image, ["moon", "cat"], models, segmenter=segmenter)
    pixels = torch.from_numpy(image / 127.5 - 1).float().permute(2, 0, 1)[None]
    logits = segmenter(pixels)[0].detach().double().numpy()
    wanted = np.exp(logits) / np.exp(logits).sum(axis=0)
    assert logits.shape == (4, 96, 96)
    assert np.abs(found - wanted[[3, 1]]).max() < 1e-5
    with pytest.raises(ValueError, match="knows the classes it was trained on.*got \\['horse'\\]"):
        maps(image, ["horse"], models, segmenter=segmenter)
    with pytest.raises(ValueError, match="knows the classes"):
        maps(image, ["background"], models, segmenter=segmenter)


def test_the_weights_say_which_classes_they_know(models, tmp_path, monkeypatch, image):
    monkeypatch.setenv("NBHELPERS_DATA", str(tmp_path))
    with pytest.raises(OSError, match="weights of DiffuMask are not at"):
        maps(image, ["cat"], models)
    segmenter = Segmenter(("teddy bear", "cat"))
    (tmp_path / "stickers" / "family").mkdir(parents=True)
    path = tmp_path / "stickers" / "family" / "diffumask.safetensors"
    save_file({k: v.half() for k, v in segmenter.state_dict().items()}, path)
    assert path.stat().st_size < 2 * 2**20
    assert list(segmenter.heads) == ["background", "teddy bear", "cat"]
    assert set(read_segmenter(models).heads) == set(segmenter.heads)
    assert next(iter(read_segmenter(models).heads)) == "background"
    found = maps(image, ["cat", "teddy bear"], models)
    wanted = maps(image, ["cat", "teddy bear"], models, segmenter=segmenter)
    assert np.abs(found - wanted).max() < 1e-2
