"""Completed maps against matrices in float64."""

import dataclasses
import re

import pytest
import torch

from nbhelpers.attention import Layer
from nbhelpers.completion import complete

TOLERANCE = 1e-5


def make_layer(grid, *, seed=0, batch=2, heads=3, d=4):
    generator = torch.Generator().manual_seed(seed)
    n = grid[0] * grid[1]
    query, key = torch.randn(2, batch, heads, n, d, generator=generator) * 2
    return Layer(f"up_blocks.{seed}", "self", "up", query, key, grid, 1, d**-0.5)


def matrix(layers):
    """A: the mean of all attention matrices."""
    found = []
    for layer in layers:
        logits = layer.query.double() @ layer.key.double().transpose(-1, -2) * layer.scale
        found.append(torch.softmax(logits, dim=-1).mean(dim=(0, 1)))
    return torch.stack(found).mean(0)


@pytest.mark.parametrize("transpose", [False, True])
@pytest.mark.parametrize("steps", [1, 2, 3])
@pytest.mark.parametrize("grid", [(7, 13), (4, 4), (1, 6)])
def test_scores_are_carried_along_the_mean_attention(grid, steps, transpose):
    layers = [make_layer(grid, seed=i) for i in range(3)]
    scores = torch.rand(2, *grid, generator=torch.Generator().manual_seed(9))
    a = matrix(layers)
    assert (a - a.T).abs().max() > 0.05  # so that the direction shows
    wanted = scores.double().flatten(1).T
    for _ in range(steps):
        wanted = (a.T if transpose else a) @ wanted
    found = complete(scores, layers, transpose=transpose, steps=steps)
    assert wanted.max() / 8 > TOLERANCE
    assert found.shape == scores.shape
    assert (found.flatten(1).T.double() - wanted).abs().max() < TOLERANCE


def test_a_constant_map_stays_as_it_is():
    ones = torch.ones(1, 7, 13)
    found = complete(ones, [make_layer((7, 13), seed=i) for i in range(2)], steps=3)
    assert torch.allclose(found, ones, atol=1e-5)


def test_one_cell():
    assert torch.allclose(
        complete(torch.full((2, 1, 1), 0.3), [make_layer((1, 1))]), torch.full((2, 1, 1), 0.3)
    )


def test_only_the_layers_of_the_scores_grid_take_part():
    fine, coarse = make_layer((4, 6)), make_layer((6, 4), seed=1)
    scores = torch.rand(1, 4, 6, generator=torch.Generator().manual_seed(9))
    assert torch.equal(complete(scores, [fine, coarse]), complete(scores, [fine]))
    with pytest.raises(ValueError, match=r"grid \(4, 6\), .* the grids \[\(6, 4\)\]"):
        complete(scores, [coarse])


def test_no_layers_is_an_error_in_the_houses_words():
    words = "no self-attention was recorded; call denoise_once inside record_attention"
    with pytest.raises(ValueError, match=re.escape(f"{words} (got 0 layers)") + "$"):
        complete(torch.zeros(1, 2, 2), [])


@pytest.mark.parametrize("steps", [0, -1])
def test_steps_are_counted_from_one(steps):
    with pytest.raises(ValueError, match=f"at least once; got {steps}"):
        complete(torch.zeros(1, 2, 2), [make_layer((2, 2))], steps=steps)


def test_nan_is_an_error():
    layer = make_layer((2, 2))
    layer = dataclasses.replace(layer, key=torch.full_like(layer.key, torch.inf))
    with pytest.raises(ValueError, match=r"hold NaN or infinity \(queries are torch.float32\)"):
        complete(torch.rand(1, 2, 2), [layer])
