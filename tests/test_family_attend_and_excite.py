"""Attend-and-Excite: its loss, the gradient of it, and diffusers' own maps as an oracle."""

import copy
import importlib
import warnings
from dataclasses import replace

import pytest
import torch

from nbhelpers.attention import record_attention
from nbhelpers.denoising import predict_noise
from nbhelpers.embeddings import embed
from nbhelpers.family import attend_and_excite
from nbhelpers.family.attend_and_excite import excited_maps, generate, neglect
from nbhelpers.family.guidance import descend
from nbhelpers.family.sampling import sample

TEXT = "a red ring and a moon"  # the nouns are tokens 3 and 6
NOUNS = ((3,), (6,))
ORACLE = (
    "diffusers.pipelines.deprecated.stable_diffusion_attend_and_excite."
    "pipeline_stable_diffusion_attend_and_excite"
)


def loss_of(factor=2):
    return lambda layers: torch.stack([neglect(m, NOUNS) for m in excited_maps(layers, factor)])


@pytest.fixture
def latents():
    return torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def exact(models_15):
    """Models in float64, for differences of losses that are nearly equal."""
    return replace(models_15, unet=copy.deepcopy(models_15.unet).double(), dtype=torch.float64)


def value(models, latents, factor=2):
    """The loss of one pass."""
    prompts = [embed(TEXT, (), models.text)] * len(latents)
    with record_attention(models.unet) as attention:
        predict_noise(latents, [500], prompts, models)
    return loss_of(factor)(attention.cross_layers)


@pytest.mark.parametrize("factor", [2, 4])
def test_the_maps_are_those_of_diffusers_pipeline(models_15, latents, factor):
    try:
        oracle = importlib.import_module(ORACLE)
    except ImportError as error:
        pytest.skip(f"this diffusers has no Attend-and-Excite pipeline any more: {error}")
    unet = models_15.unet
    store = oracle.AttentionStore((16 // factor, 16 // factor))
    before = dict(unet.attn_processors)
    processors = {
        name: oracle.AttendExciteAttnProcessor(store, name.partition("_")[0]) for name in before
    }
    store.num_att_layers = len(processors)
    prompt = embed(TEXT, (), models_15.text)
    unet.set_attn_processor(processors)
    try:
        unet(latents.clone().requires_grad_(), 500, encoder_hidden_states=prompt.keys)
    finally:
        unet.set_attn_processor(before)
    maps = store.aggregate_attention(("up", "down", "mid"))
    pipeline = oracle.StableDiffusionAttendAndExcitePipeline
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # its meshgrid names no indexing
        peaks = pipeline._compute_max_attention_per_index(maps, [3, 6])
    with record_attention(unet) as attention:
        predict_noise(latents, [500], [prompt], models_15)
    found = excited_maps(attention.cross_layers, factor)[0]
    for token, peak in zip((3, 6), peaks, strict=True):
        assert found[token - 1].max().item() == pytest.approx(peak.item(), rel=1e-4)
    wanted = pipeline._compute_loss(peaks)
    assert neglect(found, NOUNS).item() == pytest.approx(wanted.item(), rel=1e-4)


def test_the_loss_falls_after_a_step(exact, latents):
    latents = latents.double()
    two = torch.cat([latents, -latents])
    prompts = [embed(TEXT, (), exact.text)] * 2
    moved, losses = descend(two, 500, prompts, exact, loss_of(), 1e-5)
    assert torch.allclose(losses, value(exact, two), atol=1e-5)
    after = value(exact, moved)
    assert (after < losses - 1e-5).all() and (losses > 0.01).all()
    back, _ = descend(two, 500, prompts, exact, loss_of(), -1e-5)
    assert (value(exact, back) > losses).all()


def test_the_gradient_is_that_of_finite_differences(exact, latents):
    latents = latents.double()
    prompts = [embed(TEXT, (), exact.text)]
    moved, _ = descend(latents, 500, prompts, exact, loss_of(), 1.0)
    gradient = latents - moved
    direction = gradient / gradient.norm()
    for way in (direction, direction.roll(1, -1) / 2 + direction):
        step = 1e-4 * way
        rise = value(exact, latents + step) - value(exact, latents - step)
        assert rise.item() / 2e-4 == pytest.approx((gradient * way).sum().item(), rel=0.01)


def test_each_picture_of_a_batch_is_moved_by_its_own_loss(models_15, latents):
    two = torch.cat([latents, -latents])
    prompts = [embed(TEXT, (), models_15.text)] * 2
    both, _ = descend(two, 500, prompts, models_15, loss_of(), 0.1)
    alone, _ = descend(two[:1], 500, prompts[:1], models_15, loss_of(), 0.1)
    assert torch.allclose(both[:1], alone, atol=1e-3 * (alone - two[:1]).abs().max())


def test_a_generation_is_moved_in_its_first_steps_alone(models_15):
    plain = sample([TEXT], models_15, seeds=[1], steps=2)
    assert torch.equal(generate([TEXT], models_15, seeds=[1], steps=2, share=0), plain)
    moved = generate([TEXT], models_15, seeds=[1], steps=2, step_size=0.01, thresholds={})
    assert not torch.allclose(moved, plain, atol=1e-3)


def test_refinement_stops_at_the_threshold(models_15, monkeypatch):
    calls = []

    def counted(*args):
        calls.append(args[1])
        return descend(*args)

    monkeypatch.setattr(attend_and_excite, "descend", counted)
    how = {"seeds": [1], "steps": 4, "step_size": 0.01, "refinements": 3}
    generate([TEXT], models_15, thresholds={0.25: 1.0}, **how)  # never reached
    assert calls == [751, *[501] * 4]
    calls.clear()
    generate([TEXT], models_15, thresholds={0.25: 0.0}, **how)  # reached at once
    assert calls == [751, *[501] * 2]


def test_a_refinement_moves_the_neglected_pictures_alone(exact, monkeypatch):
    """Together two pictures become what each becomes alone, and the attended one costs nothing."""
    texts, seeds = [TEXT, "a moon and a red ring"], [1, 2]
    asked, peaks = [], []

    def counted(latents, timestep, prompts, models, loss, size):
        moved, losses = descend(latents, timestep, prompts, models, loss, size)
        asked.append([prompt.text for prompt in prompts])
        peaks.append(1 - losses)
        return moved, losses

    monkeypatch.setattr(attend_and_excite, "descend", counted)
    how = {"steps": 2, "step_size": 1e-5, "refinements": 3, "share": 0.5}
    generate(texts, exact, seeds=seeds, thresholds={}, **how)
    order = peaks[0].argsort(descending=True).tolist()  # the weaker one last
    texts, seeds = [texts[i] for i in order], [seeds[i] for i in order]
    between = peaks[0].mean().item()
    assert (peaks[0] - between).abs().min() > 1e-4  # no such move reaches it
    asked.clear()
    how["thresholds"] = {0.0: between}
    both = generate(texts, exact, seeds=seeds, **how)
    assert asked == [texts, texts[1:], texts[1:], texts]
    for one, text, seed in zip(both, texts, seeds, strict=True):
        (alone,) = generate([text], exact, seeds=[seed], **how)
        assert torch.allclose(one, alone, atol=1e-9)


def test_the_loss_is_of_the_most_neglected_noun():
    maps = torch.zeros(6, 2, 2)
    maps[2, 0, 1], maps[5, 1, 1] = 0.9, 0.25
    assert neglect(maps, NOUNS).item() == pytest.approx(0.75)
    assert neglect(maps, NOUNS[:1]).item() == pytest.approx(0.1)
