"""What is counted of the sticker world's models, and the pictures of the paper's prompts."""

import json
from dataclasses import dataclass, field, replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_masks
from recipe import score
from recipe.art import FOLDER, NOUNS, UNSEEN
from recipe.captions import said_of
from recipe.color import COLORS
from recipe.paper import PROMPTS, scene_of_prompt, write_prompts
from recipe.scenes import draw, visible_shares
from recipe.score import noun_token_shares, share
from recipe.sheets import asked_pairs, asked_singles, prompt_of
from transformers import BatchEncoding


def test_the_paper_prompts_are_shown_with_their_masks():
    records = json.loads((FOLDER.parent / "paper/prompts.json").read_text())
    assert [record["figure"] for record in records] == [2, 3, 4, 5, 6, 8]
    for record, prompt in zip(records, PROMPTS, strict=True):
        scene = scene_of_prompt(prompt)
        picture, masks = draw(scene)
        with Image.open(FOLDER.parent / "paper" / record["file_name"]) as stored:
            np.testing.assert_array_equal(np.asarray(stored), picture)
        region = record["segmentation"]
        packed = coco_masks.frPyObjects(region, *region["size"])
        np.testing.assert_array_equal(
            coco_masks.decode(packed).astype(bool), masks[list(prompt.meant)].any(0)
        )
        assert visible_shares(scene).min() >= 0.6
        # the phrase's own words are of the things meant, and a rival or a wearer is there
        first = said_of(prompt.phrase)[0]
        meant = [(scene.things[i].noun, scene.things[i].color) for i in prompt.meant]
        assert first in meant and len(scene.things) > len(meant)


def test_the_prompts_in_the_repository_are_those_that_are_written(tmp_path):
    write_prompts(tmp_path)
    for path in (tmp_path / "paper").iterdir():
        assert path.read_bytes() == (FOLDER.parent / "paper" / path.name).read_bytes(), path.name


def test_shares_of_a_noun_token_are_those_of_its_variance():
    """An encoder whose state at the noun is 2 x the noun's axis + 1 x the color's."""

    def tokenizer(text, return_tensors):
        return BatchEncoding({"input_ids": text})

    class Encoder:
        device = torch.device("cpu")

        def __call__(self, text):
            *_, color, noun = text.split()
            state = torch.zeros(1, 3, 60)
            state[0, -2, sorted(COLORS).index(color)] = 1
            state[0, -2, 20 + NOUNS.index(noun)] = 2
            return SimpleNamespace(last_hidden_state=state)

    text = SimpleNamespace(tokenizers=(tokenizer,), encoders=(Encoder(),))
    found = noun_token_shares(SimpleNamespace(text=text))
    nouns, colors = found["nouns"], found["colors"]
    noun, color = 4 * (1 - 1 / nouns), 1 - 1 / colors  # variance of a one-hot vector over n
    assert found["noun"] == pytest.approx(noun / (noun + color))
    assert found["color"] == pytest.approx(color / (noun + color))


def test_what_is_asked_for_is_what_training_showed():
    singles, pairs = asked_singles(), asked_pairs()
    assert len(singles) == len(pairs) == 100
    for things in (*singles, *pairs):
        assert not {*things} & UNSEEN
        assert said_of(prompt_of(things)) == things
    assert all(a[0] != b[0] and a[1] != b[1] for a, b in pairs)


def test_a_share_has_the_interval_of_its_prompts():
    rng = np.random.default_rng(0)
    right = np.repeat(rng.random((1, 400)) < 0.3, 3, axis=0)  # every seed alike
    found = share(right)
    error = np.sqrt(found["share"] * (1 - found["share"]) / 400)  # of prompts, not of pictures
    assert found["share"] == right[0].mean()
    assert abs(found["high"] - found["share"] - 1.96 * error) < 0.3 * error
    assert abs(found["share"] - found["low"] - 1.96 * error) < 0.3 * error


def test_areas_are_the_share_of_pairs_in_the_right_order(monkeypatch):
    """Of two pictures: what is there has 2 and 0, what isn't has 1 and 1; every peak is alike."""
    seen = []

    def presence(image, asked, models):
        seen.append(asked)
        return [2.0, 1.0] if len(seen) == 1 else [0.0, 1.0]

    monkeypatch.setattr(score, "presence", presence)
    alike = [SimpleNamespace(peak=0.5), SimpleNamespace(peak=0.5)]
    monkeypatch.setattr(score, "segment", lambda image, asked, models: alike)
    assert score.score_presence(None, count=2) == {"presence": 0.5, "peak": 0.5, "pictures": 2}
    for number, (there, absent) in enumerate(seen, start=1 + score.SPLITS["val"]):
        nouns = {thing.noun for thing in score.scene_of(number, "testA").things}
        assert there.removeprefix("the ") in nouns and absent.removeprefix("the ") not in nouns


def test_a_folder_is_measured_with_its_own_models(tmp_path, monkeypatch):
    """Not with the CLIP of the real model, which is another and has to be downloaded."""
    asked = []

    def load(name, **more):
        asked.append((name, more))
        return replace(SimpleModels(), sources={"clip": "openai/clip", "captioner": "kept"})

    @dataclass
    class SimpleModels:
        sources: dict = field(default_factory=dict)

    monkeypatch.setattr(score, "load_models", load)
    monkeypatch.setattr(score, "write_card", lambda out: None)
    monkeypatch.setattr(score, "score_judges", lambda models: models.sources)
    score.score(tmp_path, tmp_path, parts=["binding judges"])
    ((name, more),) = asked
    assert name == tmp_path / "stable-diffusion"
    assert more == {"captioner": str(tmp_path / "blip"), "parser": str(tmp_path / "parser")}
    found = json.loads((tmp_path / "results.json").read_text())["binding judges"]
    assert found == {"clip": str(tmp_path / "clip"), "captioner": "kept"}
