"""Cross-attention of several resolutions joined into one score map a chunk."""

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from nbhelpers import kernels
from nbhelpers.attention import Layer
from nbhelpers.tokens import Spans


def score_maps(
    layers: Sequence[Layer],
    spans: Spans,
    *,
    softmax_over: Literal["all", "words"] = "all",
    weights: Mapping[int, float] | None = None,
    subtokens: Literal["all", "last"] = "all",
    size: tuple[int, int] | None = None,
) -> Float[Tensor, "chunk h w"]:
    """How much every place of the picture looks at each chunk's noun.

    The score map of section 3.1, with DiffSegmenter's arithmetic: the probabilities of the noun's
    tokens, their mean over sub-tokens, batch (timesteps), heads and the layers of one
    resolution; each resolution stretched to [0, 1], enlarged to the finest grid by bilinear
    interpolation, and summed with a weight each.

    Args:
        layers: What `record_attention` recorded of the cross-attention. Layers of several
            passes are averaged as layers of one resolution are.
        spans: Where the nouns' tokens stand, from `embed`.
        softmax_over: Which tokens it runs over: all, as in the model, or the prompt's words alone,
            without start, end and padding.
        weights: A weight for each factor by which a resolution is coarser than the latent
            (1, 2, 4, 8), scaled to sum to 1 over the resolutions present; a resolution that is not
            named has weight 0. Equal weights when None. DiffSegmenter's are
            ``{8: 0.3, 4: 0.5, 2: 0.1, 1: 0.1}``.
        subtokens: The tokens of a noun that score it: all of them, or, as in DiffSegmenter's
            code, the last.
        size: The grid ``(h, w)`` of the maps; the finest recorded one when None.

    Returns:
        Values in [0, 1], float32: a weighted mean of maps that each fill [0, 1]. A resolution
        whose map is the same everywhere (a grid of one cell, say) tells nothing and adds 0.

    Raises:
        ValueError: No layers or no chunks, a token beyond the recorded keys, weights that are
            negative or all 0, one resolution with two grids, or NaN or infinity in what was
            recorded.
    """
    if not layers:
        raise ValueError(
            "no cross-attention was recorded; call denoise_once inside record_attention "
            "(got 0 layers)"
        )
    if not len(spans):
        raise ValueError("there is no chunk to score; embed the prompt with its noun chunks")
    groups = _by_factor(layers)
    shares = _shares(weights, sorted(groups))
    nouns = [noun[-1:] if subtokens == "last" else noun for noun in spans.nouns]
    subset = spans.words if softmax_over == "words" else None
    size = size or max((group[0].grid for group in groups.values()), key=math.prod)
    present = [factor for factor in groups if shares[factor]]
    maps = [
        torch.stack([_noun_maps(layer, nouns, subset) for layer in groups[factor]]).mean(dim=0)
        for factor in present
    ]
    return kernels.aggregate(maps, [shares[factor] for factor in present], size)


def _noun_maps(
    layer: Layer, nouns: Sequence[Sequence[int]], subset: Sequence[int] | None
) -> Tensor:
    """One layer's map of every noun: the mean probability of its tokens."""
    wanted = sorted({token for noun in nouns for token in noun})
    if wanted[-1] >= layer.key.shape[-2]:
        raise ValueError(
            f"token {wanted[-1]} was asked for, but {layer.name} recorded "
            f"{layer.key.shape[-2]} tokens; give the spans of the prompt that was recorded"
        )
    found = kernels.columns(layer.query, layer.key, wanted, layer.scale, subset).mean(dim=(0, 1))
    if not torch.isfinite(found).all():
        raise ValueError(
            f"{layer.name} recorded NaN or infinity ({layer.query.dtype}); half precision "
            "overflows on some models, load them with dtype=torch.float32"
        )
    maps = [found[:, [wanted.index(token) for token in noun]].mean(dim=1) for noun in nouns]
    return torch.stack(maps).unflatten(1, layer.grid)


def _by_factor(layers: Sequence[Layer]) -> dict[int, list[Layer]]:
    """The layers of each resolution."""
    groups: dict[int, list[Layer]] = {}
    for layer in layers:
        group = groups.setdefault(layer.factor, [])
        group.append(layer)
        if layer.grid != group[0].grid:
            raise ValueError(
                f"{group[0].name} has the grid {group[0].grid} and {layer.name} {layer.grid} "
                f"at the same resolution; record pictures of one size at a time"
            )
    return groups


def _shares(weights: Mapping[int, float] | None, factors: Sequence[int]) -> dict[int, float]:
    """The share of each resolution present; together they are 1."""
    named = dict.fromkeys(factors, 1.0) if weights is None else weights
    wrong = {factor: w for factor, w in named.items() if not math.isfinite(w) or w < 0}
    if wrong:
        raise ValueError(f"weights are finite and at least 0; got {wrong}")
    total = sum(named.get(factor, 0.0) for factor in factors)
    if not total:
        raise ValueError(
            f"every recorded resolution (factors {list(factors)}) has weight 0 in {dict(named)}; "
            "name one of them"
        )
    return {factor: named.get(factor, 0.0) / total for factor in factors}
