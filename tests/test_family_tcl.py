"""TCL: what the mask keeps of a picture is contrasted with the caption."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from nbhelpers.family.tcl import AREA, WEIGHTS, Tcl, area, variation
from nbhelpers.family.trained import encode
from tests.family_batches import captioned, generator, with_clip


@pytest.fixture(scope="module")
def own(models):
    return with_clip(models)


@pytest.fixture
def network(own):
    torch.manual_seed(0)
    network = Tcl(own.clip.model)
    network.coarse.gate.data.fill_(0.5)
    network.fine.gate.data.fill_(0.5)
    return network


def cross_entropies(logits):
    each = [np.log(np.exp(part).sum(1)) - np.diag(part) for part in (logits, logits.T)]
    return np.mean(each)


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def reference(network, batch, clip, *, grounded):
    """The loss in NumPy: every mask of every picture, pair by pair."""
    features = network.features(batch.pixels).detach().double().numpy()
    texts = encode(batch.captions, clip).double().numpy()
    count = len(texts)
    slope, offset = network.slope.item(), network.offset.item()
    masks = np.zeros((count, count, *features.shape[2:]))
    pooled = np.zeros((count, count))
    pictures = []
    for i in range(count):
        for j in range(count):
            cosines = np.tensordot(texts[j], features[i], axes=1)
            masks[i, j] = 1 / (1 + np.exp(-(slope * cosines + offset)))
            kept = masks[i, j] if grounded else np.ones_like(cosines)
            pooled[i, j] = unit((kept * features[i]).sum((1, 2))) @ texts[j]
        chosen = torch.tensor((masks[i, i] > 0.5) if grounded else np.ones_like(masks[i, i]))
        large = F.interpolate(chosen[None, None].float(), batch.pixels.shape[2:], mode="bilinear")
        with torch.no_grad():
            seen = clip.model.get_image_features(batch.pixels[i : i + 1] * large[0])
        pictures.append(unit(seen.pooler_output[0].double().numpy()))
    scale = network.scale.exp().item()
    contrast = cross_entropies(scale * np.stack(pictures) @ texts.T)
    contrast += cross_entropies(scale * pooled)
    shares = masks.mean((2, 3))
    others = shares[~np.eye(count, dtype=bool)].mean()
    own = np.stack([masks[i, i] for i in range(count)])
    smooth = sum(np.abs(np.diff(x, axis=a)).mean() for x in (own, features) for a in (-1, -2))
    return (
        WEIGHTS["contrast"] * contrast
        + WEIGHTS["area"] * (abs(np.diag(shares).mean() - AREA) + others)
        + WEIGHTS["smooth"] * smooth
    )


@pytest.mark.parametrize("grounded", [True, False])
def test_the_loss_is_of_what_the_masks_keep(own, network, grounded):
    network.offset.data.fill_(0.0)  # so that some locations are kept and some are not
    batch = captioned()
    network.defining = grounded
    with torch.no_grad():
        own_masks = network.masks(
            network.features(batch.pixels), encode(batch.captions, own.clip)
        ).diagonal()
    assert 0.05 < (own_masks > 0.5).float().mean() < 0.95
    found = network.loss(batch, own.clip, generator())
    assert found.item() == pytest.approx(
        reference(network, batch, own.clip, grounded=grounded), abs=2e-4
    )


def test_the_decoder_begins_as_clip_itself(own):
    batch = captioned()
    fresh = Tcl(own.clip.model)
    grid = fresh.tower(batch.pixels).mT.unflatten(2, (4, 4))
    wanted = F.normalize(F.interpolate(grid, scale_factor=2, mode="bilinear"), dim=1)
    assert torch.allclose(fresh.features(batch.pixels), wanted, atol=1e-6)


def test_the_area_is_of_own_masks_on_average_and_of_others_alone():
    masks = torch.zeros(2, 2, 3, 3)
    masks[0, 0], masks[1, 1] = 2 * AREA, 0.0  # the mean of own masks is what is wanted
    assert float(area(masks)) == pytest.approx(0, abs=1e-7)
    masks[0, 1] = 0.5
    assert float(area(masks)) == pytest.approx(0.25)


def test_the_variation_of_a_step_is_its_height():
    step = torch.tensor([[0.0, 1.0, 1.0], [0.0, 1.0, 1.0]])
    assert float(variation(step)) == pytest.approx(2 / 4)
    assert float(variation(step.T)) == pytest.approx(2 / 4)
