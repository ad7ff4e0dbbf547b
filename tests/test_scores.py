"""Score maps against a slow float64 version written from DiffSegmenter's arithmetic."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nbhelpers.attention import Layer
from nbhelpers.scores import score_maps, select_layers
from nbhelpers.tokens import Spans

SPANS = Spans(
    nouns=((2,), (4, 5, 6)), chunks=((1, 2), (3, 4, 5, 6)), words=(1, 2, 3, 4, 5, 6), end=7
)
TOLERANCE = 1e-4


def make_layer(grid, factor, *, seed=0, heads=2, batch=1, tokens=12, d=4, name="up_blocks.0"):
    generator = torch.Generator().manual_seed(seed)
    query = torch.randn(batch, heads, grid[0] * grid[1], d, generator=generator) * 2
    key = torch.randn(batch, heads, tokens, d, generator=generator)
    return Layer(name, "cross", "up", query, key, grid, factor, d**-0.5)


def pyramid(sides=((8, 12), (4, 6), (2, 3), (1, 2)), counts=(2, 3, 2, 1), **more):
    """Layers of several resolutions, the finest first."""
    return [
        make_layer(grid, 2**level, seed=10 * level + i, **more)
        for level, (grid, count) in enumerate(zip(sides, counts, strict=True))
        for i in range(count)
    ]


def stretch(x):
    """x from 0 to 1."""
    return (x - x.min()) / (x.max() - x.min())


def enlarge(x, size):
    """Bilinear interpolation, pixel by pixel, with pixel centers in the middle."""
    (h, w), (height, width) = x.shape, size
    out = torch.zeros(size, dtype=torch.float64)
    for i in range(height):
        for j in range(width):
            y = min(max((i + 0.5) * h / height - 0.5, 0), h - 1)
            z = min(max((j + 0.5) * w / width - 0.5, 0), w - 1)
            a, b = int(y), int(z)
            c, d = min(a + 1, h - 1), min(b + 1, w - 1)
            top = x[a, b] * (1 - z + b) + x[a, d] * (z - b)
            low = x[c, b] * (1 - z + b) + x[c, d] * (z - b)
            out[i, j] = top * (1 - y + a) + low * (y - a)
    return out


def reference(layers, nouns, *, keys=None, weights=None, normalize=True):
    """Mean over tokens, batch, heads and layers; min-max if wished; enlarge; weighted sum."""
    finest = max((layer.grid for layer in layers), key=lambda grid: grid[0] * grid[1])
    factors = sorted({layer.factor for layer in layers})
    weights = weights or dict.fromkeys(factors, 1.0)
    total = sum(weights[f] for f in factors)
    maps = []
    for noun in nouns:
        joined = torch.zeros(finest, dtype=torch.float64)
        for factor in factors:
            found = []
            for layer in (layer for layer in layers if layer.factor == factor):
                chosen = list(keys or range(layer.key.shape[2]))
                for sample in range(layer.query.shape[0]):
                    for head in range(layer.query.shape[1]):
                        q = layer.query[sample, head].double()
                        k = layer.key[sample, head, chosen].double()
                        probabilities = torch.softmax(q @ k.T * layer.scale, dim=1)
                        columns = [probabilities[:, chosen.index(t)] for t in noun]
                        found.append(torch.stack(columns).mean(0).view(layer.grid))
            mean = torch.stack(found).mean(0)
            mean = stretch(mean) if normalize else mean
            joined += weights[factor] / total * enlarge(mean, finest)
        maps.append(joined)
    return torch.stack(maps)


def assert_close(found, wanted):
    assert wanted.max() - wanted.min() > 0.3
    assert wanted.max() / 8 > TOLERANCE
    assert (found.double() - wanted).abs().max() < TOLERANCE


@pytest.mark.parametrize("batch", [1, 3])
def test_equal_weights_over_all_tokens(batch):
    layers = pyramid(batch=batch)
    assert_close(score_maps(layers, SPANS), reference(layers, SPANS.nouns))


def test_over_the_prompts_words_alone():
    layers = pyramid()
    found = score_maps(layers, SPANS, softmax_over="words")
    assert_close(found, reference(layers, SPANS.nouns, keys=SPANS.words))
    assert not torch.allclose(found, score_maps(layers, SPANS), atol=0.02)


def test_diffsegmenters_own_arithmetic():
    """Its weights of 8, 16, 32 and 64 cells, and the last sub-token of the class name."""
    layers = pyramid(sides=((16, 16), (8, 8), (4, 4), (2, 2)), counts=(5, 5, 5, 1))
    weights = {8: 0.3, 4: 0.5, 2: 0.1, 1: 0.1}
    found = score_maps(layers, SPANS, weights=weights, subtokens="last")
    assert_close(found, reference(layers, [(2,), (6,)], weights=weights))


def test_daams_mean_probabilities():
    """Not stretched: a resolution in which the noun gets more attention counts for more."""
    layers = pyramid(batch=2)
    weights = {8: 0.2, 4: 0.5, 2: 0.1, 1: 0.2}
    for more in ({}, {"weights": weights}):
        found = score_maps(layers, SPANS, normalize="none", **more)
        wanted = reference(layers, SPANS.nouns, normalize=False, **more)
        assert wanted.max() - wanted.min() > 0.05
        assert (found.double() - wanted).abs().max() < 1e-6
        assert (found - score_maps(layers, SPANS, **more)).abs().max() > 0.1


def test_layers_of_some_parts_of_the_unet():
    blocks = ("down", "down", "mid", "up", "up")
    layers = [
        dataclasses.replace(layer, block=block)
        for layer, block in zip(pyramid(counts=(2, 1, 1, 1)), blocks, strict=True)
    ]
    for which, kept in {
        "all": layers,
        "no-mid": [*layers[:2], *layers[3:]],
        "down": layers[:2],
        "up": layers[3:],
    }.items():
        assert select_layers(layers, which) == kept
    assert select_layers([], "up") == []
    with pytest.raises(ValueError, match="layers='up' leaves none: .* in the blocks down, mid;"):
        select_layers(layers[:3], "up")


def test_weights_are_shared_among_the_resolutions_present():
    layers = pyramid()[:5]  # factors 1 and 2
    weights = {8: 0.3, 4: 0.5, 2: 0.3, 1: 0.1}
    wanted = reference(layers, SPANS.nouns, weights={2: 0.75, 1: 0.25})
    assert_close(score_maps(layers, SPANS, weights=weights), wanted)
    fine = [layer for layer in layers if layer.factor == 1]
    assert_close(score_maps(layers, SPANS, weights={1: 2.0}), reference(fine, SPANS.nouns))


def test_another_size_than_the_finest_grid():
    layers = pyramid()[:2]
    wanted = reference(layers, SPANS.nouns)
    found = score_maps(layers, SPANS, size=(16, 36))
    assert_close(found, torch.stack([enlarge(m, (16, 36)) for m in wanted]))


def test_one_cell_tells_nothing_and_disturbs_nothing():
    layers = pyramid(sides=((7, 13), (1, 1)), counts=(1, 1))
    fine = score_maps(layers[:1], SPANS)
    assert torch.allclose(score_maps(layers, SPANS), fine / 2, atol=1e-6)
    assert torch.equal(score_maps(layers[1:], SPANS), torch.zeros(2, 1, 1))


@settings(max_examples=20, deadline=None)
@given(
    grid=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    heads=st.integers(1, 4),
    seed=st.integers(0, 1000),
)
def test_maps_fill_0_to_1_whatever_the_order_of_heads_and_layers(grid, heads, seed):
    layers = [make_layer(grid, 1, seed=seed + i, heads=heads) for i in range(3)]
    maps = score_maps(layers, SPANS)
    assert maps.shape == (2, *grid)
    if grid != (1, 1):
        assert torch.allclose(maps.amin(dim=(1, 2)), torch.zeros(2))
        assert torch.allclose(maps.amax(dim=(1, 2)), torch.ones(2))
    turned = [
        dataclasses.replace(layer, query=layer.query.flip(1), key=layer.key.flip(1))
        for layer in layers[::-1]
    ]
    assert torch.allclose(score_maps(turned, SPANS), maps, atol=1e-3)


def test_a_noun_that_repeats_scores_the_same():
    spans = dataclasses.replace(SPANS, nouns=((2,), (2,), (5, 4)), chunks=((2,),) * 3)
    maps = score_maps(pyramid(), spans)
    assert torch.equal(maps[0], maps[1])
    back = dataclasses.replace(SPANS, nouns=((4, 5),), chunks=((4, 5),))
    assert torch.allclose(score_maps(pyramid(), back)[0], maps[2], atol=1e-6)


def bad(layer, value):
    query = layer.query.clone()
    query[0, 0, 0, 0] = value
    return dataclasses.replace(layer, query=query)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_nan_and_overflow_are_errors(value, dtype):
    layer = bad(make_layer((3, 4), 1), value)
    layer = dataclasses.replace(layer, query=layer.query.to(dtype), key=layer.key.to(dtype))
    with pytest.raises(ValueError, match=rf"up_blocks.0 recorded NaN or infinity \({dtype}\)"):
        score_maps([layer], SPANS)


@pytest.mark.parametrize(
    ("layers", "spans", "settings", "message"),
    [
        ([], SPANS, {}, r"no cross-attention was recorded; call denoise_once .*\(got 0 layers\)"),
        (pyramid(), Spans((), (), (), 1), {}, "there is no chunk to score"),
        (pyramid(), SPANS, {"weights": {1: -1.0}}, r"weights are finite.*\{1: -1.0\}"),
        (pyramid(), SPANS, {"weights": {1: float("nan")}}, r"weights are finite.*\{1: nan\}"),
        (pyramid(), SPANS, {"weights": {16: 1.0}}, r"factors \[1, 2, 4, 8\]\) has weight 0"),
        (pyramid(tokens=6), SPANS, {}, "token 6 was asked for, but up_blocks.0 recorded 6 tokens"),
        (
            [make_layer((2, 3), 1), make_layer((3, 2), 1, name="b")],
            SPANS,
            {},
            r"has the grid \(2, 3\) and b \(3, 2\) at the same resolution",
        ),
    ],
)
def test_what_cannot_be_scored_is_refused(layers, spans, settings, message):
    with pytest.raises(ValueError, match=message):
        score_maps(layers, spans, **settings)
