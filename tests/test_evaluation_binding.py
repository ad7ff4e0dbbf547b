"""Attribute binding: the judges on pictures whose truth is known, and what is made of verdicts."""

import json
import pickle
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from recipe import binding as recipe_binding
from recipe.binding import true_pictures
from recipe.color import to_lab as lab_of_the_recipe

from nbhelpers.evaluation.jobs import SOURCES, code_version
from nbhelpers.evaluation.run import RunOptions, run
from nbhelpers.evaluation.store import Store
from nbhelpers.family.evaluation import _judges, binding
from nbhelpers.family.evaluation._judges import Asked, Judges, crops, nearest_colors, to_lab
from nbhelpers.family.evaluation.binding import BindingJob, measure_binding, read_prompts
from nbhelpers.family.sampling import sample
from nbhelpers.models import Models, load_clip
from nbhelpers.segment import make_prompt
from nbhelpers.settings import SETTINGS
from nbhelpers.weights import data_folder

RED_BALL, BLUE_CUP = Asked("ball", "red"), Asked("cup", "blue")
SWAPPED = [Asked("ball", "blue"), Asked("cup", "red")]
clip_is_there = pytest.mark.skipif(
    not (data_folder() / "stickers" / "clip").is_dir(), reason="needs the CLIP of data/stickers"
)


class Seen(Models):
    """Models of which the judges use the CLIP alone."""

    def __init__(self):
        vars(self).update(clip=load_clip("stickers"), captioner=None, parser=None)


@pytest.fixture(scope="module")
def judges():
    world = read_prompts()
    return Judges(Seen(), world["nouns"], world["colors"])


@clip_is_there
def test_clip_tells_true_pictures_from_exchanged_colors(judges):
    right, wrong = [], []
    for picture, things in true_pictures(60):
        right.append(judges.clip(picture, things))
        (one, red), (other, blue) = ((thing.noun, thing.color) for thing in things)
        swapped = [Asked(one, blue), Asked(other, red)]
        wrong.append(judges.clip(picture, swapped))
    # On 200 pictures it finds 72% of the things and, with the colors exchanged, 12%; both things
    # of a picture in 49% and never exchanged. The bounds are two standard errors of 60 from that.
    assert np.mean(right) > 0.64 and np.all(right, axis=1).mean() > 0.36
    assert np.mean(wrong) < 0.175 and not np.all(wrong, axis=1).any()


@clip_is_there
def test_blip_must_say_the_color_in_the_nouns_own_phrase(judges, toy_parser, monkeypatch):
    monkeypatch.setitem(vars(judges.models), "parser", toy_parser)
    picture = np.zeros((8, 8, 3), dtype=np.uint8)
    dog, hat = Asked("dog", "black"), Asked("hat", "red")
    for said, verdict in (
        ("a black dog and a red hat", [True, True]),
        ("a red dog and a black hat", [False, False]),
        ("a dog in a red hat", [False, True]),
        ("the blackish dog", [False, False]),
        ("very", [False, False]),
    ):
        monkeypatch.setattr(_judges, "caption", lambda *args, said=said: said)
        assert judges.blip(picture, [dog, hat]) == verdict, said
    for phrase, verdict in (
        ("a red ball", True),
        ("a red ball hat", False),
        ("a red football", False),
        ("a blue ball", False),
    ):
        chunk = SimpleNamespace(text=phrase)
        monkeypatch.setattr(_judges, "noun_chunks", lambda *args, chunk=chunk: [chunk])
        assert judges.blip(picture, [RED_BALL]) == [verdict], phrase


@clip_is_there
def test_pixels_are_counted_in_the_mask_of_the_highest_map(judges, monkeypatch):
    picture = np.full((10, 20, 3), 255, dtype=np.uint8)
    picture[2:8, 2:8] = (200, 30, 30)  # a red ball
    picture[2:8, 12:18] = (30, 110, 210)  # a blue cup
    maps = np.zeros((2, 10, 20), dtype=np.float32)
    maps[0, :, :10], maps[1, :, 10:] = 1.0, 1.0
    maps[1, :, :10] = 0.6  # the cup's mask holds the ball, whose map is higher there

    class Found:
        def __init__(self, one):
            self.map, self.mask = one, one >= 0.5

    asked = []
    monkeypatch.setattr(
        _judges, "segment", lambda image, texts, m: asked.append(texts) or [*map(Found, maps)]
    )
    assert judges.pixels(picture, [RED_BALL, BLUE_CUP]) == [True, True]
    assert judges.pixels(picture, SWAPPED) == [False, False]
    assert asked[0] == ["the ball", "the cup"]  # no color is named
    maps[1] = 0
    assert judges.pixels(picture, [RED_BALL, BLUE_CUP]) == [True, False]  # no pixel of its own


