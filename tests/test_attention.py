"""The recorder leaves the model alone and misses nothing; one pass is what it should be."""

import collections
import dataclasses
import re

import diffusers
import pytest
import torch

from nbhelpers.attention import Layer, record_attention
from nbhelpers.denoising import add_noise, denoise_once, encode_image, predict_noise
from nbhelpers.embeddings import embed

KINDS = ("models", "models_15", "models_21", "models_xl")
CAPTION = "a photograph of a red ring and a blue moon"


@pytest.fixture(scope="module", params=KINDS)
def any_models(request):
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def prompt_of(chunk_at):
    def make(models, **settings):
        chunks = tuple(chunk_at(CAPTION, text) for text in ("a red ring", "a blue moon"))
        return embed(CAPTION, chunks, models.text, **settings)

    return make


def hooks(model):
    """How many hooks hang on a model."""
    return sum(
        len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()
    )


def test_the_output_is_the_same_with_and_without(any_models, prompt_of, image):
    prompt = prompt_of(any_models)
    latent = encode_image(image, any_models)
    plain = denoise_once(None, prompt, any_models, latent=latent)
    with record_attention(any_models.unet) as outer, record_attention(any_models.unet) as inner:
        recorded = denoise_once(None, prompt, any_models, latent=latent)
    assert torch.equal(plain, recorded)
    assert hooks(any_models.unet) == 0
    assert len(outer.layers) == len(inner.layers) > 0
    assert torch.equal(denoise_once(None, prompt, any_models, latent=latent), plain)


FOUR_LEVELS = {
    **{("down", 1): 2, ("down", 2): 2, ("down", 4): 2, ("mid", 8): 1},
    **{("up", 4): 3, ("up", 2): 3, ("up", 1): 3},
}
# Layers of each kind on the way down, in the middle and on the way up, and their factors.
LAYOUT = {
    "models": {("down", 1): 1, ("down", 2): 1, ("mid", 2): 1, ("up", 2): 2, ("up", 1): 2},
    "models_15": FOUR_LEVELS,
    "models_21": FOUR_LEVELS,
    "models_xl": {("down", 2): 1, ("down", 4): 2, ("mid", 4): 2, ("up", 4): 4, ("up", 2): 2},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [None, (96, 160)])
