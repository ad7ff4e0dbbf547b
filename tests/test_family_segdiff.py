"""SegDiff: noise becomes a mask of what the picture shows, several times over."""

import numpy as np
import pytest
import torch

from nbhelpers.family import SYSTEMS
from nbhelpers.family.segdiff import SegDiff, add_noise, maps
from nbhelpers.family.trained import encode
from tests.family_batches import generator, masked, with_clip


@pytest.fixture(scope="module")
def own(models):
    return with_clip(models)


@pytest.fixture
def network(own):
    torch.manual_seed(0)
    return SegDiff(own.clip.model)


class Recall(SegDiff):
    """A network that takes each noised mask for the one it was when it was noise alone."""

    def forward(self, noised, pixels, time, texts):
        if time[0] == 1:
            self.kept = noised.sign()
        self.seen = noised
        return self.kept


def test_the_map_is_the_mean_of_several_runs_from_noise(own, image):
    network = Recall(own.clip.model)
    found = maps(image[:32, :32], ["cat", "dog"], own, network=network, runs=4, seed=9)
    noise = torch.randn(4, 1, 16, 16, generator=generator(9))
    mean = ((noise.sign().mean(0) + 1) / 2).numpy()[0]
    assert len(np.unique(mean)) == 5
    for one in found:
        assert np.allclose(one[::31, ::31], mean[::15, ::15], atol=1e-5)  # the corners
    # Before the last step little of the noise was left.
    assert (network.seen - network.kept).abs().mean() < 0.2


def test_noise_comes_in_by_a_quarter_turn():
    clean, noise = torch.full((3, 1, 2, 2), 2.0), torch.full((3, 1, 2, 2), 5.0)
    found = add_noise(clean, noise, torch.tensor([0.0, 0.5, 1.0]))[:, 0, 0, 0]
    assert torch.allclose(found, torch.tensor([2.0, 7 / 2**0.5, 5.0]), atol=1e-5)


def test_picture_and_noised_mask_meet_in_a_sum(network):
    """Whatever is added to the one's encoding and taken from the other's changes nothing."""
    noised, pixels = torch.randn(2, 1, 16, 16), torch.randn(2, 3, 32, 32)
    time, texts = torch.tensor([0.2, 0.9]), torch.randn(2, 32)
    plain = network(noised, pixels, time, texts)
    moved = torch.randn(2, 32, 16, 16)
    hooks = [
        network.of_mask.register_forward_hook(lambda module, args, output: output + moved),
        network.of_picture[-1].register_forward_hook(lambda module, args, output: output - moved),
    ]
    both = network(noised, pixels, time, texts)
    hooks.pop().remove()
    one = network(noised, pixels, time, texts)
    hooks.pop().remove()
    assert torch.allclose(plain, both, atol=1e-4)
    assert (plain - one).abs().max() > 1e-2


def test_without_the_noised_mask_it_is_an_ordinary_segmenter(own, network):
    pixels, time, texts = torch.randn(1, 3, 32, 32), torch.tensor([0.5]), torch.randn(1, 32)
    first, second = torch.randn(2, 1, 1, 16, 16)
    losses = []
    for defining in (True, False):
        network.defining = defining
        apart = network(first, pixels, time, texts) - network(second, pixels, time, texts)
        assert bool(apart.any()) == defining
        losses.append(network.loss(masked(), own, generator(1)).item())
    assert abs(losses[0] - losses[1]) > 1e-3


def test_the_loss_is_the_squared_error_of_the_chosen_masks(own, network):
    batch = masked()
    chance = generator(5)
    phrases, masks = batch.choose(chance)
    clean = 2 * masks[:, None] - 1
    time = torch.rand(2, generator=chance)
    noised = add_noise(clean, torch.randn(clean.shape, generator=chance), time)
    found = network(noised, batch.pixels, time, encode(phrases, own.clip)).detach()
    wanted = ((found - clean).double() ** 2).mean()
    assert network.loss(batch, own, generator(5)).item() == pytest.approx(wanted.item(), abs=1e-5)


def test_tables_say_that_it_learned_from_masks():
    assert SYSTEMS["segdiff"].supervision == SYSTEMS["odise"].supervision == "masks"