def test_colors_are_compared_in_cielab():
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    assert np.allclose(to_lab(pixels / 255), lab_of_the_recipe(pixels / 255), atol=1e-6)
    colors = read_prompts()["colors"]
    names = ["red", "white", "black", "yellow", "blue"]
    patches = np.array(
        [[(200, 30, 30), (250, 250, 250), (10, 10, 10), (240, 220, 30), (40, 60, 220)]],
        dtype=np.uint8,
    )
    found = nearest_colors(patches, [colors[name] for name in names])
    assert found.tolist() == [[0, 1, 2, 3, 4]]


def test_crops_cover_the_picture():
    picture = np.arange(80 * 60 * 3, dtype=np.uint8).reshape(80, 60, 3)
    found = crops(picture)
    assert [crop.size for crop in found] == [(60, 80), *[(42, 56)] * 9, *[(30, 40)] * 9]
    assert np.array_equal(found[-1], picture[40:, 30:]) and np.array_equal(found[0], picture)


@pytest.fixture
def tiny(models_15, monkeypatch):
    """A job on random models and four prompts, whose judges like some pictures."""
    world = {
        "nouns": {"ring": ["red", "blue"], "moon": ["red", "blue"]},
        "colors": {"red": [50, 60, 40], "blue": [40, 10, -60]},
        "prompts": {},
    }
    for split in ("val", "test"):
        world["prompts"][split] = [
            {
                "text": f"a {a} ring and a {b} moon",
                "colorless": "a ring and a moon",
                "things": [{"noun": "ring", "color": a}, {"noun": "moon", "color": b}],
            }
            for a, b in (("red", "blue"), ("blue", "red"), ("red", "very"), ("old", "blue"))
        ]
    made = []

    class Liking:
        def __init__(self, models, nouns, colors):
            judge = lambda picture, things: [True, bool(picture.mean() % 2 > 1)]  # noqa: E731
            self.all = dict.fromkeys(("clip", "blip", "pixels"), judge)

    def pictures(latents, models):
        made.append(len(latents))
        return (latents.abs().mean(dim=(1, 2, 3)) * 50).round().numpy()[:, None]

    monkeypatch.setattr(binding, "read_prompts", lambda: world)
    monkeypatch.setattr(binding, "load_models", lambda *args, **more: models_15)
    monkeypatch.setattr(binding, "locate", lambda *args: ("nowhere", "a commit"))
    monkeypatch.setattr(binding, "Judges", Liking)
    monkeypatch.setattr(binding, "decode", pictures)
    return BindingJob("test", {"plain": [0], "sealed": [0]}, [0, 1], steps=2), made


def test_a_run_resumes_and_its_record_says_how_it_came_about(tiny, tmp_path):
    job, made = tiny
    how = RunOptions(batch=4, progress=False)
    record = measure_binding(tmp_path / "work", tmp_path / "out", job, how)
    assert sum(made) == 2 * 2 * 4 and max(made) == 4
    assert json.loads((tmp_path / "out" / "binding.json").read_bytes()) == record
    assert [(row["system"], row["judge"]) for row in record["rows"]] == [
        (s, j) for s in ("plain", "sealed") for j in ("clip", "blip", "pixels")
    ]
    assert record["settings"]["systems"] == {"plain": [{}], "sealed": [{}]}
    assert record["settings"]["steps"] == 2 and "val" not in record
    made.clear()
    (part,) = (tmp_path / "work" / "test" / "parts").glob("*.jsonl")
    part.write_bytes(part.read_bytes()[:-40])  # the last line is torn
    assert measure_binding(tmp_path / "work", tmp_path / "out", job, how) == record
    assert made == [1]
    with pytest.raises(ValueError, match="other settings: guidance"):
        measure_binding(tmp_path / "work", tmp_path, replace(job, guidance=2.0), how)


def test_both_splits_are_run_in_as_many_processes_as_asked_for(tiny, tmp_path, monkeypatch):
    job, _ = tiny
    asked = []

    def here(store, open_evaluator, options, *, workers):
        asked.append(workers)
        run(store, open_evaluator, options)

    monkeypatch.setattr(binding, "run_locally", here)
    job = replace(job, choices={"plain": [0], "syngen": [0, 1]}, prompts=1)
    how = RunOptions(progress=False)
    measure_binding(tmp_path, tmp_path, job, how, val_prompts=1, workers=3)
    assert asked == [3, 3]


