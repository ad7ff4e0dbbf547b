"""The operators in stock PyTorch against float64 loops written from the equations."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nbhelpers import kernels
from nbhelpers.kernels import eager

SHAPES = [
    (2, 8, 64, 77, 40),  # batch, heads, pixels, tokens, head dimension
    (1, 2, 7 * 13, 77, 5),
    (1, 1, 1, 1, 1),
    (3, 5, 44, 24, 64),
]


def attention(query, key, scale):
    """The probabilities, in float64."""
    logits = query.double() @ key.double().transpose(-1, -2) * scale
    weights = (logits - logits.amax(-1, keepdim=True)).exp()
    return weights / weights.sum(-1, keepdim=True)


def draw(batch, heads, n, tokens, d, *, seed=0, loud=3.0):
    generator = torch.Generator().manual_seed(seed)
    query = torch.randn(batch, heads, n, d, generator=generator) * loud
    key = torch.randn(batch, heads, tokens, d, generator=generator)
    return query, key


def compare(found, wanted, *, eps=2e-6):
    """Raise unless equal to a few roundings of the largest value, far less than the signal."""
    tolerance = eps * wanted.abs().max() * max(wanted.shape[-1], 8)
    assert tolerance < wanted.abs().max() / 8
    worst = (found.double() - wanted).abs().max()
    assert worst <= tolerance, f"off by {worst}, {tolerance} allowed"


def test_the_comparison_rejects_what_is_wrong():
    wanted = attention(*draw(1, 2, 64, 16, 8), 0.3)
    compare(wanted, wanted)
    wrong = {"zeros": torch.zeros_like(wanted), "a tile": wanted.clone(), "a head": wanted.clone()}
    wrong["a tile"][..., 48:, :] = 0
    wrong["a head"][:, 1] = wrong["a head"][:, 0]
    for name, value in wrong.items():
        with pytest.raises(AssertionError, match="off by"):
            compare(value, wanted)
        assert not torch.equal(value, wanted), name


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("block", [1, 50, 2**24])
def test_columns(shape, block, monkeypatch):
    monkeypatch.setattr(eager, "BLOCK", block)
    query, key = draw(*shape)
    scale = 0.6 * shape[-1] ** -0.5
    tokens = shape[3]
    index = sorted({0, tokens // 2, tokens - 1})
    compare(kernels.columns(query, key, index, scale), attention(query, key, scale)[..., index])
    subset = [t for t in range(tokens) if t % 3 != 1]
    inside = [t for t in index if t in subset]
    wanted = attention(query, key[..., subset, :], scale)
    compare(
        kernels.columns(query, key, inside, scale, subset),
        wanted[..., [subset.index(t) for t in inside]],
    )


def test_columns_keep_the_order_asked_for():
    query, key = draw(1, 2, 9, 12, 4)
    forth = kernels.columns(query, key, [3, 7, 5], 0.5, [7, 5, 1, 3])
    back = kernels.columns(query, key, [5, 7, 3], 0.5, [1, 3, 5, 7])
    assert torch.allclose(forth, back.flip(-1), atol=1e-7)
    assert not torch.allclose(forth, back, atol=1e-3)


def test_all_columns_sum_to_1():
    query, key = draw(1, 2, 9, 12, 4)
    for subset in (None, [1, 4, 6]):
        found = kernels.columns(query, key, subset or range(12), 0.5, subset)
        assert torch.allclose(found.sum(-1), torch.ones(1, 2, 9), atol=1e-5)


def test_a_column_outside_of_the_softmax_is_refused():
    query, key = draw(1, 1, 4, 8, 4)
    with pytest.raises(
        ValueError, match=r"tokens \[2\] were asked for.*runs over tokens \[1, 3\]"
    ):
        kernels.columns(query, key, [1, 2], 0.5, [1, 3])


@pytest.mark.parametrize("transpose", [False, True])
@pytest.mark.parametrize("chunks", [1, 3, 9])
@pytest.mark.parametrize(("n", "d"), [(7 * 13, 40), (44, 5), (1, 1), (64, 80)])
@pytest.mark.parametrize("block", [1, 1000, 2**24])
def test_complete(n, d, chunks, transpose, block, monkeypatch):
    monkeypatch.setattr(eager, "BLOCK", block)
    query, key = draw(2, 3, n, n, d)
    maps = torch.rand(chunks, n, generator=torch.Generator().manual_seed(1))
    scale = 0.6 * d**-0.5  # not what attention would take by itself
    mean = attention(query, key, scale).mean(dim=(0, 1))
    wanted = maps.double() @ (mean if transpose else mean.T)
    compare(kernels.complete(query, key, maps, scale, transpose), wanted)


@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(1, 20),
    d=st.integers(1, 9),
    heads=st.integers(1, 4),
    chunks=st.integers(1, 12),
    seed=st.integers(0, 2**31),
)
def test_completion_has_the_laws_of_a_mean(n, d, heads, chunks, seed):
    """Constants stay, the range isn't left, A^T keeps the sum, and heads have no order."""
    query, key = draw(1, heads, n, n, d, seed=seed)
    maps = torch.rand(chunks, n, generator=torch.Generator().manual_seed(seed))
    once = kernels.complete(query, key, maps, 0.7)
    ones = torch.ones(chunks, n)
    assert torch.allclose(kernels.complete(query, key, ones, 0.7), ones, atol=1e-5)
    assert (once.amax(1) <= maps.amax(1) + 1e-5).all()
    assert (once.amin(1) >= maps.amin(1) - 1e-5).all()
    back = kernels.complete(query, key, maps, 0.7, transpose=True)
    assert torch.allclose(back.sum(1), maps.sum(1), rtol=1e-4)
    order = torch.randperm(heads, generator=torch.Generator().manual_seed(seed))
    swapped = kernels.complete(query[:, order], key[:, order], maps, 0.7)
    assert torch.allclose(swapped, once, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_logits_of_ten_thousand_stay_finite_and_right(dtype):
    query, key = draw(1, 2, 30, 30, 4)
    query, key = (query * 60).to(dtype), (key * 40).to(dtype)
    assert (query.double() @ key.double().transpose(-1, -2)).abs().max() > 1e4
    wanted = attention(query, key, 1.0)
    compare(kernels.columns(query, key, range(30), 1.0), wanted, eps=1e-3)
    maps = torch.rand(2, 30, generator=torch.Generator().manual_seed(1))
    for transpose in (False, True):
        mean = wanted.mean(dim=(0, 1))
        compare(
            kernels.complete(query, key, maps, 1.0, transpose),
            maps.double() @ (mean if transpose else mean.T),
            eps=1e-3,
        )


def test_strided_input_is_as_good_as_any():
    query, key = draw(2, 3, 20, 20, 8)
    # As the recorder gives them: a transposed view of "batch n (head d)".
    strided = [x.transpose(1, 2).contiguous().transpose(1, 2) for x in (query, key)]
    maps = torch.rand(20, 2, generator=torch.Generator().manual_seed(1)).T
    assert not strided[0].is_contiguous()
    assert not maps.is_contiguous()
    same = kernels.complete(query, key, maps.contiguous(), 0.3)
    assert torch.allclose(kernels.complete(*strided, maps, 0.3), same, atol=1e-6)
    same = kernels.columns(query, key, [1, 2], 0.3)
    assert torch.allclose(kernels.columns(*strided, [1, 2], 0.3), same, atol=1e-6)


@pytest.mark.parametrize("transpose", [False, True])
def test_no_square_matrix_is_ever_held(transpose, monkeypatch):
    monkeypatch.setattr(eager, "BLOCK", 2**18)
    n = 2048
    query, key = draw(1, 1, n, n, 8)
    maps = torch.rand(3, n)
    with torch.profiler.profile(profile_memory=True) as profile:
        kernels.complete(query, key, maps, 0.3, transpose)
    assert 0 < max(event.cpu_memory_usage for event in profile.events()) < n * n
