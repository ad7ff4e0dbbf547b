"""SegCLIP: centers in the middle of CLIP, shaped by hidden patches and by superpixels."""

import numpy as np
import pytest
import torch

from nbhelpers.family import segclip
from nbhelpers.family.segclip import WEIGHTS, SegClip, patchify, superpixel_loss, superpixels
from nbhelpers.family.trained import contrast, encode
from tests.family_batches import captioned, generator, with_clip


@pytest.fixture(scope="module")
def own(models):
    return with_clip(models)


@pytest.fixture
def network(own):
    torch.manual_seed(0)
    return SegClip(own.clip.model)


def test_the_loss_is_the_contrast_and_the_two_terms_without_words(own, network, monkeypatch):
    monkeypatch.setattr(segclip, "SUPERPIXELS", 4)  # of 16 patches
    batch = captioned()
    found = network.loss(batch, own.clip, generator(2))
    chance = generator(2)
    centers, shares = network(batch.pixels, chance)
    pooled = torch.nn.functional.normalize(centers.mean(1), dim=-1)
    named = contrast(pooled, encode(batch.captions, own.clip), network.scale)
    patches = patchify(batch.pixels, 8)
    painted = network.painting_loss(batch.pixels, patches, chance)
    united = superpixel_loss(shares, superpixels(patches, (4, 4)))
    wanted = named + WEIGHTS["painting"] * painted + WEIGHTS["superpixels"] * united
    assert float(found.detach()) == pytest.approx(float(wanted.detach()), abs=1e-5)
    assert float(painted.detach()) > 0.1 and float(united.detach()) > 0
    network.defining = False
    found = network.loss(batch, own.clip, generator(2))
    assert float(found.detach()) == pytest.approx(float(named.detach()), abs=1e-5)


def test_centers_stand_between_the_layers(own, network):
    """The upper layers see as many tokens as there are centers, the lower all patches."""
    seen = []
    handles = [
        layer.register_forward_pre_hook(lambda module, args: seen.append(args[0].shape[1]))
        for layer in network.tower.vision.encoder.layers
    ]
    network.tower.vision.encoder.layers.append(network.tower.vision.encoder.layers[0])
    network(captioned().pixels)
    for handle in handles:
        handle.remove()
    assert seen == [17, 17, 8]


def test_hidden_patches_are_painted_from_the_visible_ones_alone(network):
    pixels = captioned().pixels
    patches = patchify(pixels, 8)
    seed = generator(7)
    hidden = torch.rand(patches.shape[:2], generator=seed).argsort(1)[:, 4:]
    other = pixels.clone()
    for row, numbers in zip(other, hidden.tolist(), strict=True):
        for number in numbers:
            y, x = divmod(number, 4)
            row[:, 8 * y : 8 * y + 8, 8 * x : 8 * x + 8] = 0.3
    first, second = (
        float(network.painting_loss(each, patches, generator(7)).detach())
        for each in (pixels, other)
    )
    assert first == pytest.approx(second, abs=1e-6)
    visible = float(
        network.painting_loss(torch.zeros_like(pixels), patches, generator(7)).detach()
    )
    assert abs(first - visible) > 1e-4


def test_patches_are_cut_row_by_row():
    pixels = torch.arange(2 * 3 * 16 * 16).view(2, 3, 16, 16).float()
    found = patchify(pixels, 8)
    assert found.shape == (2, 4, 192)
    assert torch.equal(found[1, 2].view(3, 8, 8), pixels[1, :, 8:, :8])


def test_superpixels_keep_to_one_color():
    pixels = torch.zeros(1, 3, 80, 80)
    pixels[0, 0, :, 40:] = 1
    pixels[0, 1, 48:, :40] = -1
    color = patchify(pixels, 8).unflatten(2, (3, -1)).mean(3)[0]
    member = superpixels(patchify(pixels, 8), (10, 10))[0]
    assert torch.equal(member.sum(0), torch.ones(100))  # every patch is in one
    assert (member.sum(1) > 0).sum() >= 8
    for own in member:
        assert len(color[own.bool()].unique(dim=0)) <= 1


def test_the_superpixel_loss_is_the_divergence_from_the_mean():
    rng = np.random.default_rng(0)
    shares = rng.random((2, 5, 12))
    shares /= shares.sum(1, keepdims=True)
    member = np.zeros((2, 3, 12))
    number = rng.integers(3, size=(2, 12))
    for picture in range(2):
        member[picture, number[picture], range(12)] = 1
    each = []
    for picture in range(2):
        for patch in range(12):
            alike = number[picture] == number[picture, patch]
            mean = shares[picture][:, alike].mean(1)
            each.append((mean * np.log(mean / shares[picture, :, patch])).sum())
    found = superpixel_loss(torch.tensor(shares), torch.tensor(member))
    assert float(found) == pytest.approx(np.mean(each))
    same = torch.full((2, 5, 12), 0.2)
    assert float(superpixel_loss(same, torch.tensor(member).float())) == pytest.approx(0, abs=1e-6)