def test_a_job_reaches_another_process_whole(tiny):
    job, _ = tiny
    assert pickle.loads(pickle.dumps(job)) == job


def test_every_system_generates(tiny, tmp_path):
    job, made = tiny
    job = replace(job, choices={name: [0] for name in binding.SYSTEMS}, seeds=[0], prompts=2)
    record = measure_binding(tmp_path, tmp_path, job, RunOptions(batch=2, progress=False))
    assert len(record["rows"]) == 3 * len(binding.SYSTEMS) and sum(made) == 2 * 6


NOTED = []


def noting(prompts, models, **how):
    """A system that keeps what it was asked for."""
    NOTED.append({"prompts": prompts, **how})
    return torch.zeros(len(prompts), 1, 2, 2)


def test_a_system_gets_its_choice_its_sources_and_a_seed_for_each_prompt(tiny, monkeypatch):
    job, _ = tiny
    sizes = ({"size": 1.0}, {"size": 2.0})
    systems = {
        "plain": binding.System("Plain", f"{__name__}.noting"),
        "edit": binding.System("Edit", f"{__name__}.noting", sizes, edits=True),
    }
    monkeypatch.setattr(binding, "SYSTEMS", systems)
    NOTED.clear()
    choices = {"plain": [0], "edit": [0, 1]}
    job = replace(job, choices=choices, seeds=[2, 5], prompts=2, steps=7, guidance=3.0)
    found = job.open()(job.items())
    assert [one["id"] for one in found] == [item["id"] for item in job.items()]
    assert set(found[0]) == {"id", *binding.JUDGES}
    plain, first, second = NOTED
    for one in NOTED:
        assert one["prompts"] == ["a red ring and a blue moon", "a blue ring and a red moon"] * 2
        assert one["seeds"] == [2000, 2001, 5000, 5001]
        assert (one["steps"], one["guidance"]) == (7, 3.0)
    assert first["sources"] == second["sources"] == ["a ring and a moon"] * 4
    assert (first["size"], second["size"]) == (1.0, 2.0)
    assert "sources" not in plain and "size" not in plain


def test_a_picture_counts_where_both_things_have_their_color(monkeypatch):
    items = [{"system": "plain", "choice": 0, "prompt": prompt} for prompt in (0, 0, 1)]
    records = [
        {"id": "a", "clip": [True, True], "blip": [True, False], "pixels": [False, True]},
        {"id": "b", "clip": [False, True], "blip": [True, True], "pixels": [True, True]},
        {"id": "c", "clip": [False, False], "blip": [True, True], "pixels": [True, False]},
    ]
    store = object.__new__(Store)  # of which no file is read
    store.folder, store.manifest = "here", {"items": items}
    monkeypatch.setattr(binding, "complete_records", lambda store: records)
    assert binding.bound(store) == {
        ("plain", 0, "clip"): {0: [True, False], 1: [False]},
        ("plain", 0, "blip"): {0: [False, True], 1: [True]},
        ("plain", 0, "pixels"): {0: [False, True], 1: [False]},
    }
    records[1] = {"id": "b", "error": "boom"}
    with pytest.raises(ValueError, match="b in here ended in an error: boom.*--retry-errors"):
        binding.bound(store)


def test_seeds_of_one_prompt_are_no_more_prompts(monkeypatch):
    """Ten seeds that are all alike leave the interval of eight prompts."""
    verdicts = {("plain", 0, "clip"): {prompt: [prompt % 2 == 0] * 10 for prompt in range(8)}}
    monkeypatch.setattr(binding, "bound", lambda store: verdicts)
    (row,) = binding.rows_of(object.__new__(Store))
    low, high = row["interval"]
    error = np.sqrt(0.25 / 8)
    assert (row["prompts"], row["pictures"]) == (8, 80)
    assert abs(high - low - 2 * 1.96 * error) < 0.5 * error


def test_val_chooses_and_test_runs_the_choice_alone(tiny, tmp_path, monkeypatch):
    job, _ = tiny
    shares = {0: 0.25, 1: 0.75, 2: 0.5}
    monkeypatch.setattr(
        binding,
        "choices_of",
        lambda store: [{"system": "syngen", "choice": c, "mean": m} for c, m in shares.items()],
    )
    job = replace(job, choices={"plain": [0], "syngen": [0, 1, 2]}, prompts=1)
    how = RunOptions(batch=4, progress=False)
    record = measure_binding(tmp_path, tmp_path, job, how, val_prompts=1)
    assert record["settings"]["systems"]["syngen"] == [{"step_size": 2.0}]
    tried = record["val"]["settings"]
    assert tried["systems"] == {"syngen": [{"step_size": s} for s in (0.2, 2.0, 20.0)]}
    assert (tried["split"], tried["seeds"]) == ("val", [0])


