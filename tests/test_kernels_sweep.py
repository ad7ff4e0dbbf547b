"""All thresholds at once, counted against one comparison after the other."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nbhelpers import kernels
from nbhelpers.masks import to_masks


def loop(maps, truths, thresholds):
    """A mask for each map and threshold, by NumPy, in float64 unless the map's dtype says."""
    intersection, union = [], []
    for values, truth in zip(maps.numpy(), truths.numpy(), strict=True):
        masks = [values >= values.dtype.type(t) for t in thresholds.tolist()]
        intersection.append([np.count_nonzero(mask & truth) for mask in masks])
        union.append([np.count_nonzero(mask | truth) for mask in masks])
    return torch.tensor(intersection), torch.tensor(union)


def draw(*shape, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    maps = torch.rand(shape, generator=generator, dtype=torch.float64).to(dtype)
    return maps, torch.rand(shape, generator=generator) > 0.6


def same(maps, truths, thresholds, **more):
    found = kernels.threshold_sweep(maps, truths, thresholds, **more)
    wanted = loop(maps, truths, thresholds)
    assert all(x.dtype == torch.int64 for x in found)
    assert all(map(torch.equal, found, wanted))
    return found


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
@pytest.mark.parametrize("count", [1, 2, 19, 100, 1000])
def test_it_counts_what_a_loop_counts(dtype, count):
    maps, truths = draw(3, 31, 47, dtype=dtype)
    maps[0, 0, :5] = torch.tensor([0, 1, 0.5, 2**-12, 1 - 2**-10])
    intersection, union = same(maps, truths, torch.linspace(0, 1, count, dtype=torch.float64))
    assert (intersection[:, 0] > intersection[:, -1]).all() or count == 1
    assert torch.equal(union[:, 0], torch.full((3,), 31 * 47))  # every pixel reaches 0


def test_a_thing_that_is_nowhere_shares_no_pixel():
    maps, truths = draw(4, 9, 11, seed=5)
    truths[3] = False
    intersection, union = same(maps, truths, torch.linspace(0, 1, 21))
    assert not intersection[3].any() and intersection[:3, 0].all()
    assert union[3, 0] == 9 * 11 and union[3, -1] == 0


def test_bfloat16_is_compared_in_bfloat16():
    maps, truths = draw(2, 9, 13, dtype=torch.bfloat16)
    thresholds = torch.linspace(0, 1, 50)
    found = kernels.threshold_sweep(maps, truths, thresholds)
    exact = maps.float(), truths, thresholds.bfloat16().float()
    assert all(map(torch.equal, found, loop(*exact)))


def test_values_on_a_threshold_reach_it_and_neighbors_below_do_not():
    """Every threshold's own float, and the floats on both sides of it."""
    thresholds = torch.linspace(0, 1, 41)[1:-1]
    below = torch.nextafter(thresholds, torch.zeros(()))
    above = torch.nextafter(thresholds, torch.ones(()))
    maps = torch.stack([thresholds, below, above])[:, None]
    truths = torch.ones_like(maps, dtype=torch.bool)
    intersection, _ = same(maps, truths, thresholds)
    steps = torch.arange(len(thresholds), 0, -1)
    assert torch.equal(intersection, torch.stack([steps, steps - 1, steps]))


@settings(max_examples=40, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9)),
    thresholds=st.lists(st.floats(-0.5, 1.5, width=32), min_size=1, max_size=12).map(sorted),
    crowded=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_any_thresholds(shape, thresholds, crowded, seed):
    """Repeated, beyond both ends, all within a ten-thousandth."""
    maps, truths = draw(*shape, seed=seed)
    thresholds = torch.tensor(thresholds)
    if crowded:
        thresholds = 0.3 + thresholds * 1e-5
        maps = 0.3 + maps * 1e-5
    same(maps, truths, thresholds)


def test_the_masks_are_those_of_to_masks():
    """The very comparison by which a picture is cut, the rounding of the threshold included."""
    grid = torch.rand(2, 4, 6, generator=torch.Generator().manual_seed(3))
    _, truths = draw(2, 24, 36)
    from nbhelpers.masks import to_pixels

    maps = torch.from_numpy(to_pixels(grid, (24, 36)))
    thresholds = torch.tensor([0.1, 0.3, 0.5, 0.7], dtype=torch.float64)
    maps[0, 0, :4] = thresholds.float()  # 0.1 and 0.7 round down, 0.3 up
    intersection, union = kernels.threshold_sweep(maps, truths, thresholds)
    for i, threshold in enumerate(thresholds.tolist()):
        masks = torch.from_numpy(maps.numpy() >= threshold)
        assert torch.equal(intersection[:, i], (masks & truths).sum((1, 2)))
        assert torch.equal(union[:, i], (masks | truths).sum((1, 2)))
    cut = torch.from_numpy(to_masks(grid, (24, 36), 0.5))[1]
    assert intersection[1, 2] == (cut & truths[1]).sum()


def test_strided_maps_are_as_good_as_any():
    maps, truths = draw(5, 7, 3)
    turned = [x.permute(2, 0, 1) for x in (maps, truths)]
    assert not turned[0].is_contiguous()
    same(*turned, torch.linspace(0, 1, 9))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"maps": torch.full((1, 2, 3), torch.nan)}, r"maps lie in \[0, 1\].*nan"),
        ({"maps": torch.full((1, 2, 3), 1.5)}, r"maps lie in \[0, 1\].*1.5"),
        ({"maps": torch.full((1, 2, 3), -0.5)}, r"maps lie in \[0, 1\].*-0.5"),
        ({"maps": torch.zeros(1, 3, 2)}, "have one shape"),
        ({"truths": torch.zeros(1, 2, 3)}, "truths are bool; got .* torch.float32"),
        ({"thresholds": torch.tensor([0.5, 0.4])}, r"thresholds ascend.*0.5, 0.4"),
        ({"thresholds": torch.tensor([])}, "at least one"),
        ({"thresholds": torch.tensor([0.5, torch.nan])}, "thresholds ascend"),
    ],
)
def test_what_cannot_be_counted_is_refused(change, message):
    good = {
        "maps": torch.zeros(1, 2, 3),
        "truths": torch.zeros(1, 2, 3, dtype=torch.bool),
        "thresholds": torch.tensor([0.5]),
    }
    with pytest.raises(ValueError, match=message):
        kernels.threshold_sweep(**{**good, **change})
