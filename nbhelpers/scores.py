"""Cross-attention of several resolutions joined into one score map a chunk."""

import math
from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from nbhelpers import kernels
from nbhelpers.attention import Layer
from nbhelpers.calibration import Layers, Normalize, SoftmaxOver
from nbhelpers.errors import refused
from nbhelpers.tokens import Spans

Subtokens = Literal["all", "last"]
BLOCKS = {"all": ("down", "mid", "up"), "no-mid": ("down", "up"), "down": ("down",), "up": ("up",)}


def score_maps(
    layers: Sequence[Layer],
    spans: Spans,
    *,
    softmax_over: SoftmaxOver = "all",
    weights: Mapping[int, float] | None = None,
    normalize: Normalize = "min-max",
    subtokens: Subtokens = "all",
    size: tuple[int, int] | None = None,
) -> Float[Tensor, "chunk h w"]:
    """Returns how much each location of the picture attends to each chunk's noun.

    The score map of section 3.1, with DiffSegmenter's arithmetic: the probabilities of the noun's
    tokens, their mean over sub-tokens, batch (timesteps), heads and the layers of one
    resolution; each resolution stretched to [0, 1], enlarged to the finest grid by bilinear
    interpolation, and summed with a weight each.

    Args:
        layers: What `record_attention` recorded of the cross-attention. Layers of several
            passes are averaged as layers of one resolution are; `select_layers` takes some.
        spans: Where the nouns' tokens stand, from `embed`.
        softmax_over: Which tokens it runs over: all, as in the model, or the prompt's words alone,
            without start, end and padding.
        weights: A weight for each factor by which a resolution is coarser than the latent
            (1, 2, 4, 8), scaled to sum to 1 over the resolutions present; a resolution that is not
            named has weight 0. Equal weights when None. DiffSegmenter's are
            ``{8: 0.3, 4: 0.5, 2: 0.1, 1: 0.1}``.
        normalize: "min-max" stretches each resolution to [0, 1] before the sum, as DiffSegmenter
            does; "none" sums the mean probabilities themselves, as DAAM does.
        subtokens: The tokens of a noun that score it: all of them, or, as in DiffSegmenter's
            code, the last.
        size: The grid ``(h, w)`` of the maps; the finest recorded one when None.

    Returns:
        Values in [0, 1], float32: a weighted mean of maps that each fill [0, 1], or, without
        normalization, of probabilities. A resolution whose map is the same everywhere (a grid of
        one cell, say) tells nothing and, normalized, adds 0.

    Raises:
        ValueError: No layers or no chunks, a choice that there isn't, a token beyond the recorded
            keys, weights that are negative or all 0, one resolution with two grids, or NaN or
            infinity in what was recorded.
    """
    choices = {"softmax_over": SoftmaxOver, "normalize": Normalize, "subtokens": Subtokens}
    given = {"softmax_over": softmax_over, "normalize": normalize, "subtokens": subtokens}
    for name, value in given.items():
        if value not in (known := get_args(choices[name])):
            raise refused("score_maps", f"{name} is one of {', '.join(known)}", **{name: value})
    if not layers:
        raise ValueError(
            "no cross-attention was recorded; call denoise_once inside record_attention "
            "(got 0 layers)"
        )
    if not len(spans):
        raise ValueError("there is no chunk to score; embed the prompt with its noun chunks")
    groups = _by_factor(layers)
    shares = _shares(weights, sorted(groups))
    size = size or max((layer.grid for layer in layers), key=math.prod)
    scoring = [layer for layer in layers if shares[layer.factor]]
    maps = [noun_maps(layer, spans, softmax_over, subtokens) for layer in scoring]
    return join_maps(scoring, maps, weights=weights, normalize=normalize, size=size)


def select_layers(layers: Sequence[Layer], which: Layers = "all") -> list[Layer]:
    """Returns the layers of some blocks: all, all but the middle one's, or those of one way.

    Args:
        layers: From `record_attention`.
        which: "all", "no-mid", "down" or "up".

    Raises:
        ValueError: None of them stands there.
    """
    found = [layer for layer in layers if layer.block in BLOCKS[which]]
    if layers and not found:
        there = ", ".join(sorted({layer.block for layer in layers}))
        raise ValueError(
            f"layers={which!r} leaves none: the recorded ones stand in the blocks {there}; "
            "use layers='all'"
        )
    return found


def join_maps(
    layers: Sequence[Layer],
    maps: Sequence[Float[Tensor, "chunk _h _w"]],
    *,
    weights: Mapping[int, float] | None,
    normalize: Normalize,
    size: tuple[int, int],
) -> Float[Tensor, "chunk h w"]:
    """Joins the layers' maps of the nouns into a score map a chunk: `score_maps`' second half.

    Args:
        layers: Whose maps they are; none has weight 0.
        maps: A tensor for each layer, from `noun_maps`.
        weights: As for `score_maps`.
        normalize: Likewise.
        size: The grid of the result.
    """
    groups: dict[int, list[Tensor]] = {}
    for layer, values in zip(layers, maps, strict=True):
        groups.setdefault(layer.factor, []).append(values)
    shares = _shares(weights, sorted(groups))
    return kernels.aggregate(
        [torch.stack(group).mean(dim=0) for group in groups.values()],
        [shares[factor] for factor in groups],
        size,
        normalize=normalize == "min-max",
    )


def noun_maps(
    layer: Layer, spans: Spans, softmax_over: SoftmaxOver = "all", subtokens: Subtokens = "all"
) -> Float[Tensor, "chunk h w"]:
    """Returns one layer's map of every noun: the mean probability of its tokens."""
    nouns = [noun[-1:] if subtokens == "last" else noun for noun in spans.nouns]
    subset = spans.words if softmax_over == "words" else None
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
    """Returns the layers of each resolution."""
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
    """Returns the share of each resolution present; together they are 1."""
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
