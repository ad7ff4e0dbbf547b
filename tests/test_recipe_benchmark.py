"""The drawn benchmark in the files of COCO and RefCOCO."""

import io
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as rle
from pycocotools.coco import COCO
from recipe import benchmark
from recipe.captions import said_of
from recipe.scenes import draw, sample_scene
from test_recipe_scenes import assert_alike

FOLDER = Path(__file__).parents[1] / "data" / "stickers"


@pytest.fixture(scope="module")
def refs():
    return json.loads((FOLDER / "refs(stickers).json").read_text())


@pytest.fixture(scope="module")
def coco():
    return COCO(FOLDER / "instances.json")


def test_the_shipped_files_are_what_the_seed_draws(refs, coco):
    by_image = {}
    for ref in refs:
        by_image.setdefault(ref["image_id"], []).append(ref)
    assert len(by_image) == sum(benchmark.SPLITS.values())
    for image_id in (1, 17, 200, 201, 600, 601, 800):
        split = benchmark.split_of(image_id)
        scene = benchmark.scene_of(image_id, split)
        picture, masks = draw(scene)
        stored = np.asarray(Image.open(FOLDER / "images" / f"{image_id:06d}.png"))
        assert_alike(stored, picture)
        for ref, mask, thing in zip(by_image[image_id], masks, scene.things, strict=True):
            annotation = coco.anns[ref["ann_id"]]
            assert ref["split"] == split
            assert (coco.annToMask(annotation) == mask).all()
            assert annotation["area"] == mask.sum()
            assert coco.cats[ref["category_id"]]["name"] == thing.noun


def test_boxes_are_those_of_pycocotools(coco):
    for annotation in list(coco.anns.values())[:60]:
        assert rle.toBbox(coco.annToRLE(annotation)).tolist() == annotation["bbox"]


def test_the_pickle_holds_the_same_and_needs_no_global(refs):
    class Closed(pickle.Unpickler):
        def find_class(self, module, name):
            raise AssertionError(f"{module}.{name}")

    content = (FOLDER / "refs(stickers).p").read_bytes()
    assert Closed(io.BytesIO(content)).load() == refs


def test_an_expression_means_one_thing(refs):
    kinds = {"attribute": 0, "position": 0, "noun": 0}
    seen = set()
    for ref in refs:
        for sentence in ref["sentences"]:
            kinds[sentence["kind"]] += 1
            key = (ref["image_id"], sentence["sent"])
            assert key not in seen
            seen.add(key)
    assert min(kinds.values()) > 500


@pytest.mark.parametrize("image_id", [0, 801])
def test_pictures_outside_the_benchmark_are_refused(image_id):
    with pytest.raises(ValueError, match="1 to 800"):
        benchmark.split_of(image_id)


def test_run_lengths_of_an_empty_and_a_full_mask():
    assert benchmark.run_lengths(np.zeros((2, 3), bool))["counts"] == [6]
    assert benchmark.run_lengths(np.ones((2, 3), bool))["counts"] == [0, 6]


def test_run_lengths_run_down_the_columns():
    mask = np.array([[1, 0, 0], [1, 1, 0]], bool)
    assert benchmark.run_lengths(mask)["counts"] == [0, 2, 1, 1, 2]


def test_a_bare_noun_is_an_expression_only_where_it_means_one_thing():
    seen = {True: 0, False: 0}
    for seed in range(40):
        scene = sample_scene(np.random.default_rng(seed), count=3, twins=True)
        nouns = [thing.noun for thing in scene.things]
        for thing in scene.things:
            kinds = {kind for kind, _ in benchmark.expressions(thing, scene)}
            alone = nouns.count(thing.noun) == 1
            assert ("noun" in kinds) == alone
            seen[alone] += 1
    assert min(seen.values()) > 20


@pytest.mark.parametrize(
    ("caption", "said"),
    [
        ("a photograph of a red car and a blue bus", [("car", "red"), ("bus", "blue")]),
        ("a woman in red next to a ball", [("woman", "red"), ("ball", None)]),
        (
            "a zebra, two black and white cows",
            [("zebra", None), *[("cow", "black and white")] * 2],
        ),
        ("a green teddy bear behind a cup", [("teddy bear", "green"), ("cup", None)]),
        ("nothing here", []),
    ],
)
def test_what_a_caption_says(caption, said):
    assert said_of(caption) == said
