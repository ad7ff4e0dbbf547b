"""DAAM's maps as its paper has them, in a whole generation and in one pass."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from nbhelpers.attention import record_attention
from nbhelpers.denoising import add_noise, encode_image, predict_noise
from nbhelpers.embeddings import embed
from nbhelpers.family import daam
from nbhelpers.family.sampling import sample
from nbhelpers.scores import score_maps
from nbhelpers.segment import make_prompt
from nbhelpers.settings import Settings

TEXT = "a red xy near the moon"  # "xy" is two tokens, the third and fourth


def by_hand(layers, tokens, size):
    """Token by token, head by head, layer by layer, in float64."""
    found = []
    for layer in layers:
        if "mid_block" in layer.name:
            continue
        logits = layer.query.double() @ layer.key.double().transpose(2, 3) * layer.scale
        heads = logits.softmax(-1).unbind(1)
        grids = [head[..., t].reshape(-1, 1, *layer.grid) for head in heads for t in tokens]
        grid = sum(grids) / len(grids)
        found.append(F.interpolate(grid, size=size, mode="bicubic")[:, 0].clamp(min=0))
    return sum(found) / len(found)


def test_a_generations_map_is_the_mean_over_all_summed_over_steps(models_15):
    passes = []

    def predict(latents, step):
        with record_attention(models_15.unet) as attention:
            noise = predict_noise(latents, [step.timestep], prompts, models_15)
        passes.append(by_hand(attention.cross_layers, (3, 4), (16, 16)))
        return noise

    prompts = [embed(TEXT, (), models_15.text)]
    plain = sample(prompts, models_15, seeds=[2], steps=3, predict=predict)
    latent, (found, moon) = daam.heat_maps(TEXT, ["xy", "moon"], models_15, seed=2, steps=3)
    wanted = sum(passes)[0]
    assert torch.equal(latent, plain)
    assert (found - wanted).abs().max() < 1e-5 < wanted.max() / 8
    for part in (passes[:2], passes[1:]):
        assert (found - sum(part)[0]).abs().max() > 1e-3
    assert not torch.allclose(found, moon, rtol=0.1)
    assert found.max() <= 3


def test_one_pass_is_another_calibration_of_score_maps(models, image):
    """On the layers of one resolution both are the same map, but for its range."""
    models = models_at_one_grid(models)
    texts = ["red ring", "the old moon", "a pair of dogs"]
    found = daam.maps(image, texts, models, timesteps=(100, 300))
    assert found.shape == (3, *image.shape[:2])
    settings = Settings(timesteps=(100, 300))
    for text, one in zip(texts, found, strict=True):
        prompt = make_prompt(text, models, settings)
        assert prompt.target == (text == "a pair of dogs")  # whose second chunk is meant
        noised = add_noise(encode_image(image, models), (100, 300), models)
        with record_attention(models.unet) as attention:
            predict_noise(noised, (100, 300), [prompt], models)
        layers = [layer for layer in attention.cross_layers if layer.block != "mid"]
        only = type(prompt.spans)(
            (prompt.spans.nouns[prompt.target],),
            (prompt.spans.chunks[prompt.target],),
            prompt.spans.words,
            prompt.spans.end,
        )
        scores = score_maps(layers, only)
        pixels = F.interpolate(scores[None], size=image.shape[:2], mode="bilinear")[0, 0]
        pixels = ((pixels - pixels.min()) / (pixels.max() - pixels.min())).numpy()
        assert np.abs(one - pixels).max() < 1e-4


def models_at_one_grid(models):
    """A UNet whose transformers all have the latent's own grid."""
    from dataclasses import replace

    import diffusers

    torch.manual_seed(1)
    unet = diffusers.UNet2DConditionModel(
        sample_size=24,
        block_out_channels=(32, 32),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=32,
        attention_head_dim=4,
        norm_num_groups=8,
    )
    return replace(models, unet=unet.eval().requires_grad_(False))


def test_maps_lie_in_0_to_1_and_depend_on_the_text(models_15, image):
    found = daam.maps(image, ["the moon", "the red ring", "the moon"], models_15)
    assert found.min() == 0 and found.max() == 1
    assert np.allclose(found[0], found[2], atol=1e-4)
    assert np.abs(found[0] - found[1]).max() > 0.05


def test_a_text_without_a_noun_is_refused(models_15, image):
    with pytest.raises(ValueError, match="no noun"):
        daam.maps(image, ["moon", "very"], models_15)
