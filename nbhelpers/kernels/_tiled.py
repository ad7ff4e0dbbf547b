"""The operators in Triton: no probability ever leaves the registers, a map's pixel is read once.

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


@triton.jit
def blend_kernel(
    maps, table, shares, out, TOTAL, H, W,
    NORMALIZE: tl.constexpr, TELLS: tl.constexpr,
    LEVELS: tl.constexpr, LONGEST: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Writes the sum of a chunk's enlarged levels, each in [0, 1] if wished: a tile of pixels.

    The levels lie one after the other; the table holds each one's start, height and width.
    Every program finds the range of the levels by itself: they are small and in the cache.
    """
    maps += tl.program_id(1).to(tl.int64) * TOTAL
    pixel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    row, column = pixel // W, pixel % W
    total = tl.zeros([BLOCK], tl.float32)
    for level in tl.static_range(LEVELS):
        start = tl.load(table + 3 * level)
        h, w = tl.load(table + 3 * level + 1), tl.load(table + 3 * level + 2)
        y = tl.maximum((row + 0.5) * (h.to(tl.float32) / H) - 0.5, 0.0)
        x = tl.maximum((column + 0.5) * (w.to(tl.float32) / W) - 0.5, 0.0)
        top, left = tl.minimum(y.to(tl.int32), h - 1), tl.minimum(x.to(tl.int32), w - 1)
        below, right = tl.minimum(top + 1, h - 1), tl.minimum(left + 1, w - 1)
        down, across = y - top, x - left
        corner = maps + start
        here = pixel < H * W
        upper = (1 - across) * tl.load(corner + top * w + left, mask=here, other=0.0)
        upper += across * tl.load(corner + top * w + right, mask=here, other=0.0)
        lower = (1 - across) * tl.load(corner + below * w + left, mask=here, other=0.0)
        lower += across * tl.load(corner + below * w + right, mask=here, other=0.0)
        enlarged = (1 - down) * upper + down * lower
        share = tl.load(shares + level)
        if NORMALIZE:
            lows = tl.full([BLOCK], float("inf"), tl.float32)
            highs = tl.full([BLOCK], float("-inf"), tl.float32)
            for first in range(0, LONGEST, BLOCK):
                index = first + tl.arange(0, BLOCK)
                inside = index < h * w
                values = tl.load(maps + start + index, mask=inside, other=0.0)
                lows = tl.minimum(lows, tl.where(inside, values, float("inf")))
                highs = tl.maximum(highs, tl.where(inside, values, float("-inf")))
            low, high = tl.min(lows, 0), tl.max(highs, 0)
            tells = high - low > TELLS * high
            stretched = (enlarged - low) / tl.where(tells, high - low, 1.0)
            total += tl.where(tells, share * stretched, 0.0)
        else:
            total += share * enlarged
    place = tl.program_id(1).to(tl.int64) * H * W + pixel
    tl.store(out + place, total, mask=pixel < H * W)


@triton.jit
def places_kernel(
    maps, truths, thresholds, found, pixels,
    THRESHOLDS: tl.constexpr, BITS: tl.constexpr, BINS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Counts a tile of pixels by how many thresholds each reaches, and by its truth."""
    index = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    here = index < pixels
    place = tl.program_id(1).to(tl.int64) * pixels + index
    values = tl.load(maps + place, mask=here, other=0.0)
    passed = tl.zeros([BLOCK], tl.int32)
    for bit in tl.static_range(BITS):  # a binary search, the largest step first
        probe = passed + (1 << (BITS - 1 - bit))
        within = probe <= THRESHOLDS
        limit = tl.load(thresholds + probe - 1, mask=within, other=float("inf"))
        passed = tl.where(within & (values >= limit), probe, passed)
    code = 2 * passed + tl.load(truths + place, mask=here, other=0).to(tl.int32)
    counts = tl.histogram(tl.where(here, code, BINS - 1), BINS)
    bins = tl.arange(0, BINS)
    tl.atomic_add(found + tl.program_id(1) * BINS + bins, counts, mask=bins < 2 * THRESHOLDS + 2)
