"""The weights that are shipped: their size and format, and that they are as good as their card."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from recipe.benchmark import SPLITS, scene_of
from recipe.captions import said_of
from recipe.clip import load_clip, zero_shot
from recipe.scenes import draw
from recipe.score import noun_token_shares
from safetensors import safe_open

import nbhelpers as nb
from nbhelpers.models import load_models

FOLDER = Path(__file__).parents[1] / "data" / "stickers"
PARTS = ("clip", "stable-diffusion", "blip", "parser")


@pytest.fixture(scope="module")
def stickers():
    return load_models("stickers")


@pytest.fixture(scope="module")
def results():
    """What `python -m recipe score` measured of the shipped weights."""
    path = FOLDER / "results.json"
    if not path.is_file():
        pytest.skip("needs data/stickers/results.json: python -m recipe score")
    return json.loads(path.read_text())


def test_all_weights_in_float16_are_at_most_40_mb():
    """spaCy keeps the parser's in float32, which count half here.

    The other systems' weights in `family` are held to 2 MB each instead.
    """
    shipped = {part: list((FOLDER / part).rglob("*")) for part in PARTS}
    assert all(shipped.values())
    half = [p for part in PARTS[:3] for p in shipped[part] if p.suffix == ".safetensors"]
    single = [path for path in shipped["parser"] if path.name == "model"]
    size = sum(p.stat().st_size for p in half) + sum(p.stat().st_size for p in single) / 2
    assert len(half) == 5 and len(single) == 3
    assert size <= 40e6
    others = [path.stat().st_size for path in (FOLDER / "family").glob("*.safetensors")]
    assert len(others) >= 10 and max(others) <= 2e6


def test_weights_are_half_precision_safetensors_and_nothing_is_pickled():
    for part in ("clip", "stable-diffusion", "blip"):
        files = list((FOLDER / part).rglob("*"))
        assert not [f for f in files if f.suffix in (".bin", ".pt", ".ckpt", ".pkl", ".pth")]
        for path in (f for f in files if f.suffix == ".safetensors"):
            with safe_open(path, "pt") as file:
                kinds = {file.get_tensor(key).dtype for key in file.keys()}  # noqa: SIM118
            assert kinds <= {torch.float16, torch.int64}, path


def test_the_text_encoder_of_the_pipeline_is_that_of_the_clip():
    """A CLIP of another training run beside the pipeline would make the card false."""
    clip, tokenizer = load_clip(FOLDER / "clip")
    text = load_models("stickers").text
    assert text.tokenizers[0].get_vocab() == tokenizer.get_vocab()
    ours = dict(clip.text_model.named_parameters())
    for key, value in text.encoders[0].named_parameters():
        assert torch.equal(value, ours[key.removeprefix("text_model.")]), key


def test_the_pipeline_of_diffusers_loads_the_folder_and_draws():
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
            f"a photograph of a {color} car",
            num_inference_steps=12,
            generator=torch.Generator().manual_seed(3),
            output_type="np",
        ).images[0]
        for color in ("red", "blue")
    )
    assert red.shape == (80, 80, 3)
    redness = [np.mean(picture[..., 0] - picture[..., 2] > 0.3) for picture in (red, blue)]
    blueness = [np.mean(picture[..., 2] - picture[..., 0] > 0.2) for picture in (red, blue)]
    assert redness[0] > 2 * redness[1] and redness[0] > 0.02
    assert blueness[1] > 2 * blueness[0] and blueness[1] > 0.02


def test_a_nouns_token_holds_what_the_card_says(stickers, results):
    found = noun_token_shares(stickers)
    assert found == pytest.approx(results["noun token"], abs=0.01)
    assert found["noun"] + found["color"] <= 1  # shares of one variance, neither of the other's


def test_clip_names_what_the_card_says(results):
    clip, tokenizer = load_clip(FOLDER / "clip")
    found = zero_shot(clip, tokenizer, count=300)
    for part, share in results["clip"]["training styles"].items():
        # 300 things of 1,500, within three standard errors
        error = np.sqrt(max(share * (1 - share), 0.01) / 300)
        assert abs(found[part] - share) <= 3 * error, part


def test_captions_of_the_small_blip_are_as_the_card_says(stickers, results):
    first, right, colored = 1 + SPLITS["val"], [], []
    for number in range(first, first + 24):
        scene = scene_of(number, "testA")
        said = said_of(nb.caption(draw(scene)[0], stickers.captioner))
        there = [(thing.noun, thing.color) for thing in scene.things]
        right.append(bool(said) and all(said.count(pair) <= there.count(pair) for pair in said))
        colored += [color in {c for _, c in there} for _, color in said]
    share = results["captions"]["right"]
    # 24 pictures of 400: within three standard errors of the recorded share
    assert abs(np.mean(right) - share) <= 3 * np.sqrt(max(share * (1 - share), 0.01) / 24)
    assert np.mean(colored) > 0.9