def test_every_layer_is_recorded_with_its_own_grid(kind, size, request, prompt_of, image):
    models = request.getfixturevalue(kind)
    latent = encode_image(image, models, size=size)
    with record_attention(models.unet) as attention:
        denoise_once(None, prompt_of(models), models, latent=latent, timestep=(10, 500, 999))
    for layers in (attention.cross_layers, attention.self_layers):
        found = collections.Counter((layer.block, layer.factor) for layer in layers)
        assert dict(found) == LAYOUT[kind]
        assert len({layer.name for layer in layers}) == len(layers)
    h, w = latent.shape[-2:]
    for layer in attention.layers:
        keys = 77 if layer.kind == "cross" else layer.query.shape[2]
        assert layer.grid == (-(-h // layer.factor), -(-w // layer.factor))
        assert layer.query.shape[0] == 3
        assert layer.query.shape[2] == layer.grid[0] * layer.grid[1]
        assert layer.key.shape == (*layer.query.shape[:2], keys, layer.query.shape[3])
        assert layer.scale == pytest.approx(layer.query.shape[3] ** -0.5)
        assert not layer.query.requires_grad


def test_odd_sides_are_no_obstacle(models_15, prompt_of, image):
    with record_attention(models_15.unet) as attention:
        denoise_once(image, prompt_of(models_15), models_15, size=(56, 104))
    grids = {layer.factor: layer.grid for layer in attention.layers}
    assert grids == {1: (7, 13), 2: (4, 7), 4: (2, 4), 8: (1, 2)}


def test_the_recorded_queries_and_keys_are_what_the_model_computed_with(
    any_models, prompt_of, image
):
    """softmax(q k' scale) v in float64 is what reaches each layer's output projection."""
    values, mixed, handles = {}, {}, []
    for name, module in any_models.unet.named_modules():
        if name.endswith(("attn1", "attn2")):
            handles += [
                module.to_v.register_forward_hook(
                    lambda m, a, out, name=name: values.update({name: out.double()})
                ),
                module.to_out[0].register_forward_pre_hook(
                    lambda m, args, name=name: mixed.update({name: args[0].double()})
                ),
            ]
    with record_attention(any_models.unet) as attention:
        denoise_once(image, prompt_of(any_models), any_models)
    for handle in handles:
        handle.remove()
    assert {layer.name for layer in attention.layers} == set(mixed)
    for layer in attention.layers:
        logits = layer.query.double() @ layer.key.double().transpose(-1, -2) * layer.scale
        value = values[layer.name].unflatten(-1, (layer.query.shape[1], -1)).transpose(1, 2)
        wanted = (logits.softmax(-1) @ value).transpose(1, 2).flatten(2)
        assert (mixed[layer.name] - wanted).abs().max() < 1e-4 < wanted.abs().max() / 8


def test_hooks_are_gone_after_an_error(models, prompt_of, image):
    def fail(*args):
        raise KeyboardInterrupt

    breaker = models.unet.mid_block.register_forward_hook(fail)
    with pytest.raises(KeyboardInterrupt), record_attention(models.unet):
        denoise_once(image, prompt_of(models, into="keys", alpha=0.5), models)
    breaker.remove()
    assert hooks(models.unet) == 0


def test_nested_recorders_keep_their_own_passes(models, prompt_of, image):
    prompt = prompt_of(models)
    latent = encode_image(image, models)
    with record_attention(models.unet) as outer:
        denoise_once(None, prompt, models, latent=latent, timestep=1)
        with record_attention(models.unet) as inner:
            denoise_once(None, prompt, models, latent=latent, timestep=900)
        denoise_once(None, prompt, models, latent=latent, timestep=1)
    count = len(inner.layers)
    assert len(outer.layers) == 3 * count
    for one, two, three, nested in zip(
        outer.layers[:count],
        outer.layers[count : 2 * count],
        outer.layers[2 * count :],
        inner.layers,
        strict=True,
    ):
        assert one.name == two.name == three.name == nested.name
        assert torch.equal(two.query, nested.query)
        assert torch.equal(one.query, three.query)
        assert not torch.equal(one.query, two.query)


def test_a_recording_is_never_empty_nor_short_in_silence(models, prompt_of, image):
    with (
        pytest.raises(ValueError, match=r"no attention was recorded; call denoise_once.*0 layers"),
        record_attention(models.unet),
    ):
        pass
    with pytest.raises(ValueError, match="Linear holds no transformer block"):
        record_attention(torch.nn.Linear(1, 1)).__enter__()
    block = models.unet.down_blocks[0].attentions[0].transformer_blocks[0]
    attn = block.attn1
    block.attn1 = SkipsKeys(attn)
    try:
        with (
            pytest.raises(ValueError, match=r"1 of 14 attention layers were not run .*attn1"),
            record_attention(models.unet),
        ):
            denoise_once(image, prompt_of(models), models)
    finally:
        block.attn1 = attn
    assert hooks(models.unet) == 0


class SkipsKeys(torch.nn.Module):
    """An attention layer that never calls its own projections, as fused ones don't."""

    def __init__(self, attn):
        super().__init__()
        self.to_q, self.to_k = attn.to_q, attn.to_k
        self.heads, self.scale, self.is_cross_attention = attn.heads, attn.scale, False

    def forward(self, hidden_states, **more):
        return hidden_states


def test_a_layer_refuses_a_grid_that_is_not_its_own():
    query = torch.zeros(1, 1, 12, 2)
    with pytest.raises(ValueError, match=r"has 12 queries but the grid \(3, 5\)"):
        Layer("a", "self", "mid", query, query, (3, 5), 1, 1.0)


def test_the_unet_is_given_the_noised_latent(models, prompt_of, image):
    """sqrt(a) z + sqrt(1 - a) e, with the betas' own running product, one draw each timestep."""
    seen = {}
    handle = models.unet.register_forward_pre_hook(
        lambda module, args, kwargs: seen.update(sample=args[0], timestep=args[1], **kwargs),
        with_kwargs=True,
    )
    latent = encode_image(image, models, seed=3)
    prompt = prompt_of(models)
    denoise_once(image, prompt, models, timestep=(50, 700), seed=3)
    handle.remove()
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    alpha = (1 - betas).cumprod(0)[[50, 700]].view(2, 1, 1, 1)
    noise = (seen["sample"].double() - alpha.sqrt() * latent.double()) / (1 - alpha).sqrt()
    assert seen["timestep"].tolist() == [50, 700]
    assert noise.mean().abs() < 0.1
    assert noise.std().item() == pytest.approx(1, abs=0.05)
    generator = torch.Generator().manual_seed(3)
    drawn = [torch.randn(latent.shape, generator=generator) for _ in range(2)]
    assert torch.allclose(noise[0], drawn[1][0].double(), atol=1e-4)
    flat = [part.flatten() for part in (*noise, drawn[0].double())]
    assert (torch.corrcoef(torch.stack(flat)) - torch.eye(3)).abs().max() < 0.1
    assert torch.equal(seen["encoder_hidden_states"], prompt.keys.expand(2, -1, -1))


def test_a_batch_of_timesteps_says_what_single_ones_do(models, prompt_of, image):
    prompt = prompt_of(models)
    first = denoise_once(image, prompt, models, timestep=200)
    both = denoise_once(image, prompt, models, timestep=(200, 400))
    assert torch.allclose(first[0], both[0], atol=1e-4)
    assert not torch.allclose(both[0], both[1], atol=1e-2)
    assert torch.equal(denoise_once(image, prompt, models, timestep=200), first)
    assert not torch.allclose(denoise_once(image, prompt, models, timestep=200, seed=1), first)


def test_keys_and_values_go_their_own_ways(any_models, prompt_of, image):
    """Each layer's keys come from the one embedding and its values from the other."""
    given = {}
    handles = [
        module.to_v.register_forward_hook(lambda m, args, out: given.update(values=args[0]))
        for name, module in any_models.unet.named_modules()
        if name.endswith("attn2")
    ]
    plain = prompt_of(any_models, isolate="none")
    edited = prompt_of(any_models, isolate="every", tail="empty", alpha=0.5)
    keys = {}
    for into in ("keys", "values", "both"):
        prompt = prompt_of(any_models, isolate="every", tail="empty", alpha=0.5, into=into)
        with record_attention(any_models.unet) as attention:
            denoise_once(image, prompt, any_models)
        keys[into] = attention.cross_layers[0].key
        assert torch.equal(given["values"], (plain if into == "keys" else edited).values)
    with record_attention(any_models.unet) as attention:
        denoise_once(image, plain, any_models)
    assert torch.equal(keys["keys"], keys["both"])
    assert torch.equal(keys["values"], attention.cross_layers[0].key)
    assert not torch.equal(keys["keys"], keys["values"])
    for handle in handles:
        handle.remove()
    assert hooks(any_models.unet) == 0


def test_xl_is_told_the_size_of_the_picture(models_xl, prompt_of, image):
    seen = {}
    handle = models_xl.unet.register_forward_pre_hook(
        lambda module, args, kwargs: seen.update(kwargs), with_kwargs=True
    )
    prompt = prompt_of(models_xl)
    denoise_once(image, prompt, models_xl, size=(64, 96), timestep=(1, 2))
    handle.remove()
    assert seen["added_cond_kwargs"]["time_ids"].tolist() == [[64, 96, 0, 0, 64, 96]] * 2
    pooled = seen["added_cond_kwargs"]["text_embeds"]
    assert torch.equal(pooled, prompt.extra["text_embeds"].expand(2, -1))


@pytest.mark.parametrize("timestep", [-1, 1000, (100, 1000), ()])
def test_a_timestep_out_of_range_is_refused(models, prompt_of, image, timestep):
    with pytest.raises(ValueError, match="from 0 to 999, at least one; got"):
        denoise_once(image, prompt_of(models), models, timestep=timestep)


def test_what_is_no_text_to_image_diffusion_model_is_refused(models, prompt_of, image):
    prompt = prompt_of(models)
    with pytest.raises(ValueError, match="give a picture or a latent"):
        denoise_once(None, prompt, models)
    with pytest.raises(ValueError, match="takes 4 channels and the latent has 9"):
        denoise_once(None, prompt, models, latent=torch.zeros(1, 9, 8, 8))
    flow = dataclasses.replace(models, scheduler=diffusers.FlowMatchEulerDiscreteScheduler())
    with pytest.raises(ValueError, match="FlowMatchEulerDiscreteScheduler has no alphas_cumprod"):
        denoise_once(image, prompt, flow)


@pytest.mark.parametrize("kind", ["DDIMScheduler", "PNDMScheduler", "EulerDiscreteScheduler"])
def test_the_sampler_makes_no_difference(models, prompt_of, image, kind):
    settings = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    scheduler = getattr(diffusers, kind)(**settings, steps_offset=1)
    other = dataclasses.replace(models, scheduler=scheduler)
    prompt = prompt_of(models)
    assert torch.allclose(denoise_once(image, prompt, other), denoise_once(image, prompt, models))


def record(models, image, text, **more):
    """What one pass with a short prompt leaves in a recorder."""
    with record_attention(models.unet, **more) as attention:
        denoise_once(image, embed("a red ring", [], text), models)
    return attention


def test_only_the_layers_that_are_asked_for_are_recorded(models, image, text):
    everything = record(models, image, text).layers
    for block in ("down", "mid", "up"):
        some = record(models, image, text, layers=block).layers
        wanted = [layer for layer in everything if layer.block == block]
        assert wanted and [layer.name for layer in some] == [layer.name for layer in wanted]
        assert all(torch.equal(a.query, b.query) for a, b in zip(some, wanted, strict=True))
    (one,) = record(models, image, text, layers=[everything[3].name]).layers
    assert one.name == everything[3].name


@pytest.mark.parametrize("layers", ["left", ["up.nothing"], []])
def test_layers_that_are_not_there_are_refused(models, layers):
    words = r"record_attention\(unet, layers=.* records nothing"
    with pytest.raises(ValueError, match=words), record_attention(models.unet, layers=layers):
        pass


def test_a_recording_says_what_it_holds_and_parts_by_prompt(models, image, text):
    attention = record(models, image, text)
    counts = len(attention.cross_layers), len(attention.self_layers)
    shown = f"<Recording: {counts[0]} cross- and {counts[1]} self-attention layers, grids 24 x 24"
    assert repr(attention).startswith(shown)
    (first, second) = (embed(words, [], text) for words in ("a red ring", "the moon"))
    noised = add_noise(encode_image(image, models), [100], models)
    with record_attention(models.unet) as both:
        predict_noise(torch.cat([noised, noised]), [100], [first, second], models)
    for i in (0, 1):
        for whole, own in zip(both.layers, both.part(i, 2).layers, strict=True):
            assert torch.equal(own.key, whole.key[i : i + 1])


def test_a_recording_draws_itself(models, image, text):
    """One row for all layers of one kind, block and grid, and how many there are of them."""
    recorded = record(models, image, text)
    page = recorded._repr_html_()
    assert page.startswith(f"<table><caption>{repr(recorded)[1:-1]}</caption>")
    counts = re.findall(
        r"<td>(cross|self)<td>(down|mid|up)<td>(\d+)<td>(\d+)<td>\d+<td>(\d+)<td>(\d+)", page
    )
    assert len(counts) == page.count("<tr>") - 1
    for kind, block, h, w, keys, number in counts:
        layers = [
            x
            for x in recorded.layers
            if (x.kind, x.block, x.grid) == (kind, block, (int(h), int(w)))
        ]
        assert len(layers) == int(number) and {layer.key.shape[2] for layer in layers} == {
            int(keys)
        }
    assert sum(int(row[-1]) for row in counts) == len(recorded.layers) == 14


def test_a_gradient_reaches_the_latents_where_it_is_asked_for(models, image, text):
    prompts = [embed("a red ring", [], text)]
    noised = add_noise(encode_image(image, models), [100], models)
    with record_attention(models.unet) as plain:
        predict_noise(noised.clone().requires_grad_(), [100], prompts, models)
    assert not any(layer.query.requires_grad or layer.key.requires_grad for layer in plain.layers)
    latents = noised.clone().requires_grad_()
    with record_attention(models.unet, with_gradient=True) as attention:
        predict_noise(latents, [100], prompts, models)
    for layer, same in zip(attention.cross_layers, plain.cross_layers, strict=True):
        assert torch.equal(layer.query, same.query) and torch.equal(layer.key, same.key)
        assert layer.query.requires_grad and not layer.key.requires_grad  # the prompt's is fixed
    (gradient,) = torch.autograd.grad(attention.cross_layers[-1].query.sum(), latents)
    assert gradient.abs().max() > 0
    assert not predict_noise(noised, [100], prompts, models).requires_grad
