"""What the kernels' tests compare with: float64, from the equations, and plain attention.

Nothing of the package is imported here.
"""

import torch


def attention(query, key, scale):
    """softmax(q k' scale), in float64."""
    logits = query.double() @ key.double().transpose(-1, -2) * scale
    weights = (logits - logits.amax(-1, keepdim=True)).exp()
    return weights / weights.sum(-1, keepdim=True)


def naive(query, key, scale):
    """The same as one writes it in PyTorch, every step in the inputs' own dtype."""
    return torch.softmax(query @ key.transpose(-1, -2) * scale, dim=-1)


def carry(matrix, maps, transpose):
    """A S or A^T S of one prompt, where A is the mean over its passes and heads."""
    mean = matrix.mean(dim=(0, 1))
    return maps.to(mean) @ (mean if transpose else mean.T)


def draw(batch, heads, n, tokens, d, *, seed=0, loud=3.0, dtype=torch.float32, device="cpu"):
    """Queries and keys whose attention is neither flat nor one-hot."""
    generator = torch.Generator().manual_seed(seed)
    query = torch.randn(batch, heads, n, d, generator=generator) * loud
    key = torch.randn(batch, heads, tokens, d, generator=generator)
    return query.to(device, dtype), key.to(device, dtype)


def scores(*shape, seed=1, device="cpu"):
    """Maps in [0, 1]."""
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)).to(device)


def compare(found, wanted, plain, *, summed=1):
    """Raise unless the error is at most twice plain attention's, and far below the signal.

    Rounding the largest value four times is allowed besides: plain attention may be right by
    chance, and other orders of one sum differ by as much (once is too little in float32). A kernel
    adds the tiles of a long sum one after another in float32, plain attention adds in pairs; so it
    may round once for every 128 of the terms that are `summed` (15 times in 4096 were seen on an
    H100).
    """
    signal = wanted.abs().max()
    eps, added = (torch.finfo(dtype).eps for dtype in (plain.dtype, torch.float32))
    rounded = max(4 * eps, summed / 128 * added) * signal
    tolerance = 2 * (plain.double() - wanted).abs().max() + rounded
    assert tolerance < signal / 8, f"{tolerance} would let anything pass that is below {signal}"
    assert found.shape == wanted.shape
    worst = (found.double() - wanted).abs().max()
    assert worst <= tolerance, f"off by {worst}, {tolerance} allowed"


def blend(maps, weights, size, normalize=True):
    """Each level, from 0 to 1 if wished, enlarged by pixels with centers in the middle, summed."""
    total = torch.zeros(len(maps[0]), *size, dtype=torch.float64)
    for level, weight in zip(maps, weights, strict=True):
        for chunk, values in enumerate(level.double()):
            low, high = values.min(), values.max()
            if not normalize:
                total[chunk] += weight * enlarge(values, size)
            elif high - low > 1e-6 * high:
                total[chunk] += weight * enlarge((values - low) / (high - low), size)
    return total


def enlarge(values, size):
    """Bilinear interpolation of one map, in loops."""
    (h, w), (height, width) = values.shape, size
    out = torch.zeros(size, dtype=torch.float64)
    for i in range(height):
        for j in range(width):
            y = min(max((i + 0.5) * h / height - 0.5, 0), h - 1)
            x = min(max((j + 0.5) * w / width - 0.5, 0), w - 1)
            a, b = int(y), int(x)
            c, d = min(a + 1, h - 1), min(b + 1, w - 1)
            top = values[a, b] * (1 - x + b) + values[a, d] * (x - b)
            low = values[c, b] * (1 - x + b) + values[c, d] * (x - b)
            out[i, j] = top * (1 - y + a) + low * (y - a)
    return out


def sweep(maps, truths, thresholds):
    """Intersection and union by one comparison after the other."""
    masks = [maps >= threshold for threshold in thresholds.to(maps)]
    intersection = torch.stack([(mask & truths).sum((1, 2)) for mask in masks], 1)
    return intersection, torch.stack([(mask | truths).sum((1, 2)) for mask in masks], 1)
