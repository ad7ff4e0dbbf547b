"""The attention operators in Triton: no probability ever leaves the registers.

Every kernel loops over tiles of keys while a tile of queries stays put, as FlashAttention does.
Logits are summed in float32 and exponentials are of base 2. What leaves is float32 and not yet
averaged over heads, so that no two programs write to one place and every run gives the same bits.
The bounds of loops are constants: Triton 3.6's interpreter fails on others with new NumPys.
"""
# mypy: disable-error-code="no-untyped-def, import-untyped"

import triton
import triton.language as tl

LN2: tl.constexpr = tl.constexpr(0.6931471805599453)
LOG2E: tl.constexpr = tl.constexpr(1.4426950408889634)


@triton.jit
def _start(tensor, stride_batch, stride_head, heads):
    """Finds where this program's batch item and head begin."""
    index = tl.program_id(1)
    batch, head = (index // heads).to(tl.int64), (index % heads).to(tl.int64)
    return tensor + batch * stride_batch + head * stride_head


@triton.jit
def _tile(tensor, row, feature, stride_row, stride_d, ROWS: tl.constexpr, D: tl.constexpr):
    """Reads a tile of rows and features, either way round, with zeros outside."""
    inside = (row < ROWS) & (feature < D)
    return tl.load(tensor + row * stride_row + feature * stride_d, mask=inside, other=0.0)


@triton.jit
def _weigh(
    total, weights, maps, pixels, dtype: tl.constexpr, N: tl.constexpr, CHUNKS: tl.constexpr
):
    """Returns the total plus weights times maps.

    One map is a sum in float32, which costs less than the exponentials did; several are a product
    on the tensor cores. There, in half precision, a map goes in as the sum of two halves, so that
    only the weights are rounded.
    """
    if CHUNKS == 1:
        values = tl.load(maps + pixels, mask=pixels < N, other=0.0)
        total += tl.sum(weights * values[None, :], 1)[:, None]
    else:
        chunks = tl.arange(0, total.shape[1])
        inside = (pixels[:, None] < N) & (chunks[None, :] < CHUNKS)
        values = tl.load(maps + chunks[None, :] * N + pixels[:, None], mask=inside, other=0.0)
        coarse = values.to(dtype)
        total = tl.dot(weights.to(dtype), coarse, total, input_precision="ieee")
        if dtype != tl.float32:
            fine = (values - coarse.to(tl.float32)).to(dtype)
            total = tl.dot(weights.to(dtype), fine, total)
    return total


@triton.jit
def row_lse_kernel(
    query, key, lse, scale, heads,
    query_batch, query_head, query_row, query_d, key_batch, key_head, key_row, key_d,
    N: tl.constexpr, TOKENS: tl.constexpr, D: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Writes the log-sum-exp of q . k * scale over the tokens, of a tile of pixels."""
    rows = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    features = tl.arange(0, BLOCK_D)
    query = _start(query, query_batch, query_head, heads)
    key = _start(key, key_batch, key_head, heads)
    queries = _tile(query, rows[:, None], features[None, :], query_row, query_d, N, D)
    most = tl.full([BLOCK_M], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_M], tl.float32)
    for first in range(0, TOKENS, BLOCK_N):
        tokens = first + tl.arange(0, BLOCK_N)
        keys = _tile(key, tokens[None, :], features[:, None], key_row, key_d, TOKENS, D)
        logits = tl.dot(queries, keys, input_precision="ieee") * (scale * LOG2E)
        logits = tl.where(tokens[None, :] < TOKENS, logits, float("-inf"))
        higher = tl.maximum(most, tl.max(logits, 1))
        total = total * tl.exp2(most - higher) + tl.sum(tl.exp2(logits - higher[:, None]), 1)
        most = higher
    place = tl.program_id(1).to(tl.int64) * N + rows
    tl.store(lse + place, (most + tl.log2(total)) * LN2, mask=rows < N)


@triton.jit
def columns_kernel(
    query, key, lse, out, scale, heads,
    query_batch, query_head, query_row, query_d, key_batch, key_head, key_row, key_d,
    N: tl.constexpr, TOKENS: tl.constexpr, D: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Writes exp(q . k * scale - lse) of a tile of pixels and every wanted token."""
    rows = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    features = tl.arange(0, BLOCK_D)
    query = _start(query, query_batch, query_head, heads)
    key = _start(key, key_batch, key_head, heads)
    queries = _tile(query, rows[:, None], features[None, :], query_row, query_d, N, D)
    place = tl.program_id(1).to(tl.int64) * N + rows
    own = tl.load(lse + place, mask=rows < N, other=0.0)
    for first in range(0, TOKENS, BLOCK_N):
        tokens = first + tl.arange(0, BLOCK_N)
        keys = _tile(key, tokens[None, :], features[:, None], key_row, key_d, TOKENS, D)
        logits = tl.dot(queries, keys, input_precision="ieee") * scale
        found = tl.exp2((logits - own[:, None]) * LOG2E)
        inside = (rows[:, None] < N) & (tokens[None, :] < TOKENS)
        tl.store(out + place[:, None] * TOKENS + tokens[None, :], found, mask=inside)


@triton.jit
def gather_kernel(
    query, key, maps, out, scale, heads, passes,
    query_batch, query_head, query_row, query_d, key_batch, key_head, key_row, key_d,
    N: tl.constexpr, D: tl.constexpr, CHUNKS: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Writes one head's A S for a tile of pixels: attention with the maps as the values."""
    rows = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    features = tl.arange(0, BLOCK_D)
    maps += (tl.program_id(1) // (heads * passes)).to(tl.int64) * CHUNKS * N
    query = _start(query, query_batch, query_head, heads)
    key = _start(key, key_batch, key_head, heads)
    queries = _tile(query, rows[:, None], features[None, :], query_row, query_d, N, D)
    most = tl.full([BLOCK_M], float("-inf"), tl.float32)
    sums = tl.zeros([BLOCK_M], tl.float32)
    total = tl.zeros([BLOCK_M, BLOCK_C], tl.float32)
    for first in range(0, N, BLOCK_N):
        pixels = first + tl.arange(0, BLOCK_N)
        keys = _tile(key, pixels[None, :], features[:, None], key_row, key_d, N, D)
        logits = tl.dot(queries, keys, input_precision="ieee") * (scale * LOG2E)
        logits = tl.where(pixels[None, :] < N, logits, float("-inf"))
        higher = tl.maximum(most, tl.max(logits, 1))
        weights = tl.exp2(logits - higher[:, None])
        fade = tl.exp2(most - higher)
        sums = sums * fade + tl.sum(weights, 1)
        total *= fade[:, None]
        total = _weigh(total, weights, maps, pixels, query.dtype.element_ty, N, CHUNKS)
        most = higher
    chunks = tl.arange(0, BLOCK_C)
    place = (tl.program_id(1).to(tl.int64) * CHUNKS + chunks[None, :]) * N + rows[:, None]
    inside = (rows[:, None] < N) & (chunks[None, :] < CHUNKS)
    tl.store(out + place, total / sums[:, None], mask=inside)


@triton.jit
def spread_kernel(
    query, key, lse, maps, out, scale, heads, passes,
    query_batch, query_head, query_row, query_d, key_batch, key_head, key_row, key_d,
    N: tl.constexpr, D: tl.constexpr, CHUNKS: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Writes one head's A^T S for a tile of attended pixels; the rows' lse is known."""
    rows = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    features = tl.arange(0, BLOCK_D)
    maps += (tl.program_id(1) // (heads * passes)).to(tl.int64) * CHUNKS * N
    lse += tl.program_id(1).to(tl.int64) * N
    query = _start(query, query_batch, query_head, heads)
    key = _start(key, key_batch, key_head, heads)
    keys = _tile(key, rows[:, None], features[None, :], key_row, key_d, N, D)
    total = tl.zeros([BLOCK_M, BLOCK_C], tl.float32)
    for first in range(0, N, BLOCK_N):
        pixels = first + tl.arange(0, BLOCK_N)
        queries = _tile(query, pixels[None, :], features[:, None], query_row, query_d, N, D)
        theirs = tl.load(lse + pixels, mask=pixels < N, other=float("inf"))
        logits = tl.dot(keys, queries, input_precision="ieee") * scale
        weights = tl.exp2((logits - theirs[None, :]) * LOG2E)
        total = _weigh(total, weights, maps, pixels, query.dtype.element_ty, N, CHUNKS)
    chunks = tl.arange(0, BLOCK_C)
    place = (tl.program_id(1).to(tl.int64) * CHUNKS + chunks[None, :]) * N + rows[:, None]
    inside = (rows[:, None] < N) & (chunks[None, :] < CHUNKS)
    tl.store(out + place, total, mask=inside)
