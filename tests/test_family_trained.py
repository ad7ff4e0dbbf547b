"""What the trained systems share: the contrast, the towers, the weights, and the form of maps."""

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from nbhelpers.family import SYSTEMS, digest, foreign_to, load_weights, made_with
from nbhelpers.family.clippy import Clippy
from nbhelpers.family.dense import to_input
from nbhelpers.family.ovsegmentor import OVSegmentor
from nbhelpers.family.segclip import SegClip
from nbhelpers.family.segdiff import SegDiff
from nbhelpers.family.tcl import Tcl
from nbhelpers.family.trained import VisionTower, contrast, encode, load_trained, prompt_of
from nbhelpers.family.viewco import ViewCo
from nbhelpers.models import load_models
from tests.family_batches import captioned, defining_changes_the_loss, generator, masked, with_clip

OF_CAPTIONS = {
    "tcl": Tcl,
    "clippy": Clippy,
    "viewco": ViewCo,
    "segclip": SegClip,
    "ovsegmentor": OVSegmentor,
}


@pytest.fixture(scope="module")
def own(models):
    return with_clip(models)


def made(kind, models, seed=0):
    torch.manual_seed(seed)
    return kind(models.clip.model)


@pytest.mark.parametrize("name", OF_CAPTIONS)
def test_without_its_own_term_the_loss_differs(name, own):
    network = made(OF_CAPTIONS[name], own)
    whole, without = defining_changes_the_loss(network, captioned(), own.clip)
    assert math.isfinite(whole) and math.isfinite(without)
    assert abs(whole - without) > 1e-3


@pytest.mark.parametrize("name", OF_CAPTIONS)
def test_all_that_is_shipped_learns_and_clip_does_not(name, own):
    network = made(OF_CAPTIONS[name], own)
    for key, weight in network.named_parameters():
        if key.endswith("gate"):  # they begin at nothing, and let no gradient through yet
            weight.data.fill_(0.5)
    network.loss(captioned(), own.clip, generator()).backward()
    still = [
        key
        for key, weight in network.named_parameters()
        if weight.requires_grad and (weight.grad is None or not weight.grad.any())
    ]
    # The whole picture's token, which no patch needs after the last layer, and a key's offset,
    # which no softmax over keys sees, aren't reached by every loss.
    assert not [key for key in still if "k_proj.bias" not in key and "logit_scale" not in key]
    assert all(weight.grad is None for weight in own.clip.model.parameters())


@pytest.mark.parametrize("name", OF_CAPTIONS)
def test_the_chance_of_a_loss_is_its_generator_s(name, own):
    network = made(OF_CAPTIONS[name], own)
    losses = [float(network.loss(captioned(), own.clip, generator(5)).detach()) for _ in range(2)]
    if name == "viewco":  # whose teacher has moved
        assert losses[0] == pytest.approx(losses[1], abs=0.02)
    else:
        assert losses[0] == losses[1]


@pytest.mark.parametrize("name", [*OF_CAPTIONS, "segdiff"])
def test_maps_have_the_picture_s_size_and_lie_in_the_unit_interval(name, own, image):
    network = made({**OF_CAPTIONS, "segdiff": SegDiff}[name], own).eval()
    found = SYSTEMS[name].load()(image, ["cat", "the red moon"], own, network=network)
    assert found.shape == (2, *image.shape[:2]) and found.dtype == np.float32
    assert found.min() >= 0 and found.max() <= 1 and np.isfinite(found).all()
    assert np.abs(found[0] - found[1]).max() > 1e-4


def test_the_contrast_is_the_mean_of_both_cross_entropies():
    rng = np.random.default_rng(0)
    pictures, texts = rng.normal(size=(2, 5, 7))
    logits = np.exp(1.5) * pictures @ texts.T
    rows = [np.log(np.exp(logits[i]).sum()) - logits[i, i] for i in range(5)]
    columns = [np.log(np.exp(logits[:, i]).sum()) - logits[i, i] for i in range(5)]
    found = contrast(torch.tensor(pictures), torch.tensor(texts), torch.tensor(1.5).double())
    assert float(found) == pytest.approx((sum(rows) + sum(columns)) / 10)


def test_the_tower_by_layers_is_clip_s_own(own, image):
    pixels = to_input([image], own.clip)
    tower = VisionTower(own.clip.model).eval()
    whole = own.clip.model.vision_model(pixel_values=pixels).last_hidden_state
    parts = tower.run(tower.run(tower.embed(pixels), last=1), first=1)
    assert torch.allclose(parts, whole, atol=1e-6)
    pooled = own.clip.model.get_image_features(pixels).pooler_output
    wanted = torch.nn.functional.normalize(pooled, dim=-1)
    assert torch.allclose(tower.project(whole[:, 0]), wanted, atol=1e-6)


def test_captions_are_read_as_clip_reads_them_one_by_one(own):
    texts = ["a cat", "the old dog near a red moon"]
    found = encode(texts, own.clip)
    for row, text in zip(found, texts, strict=True):
        ids = own.clip.tokenizer(text, return_tensors="pt").input_ids
        pooled = own.clip.model.get_text_features(ids).pooler_output[0]
        assert torch.allclose(row, pooled / pooled.norm(), atol=1e-5)


