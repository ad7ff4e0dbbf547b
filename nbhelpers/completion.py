"""The completion of score maps: self-attention carries them from an object's parts to its rest."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from nbhelpers import kernels
from nbhelpers.attention import Layer
from nbhelpers.errors import refused


def complete(
    scores: Float[Tensor, "chunk h w"] | Float[Tensor, "prompt chunk h w"],
    self_layers: Sequence[Layer],
    *,
    transpose: bool = False,
    steps: int = 1,
) -> Float[Tensor, "chunk h w"] | Float[Tensor, "prompt chunk h w"]:
    """Completes score maps by the self-attention of the scores' own grid.

    ``S' = A S`` (section 3.1, after DiffSegmenter), where A is the mean of the attention
    matrices over heads, batch and the layers whose grid is the scores'. Its rows sum to 1, so
    without `transpose` the maps, in float32, stay within the range of the scores.

    Args:
        scores: One map a chunk, from `score_maps`; or such maps of several prompts, among which
            the recorded batch is then split evenly, in order.
        self_layers: What `record_attention` recorded of the self-attention.
        transpose: Whether to apply ``A^T``, which sends a pixel's score to the pixels that it
            attends to, instead of gathering the scores of those pixels.
        steps: How often to apply it, at least 1.

    Raises:
        ValueError: No layer was given, none has the scores' grid, `steps` is below 1, the batch
            can't be split among the prompts, or the recorded tensors hold NaN or infinity.
    """
    if not self_layers:
        raise ValueError(
            "no self-attention was recorded; call denoise_once inside record_attention "
            "(got 0 layers)"
        )
    if steps < 1:
        raise refused(
            "complete", "steps counts how often A is applied, at least once", steps=steps
        )
    grid = tuple(scores.shape[-2:])
    layers = [layer for layer in self_layers if layer.grid == grid]
    if not layers:
        grids = sorted({layer.grid for layer in self_layers})
        raise ValueError(
            f"the scores have the grid {grid}, the recorded self-attention the grids {grids}; "
            "make the scores of one of these with score_maps(..., size=)"
        )
    maps = scores.flatten(-2).float()
    for _ in range(steps):
        carried = torch.zeros_like(maps)
        for layer in layers:
            carried += kernels.complete(layer.query, layer.key, maps, layer.scale, transpose)
        maps = carried / len(layers)
    if not torch.isfinite(maps).all():
        raise ValueError(
            f"the completed maps hold NaN or infinity (queries are {layers[0].query.dtype}); "
            "half precision overflows on some models, load them with dtype=torch.float32"
        )
    return maps.unflatten(-1, grid)
