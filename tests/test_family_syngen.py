"""SynGen: its loss as the paper has it, the gradient of it, and the measure on given pictures."""

import copy
import math
from dataclasses import replace

import pytest
import torch

from nbhelpers.attention import Layer, Recording, record_attention
from nbhelpers.chunks import Chunk
from nbhelpers.denoising import predict_noise
from nbhelpers.embeddings import embed
from nbhelpers.family import syngen, words
from nbhelpers.family.guidance import descend
from nbhelpers.family.sampling import sample
from nbhelpers.family.syngen import distance, generate, measure, unbound
from nbhelpers.family.words import find_things, word_positions

TEXT = "a very red ring and the blue moon"
THINGS = {3: (4, [2, 3]), 7: (8, [7])}  # noun and modifiers, by hand: very, red; blue


@pytest.fixture
def latents():
    return torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def exact(models_15):
    """Models in float64, for differences of losses that are nearly equal."""
    return replace(models_15, unet=copy.deepcopy(models_15.unet).double(), dtype=torch.float64)


def loss_of(models):
    things = find_things(TEXT, models)
    words = word_positions(TEXT, things, models)

    def loss(layers):
        count = len(layers[0].query)
        parts = [[layer.part(i, count) for layer in layers] for i in range(count)]
        return torch.stack([unbound(part, things, words, 2) for part in parts])

    return loss


def passed(models, latents):
    prompts = [embed(TEXT, (), models.text)] * len(latents)
    with record_attention(models.unet) as attention:
        predict_noise(latents, [500], prompts, models)
    return attention.cross_layers


def divergence(p, q):
    return (p * (p / q).log()).sum() / 2 + (q * (q / p).log()).sum() / 2


def by_hand(layers):
    """The equations over maps formed in float64."""
    chosen = [layer for layer in layers if layer.grid == (8, 8)]
    probabilities = [
        (layer.query.double() @ layer.key.double().transpose(2, 3) * layer.scale).softmax(-1)
        for layer in chosen
    ]
    maps = torch.stack(probabilities).mean(0).mean(1)[0].T
    maps = maps / maps.sum(1, keepdim=True)
    total = 0
    for noun, modifiers in THINGS.values():
        others = [t for t in range(1, 9) if t not in (noun, *modifiers)]
        for m in modifiers:
            away = [divergence(maps[t], maps[u]) for u in others for t in (m, noun)]
            total += divergence(maps[m], maps[noun]) - sum(away) / len(away)
    return total


def test_the_things_of_a_prompt(models_15):
    ring, moon = find_things(TEXT, models_15)
    assert (ring.noun, ring.modifiers) == ((4,), ((2,), (3,)))
    assert (moon.noun, moon.modifiers) == ((8,), ((7,),))


def test_a_word_that_a_hyphen_joins_to_the_noun_is_no_modifier(models_15):
    """The noun is "shirt", and "t-" is neither a modifier nor a word of its own."""
    text = "a photograph of a red t-shirt and a blue moon"
    at = text.index("shirt")
    start = text.index("a red")
    shirt = Chunk("a red t-shirt", start, at + 5, "shirt", at, at + 5)
    start = text.index("a blue")
    moon = Chunk("a blue moon", start, len(text), "moon", len(text) - 4, len(text))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(words, "noun_chunks", lambda *args: [shirt, moon])
        things = find_things(text, models_15)
    assert [len(thing.modifiers) for thing in things] == [1, 1]
    found = word_positions(text, things, models_15)
    own = {word for thing in things for word in (thing.noun, *thing.modifiers)}
    assert own <= set(found)
    tokens = [token for word in found for token in word]
    assert len(tokens) == len(set(tokens))


def test_the_loss_is_the_papers(models_15, latents):
    layers = passed(models_15, latents)
    wanted = by_hand(layers)
    (found,) = loss_of(models_15)(layers)
    assert found.item() == pytest.approx(wanted.item(), rel=1e-3)
    assert abs(wanted) > 0.1


def test_the_distance_is_symmetric_and_0_for_equal_maps():
    p, q = (torch.rand(9, generator=torch.Generator().manual_seed(s)) + 0.1 for s in (0, 1))
    p, q = p / p.sum(), q / q.sum()
    assert distance(p, q).item() == pytest.approx(divergence(p, q).item(), rel=1e-4)
    assert distance(p, q) == distance(q, p) and distance(p, p) == 0


def test_the_loss_falls_after_a_step(exact, latents):
    latents = latents.double()
    two = torch.cat([latents, -latents])
    prompts = [embed(TEXT, (), exact.text)] * 2
    loss = loss_of(exact)
    moved, losses = descend(two, 500, prompts, exact, loss, 1e-6)
    assert (loss(passed(exact, moved)) < losses - 1e-4).all()
    back, _ = descend(two, 500, prompts, exact, loss, -1e-6)
    assert (loss(passed(exact, back)) > losses + 1e-4).all()


def test_the_gradient_is_that_of_finite_differences(exact, latents):
    latents = latents.double()
    prompts, loss = [embed(TEXT, (), exact.text)], loss_of(exact)
    moved, _ = descend(latents, 500, prompts, exact, loss, 1.0)
    gradient = latents - moved
    direction = gradient / gradient.norm()
    for way in (direction, direction.roll(1, -1) / 2 + direction):
        step = 1e-4 * way
        above, below = (loss(passed(exact, latents + s)) for s in (step, -step))
        wanted = (gradient * way).sum().item()
        assert (above - below).item() / 2e-4 == pytest.approx(wanted, rel=0.01)


def test_a_generation_is_moved_in_its_first_steps_alone(models_15):
    plain = sample([TEXT], models_15, seeds=[1], steps=2)
    assert torch.equal(generate([TEXT], models_15, seeds=[1], steps=2, share=0), plain)
    moved = generate([TEXT], models_15, seeds=[1], steps=2, step_size=0.01)
    assert not torch.allclose(moved, plain, atol=1e-3)


def test_a_given_picture_is_measured(models_15, image, monkeypatch):
    """On hand-made attention: each modifier lies on its own noun, half of the picture away."""
    length = models_15.text.length
    logits = torch.zeros(4, length)
    for cell, tokens in enumerate([(2, 3, 4), (2, 3, 4), (7, 8), (7, 8)]):
        logits[cell, list(tokens)] = 3.0
    query, key = torch.eye(4)[None, None], logits.T[None, None]
    layer = Layer("x", "cross", "mid", query, key, (1, 4), 4, 1.0)

    monkeypatch.setattr(syngen, "attend", lambda *args: Recording([layer]))
    own, other = measure(image, TEXT, models_15)
    assert own == pytest.approx(0, abs=1e-6) and other > 1
    monkeypatch.undo()
    own, other = measure(image, TEXT, models_15, timesteps=(100, 300))
    assert own > 0 and other > 0
    assert math.isnan(measure(image, "a red ring", models_15)[1])


def test_what_has_no_modifier_is_refused(models_15, image):
    for call in (
        lambda: generate(["a ring"], models_15, seeds=[0]),
        lambda: measure(image, "the ring", models_15),
    ):
        with pytest.raises(ValueError, match=r"nothing in '\w+ ring' has a modifier"):
            call()
