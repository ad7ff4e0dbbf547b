"""The operators in stock PyTorch against float64 written from the equations."""

import subprocess
import sys

import kernel_references as reference
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_references import attention, carry, compare, draw, naive, scores
from watching import Largest

from nbhelpers import kernels
from nbhelpers.kernels import eager

HALVES = [torch.float16, torch.bfloat16]
DTYPES = [torch.float32, *HALVES]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("transpose", [False, True])
def test_the_comparison_rejects_what_is_wrong(dtype, transpose):
    """Zeros, a last tile that was left out, half of a head: of completed maps and of columns."""
    query, key = draw(1, 2, 96, 96, 8, dtype=dtype)
    maps = scores(2, 96)
    right, plain = attention(query, key, 0.3), naive(query, key, 0.3)
    tile, half = right.clone(), attention(query[..., :4], key[..., :4], 0.3)
    tile[..., 64:] = 0
    wrong = {"zeros": 0 * right, "a tile": tile, "half a head": half}
    wanted = carry(right, maps, transpose)
    compare(wanted, wanted, carry(plain, maps, transpose))
    compare(right, right, plain)
    for name, matrix in wrong.items():
        with pytest.raises(AssertionError, match="off by"):
            compare(carry(matrix, maps, transpose), wanted, carry(plain, maps, transpose))
        with pytest.raises(AssertionError, match="off by"):
            compare(matrix, right, plain)
        assert not torch.equal(matrix, right), name


def test_the_comparison_refuses_a_tolerance_as_large_as_the_signal():
    wanted = torch.full((4,), 1e-3, dtype=torch.float64)
    with pytest.raises(AssertionError, match="would let anything pass"):
        compare(wanted, wanted, torch.full((4,), 1e-2))


