"""CLIPpy: the picture's vector is the maximum over its patches."""

import numpy as np
import pytest
import torch

from nbhelpers.family.clippy import Clippy, maps
from nbhelpers.family.dense import text_features, to_input
from nbhelpers.family.trained import encode
from tests.family_batches import captioned, generator, with_clip


@pytest.fixture(scope="module")
def own(models):
    return with_clip(models)


@pytest.fixture(scope="module")
def network(own):
    return Clippy(own.clip.model)


def loss_of(pooled, texts, scale):
    """The mean cross-entropy of rows and columns, in float64, of vectors not yet of length 1."""
    pooled = pooled / np.linalg.norm(pooled, axis=1, keepdims=True)
    logits = scale * pooled @ texts.T
    each = [np.log(np.exp(part).sum(1)) - np.diag(part) for part in (logits, logits.T)]
    return np.mean(each)


def test_the_loss_is_of_each_channel_s_largest_patch(own, network):
    batch = captioned()
    patches = network.tower(batch.pixels).detach().double().numpy()
    texts = encode(batch.captions, own.clip).double().numpy()
    scale = network.scale.exp().item()
    for defining, pool in ((True, np.max), (False, np.mean)):
        network.defining = defining
        found = network.loss(batch, own.clip, generator())
        assert found.item() == pytest.approx(
            loss_of(pool(patches, axis=1), texts, scale), abs=1e-4
        )
    network.defining = True


def test_the_gradient_reaches_only_the_largest_patch_of_a_channel(own, network):
    kept = []
    handle = network.tower.register_forward_hook(
        lambda module, args, output: (output.retain_grad(), kept.append(output))[1]
    )
    network.loss(captioned(), own.clip, generator()).backward()
    handle.remove()
    (patches,) = kept
    reached = patches.grad != 0
    assert torch.equal(reached.any(1), torch.ones_like(reached.any(1)))
    assert (reached.sum(1) == 1).all()
    assert torch.equal(reached.int().argmax(1), patches.argmax(1))


def test_the_map_is_the_cosine_of_patch_and_text(own, network, image):
    texts = ["cat", "the red moon"]
    with torch.no_grad():
        patches = network.tower(to_input([image], own.clip))[0].reshape(4, 4, -1)
    cosines = torch.einsum("tc,hwc->thw", text_features(texts, own.clip), patches).numpy()
    found = maps(image, texts, own, network=network)
    corners = found[:, [0, 0, -1, -1], [0, -1, 0, -1]].ravel()  # where one patch alone counts
    wanted = cosines[:, [0, 0, -1, -1], [0, -1, 0, -1]].ravel()
    assert np.corrcoef(corners, wanted)[0, 1] > 0.9999
