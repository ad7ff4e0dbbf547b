"""Structured Diffusion Guidance: keys untouched, and the mean of outputs by one embedding."""

import pytest
import torch

from nbhelpers.attention import record_attention
from nbhelpers.denoising import predict_noise
from nbhelpers.embeddings import embed
from nbhelpers.family._editing import edit_attention
from nbhelpers.family.sampling import sample
from nbhelpers.family.structured_diffusion import generate, structured_prompt

TEXT = "a photograph of a red ring and a blue moon"


@pytest.fixture
def latents():
    return torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))


def recorded(models, prompt, latents):
    with record_attention(models.unet) as attention:
        noise = predict_noise(latents, [500], [prompt], models)
    return noise, attention.cross_layers


def test_the_first_layers_map_is_the_plain_prompts(models_15, latents):
    plain, layers = recorded(models_15, embed(TEXT, (), models_15.text), latents)
    noise, found = recorded(models_15, structured_prompt(TEXT, models_15), latents)
    assert torch.equal(found[0].query, layers[0].query)
    for mine, theirs in zip(found, layers, strict=True):
        assert torch.equal(mine.key, theirs.key)
    assert not torch.allclose(found[1].query, layers[1].query, atol=1e-3)
    assert not torch.allclose(noise, plain, atol=1e-3)


@pytest.mark.parametrize("kind", ["models_15", "models_xl"])
def test_it_is_the_mean_of_an_output_for_each_noun_phrase(kind, request, latents, chunk_at):
    """As the paper has it: every layer's attention applied to each embedding's values."""
    models = request.getfixturevalue(kind)
    chunks = [chunk_at(TEXT, "a red ring"), chunk_at(TEXT, "a blue moon")]
    plain = embed(TEXT, chunks, models.text, isolate="none")
    each = [plain.keys]
    for chunk in chunks:
        each.append(embed(TEXT, [chunk], models.text, isolate="every").keys)
    layers = dict(models.unet.named_modules())

    def edit(layer, value):
        scores = (layer.query @ layer.key.transpose(2, 3) * layer.scale).softmax(-1)
        if layer.kind == "self":
            return scores @ value
        attn = layers[layer.name]
        values = [attn.to_v(e).unflatten(-1, (attn.heads, -1)).transpose(1, 2) for e in each]
        return sum(scores @ own for own in values) / len(values)

    with edit_attention(models.unet, edit):
        wanted = predict_noise(latents, [500], [plain], models)
    found = predict_noise(latents, [500], [structured_prompt(TEXT, models)], models)
    assert (found - wanted).abs().max() < 1e-3 < wanted.abs().max() / 8
    without = predict_noise(latents, [500], [plain], models)
    assert (without - wanted).abs().max() > 1e-2


def test_a_phrase_of_one_word_has_no_structure(models_15):
    found = structured_prompt("moon and ring", models_15)
    assert torch.equal(found.keys, found.values) and not found.chunks


def test_pictures_are_generated_from_such_prompts(models_15):
    found = generate([TEXT], models_15, seeds=[3], steps=2)
    assert torch.equal(
        found, sample([structured_prompt(TEXT, models_15)], models_15, seeds=[3], steps=2)
    )
    assert not torch.allclose(found, sample([TEXT], models_15, seeds=[3], steps=2), atol=1e-3)
