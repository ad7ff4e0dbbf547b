"""The benchmark in the files of COCO and RefCOCO, and the arithmetic that scores it."""

import dataclasses
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from nbhelpers.segment import SETTINGS
from nbhelpers.shapes import benchmark, leak_tables, leaks, score
from nbhelpers.shapes.world import UNSEEN, draw, sample_scene

FOLDER = Path(__file__).parents[1] / "data" / "shapes"


@pytest.fixture(scope="module")
def refs():
    return json.loads((FOLDER / "refs(shapes).json").read_text())


def test_the_shipped_files_are_what_the_seed_draws(refs):
    coco = COCO(FOLDER / "instances.json")
    by_image = {}
    for ref in refs:
        by_image.setdefault(ref["image_id"], []).append(ref)
    assert len(by_image) == sum(benchmark.SPLITS.values())
    for image_id in (1, 17, 200, 201, 600, 601, 800):
        split = benchmark.split_of(image_id)
        scene = benchmark.scene_of(image_id, split)
        picture, masks = draw(scene)
        stored = np.asarray(Image.open(FOLDER / "images" / f"{image_id:06d}.png"))
        assert (stored == picture).all()
        for ref, mask, thing in zip(by_image[image_id], masks, scene.things, strict=True):
            annotation = coco.anns[ref["ann_id"]]
            assert ref["split"] == split
            assert (coco.annToMask(annotation) == mask).all()
            assert annotation["area"] == mask.sum()
            assert coco.cats[ref["category_id"]]["name"] == thing.noun


def test_boxes_are_those_of_pycocotools():
    from pycocotools import mask as rle

    coco = COCO(FOLDER / "instances.json")
    for annotation in list(coco.anns.values())[:60]:
        assert rle.toBbox(coco.annToRLE(annotation)).tolist() == annotation["bbox"]


def test_the_pickle_holds_the_same_and_needs_no_global(refs):
    content = (FOLDER / "refs(shapes).p").read_bytes()

    class Closed(pickle.Unpickler):
        def find_class(self, module, name):
            raise AssertionError(f"{module}.{name}")

    import io

    assert Closed(io.BytesIO(content)).load() == refs


def test_an_expression_means_one_thing(refs):
    kinds = {"attribute": 0, "position": 0, "noun": 0}
    by_image = {}
    for ref in refs:
        for sentence in ref["sentences"]:
            kinds[sentence["kind"]] += 1
            key = (ref["image_id"], sentence["sent"])
            assert key not in by_image
            by_image[key] = ref["ref_id"]
    assert min(kinds.values()) > 500


def test_testb_asks_for_pairs_that_training_never_shows():
    for image_id in (601, 700, 800):
        target = benchmark.scene_of(image_id, "testB").things[0]
        assert (target.noun, target.color) in UNSEEN


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
    scene = sample_scene(np.random.default_rng(5), count=3, twins=True)
    kinds = [{kind for kind, _ in benchmark.expressions(t, scene)} for t in scene.things]
    assert ["noun" in found for found in kinds] == [False, False, True]


@pytest.mark.parametrize(
    ("caption", "said"),
    [
        (
            "a photograph of a striped red ring and a blue moon",
            [("ring", "red"), ("moon", "blue")],
        ),
        ("a ring in striped red next to ball", [("ring", "red"), ("ball", None)]),
        ("violet cottage, a teal hoop", [("house", "purple"), ("ring", "turquoise")]),
        ("a ring in the dark and a red ball", [("ring", None), ("ball", "red")]),
        ("nothing here", []),
    ],
)
def test_what_a_caption_says(caption, said):
    assert benchmark.said_of(caption) == said


def test_the_iou_curve_is_a_loop_over_thresholds():
    rng = np.random.default_rng(0)
    pixels = rng.random((13, 17)).astype(np.float32)
    pixels[0, 0], pixels[1, 1] = 0.0, 1.0
    mask = rng.random((13, 17)) < 0.4
    curve = leaks.iou_curve(pixels, mask)
    for threshold, found in zip(leaks.THRESHOLDS, curve, strict=True):
        guess = pixels >= threshold
        assert found == (guess & mask).sum() / (guess | mask).sum()