def test_rows_are_shares_with_intervals_over_prompts(monkeypatch, tmp_path):
    verdicts = {
        ("plain", 0, "clip"): {0: [True, False], 1: [False, False]},
        ("sealed", 0, "clip"): {0: [True, True], 1: [True, False]},
    }
    monkeypatch.setattr(binding, "bound", lambda store: verdicts)
    store = Store(tmp_path, {}, [])
    plain, sealed = binding.rows_of(store)
    assert (plain["share"], plain["gain"], plain["pictures"], plain["prompts"]) == (0.25, 0, 4, 2)
    assert (sealed["share"], sealed["gain"]) == (0.75, 0.5)
    assert sealed["interval"] == [0.5, 1.0] and sealed["gain_interval"] == [0.5, 0.5]
    (first, second) = binding.choices_of(store)
    assert (first["clip"], second["mean"]) == (0.25, 0.75)


def test_the_sealed_prompt_is_that_of_segment(models_15):
    """What generates is embedded as what segments: the same keys at every position."""
    text = "a photograph of a red ring and a blue moon"
    wanted = make_prompt("a red ring and a blue moon", models_15, SETTINGS["sealed"])
    found = binding.generate_sealed([text], models_15, seeds=[0], steps=1)
    assert wanted.text == text
    assert torch.equal(found, sample([wanted], models_15, seeds=[0], steps=1))


@clip_is_there
def test_the_manifest_holds_the_calibration_and_what_the_judges_read_with(tmp_path, monkeypatch):
    job = BindingJob("val", {"plain": [0]}, [0])
    plain = job.settings()
    assert {*plain["judges"]["models"]} == {"clip", "captioner", "parser"}
    assert len({*plain["judges"]["models"].values()}) == 3
    assert plain["code"] == code_version((*SOURCES, *binding.OF_BINDING))
    folder = Path(binding.__file__).parents[2]
    assert all(list(folder.glob(pattern)) for pattern in binding.OF_BINDING)
    assert "dog" in plain["judges"]["nouns"] and "red" in plain["judges"]["colors"]
    shutil.copytree(data_folder() / "stickers", tmp_path / "stickers", symlinks=True)
    monkeypatch.setenv("NBHELPERS_DATA", str(tmp_path))
    assert job.settings() == plain
    file = tmp_path / "stickers/stable-diffusion/nbhelpers.json"
    found = json.loads(file.read_text())
    file.write_text(json.dumps(found | {"chosen": []}))
    assert job.settings() == plain  # how it was found changes no number
    file.write_text(json.dumps(found | {"weights": {"2": 1.0}}))
    assert {k for k, v in job.settings().items() if v != plain[k]} == {"calibration"}
    (tmp_path / "stickers/blip/config.json").write_text("{}")
    changed = job.settings()["judges"]["models"]
    assert changed["captioner"] != plain["judges"]["models"]["captioner"]


def test_judges_are_scored_on_what_is_there_exchanged_and_elsewhere(monkeypatch):
    """A judge that knows each picture's prompt is right; one that sees colors alone is not."""
    drawn = []

    class Known:
        def __init__(self, models, nouns, colors):
            self.all = {"truth": self.truth, "colors": self.colors, "any": self.anything}

        def truth(self, picture, asked):
            return [thing in drawn[picture] for thing in asked]

        def colors(self, picture, asked):
            return [thing.color in {d.color for d in drawn[picture]} for thing in asked]

        def anything(self, picture, asked):
            return [True for _ in asked]

    def numbered(count):
        prompts = read_prompts()["prompts"]["test"][:count]
        pairs = [[Asked(**thing) for thing in one["things"]] for one in prompts]
        drawn.extend(pairs)
        return list(enumerate(pairs))

    monkeypatch.setattr(recipe_binding, "Judges", Known)
    monkeypatch.setattr(recipe_binding, "true_pictures", numbered)
    found = recipe_binding.score_judges(None, count=40)
    assert found["truth"] == {"right": 1.0, "exchanged": 0.0, "elsewhere": 0.0}
    assert found["any"] == {"right": 1.0, "exchanged": 1.0, "elsewhere": 1.0}
    assert found["colors"]["right"] == found["colors"]["exchanged"] == 1.0
    assert found["colors"]["elsewhere"] < 0.5
