"""ODISE: queries over the features of a frozen UNet, whose prompt is made from the picture."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from nbhelpers.attention import record_attention
from nbhelpers.family.dense import to_input
from nbhelpers.family.odise import Odise, assign, maps, mask_loss
from tests.family_batches import generator, masked, with_clip


@pytest.fixture(scope="module")
def own(models):
    return with_clip(models)


@pytest.fixture
def network(own):
    torch.manual_seed(0)
    return Odise(own.clip.model, unet_widths=(64, 32))


def test_the_implicit_caption_learns_through_the_frozen_unet(own, network):
    network.loss(masked(), own, generator()).backward()
    assert network.caption[0].weight.grad.abs().max() > 0
    frozen = (own.unet, own.vae, own.clip.model)
    assert all(weight.grad is None for part in frozen for weight in part.parameters())


def test_a_unet_in_half_precision_is_read(own, network):
    """As it is on a GPU; the network itself stays in float32."""
    whole = network.loss(masked(), own, generator()).item()
    unet = copy.deepcopy(own.unet).half()
    halved = replace(own, unet=unet, dtype=torch.float16)
    assert network.loss(masked(), halved, generator()).item() == pytest.approx(whole, rel=0.01)
    found = maps(np.zeros((16, 16, 3), np.uint8), ["a dog"], halved, network=network)
    assert found.dtype == np.float32 and np.isfinite(found).all()


def test_without_it_one_prompt_serves_all_pictures(own, network):
    prompts = []
    handle = network.caption.register_forward_hook(
        lambda module, args, output: prompts.append(output.detach())
    )
    losses = []
    for defining in (True, False):
        network.defining = defining
        losses.append(network.loss(masked(), own, generator()).item())
    handle.remove()
    of_pictures, of_all = prompts
    assert not torch.allclose(of_pictures[0], of_pictures[1], atol=1e-4)
    assert torch.equal(of_all[0], of_all[1])
    assert abs(losses[0] - losses[1]) > 1e-4


def test_the_features_are_what_the_recorder_keeps_of_one_pass_at_zero(own, network):
    pixels = masked().pixels
    with torch.no_grad():
        features = network.features(pixels, own)
        latent = own.vae.encode(pixels).latent_dist.mean * own.vae.config.scaling_factor
        seen = own.clip.model.get_image_features(pixels).pooler_output
        prompt = network.caption(seen / seen.norm(dim=1, keepdim=True)).view(2, 4, 32)
        with record_attention(own.unet) as attention:
            own.unet(latent, 0, encoder_hidden_states=prompt)
    layers = [layer for layer in attention.self_layers if layer.block == "up"]
    last = {layer.grid: layer for layer in layers}
    assert [tuple(each.shape) for each in features] == [(2, 64, 4, 4), (2, 32, 8, 8)]
    for found, (grid, layer) in zip(features, last.items(), strict=True):
        for y in range(0, grid[0], 3):
            wanted = layer.query[:, :, grid[1] * y + 1].flatten(1)
            assert torch.allclose(found[:, :, y, 1], wanted, atol=1e-5)


def test_no_map_depends_on_what_else_is_asked(own, network, image):
    both = maps(image, ["cat", "red moon"], own, network=network)
    assert both.shape == (2, *image.shape[:2])
    assert both.min() >= 0 and both.max() <= 1
    alone = maps(image, ["red moon"], own, network=network)
    assert np.allclose(both[1], alone[0], atol=1e-6)


def test_a_map_is_the_best_query_s(own, network, image):
    with torch.no_grad():
        masks, _ = network(to_input([image], own.clip), own)
    network.slope.data.fill_(0.0)
    network.offset.data.fill_(50.0)  # every query bears every name
    found = maps(image, ["cat"], own, network=network)[0]
    best = 1 / (1 + np.exp(-masks[0].double().numpy()))
    assert found[0, 0] == pytest.approx(best[:, 0, 0].max(), abs=1e-5)
    assert found[-1, -1] == pytest.approx(best[:, -1, -1].max(), abs=1e-5)


def test_the_cheapest_pairs_come_first_and_nothing_is_used_twice():
    cost = torch.tensor([[0.5, 0.1], [0.4, 0.2], [0.9, 0.8]])
    assert assign(cost) == [(0, 1), (1, 0)]
    assert cost.isfinite().all()  # the caller's own is left as it was


def test_the_mask_loss_is_cross_entropy_and_dice():
    rng = np.random.default_rng(0)
    logits, truth = rng.normal(size=(4, 6, 6)), (rng.random((3, 6, 6)) < 0.4).astype(float)
    found = mask_loss(torch.tensor(logits)[:, None], torch.tensor(truth)[None]).numpy()
    share = 1 / (1 + np.exp(-logits))
    for q in range(4):
        for t in range(3):
            inside, outside = truth[t] * np.log(share[q]), (1 - truth[t]) * np.log(1 - share[q])
            overlap = 2 * (share[q] * truth[t]).sum() + 1
            dice = 1 - overlap / (share[q].sum() + truth[t].sum() + 1)
            assert found[q, t] == pytest.approx(-5 * (inside + outside).mean() + 5 * dice)


def test_only_the_matched_query_bears_the_thing_s_names(own, network, monkeypatch):
    """The naming loss, by hand: 1 for each name of a matched thing, 0 everywhere else."""
    batch = masked()
    network.slope.data.fill_(0.0)  # every logit is the offset
    network.offset.data.fill_(-1.0)
    masks, _ = network(batch.pixels, own)
    found = network.loss(batch, own, generator()).item()
    drawn, positive = [], 0
    for row, truth, names in zip(masks.detach(), batch.masks, batch.names, strict=True):
        apart = mask_loss(row[:, None], truth[None])
        drawn += [apart[query, thing].item() for query, thing in assign(apart)]
        positive += sum(len(set(own)) for own in names)
    share = 1 / (1 + np.exp(1.0))
    every = 2 * len(row) * 5  # pictures, queries, and the five names
    naming = -(positive * np.log(share) + (every - positive) * np.log(1 - share)) / 3
    assert found == pytest.approx(np.mean(drawn) + naming, abs=1e-3)
