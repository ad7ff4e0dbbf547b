"""DiffSeg: self-attention maps merged into segments, which cross-attention names.

Tian, Aggarwal, Colaco, Kira and Gonzalez-Franco, "Diffuse, Attend, and Segment", CVPR 2024,
arXiv 2308.12469.

Kept: one pass at t = 300; the self-attention of every resolution, its heads averaged, its keys
resampled to the finest grid, weighted in proportion to the resolution; a grid of anchors; three
rounds of merging by symmetric KL divergence; each pixel to the segment with the highest value.
Simplified: a segment's score for a text is the mean of the text's score map over its pixels,
where the paper lets the pixels vote for a noun of a caption, since here one text is asked for.
Segments come from the pass with the empty prompt, names from one with "a photograph of {text}".
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Int64, UInt8
from torch import Tensor

from nbhelpers.attention import Layer
from nbhelpers.denoising import add_noise, encode_image
from nbhelpers.embeddings import embed
from nbhelpers.masks import to_pixels
from nbhelpers.models import Models
from nbhelpers.segment import attend, make_prompt, score_target
from nbhelpers.settings import resolve

TIMESTEP = 300
THRESHOLD = 0.9  # of the divergence, in nats
ANCHORS = 16  # along each side
ROUNDS = 3


def maps(
    image: UInt8[np.ndarray, "h w 3"],
    texts: Sequence[str],
    models: Models,
    *,
    threshold: float = THRESHOLD,
) -> Float[np.ndarray, "text h w"]:
    """Returns every segment of a picture with its mean score for each text.

    Args:
        image: uint8.
        texts: Names of classes or noun phrases.
        models: From `load_models`.
        threshold: Maps that diverge less are merged, in nats.

    Returns:
        Values in [0, 1], the same all over a segment.

    Raises:
        ValueError: No text, one without a noun, or anything that a stage refuses.
    """
    settings = resolve(models, "plain", timesteps=(TIMESTEP,))
    prompts = [make_prompt(text, models, settings) for text in texts]
    noised = add_noise(encode_image(image, models), (TIMESTEP,), models)
    everything = [embed("", (), models.text), *prompts]
    attention = attend([noised] * len(everything), everything, (TIMESTEP,), models)
    count, size = len(everything), (image.shape[0], image.shape[1])
    labels = torch.from_numpy(
        find_segments(attention.part(0, count).self_layers, size, threshold=threshold)
    )
    scores = torch.cat(
        [
            score_target(attention.part(i + 1, count).cross_layers, prompt, settings)
            for i, prompt in enumerate(prompts)
        ]
    )
    pixels = torch.from_numpy(to_pixels(scores, size)).flatten(1)
    member = F.one_hot(labels.flatten()).float()
    means = (pixels @ member) / member.sum(dim=0).clamp(min=1)
    return means[:, labels].clamp(0, 1).numpy()


def find_segments(
    layers: Sequence[Layer],
    size: tuple[int, int],
    *,
    anchors: int = ANCHORS,
    threshold: float = THRESHOLD,
    rounds: int = ROUNDS,
) -> Int64[np.ndarray, "h w"]:
    """Returns the number of the segment that every pixel belongs to.

    Args:
        layers: The self-attention of one pass, from `record_attention`.
        size: The picture's ``(h, w)`` in pixels.
        anchors: How many there are along each side of the grid, at most one a cell.
        threshold: Of the divergence, in nats.
        rounds: Of merging, the first of which gathers the maps around each anchor.
    """
    grid = max((layer.grid for layer in layers), key=lambda grid: grid[0] * grid[1])
    proposals = merge(gather(layers, grid), anchor_cells(grid, anchors), threshold, rounds)
    upright = F.interpolate(proposals.unflatten(1, grid)[None], size=size, mode="bilinear")[0]
    return np.unique(upright.argmax(dim=0).cpu().numpy(), return_inverse=True)[1].reshape(size)


def gather(layers: Sequence[Layer], grid: tuple[int, int]) -> Float[Tensor, "cell cell"]:
    """Returns an attention map for each cell of the finest grid, from all resolutions' layers."""
    total = torch.zeros(grid[0] * grid[1], grid[0] * grid[1], device=layers[0].query.device)
    for layer in layers:
        logits = layer.query.float() @ layer.key.float().transpose(-1, -2) * layer.scale
        mean = logits.softmax(dim=-1).mean(dim=(0, 1)).unflatten(1, layer.grid)
        keys = F.interpolate(mean[:, None], size=grid, mode="bilinear").flatten(1)
        rows = keys.T.unflatten(1, layer.grid)[None]
        rows = F.interpolate(rows, size=grid, mode="nearest")[0].flatten(1).T
        total += layer.grid[0] * rows / rows.sum(dim=1, keepdim=True)
    return total / sum(layer.grid[0] for layer in layers)


def anchor_cells(grid: tuple[int, int], count: int) -> Int[Tensor, " anchor"]:
    """Returns the cells of a grid on which anchors stand, evenly spaced along each side."""
    sides = [((torch.arange(count) + 0.5) * side / count).long().unique() for side in grid]
    return (sides[0][:, None] * grid[1] + sides[1]).flatten()


def divergence(a: Float[Tensor, "m cell"], b: Float[Tensor, "n cell"]) -> Float[Tensor, "m n"]:
    """Computes the symmetric KL divergence ``(KL(a, b) + KL(b, a)) / 2``, in nats."""
    a, b = a.double().clamp(min=1e-12), b.double().clamp(min=1e-12)
    log_a, log_b = a.log(), b.log()
    own = (a * log_a).sum(dim=1)[:, None] + (b * log_b).sum(dim=1)
    return ((own - a @ log_b.T - log_a @ b.T) / 2).float()


def merge(
    attention: Float[Tensor, "cell cell"],
    anchors: Int[Tensor, " anchor"],
    threshold: float,
    rounds: int,
) -> Float[Tensor, "segment cell"]:
    """Returns distributions that diverge by no less than the threshold, one a segment.

    The first round averages all maps near each anchor's. Each later round takes the proposals in
    order, and averages each with those that are left and near it.
    """
    near = (divergence(attention[anchors], attention) < threshold).float()
    proposals = near @ attention / near.sum(dim=1, keepdim=True)
    for _ in range(rounds - 1):
        near = divergence(proposals, proposals) < threshold
        left = torch.ones(len(proposals), dtype=torch.bool, device=near.device)
        merged = []
        for i, row in enumerate(near):
            if left[i]:
                merged.append(proposals[row & left].mean(dim=0))
                left &= ~row
        proposals = torch.stack(merged)
    return proposals