def test_a_prompt_has_an_article():
    asked = ["Umbrella", "The cat", "A dog", "teddy bear"]
    wanted = ["an Umbrella", "The cat", "A dog", "a teddy bear"]
    assert [prompt_of(text) for text in asked] == [f"a photograph of {text}" for text in wanted]


def test_a_chosen_name_gets_the_masks_of_all_that_bear_it():
    batch = masked()
    seen = set()
    for seed in range(40):
        sentences, masks = batch.choose(generator(seed))
        own, other = batch.masks[1]
        wanted = {"cat": torch.maximum(own, other), "old cat": own, "red cat": other}
        name = sentences[1].removeprefix("a photograph of ").removeprefix("a ")
        name = name.removeprefix("an ")
        assert torch.equal(masks[1], wanted[name])
        seen.add(name)
    assert seen == {"cat", "old cat", "red cat"}


def test_weights_are_read_and_others_are_refused(own, tmp_path, monkeypatch):
    monkeypatch.setenv("NBHELPERS_DATA", str(tmp_path))
    with pytest.raises(OSError, match="python -m recipe family --systems tcl"):
        load_trained(Tcl, "tcl", own)
    network = made(Tcl, own, seed=1)
    path = SYSTEMS["tcl"].weights
    path.parent.mkdir(parents=True)
    state = {k: v for k, v in network.state_dict().items() if not k.startswith("tower.")}
    save_file({key: value.half() for key, value in state.items()}, path)
    found = load_trained(Tcl, "tcl", own)
    assert torch.equal(found.coarse.convolution.weight, state["coarse.convolution.weight"].half())
    assert not any(weight.requires_grad for weight in found.parameters())
    assert load_trained(Tcl, "tcl", own) is found
    monkeypatch.setenv("NBHELPERS_DATA", str(tmp_path / "other"))
    path = SYSTEMS["tcl"].weights
    path.parent.mkdir(parents=True)
    save_file({"coarse.gate": state["coarse.gate"], "strange": torch.ones(1)}, path)
    with pytest.raises(ValueError, match="unknown"):
        load_trained(Tcl, "tcl", own)


def test_weights_made_with_other_models_are_refused(own, models_15, tmp_path, monkeypatch):
    monkeypatch.setenv("NBHELPERS_DATA", str(tmp_path))
    path = SYSTEMS["odise"].weights
    path.parent.mkdir(parents=True)
    known = {"clip": digest(own.clip.model), "unet": digest(own.unet)}
    assert made_with(SYSTEMS["odise"], own) == known
    for change, others in (
        ({}, []),
        ({"unet": "x"}, ["UNet"]),
        ({"clip": "x"}, ["CLIP"]),
        ({"clip": "x", "unet": "x"}, ["CLIP", "UNet"]),
    ):
        save_file({"one": torch.ones(1)}, path, metadata={"format": "pt", **known, **change})
        assert foreign_to(SYSTEMS["odise"], own) == others
        if others:
            told = f"another {' and another '.join(others)} than tiny stickers has; make new ones"
            for load in (load_weights, lambda *a: load_trained(Tcl, *a)):
                with pytest.raises(ValueError, match=f"{told}.*recipe family --systems odise"):
                    load("odise", own)
        else:
            assert load_weights("odise", own)["one"] == 1
    other_unet = replace(own, unet=models_15.unet)
    save_file({"one": torch.ones(1)}, path, metadata=known)
    assert foreign_to(SYSTEMS["odise"], other_unet) == ["UNet"]
    save_file({"one": torch.ones(1)}, path)
    assert foreign_to(SYSTEMS["odise"], other_unet) == []  # it doesn't say


def test_a_torn_file_of_weights_is_refused_with_the_command(own, tmp_path, monkeypatch):
    monkeypatch.setenv("NBHELPERS_DATA", str(tmp_path))
    path = SYSTEMS["clippy"].weights
    path.parent.mkdir(parents=True)
    path.write_bytes(b"half of a file")
    with pytest.raises(ValueError, match="clippy.safetensors are damaged.*--systems clippy"):
        load_weights("clippy", own)


def test_a_digest_tells_weights_apart_and_not_their_precision():
    torch.manual_seed(0)
    one, other = torch.nn.Linear(3, 4).half(), torch.nn.Linear(3, 4).half()
    assert digest(one) != digest(other)
    assert digest(one) == digest(copy.deepcopy(one).float()) == digest(copy.deepcopy(one))
    changed = copy.deepcopy(one)
    changed.weight.data[2, 1] += 0.01
    assert digest(changed) != digest(one)
    renamed = torch.nn.ModuleDict({"a": one, "b": other})
    assert digest(renamed) != digest(torch.nn.ModuleDict({"b": one, "a": other}))


def test_shipped_weights_belong_to_the_shipped_models():
    models = load_models("stickers")
    assert [name for name in TRAINED if foreign_to(SYSTEMS[name], models)] == []


TRAINED = [name for name, system in SYSTEMS.items() if system.weights.is_file()]


@pytest.mark.parametrize("name", TRAINED)
def test_shipped_weights_are_small_and_in_half_precision(name):
    path = SYSTEMS[name].weights
    assert path.stat().st_size <= 2e6
    assert {value.dtype for value in load_file(path).values()} <= {torch.float16, torch.int64}
