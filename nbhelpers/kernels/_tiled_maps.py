"""The map operators in Triton: every pixel is read once, nothing in between is written."""
# mypy: disable-error-code="no-untyped-def, import-untyped"

import triton
import triton.language as tl


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
