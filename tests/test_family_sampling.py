"""Generation: DDIM and guidance as their equations have them, seeds, and where hooks stand."""

from dataclasses import replace

import diffusers
import numpy as np
import pytest
import torch

from nbhelpers.denoising import predict_noise
from nbhelpers.embeddings import embed
from nbhelpers.family.sampling import decode, sample

PROMPTS = ["a red ring", "the old moon"]


def by_hand(models, texts, seeds, steps, guidance):
    """The latents of eq. 12 of DDIM with eta 0, from the betas, in float64."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    kept = torch.cumprod(1 - betas, 0)
    side = models.unet.config.sample_size
    latents = torch.stack(
        [torch.randn(4, side, side, generator=torch.Generator().manual_seed(s)) for s in seeds]
    )
    asked = [embed(text, (), models.text) for text in texts]
    empty = [embed("", (), models.text)] * len(texts)
    gap = 1000 // steps
    for t in [gap * i + 1 for i in reversed(range(steps))]:
        noise, unguided = (predict_noise(latents, [t], part, models) for part in (asked, empty))
        guided = unguided.double() + guidance * (noise.double() - unguided.double())
        now, then = kept[t], kept[t - gap] if t >= gap else kept[0]
        clean = (latents.double() - (1 - now).sqrt() * guided) / now.sqrt()
        latents = (then.sqrt() * clean + (1 - then).sqrt() * guided).float()
    return latents


@pytest.mark.parametrize("guidance", [1.0, 5.0])
def test_it_is_ddim_with_guidance(models_15, guidance):
    wanted = by_hand(models_15, PROMPTS, [3, 4], 5, guidance)
    found = sample(PROMPTS, models_15, seeds=[3, 4], steps=5, guidance=guidance)
    assert (found - wanted).abs().max() < 2e-4 < wanted.abs().max() / 8
    other = by_hand(models_15, PROMPTS, [3, 4], 5, guidance + 1)
    assert (found - other).abs().max() > 2e-3


def test_the_velocity_model_ends_where_its_own_pipeline_does(models_21):
    """Stable Diffusion 2.1 predicts velocity; diffusers' pipeline is the reference."""
    scheduler = diffusers.DDIMScheduler(
        **dict.fromkeys(("clip_sample", "set_alpha_to_one"), False),
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        steps_offset=1,
        prediction_type="v_prediction",
    )
    models_21 = replace(models_21, scheduler=scheduler)
    pipeline = diffusers.StableDiffusionPipeline(
        vae=models_21.vae,
        text_encoder=models_21.text.encoders[0],
        tokenizer=models_21.text.tokenizers[0],
        unet=models_21.unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)

    def wanted(steps, guidance):
        chance = torch.Generator().manual_seed(3)
        settings = {"guidance_scale": guidance, "generator": chance, "output_type": "latent"}
        return pipeline(PROMPTS[0], num_inference_steps=steps, **settings).images

    found = sample(PROMPTS[:1], models_21, seeds=[3], steps=4, guidance=1)
    assert torch.equal(found, wanted(4, 1.0))
    # With guidance its batch is of two, which rounds otherwise; a random UNet amplifies that.
    found, reference = sample(PROMPTS[:1], models_21, seeds=[3], steps=1), wanted(1, 4.0)
    assert (found - reference).abs().max() < 1e-4 < (found - wanted(1, 3.0)).abs().max() / 8


def test_equal_calls_give_equal_bits_and_seeds_part(models_15):
    first, second, other = (
        sample(PROMPTS, models_15, seeds=seeds, steps=2) for seeds in ([0, 1], [0, 1], [0, 2])
    )
    assert torch.equal(first, second)
    assert torch.equal(first[0], other[0]) and not torch.allclose(first[1], other[1])
    alone, both = (
        sample(p, models_15, seeds=s, steps=1) for p, s in ((PROMPTS[1:], [1]), (PROMPTS, [0, 1]))
    )
    assert torch.allclose(alone[0], both[1], atol=1e-4)


def test_hooks_stand_where_they_say(models_15):
    seen = []

    def note(name, result=lambda latents: latents):
        def hook(latents, step):
            seen.append((name, step.index, step.count, step.timestep))
            return result(latents)

        return hook

    prompts = [embed(PROMPTS[0], (), models_15.text)]
    hooks = {"before": note("before"), "after": note("after")}
    plain = sample(prompts, models_15, seeds=[0], steps=2)
    same = sample(
        prompts,
        models_15,
        seeds=[0],
        steps=2,
        predict=lambda z, s: predict_noise(z, [s.timestep], prompts, models_15),
        **hooks,
    )
    assert torch.equal(plain, same)
    assert seen == [(n, i, 2, t) for i, t in ((0, 501), (1, 1)) for n in ("before", "after")]
    for name in ("before", "predict", "after"):
        other = sample(
            prompts, models_15, seeds=[0], steps=2, **{name: note(name, torch.zeros_like)}
        )
        assert not torch.allclose(plain, other), name
    assert not other.any()  # `after` of the last step has the last word


def test_decoding_gives_back_pixels_in_range(models_15):
    latents = sample(PROMPTS, models_15, seeds=[0, 1], steps=1, size=(64, 40))
    assert latents.shape == (2, 4, 8, 5)
    pictures = decode(latents, models_15)
    assert pictures.shape == (2, 64, 40, 3)
    raw = models_15.vae.decode(latents / 0.18215).sample.numpy()
    wanted = np.clip(np.rint((raw + 1) * 127.5), 0, 255).transpose(0, 2, 3, 1)
    assert np.array_equal(pictures, wanted)
    assert (decode(100 * latents, models_15) == 255).any()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompts": []}, "0 prompts and 2 seeds"),
        ({"seeds": [1]}, "2 prompts and 1 seeds"),
        ({"steps": 0}, "from 1 to 1000.*got 0"),
        ({"steps": 1001}, "got 1001"),
        ({"size": (64, 60)}, r"multiples of 8 pixels; got \(64, 60\)"),
        ({"size": (0, 64)}, r"got \(0, 64\)"),
    ],
)
def test_what_cannot_be_sampled_is_refused(models_15, changes, message):
    given = {"prompts": PROMPTS, "seeds": [0, 1], **changes}
    prompts = given.pop("prompts")
    with pytest.raises(ValueError, match=message):
        sample(prompts, models_15, **given)
