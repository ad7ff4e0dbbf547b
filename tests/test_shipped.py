"""The weights that are shipped: their size and format, and that they are as good as their card."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

import nbhelpers as nb
from nbhelpers.models import Calibration, load_models, read_calibration
from nbhelpers.segment import SETTINGS
from nbhelpers.shapes import leak_tables, leaks, score, sheet
from nbhelpers.shapes.benchmark import said_of, scene_of
from nbhelpers.shapes.probes import probe_noun_token
from nbhelpers.shapes.world import draw, sample_scene

FOLDER = Path(__file__).parents[1] / "data" / "shapes"
PARTS = ("clip", "stable-diffusion", "blip", "parser")


@pytest.fixture(scope="module")
def shapes():
    return load_models("shapes")


@pytest.fixture(scope="module")
def record():
    return json.loads((FOLDER / "results.json").read_text())


def test_all_weights_together_are_at_most_30_mb():
    files = [path for part in PARTS for path in (FOLDER / part).rglob("*") if path.is_file()]
    assert {path.relative_to(FOLDER).parts[0] for path in files} == set(PARTS)
    assert sum(path.stat().st_size for path in files) <= 30e6


def test_weights_are_half_precision_safetensors_and_nothing_is_pickled():
    for part in ("clip", "stable-diffusion", "blip"):
        files = list((FOLDER / part).rglob("*"))
        assert not [f for f in files if f.suffix in (".bin", ".pt", ".ckpt", ".pkl", ".pth")]
        for path in (f for f in files if f.suffix == ".safetensors"):
            with safe_open(path, "pt") as file:
                kinds = {file.get_tensor(key).dtype for key in file.keys()}  # noqa: SIM118
            assert kinds <= {torch.float16, torch.int64}, path


def test_the_pipeline_of_diffusers_loads_the_folder_and_draws():
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(
        FOLDER / "stable-diffusion",
        revision=None,
        use_safetensors=True,
        trust_remote_code=False,
        local_files_only=True,
        dtype=torch.float32,
    )
    pipeline.set_progress_bar_config(disable=True)
    red, blue = (
        pipeline(
            f"a photograph of a {color} ball",
            num_inference_steps=12,
            generator=torch.Generator().manual_seed(3),
            output_type="np",
        ).images[0]
        for color in ("red", "blue")
    )
    assert red.shape == (80, 80, 3)
    redness = [np.mean(picture[..., 0] - picture[..., 2] > 0.3) for picture in (red, blue)]
    blueness = [np.mean(picture[..., 2] - picture[..., 0] > 0.3) for picture in (red, blue)]
    assert redness[0] > 0.02 > redness[1]
    assert blueness[1] > 0.02 > blueness[0]


def test_sealed_reads_a_second_phrase_as_the_card_says(shapes, record):
    chosen = {"sealed": replace(SETTINGS["sealed"], timesteps=shapes.calibration.timesteps)}
    found = leaks.measure(shapes, "testA", chosen, places=("2 of 2",), scenes=16, progress=False)
    (row,) = (
        row
        for row in record["tables"]["testA"]
        if (row["method"], row["keys"], row["place"]) == ("sealed", "all", "2 of 2")
    )
    level = round(100 * row["threshold"])
    reading = leaks.READINGS.index("all")
    ious = found.iou[0, reading, 0, :, level]
    # 16 scenes of 400: within three standard errors of the recorded mean
    assert abs(ious.mean() - row["miou"]) < 3 * ious.std() / 4


def test_a_nouns_token_holds_what_the_card_says(shapes, record):
    found = probe_noun_token(shapes)
    assert found == pytest.approx(record["noun token"], abs=0.01)
    assert sum(found.values()) <= 1  # each a share of one variance, and neither of the other's


def test_captions_of_the_small_blip_are_as_the_card_says(shapes, record):
    right, colors = [], []
    for number in range(201, 225):
        scene = scene_of(number, "testA")
        said = said_of(nb.caption(draw(scene)[0], shapes.captioner))
        there = [(thing.noun, thing.color) for thing in scene.things]
        right.append(bool(said) and all(pair in there for pair in said))
        colors += [color in {c for _, c in there} for _, color in said]
    share = record["captions"]["right"]
    # 24 pictures of 400: within three standard errors of the recorded share
    assert abs(np.mean(right) - share) <= 3 * np.sqrt(max(share * (1 - share), 0.01) / 24)
    assert np.mean(colors) > 0.9


def test_what_was_asked_for_is_recognized_where_it_was_drawn(shapes):
    rng = np.random.default_rng(5)
    scenes = [sample_scene(rng, count=1) for _ in range(24)]
    asked = [(scene.things[0].noun, scene.things[0].color) for scene in scenes]
    found = sheet.recognized([draw(scene)[0] for scene in scenes], asked, shapes.captioner)
    for part, low, chance in (("noun", 0.8, 1 / 12), ("color", 0.9, 1 / 8), ("both", 0.75, 0.02)):
        assert found[part] > low, part
        assert abs(found[f"by chance, {part}"] - chance) < 0.08, part
    assert found["both"] <= min(found["noun"], found["color"])
    assert found["pictures"] == 24


def test_noun_and_color_of_two_things_are_not_both(monkeypatch, shapes):
    said = iter(["a red ball and a blue ring", "a red ring", "nothing at all"])
    monkeypatch.setattr(sheet, "caption", lambda picture, captioner: next(said))
    asked = [("ring", "red"), ("ring", "red"), ("ring", "red")]
    found = sheet.recognized([np.zeros((8, 8, 3), np.uint8)] * 3, asked, shapes.captioner)
    assert (found["noun"], found["color"]) == pytest.approx((2 / 3, 2 / 3))
    assert found["both"] == pytest.approx(1 / 3)


def test_a_pair_that_training_never_showed_is_not_asked_for():
    assert len(set(sheet.ASKED)) == 12 * 8 - 12


def test_a_second_seed_is_read_as_the_first_is(shapes, tmp_path):
    """By the first one's reading and not its own, on val and testA, thresholds of its own val."""
    folder = tmp_path / "seed-1" / "models" / "stable-diffusion"
    shutil.copytree(FOLDER / "stable-diffusion", folder)
    assert shapes.calibration.timesteps != (400,)
    first = replace(shapes, calibration=Calibration(timesteps=(400,), weights={1: 1.0}))
    found = score.score_second(tmp_path, first, 1, scenes=2)["second seed"]
    val, test = (
        leaks.measure(first, split, score.compared(), scenes=2, progress=False)
        for split in ("val", "testA")
    )
    assert found["scenes"] == {"val": 2, "testA": 2}
    assert found["testA"] == leak_tables.table(val, test)
    assert found["noun token"] == pytest.approx(probe_noun_token(shapes))
    again = read_calibration(folder)  # for all who load it afterwards
    assert (again.timesteps, again.weights) == ((400,), {1: 1.0})
    level = val.iou[list(val.methods).index("sealed"), 0].mean((0, 1)).argmax()
    assert again.of("sealed").threshold == pytest.approx(float(level) / 100)


def test_the_seals_are_measured_on_val_against_the_sealed_prompt(shapes):
    found = score.score_seals(shapes, scenes=2)["seals"]
    tried = {"sealed": SETTINGS["sealed"], **score.seals()}
    again = leaks.measure(shapes, "val", tried, scenes=2, progress=False)
    assert found == leak_tables.summary(again)
    assert [row["method"] for row in found[::2]] == list(tried)


def test_the_results_name_their_settings_versions_and_seed(record):
    assert {"versions", "seed", "settings", "scenes", "reading"} <= set(record)
    assert record["scenes"]["testA"] >= 400
    places = {(row["keys"], row["place"]) for row in record["tables"]["testA"]}
    assert places == {(keys, place) for keys in leaks.READINGS for place in leaks.PLACES}


def test_the_card_prints_the_results(record):
    card = (FOLDER / "MODEL_CARD.md").read_text()
    assert leak_tables.print_table(record["tables"]["testA"]) in card
    assert f"{record['captions']['right']:.3f}" in card
    assert f"{record['generated']['both']:.3f} of 84" in card