def test_prompts_put_the_target_in_its_place():
    scene = sample_scene(np.random.default_rng(5), count=3, twins=True)
    for place in leaks.PLACES:
        things, index = leaks.named(scene, place)
        assert things[index] is scene.things[0]
        wanted = 1 if place == "alone" else int(place[-1])
        assert len(things) == wanted
        assert place == "alone" or index == int(place[0]) - 1
        text, chunks = leaks.phrase_prompt(things)
        assert text.startswith("a photograph of a")
        for chunk, thing in zip(chunks, things, strict=True):
            assert text[chunk.start : chunk.end] == chunk.text
            assert text[chunk.noun_start : chunk.noun_end] == thing.noun


def test_the_threshold_comes_from_val_and_the_gain_is_paired():
    shape = (2, 2, len(leaks.PLACES), 5, len(leaks.THRESHOLDS))
    val, test = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    val[0, ..., 30], val[1, ..., 60] = 0.5, 0.5
    test[0, ..., 30], test[1, ..., 60] = 0.4, 0.6
    test[0, ..., 80] = 0.9  # only an oracle would take this one
    names = ("plain", "sealed")
    rows = leak_tables.table(
        leaks.Measurement(names, "val", val), leaks.Measurement(names, "testA", test)
    )
    plain, sealed = rows[0], rows[-1]
    assert plain["miou"] == pytest.approx(0.4)
    assert plain["threshold"] == pytest.approx(0.30)
    assert plain["oracle_miou"] == pytest.approx(0.9)
    assert sealed["gain"] == pytest.approx(0.2)
    assert sealed["interval"] == pytest.approx((0.2, 0.2))


def test_which_seals_suffice_is_a_mean_over_places_paired_by_scene():
    shape = (2, 2, len(leaks.PLACES), 3, len(leaks.THRESHOLDS))
    val = np.zeros(shape, np.float32)
    val[0, ..., 30] = np.array([0.2, 0.4, 0.6])
    val[1, 0, 0, :, 60] = 0.6  # one place of six, and the best threshold is another
    val[1, 1, ..., 10] = np.array([0.3, 0.5, 0.7])
    rows = leak_tables.summary(leaks.Measurement(("sealed", "less"), "val", val))
    found = {(row["method"], row["keys"]): row for row in rows}
    assert found["sealed", "all"]["miou"] == pytest.approx(0.4)
    assert found["sealed", "all"]["interval"] is None
    assert found["less", "all"]["miou"] == pytest.approx(0.1)
    assert found["less", "all"]["threshold"] == pytest.approx(0.6)
    assert found["less", "words"]["gain"] == pytest.approx(0.1)
    assert found["less", "words"]["interval"] == pytest.approx((0.1, 0.1))
    table = leak_tables.print_summary(rows).splitlines()
    assert table[0] == "| prompt | all | words |"
    assert table[2] == "| sealed | 0.400 | 0.400 |"
    assert "(+0.10 [+0.10, +0.10])" in table[3]


def test_each_seal_is_taken_away_by_itself():
    """Against the default, every variant that val measures differs in one setting alone."""
    sealed = dataclasses.asdict(SETTINGS["sealed"])
    for name, settings in score.seals().items():
        changes = {k: v for k, v in dataclasses.asdict(settings).items() if v != sealed[k]}
        assert len(changes) == 1, name
    assert len({tuple(map(str, dataclasses.astuple(s))) for s in score.seals().values()}) == 5


def test_the_interval_covers_the_mean_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    hits = 0
    for trial in range(200):
        low, high = leak_tables.interval(rng.normal(0.1, 1, 60), draws=400, seed=trial)
        hits += low <= 0.1 <= high
    assert 176 <= hits <= 200


def test_the_seals_are_what_they_are_called():
    seals = score.seals()
    assert seals["sealed, the target open"].isolate == "others"
    assert seals["sealed, the others open"].isolate == "target"
    assert seals["the empty tail alone"].isolate == "none"
    assert seals["sealed, the prompt's tail"].tail == "prompt"
