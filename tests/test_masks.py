"""Maps to pixels: the range, the location, the threshold."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from nbhelpers.masks import to_masks, to_pixels


@settings(max_examples=30, deadline=None)
@given(
    grid=st.tuples(st.integers(1, 6), st.integers(2, 6)),
    size=st.tuples(st.integers(1, 20), st.integers(2, 20)),
    shift=st.floats(-1000, 1000),
    seed=st.integers(0, 99),
)
def test_pixels_fill_0_to_1_whatever_the_range_of_the_map(grid, size, shift, seed):
    maps = torch.rand(2, *grid, generator=torch.Generator().manual_seed(seed)) * 100 + shift
    pixels = to_pixels(maps, size)
    assert pixels.shape == (2, *size)
    assert pixels.dtype == np.float32
    assert (pixels.min(axis=(1, 2)) == 0).all()
    assert (pixels.max(axis=(1, 2)) == 1).all()
    assert np.allclose(to_pixels(maps * 3 + 7, size), pixels, atol=1e-3)


def test_enlargement_is_bilinear_as_pillows():
    small = np.random.default_rng(0).random((3, 5), dtype=np.float32)
    pillow = np.asarray(Image.fromarray(small).resize((35, 12), Image.BILINEAR))
    wanted = (pillow - pillow.min()) / (pillow.max() - pillow.min())
    found = to_pixels(torch.from_numpy(small)[None], (12, 35))[0]
    assert np.abs(found - wanted).max() < 1e-5 < wanted.max() / 8


def test_rows_and_columns_are_not_exchanged():
    maps = torch.zeros(1, 4, 6)
    maps[0, 0] = 1  # the first row
    mask = to_masks(maps, size=(8, 60))[0]
    assert mask.shape == (8, 60)
    assert mask[0].all()
    assert not mask[-1].any()


def test_the_threshold_is_reached_not_passed():
    maps = torch.linspace(0, 1, 5).view(1, 1, 5)
    for threshold, kept in [(0, 5), (0.25, 4), (0.5, 3), (0.51, 2), (1, 1)]:
        assert to_masks(maps, (1, 5), threshold)[0].sum() == kept
    assert to_masks(maps, (1, 5)).dtype == bool


@pytest.mark.parametrize("value", [0.0, 1.0, -3.5, 1e-9, 7e30])
def test_a_map_that_is_the_same_everywhere_is_an_error(value):
    maps = torch.stack([torch.rand(2, 3), torch.full((2, 3), value)])
    with pytest.raises(ValueError, match=r"the same everywhere \(1 of 2 maps, size \(4, 6\)\)"):
        to_masks(maps, size=(4, 6))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_nan_is_an_error(value):
    maps = torch.rand(3, 2, 2)
    maps[1, 0, 0] = value
    with pytest.raises(ValueError, match=r"NaN or infinity \(1 of 3 maps\)"):
        to_masks(maps, size=(4, 4))


def test_half_precision_is_no_obstacle():
    maps = torch.rand(1, 3, 3, generator=torch.Generator().manual_seed(0))
    assert np.allclose(to_pixels(maps.half(), (6, 6)), to_pixels(maps, (6, 6)), atol=0.01)


@pytest.mark.parametrize("threshold", [-0.1, 1.1, float("nan")])
def test_a_threshold_out_of_range_is_refused(threshold):
    with pytest.raises(ValueError, match=f"threshold lies in .*got {threshold}"):
        to_masks(torch.rand(1, 2, 2), (2, 2), threshold)


def test_a_size_of_no_pixels_is_refused():
    with pytest.raises(ValueError, match=r"each at least 1; got \(0, 4\)"):
        to_masks(torch.rand(1, 2, 2), (0, 4))
