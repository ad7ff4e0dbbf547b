"""MaskCLIP: its dense features, and the maps that are made of them."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import nbhelpers as nb
from nbhelpers.embeddings import encode_tokens
from nbhelpers.family.dense import text_features, to_input, value_features
from nbhelpers.family.maskclip import maps
from tests.tiny_clip import make_clip


@pytest.fixture(scope="module")
def clip(text):
    return make_clip(text.tokenizers[0])


@pytest.fixture(scope="module")
def with_clip(models, clip):
    return replace(models, sources={**models.sources, "clip": clip})


def alone(clip, states):
    """What CLIP itself pools from each token when its last layer is given that token alone."""
    tower = clip.model.vision_model
    found = tower.encoder.layers[-1](states.unsqueeze(1), attention_mask=None)
    found = found[0] if isinstance(found, tuple) else found
    return clip.model.visual_projection(tower.post_layernorm(found[:, 0]))


def test_a_patch_is_what_clip_pools_where_it_is_alone(clip, image):
    tower = clip.model.vision_model
    pixels = to_input([image], clip)
    states = tower(pixel_values=pixels, output_hidden_states=True).hidden_states[-2][0]
    wanted = torch.nn.functional.normalize(alone(clip, states[1:]), dim=-1)
    found = value_features([image], clip)[0].flatten(1).T
    assert found.shape == (16, 32)
    assert torch.allclose(found, wanted, atol=1e-5)
    # Where patches are not alone they differ, so the last layer's attention tells.
    whole = tower(pixel_values=pixels).last_hidden_state[0, 1:]
    whole = clip.model.visual_projection(tower.post_layernorm(whole))
    assert (torch.nn.functional.normalize(whole, dim=-1) - wanted).abs().max() > 0.01


def test_the_map_is_the_cosine_and_texts_compete(with_clip, clip, image):
    texts = ["a red moon", "dog", "the cat near a hat"]
    found = maps(image, texts, with_clip)
    assert found.shape == (3, 40, 56) and found.min() == 0 and found.max() == 1
    patches = value_features([image], clip)[0].double().numpy()
    words = text_features(texts, clip).double().numpy()
    cosines = np.tensordot(words, patches, axes=1)
    # 4 x 4 patches of a picture of 40 x 56: the pixels 5 and 7 lie between two patches' centers.
    corner = found[:, :5, :7].reshape(3, -1)
    assert np.allclose(corner, corner[:, :1], atol=1e-5)
    assert (corner[:, 0].argsort() == cosines[:, 0, 0].argsort()).all()
    ratio = np.polyfit(cosines[:, 0, 0], corner[:, 0], 1)
    assert np.allclose(np.polyval(ratio, cosines[:, -1, -1]), found[:, -1, -1], atol=1e-4)


def test_one_text_alone_fills_the_range(with_clip, image):
    (only,) = maps(image, ["a dog"], with_clip)
    assert (only.min(), only.max()) == (0, 1)


def test_a_class_and_its_phrase_are_one_text(clip):
    texts = text_features(["moon", "a moon", "the moon", "old moon", "an old moon"], clip)
    assert torch.equal(texts[0], texts[1]) and torch.equal(texts[3], texts[4])
    assert not torch.allclose(texts[1], texts[2])
    assert torch.allclose(texts.norm(dim=1), torch.ones(5))


@pytest.mark.parametrize("texts", [[], ["dog", " "]])
def test_no_text_is_refused(with_clip, image, texts):
    with pytest.raises(ValueError, match="texts are names of classes or phrases"):
        maps(image, texts, with_clip)


def test_a_picture_without_contrast_is_refused(with_clip, clip):
    flat = np.zeros((32, 32, 3), np.uint8)
    still = make_clip(clip.tokenizer)
    still.model.vision_model.embeddings.position_embedding.weight.zero_()
    with pytest.raises(ValueError, match="no pixel stands out"):
        maps(flat, ["a dog"], replace(with_clip, sources={"clip": still}))


def test_the_shipped_clip_reads_prompts_as_the_text_encoder_does():
    folder = nb.data_folder() / "stickers"
    if not (folder / "stable-diffusion").is_dir():
        pytest.skip("needs the models of data/stickers; train them")
    models = nb.load_models("stickers")
    assert models.clip is models.clip
    tokens = nb.tokens.tokenize("a photograph of a dog", models.text)
    own, _ = encode_tokens([tokens], models.text)
    coded = models.clip.tokenizer(
        "a photograph of a dog", padding="max_length", max_length=32, return_tensors="pt"
    )
    theirs = models.clip.model.text_model(input_ids=coded.input_ids).last_hidden_state
    assert torch.allclose(own, theirs, atol=1e-4)
