"""Patches bound to groups: hard and soft, and the scores that are made of them."""

import numpy as np
import pytest
import torch

from nbhelpers.family.grouping import Grouping, gumbel, score_groups
from tests.family_batches import generator


@pytest.fixture(params=[True, False])
def grouping(request):
    torch.manual_seed(0)
    return Grouping(12, hard=request.param)


def test_a_group_gets_the_mean_of_its_patches(grouping):
    groups, patches = torch.randn(2, 8, 12), torch.randn(2, 20, 12)
    found, shares = grouping(groups, patches)
    centered = [(x - x.mean(2, keepdim=True)) for x in (groups, patches)]
    query, key = (x / (x.var(2, keepdim=True, correction=0) + 1e-5).sqrt() for x in centered)
    soft = torch.einsum("bgc,bpc->bgp", query, key).div(12**0.5).softmax(1)
    assert torch.allclose(shares, soft, atol=1e-5)
    for b in range(2):
        for g in range(8):
            weights = soft[b, g]
            if grouping.hard:
                weights = (soft[b].argmax(0) == g).float()
            total = max(1.0, float(weights.sum()))
            wanted = groups[b, g] + (weights[:, None] * patches[b]).sum(0) / total
            assert torch.allclose(found[b, g], wanted, atol=1e-4)


def test_the_choice_has_the_gradient_of_the_shares(grouping):
    patches = torch.randn(1, 20, 12)
    groups = torch.randn(1, 8, 12, requires_grad=True)
    found, _ = grouping(groups, patches, generator())
    (found - groups).square().sum().backward()
    assert grouping.query.weight.grad.abs().max() > 1e-4


def test_gumbel_noise_makes_a_choice_as_likely_as_its_share():
    logits = torch.tensor([0.0, 1.0, 2.0])
    chosen = (logits + gumbel(torch.zeros(40000, 3), generator())).argmax(1)
    shares = torch.bincount(chosen).double() / 40000
    assert torch.allclose(shares, logits.double().softmax(0), atol=0.01)


def test_a_patch_scores_as_its_groups_do():
    rng = np.random.default_rng(0)
    shares, groups, texts = rng.random((3, 6)), rng.normal(size=(3, 5)), rng.normal(size=(2, 5))
    found = score_groups(*map(torch.tensor, (shares, groups, texts)), (2, 3)).numpy()
    for t in range(2):
        for y in range(2):
            for x in range(3):
                wanted = sum(shares[g, 3 * y + x] * (groups[g] @ texts[t]) for g in range(3))
                assert found[t, y, x] == pytest.approx(wanted)
