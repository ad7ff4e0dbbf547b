"""OVSegmentor: slots fill in a caption's missing noun and agree across pictures."""

import numpy as np
import pytest
import torch

from nbhelpers.family import ovsegmentor
from nbhelpers.family.ovsegmentor import OVSegmentor
from nbhelpers.family.trained import contrast, encode
from tests.family_batches import captioned, generator, with_clip


@pytest.fixture(scope="module")
def own(models):
    return with_clip(models)


@pytest.fixture
def network(own):
    torch.manual_seed(0)
    return OVSegmentor(own.clip.model)


def test_one_noun_of_each_caption_is_left_out_and_asked_for(own, network, monkeypatch):
    heard = []

    def listen(captions, clip):
        heard.append(list(captions))
        return encode(captions, clip)

    monkeypatch.setattr(ovsegmentor, "encode", listen)
    batch = captioned()
    network.loss(batch, own.clip, generator(1))
    whole, rest, entities = heard
    assert whole == list(batch.captions)
    gone = [
        [noun for noun in nouns if noun not in text.split()]
        for nouns, text in zip(batch.nouns, rest, strict=True)
    ]
    assert all(len(missing) == 1 for missing in gone)
    assert entities == [f"a photograph of a {noun}" for noun in sorted({g[0] for g in gone})]
    for text, missing, caption in zip(rest, gone, whole, strict=True):
        assert sorted([*text.split(), *missing]) == sorted(caption.split())


def test_without_the_proxy_tasks_the_contrast_is_left(own, network):
    batch = captioned()
    network.defining = False
    found = network.loss(batch, own.clip, generator())
    slots = network.tower.project(network.bind(batch.pixels)[0])
    pooled = torch.nn.functional.normalize(slots.mean(1), dim=-1)
    wanted = contrast(pooled, encode(batch.captions, own.clip), network.scale)
    assert float(found.detach()) == pytest.approx(float(wanted.detach()), abs=1e-5)


def test_consistency_holds_a_fellow_s_slot_against_the_own_mask(network):
    rng = np.random.default_rng(0)
    groups = torch.tensor(rng.normal(size=(4, 8, 32)), dtype=torch.float32)
    patches = torch.tensor(rng.normal(size=(4, 16, 32)), dtype=torch.float32)
    shares = network.grouping.logits(groups, patches).softmax(1)
    best, number = torch.tensor([3, 0, 5, 5]), torch.tensor([1, 0, 1, 2])
    found = network.consistency(groups, patches, shares, best, number)
    each = []
    for i, k in ((0, 2), (2, 0)):  # the two of one noun; the others have no fellow
        swapped = groups[i].clone()
        swapped[best[i]] = groups[k, best[k]]
        query = network.grouping.query(network.grouping.query_norm(swapped))
        key = network.grouping.key(network.grouping.key_norm(patches[i]))
        drawn = (query @ key.T / 32**0.5).softmax(0)[best[i]].detach().double().numpy()
        mine = shares[i].argmax(0).numpy() == int(best[i])
        each.append(-np.where(mine, np.log(drawn), np.log(1 - drawn)).mean())
    assert float(found.detach()) == pytest.approx(np.mean(each), rel=1e-4)
    alone = network.consistency(groups, patches, shares, best, torch.arange(4))
    assert float(alone.detach()) == 0


def test_every_patch_is_shared_out_whole(network):
    _, _, shares = network.bind(captioned().pixels)
    assert shares.shape == (4, 8, 16)
    assert torch.allclose(shares.sum(1), torch.ones(4, 16), atol=1e-5)


def test_the_consistency_runs_outside_of_autocast(own, network, monkeypatch):
    """CUDA's refuses the cross-entropy of probabilities, which a CPU's lets pass."""
    plain, seen = torch.nn.functional.binary_cross_entropy, []

    def listen(found, *args, **more):
        seen.append((torch.is_autocast_enabled("cpu"), found.dtype))
        return plain(found, *args, **more)

    monkeypatch.setattr(torch.nn.functional, "binary_cross_entropy", listen)
    with torch.autocast("cpu", torch.bfloat16):
        network.loss(captioned(), own.clip, generator())
    assert seen == [(False, torch.float32)]
