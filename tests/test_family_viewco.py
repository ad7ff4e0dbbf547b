"""ViewCo: two views of a picture are to have the same groups, as a slow teacher sees them."""

import numpy as np
import pytest
import torch

from nbhelpers.family.trained import contrast
from nbhelpers.family.viewco import MOMENTUM, TEMPERATURE, ViewCo, agree, crop
from tests.family_batches import captioned, generator, with_clip


@pytest.fixture(scope="module")
def own(models):
    return with_clip(models)


@pytest.fixture
def network(own):
    torch.manual_seed(0)
    return ViewCo(own.clip.model)


def test_groups_agree_with_the_fellow_that_is_most_like_them():
    rng = np.random.default_rng(0)
    groups, taught = rng.normal(size=(2, 3, 8, 5))
    losses = []
    for own, other in zip(groups, taught, strict=True):
        for group in own:
            logits = other @ group / TEMPERATURE
            losses.append(np.log(np.exp(logits - logits.max()).sum()))
    found = agree(torch.tensor(groups), torch.tensor(taught))
    assert found.item() == pytest.approx(np.mean(losses))


def test_the_loss_is_of_two_views_and_their_agreement(own, network):
    batch = captioned()
    found = network.loss(batch, own.clip, generator(4))
    chance = generator(4)
    views = [crop(batch.pixels, chance) for _ in range(2)]
    texts = network.encode(batch.captions, own.clip)
    groups = [network.student(view, chance)[0] for view in views]
    pooled = [torch.nn.functional.normalize(each.mean(1), dim=-1) for each in groups]
    taught = [network.teacher(view)[0] for view in views]
    parts = [contrast(each, texts, network.scale) for each in pooled]
    parts += [agree(groups[0], taught[1]), agree(groups[1], taught[0])]
    assert found.item() == pytest.approx(sum(parts).item() / 4, abs=1e-5)
    network.defining = False
    found = network.loss(batch, own.clip, generator(4))
    chance = generator(4)
    view = crop(batch.pixels, chance)
    pooled = network.student(view, chance)[0].mean(1)
    pooled = torch.nn.functional.normalize(pooled, dim=-1)
    wanted = contrast(pooled, texts, network.scale)
    assert found.item() == pytest.approx(wanted.item(), abs=1e-5)


def test_the_teacher_follows_slowly_and_learns_nothing_itself(own, network):
    with torch.no_grad():
        for weight in network.student.parameters():
            weight.add_(1)
    before = [weight.clone() for weight in network.teacher.parameters()]
    network.loss(captioned(), own.clip, generator()).backward()
    pairs = zip(before, network.teacher.parameters(), network.student.parameters(), strict=True)
    for old, now, student in pairs:
        assert torch.allclose(now, MOMENTUM * old + (1 - MOMENTUM) * student, atol=1e-6)
        assert now.grad is None


def test_it_begins_untrained(own, network):
    shipped = dict(own.clip.model.named_parameters())
    weight = network.student.tower.vision.encoder.layers[0].mlp.fc1.weight
    assert weight.shape == shipped["vision_model.encoder.layers.0.mlp.fc1.weight"].shape
    assert (weight != shipped["vision_model.encoder.layers.0.mlp.fc1.weight"]).all()


def test_a_view_is_a_part_of_the_picture_and_not_all_of_it():
    y, x = torch.meshgrid(torch.linspace(0, 1, 32), torch.linspace(0, 1, 32), indexing="ij")
    pictures = torch.stack([y, x, torch.zeros(32, 32)])[None].repeat(64, 1, 1, 1)
    views = crop(pictures, generator())
    for axis, channel in ((1, 0), (2, 1)):
        along = views[:, channel].mean(2 if axis == 1 else 1)
        span = along[:, -1] - along[:, 0]
        assert 0.65 < span.min() < 0.8 and 0.9 < span.max() < 1.02
        assert along.min() > -0.01 and along.max() < 1.01
        assert along[:, 0].std() > 0.03  # they lie at different locations