SHAPES = [
    (2, 8, 64, 77, 40),  # batch, heads, pixels, tokens, features
    (1, 2, 7 * 13, 77, 160),
    (1, 1, 1, 1, 8),
    (3, 5, 44, 24, 64),
    (1, 1, 4096, 77, 80),
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_columns(shape, dtype, monkeypatch):
    query, key = draw(*shape, dtype=dtype)
    scale = 0.6 * shape[-1] ** -0.5  # not what attention would take by itself
    tokens = shape[3]
    index = sorted({0, tokens // 2, tokens - 1})
    wanted, plain = attention(query, key, scale), naive(query, key, scale)
    subset = [t for t in range(tokens) if t % 3 != 1]
    inside = [t for t in index if t in subset]
    there = [subset.index(t) for t in inside]
    fewer = query, key[..., subset, :], scale
    for block in (50, 2**18):
        monkeypatch.setattr(eager, "BLOCK", block * shape[2] // 64 + 1)
        compare(kernels.columns(query, key, index, scale), wanted[..., index], plain[..., index])
        found = kernels.columns(query, key, inside, scale, subset)
        compare(found, attention(*fewer)[..., there], naive(*fewer)[..., there])


def test_columns_of_an_attention_whose_lse_came_from_elsewhere():
    query, key = draw(2, 3, 20, 12, 8, loud=1.0)  # a sum kept in float32 rounds loud logits
    lse = (query.double() @ key.double().transpose(-1, -2) * 0.4).logsumexp(-1)
    found = kernels.columns_from_lse(query, key[..., 3:5, :], lse.float(), 0.4)
    plain = naive(query, key, 0.4)
    compare(found, attention(query, key, 0.4)[..., 3:5], plain[..., 3:5])
    assert torch.allclose(kernels.row_lse(query, key, 0.4).double(), lse, atol=1e-5)


def test_columns_keep_the_order_asked_for():
    query, key = draw(1, 2, 9, 12, 4)
    forth = kernels.columns(query, key, [3, 7, 5], 0.5, [7, 5, 1, 3])
    back = kernels.columns(query, key, [5, 7, 3], 0.5, [1, 3, 5, 7])
    assert torch.allclose(forth, back.flip(-1), atol=1e-6)
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
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("n", "d", "chunks"), [(7 * 13, 40, 1), (44, 8, 9), (1, 64, 2), (64, 80, 3), (33, 160, 1)]
)
def test_complete(n, d, chunks, dtype, transpose, monkeypatch):
    query, key = draw(2, 3, n, n, d, dtype=dtype)
    maps = scores(chunks, n)
    scale = 0.6 * d**-0.5
    wanted = carry(attention(query, key, scale), maps, transpose)
    plain = carry(naive(query, key, scale), maps, transpose)
    for block in (400, 1000, 2**18):
        monkeypatch.setattr(eager, "BLOCK", block)
        compare(kernels.complete(query, key, maps, scale, transpose), wanted, plain)
    monkeypatch.setattr(eager, "BLOCK", 1)  # row by row: A^T S has a rounding for each of its sums
    rows = kernels.complete(query, key, maps, scale, transpose)
    bound = 2 * 3 * n * torch.finfo(torch.float32).eps * wanted.abs().max()
    assert (rows.double() - wanted).abs().max() <= bound


@pytest.mark.parametrize("transpose", [False, True])
def test_complete_on_a_grid_of_44_x_60(transpose):
    n = 44 * 60
    query, key = draw(1, 1, n, n, 40, loud=2.0)
    maps = scores(1, n)
    wanted = carry(attention(query, key, 0.2), maps, transpose)
    plain = carry(naive(query, key, 0.2), maps, transpose)
    compare(kernels.complete(query, key, maps, 0.2, transpose), wanted, plain)


@pytest.mark.parametrize("transpose", [False, True])
def test_several_prompts_have_maps_and_passes_of_their_own(transpose):
    query, key = draw(6, 2, 15, 15, 8)
    maps = scores(3, 4, 15)
    found = kernels.complete(query, key, maps, 0.4, transpose)
    assert found.shape == (3, 4, 15)
    for i in range(3):
        own = query[2 * i : 2 * i + 2], key[2 * i : 2 * i + 2]
        wanted = carry(attention(*own, 0.4), maps[i], transpose)
        compare(found[i], wanted, carry(naive(*own, 0.4), maps[i], transpose))
    with pytest.raises(ValueError, match="batch of 6 can't be split among 4 prompts"):
        kernels.complete(query, key, scores(4, 1, 15), 0.4)


@settings(max_examples=15, deadline=None)
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
    maps = scores(chunks, n, seed=seed)
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


@pytest.mark.parametrize("dtype", DTYPES)
def test_logits_of_ten_thousand_stay_finite_and_right(dtype):
    query, key = draw(1, 2, 30, 30, 4)
    query, key = (query * 60).to(dtype), (key * 40).to(dtype)
    assert (query.double() @ key.double().transpose(-1, -2)).abs().max() > 1e4
    right, plain = attention(query, key, 1.0), naive(query.float(), key.float(), 1.0)
    compare(kernels.columns(query, key, range(30), 1.0), right, plain)
    maps = scores(2, 30)
    for transpose in (False, True):
        found = kernels.complete(query, key, maps, 1.0, transpose)
        compare(found, carry(right, maps, transpose), carry(plain, maps, transpose))


def test_strided_input_is_as_good_as_any():
    query, key = draw(2, 3, 20, 20, 8)
    # As the recorder gives them: a transposed view of "batch n (head d)"; and features apart.
    strided = [x.transpose(1, 2).contiguous().transpose(1, 2) for x in (query, key)]
    apart = [x.transpose(2, 3).contiguous().transpose(2, 3) for x in (query, key)]
    maps = scores(20, 2).T
    assert not maps.is_contiguous()
    for pair in (strided, apart):
        assert not pair[0].is_contiguous()
        for transpose in (False, True):
            same = kernels.complete(query, key, maps.contiguous(), 0.3, transpose)
            found = kernels.complete(*pair, maps, 0.3, transpose)
            assert torch.allclose(found, same, atol=1e-6)
        same = kernels.columns(query, key, [1, 2], 0.3)
        assert torch.allclose(kernels.columns(*pair, [1, 2], 0.3), same, atol=1e-6)


@pytest.mark.parametrize("normalize", [True, False])
def test_maps_of_several_resolutions_are_joined(normalize):
    levels = [
        scores(2, *grid, seed=i) * 0.1 + i for i, grid in enumerate([(7, 5), (4, 3), (1, 2)])
    ]
    levels += [torch.full((2, 2, 2), 0.7), torch.zeros(2, 1, 1)]  # which tell nothing
    weights = [0.1, 0.5, 0.2, 0.1, 0.1]
    for size in [(7, 5), (13, 4), (3, 3)]:
        wanted = reference.blend(levels, weights, size, normalize)
        found = kernels.aggregate(levels, weights, size, normalize=normalize)
        assert wanted.max() > 0.3
        assert (found.double() - wanted).abs().max() < 1e-5
    with pytest.raises(ValueError, match="got 5 resolutions and 4 weights"):
        kernels.aggregate(levels, weights[:4], (2, 2))
    with pytest.raises(ValueError, match="at least one"):
        kernels.aggregate([], [], (2, 2))


def test_no_square_matrix_and_no_row_of_all_tokens_is_ever_held():
    n, heads = 1024, 4
    query, key = draw(1, heads, n, n, 8)
    maps = scores(3, n)
    with Largest() as naively:
        naive(query, key, 0.3)
    assert naively.numbers == heads * n * n
    for transpose in (False, True):
        with Largest() as watched:
            kernels.complete(query, key, maps, 0.3, transpose)
        assert n <= watched.numbers <= eager.BLOCK < n * n
    query, key = draw(1, 8, n, 77, 8)
    with Largest() as watched:
        kernels.columns(query, key, [3, 4], 0.3)
    assert 8 * n * 2 <= watched.numbers <= eager.BLOCK < 8 * n * 77


def test_the_form_is_chosen_by_the_tensor_and_can_be_told(caplog):
    query, key = draw(1, 1, 4, 4, 4)
    assert kernels.choose(query) == "torch"  # a CPU
    assert kernels.choose(query, "torch") == "torch"
    with caplog.at_level("DEBUG", logger="nbhelpers.kernels.dispatch"):
        kernels.complete(query, key, scores(1, 4), 0.5)
    assert "torch takes cpu torch.float32, d = 4" in caplog.text
    with pytest.raises(ValueError, match="Triton can't be taken: it .*; leave backend=None"):
        kernels.complete(query, key, scores(1, 4), 0.5, backend="triton")
    with pytest.raises(ValueError, match="'torch', 'triton' or None; got 'cuda'"):
        kernels.choose(query, "cuda")
    with pytest.raises(ValueError, match=r"at most 256 features a head, not torch.float64 and 4"):
        kernels.choose(query.double(), "triton", d=4)


WITHOUT = """
import sys
sys.modules["triton"] = None  # as if it weren't installed
import importlib.util
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, *more: None if name == "triton" else found(name, *more)
import torch
from nbhelpers import kernels
q = torch.ones(1, 1, 4, 8)
assert kernels.complete(q, q, torch.ones(1, 4), 1.0).tolist() == [[1.0] * 4]
assert kernels.columns(q, q, [1], 1.0).flatten().tolist() == [0.25] * 4
try:
    kernels.choose(q, "triton")
except ValueError as error:
    print(error)
"""


def test_it_works_where_triton_is_not_installed():
    done = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True)
    assert "it isn't installed" in done.stdout, done.stderr
