"""The operators by their names, with checked inputs, each computed by one of two backends."""

import importlib.util
import logging
import os
from collections.abc import Sequence
from types import ModuleType
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from nbhelpers.errors import refused
from nbhelpers.kernels import eager

Form = Literal["torch", "triton"]
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
WIDEST = 256  # features of a head that a tile holds

log = logging.getLogger(__name__)


def choose(tensor: Tensor, backend: Form | None = None, *, d: int = 1) -> Form:
    """Chooses the backend that computes with tensors like this one.

    Triton's kernels on an NVIDIA GPU from Ampere on, stock PyTorch everywhere else: the same
    results within rounding, in the same memory.

    Args:
        tensor: Its device and dtype decide.
        backend: The one to be taken instead; None lets the tensor decide.
        d: The features of a head.

    Raises:
        ValueError: There is no such backend, or it is Triton where that can't run.
    """
    if backend not in (None, "torch", "triton"):
        raise refused("choose", "backend is 'torch', 'triton' or None", backend=backend)
    lack = _lack(tensor, d)
    if backend == "triton" and lack:
        raise ValueError(
            f"Triton can't be taken: {lack}; leave backend=None, or say backend='torch'"
        )
    form: Form = backend or ("torch" if lack else "triton")
    log.debug("%s takes %s %s, d = %d", form, tensor.device, tensor.dtype, d)
    return form


def columns(
    query: Float[Tensor, "batch head n d"],
    key: Float[Tensor, "batch head token d"],
    index: Sequence[int],
    scale: float,
    subset: Sequence[int] | None = None,
    *,
    backend: Form | None = None,
) -> Float[Tensor, "batch head n column"]:
    """Returns the probabilities with which every pixel attends to some of the tokens, in float32.

    Args:
        query: The pixels' queries.
        key: The tokens' keys.
        index: The wanted tokens, a column each; all tokens' columns sum to 1.
        scale: The factor of the logits, usually ``d ** -0.5``.
        subset: The tokens that the softmax runs over; all of them when None. A wanted token
            outside of it has no probability, so it must lie inside.
        backend: As in `choose`.

    Raises:
        ValueError: A wanted token is no token of the subset.
    """
    tokens = list(range(key.shape[-2])) if subset is None else list(subset)
    missing = sorted(set(index) - set(tokens))
    if missing:
        raise ValueError(
            f"columns(index={list(index)}): tokens {missing} were asked for, but the softmax runs "
            f"over tokens {tokens}; choose the wanted tokens among them"
        )
    form = _attention(query, backend)
    lse = form.row_lse(query, key if subset is None else key[..., tokens, :], scale)
    return form.columns_from_lse(query, key[..., list(index), :], lse, scale)


def columns_from_lse(
    query: Float[Tensor, "batch head n d"],
    key: Float[Tensor, "batch head column d"],
    lse: Float[Tensor, "batch head n"],
    scale: float,
    *,
    backend: Form | None = None,
) -> Float[Tensor, "batch head n column"]:
    """Returns columns of an attention matrix whose rows' log-sum-exp is known, in float32.

    No row is ever formed: column t of ``softmax(q k' scale)`` is ``exp(q . k_t * scale - lse)``.

    Args:
        query: The pixels' queries.
        key: The keys of the wanted columns alone.
        lse: The log-sum-exp of ``q . k * scale`` over all that the softmax runs over; fused
            attention gives it on the side, and so does `row_lse`.
        scale: The factor of the logits.
        backend: As in `choose`.
    """
    return _attention(query, backend).columns_from_lse(query, key, lse, scale)


def row_lse(
    query: Float[Tensor, "batch head n d"],
    key: Float[Tensor, "batch head token d"],
    scale: float,
    *,
    backend: Form | None = None,
) -> Float[Tensor, "batch head n"]:
    """Returns the log-sum-exp of ``q . k * scale`` over the tokens, of every pixel, in float32."""
    return _attention(query, backend).row_lse(query, key, scale)


def complete(
    query: Float[Tensor, "batch head n d"],
    key: Float[Tensor, "batch head n d"],
    maps: Float[Tensor, "chunk n"] | Float[Tensor, "prompt chunk n"],
    scale: float,
    transpose: bool = False,
    *,
    backend: Form | None = None,
) -> Float[Tensor, "chunk n"] | Float[Tensor, "prompt chunk n"]:
    """Returns the maps carried along one layer's self-attention, averaged over heads and passes.

    ``A S`` is attention with S in the place of the values; ``A^T S`` sends every pixel's score
    to the pixels that it attends to. Neither forms A, and both are float32. A's rows sum to 1, so
    ``A S`` stays within S's range and leaves a constant map as it is, and ``A^T S`` keeps the sum.

    Args:
        query: The pixels' queries.
        key: The pixels' keys.
        maps: S, one row a map. With an axis of prompts the batch is split evenly among them, in
            order, and each prompt's maps are carried along its own part.
        scale: The factor of the logits, usually ``d ** -0.5``.
        transpose: Whether to apply ``A^T`` instead of ``A``.
        backend: As in `choose`.

    Raises:
        ValueError: The batch can't be split evenly among the prompts.
    """
    grouped = maps if maps.ndim == 3 else maps[None]
    if not len(grouped) or len(query) % len(grouped):
        raise ValueError(
            f"a batch of {len(query)} can't be split among {len(grouped)} prompts; give as many "
            "passes for each"
        )
    found = _attention(query, backend).complete(query, key, grouped, scale, transpose)
    return found if maps.ndim == 3 else found[0]


def aggregate(
    maps: Sequence[Float[Tensor, "chunk _h _w"]],
    weights: Sequence[float],
    size: tuple[int, int],
    *,
    normalize: bool = True,
    backend: Form | None = None,
) -> Float[Tensor, "chunk h w"]:
    """Joins maps of several resolutions: each stretched to [0, 1], enlarged, weighted, summed.

    Args:
        maps: One tensor for each resolution.
        weights: One for each resolution.
        size: The grid ``(h, w)`` to enlarge to, by bilinear interpolation.
        normalize: Whether to stretch each map to [0, 1] by its minimum and maximum.
        backend: The form to take, as in `choose`.

    Returns:
        float32. Stretched, a map that is the same everywhere, to a millionth of its value, tells
        nothing and adds 0.

    Raises:
        ValueError: No maps, or not one weight for each.
    """
    if not maps or len(maps) != len(weights):
        raise ValueError(
            f"give one weight for each resolution, at least one; got {len(maps)} resolutions and "
            f"{len(weights)} weights"
        )
    form = _launch() if choose(maps[0], backend) == "triton" else eager
    found: Tensor = form.aggregate(maps, weights, size, normalize)
    return found


def threshold_sweep(
    maps: Float[Tensor, "map h w"],
    truths: Bool[Tensor, "map h w"],
    thresholds: Float[Tensor, " threshold"],
    *,
    backend: Form | None = None,
) -> tuple[Int64[Tensor, "map threshold"], Int64[Tensor, "map threshold"]]:
    """Counts intersection and union of every map, cut at every threshold, with its true mask.

    These are the pixels of ``(map >= threshold) & truth`` and ``(map >= threshold) | truth``. A
    pixel belongs to the masks of all thresholds up to its own value, so its place among them is
    all that counts: one histogram of these places, summed from above, holds every mask's area.

    Args:
        maps: Values in [0, 1].
        truths: The true masks.
        thresholds: Ascending; rounded to the maps' dtype, as `to_masks` has its own rounded.
        backend: As in `choose`.

    Raises:
        ValueError: A map leaves [0, 1] or holds NaN, thresholds don't ascend, or shapes differ.

    Example:
        >>> maps, truths = torch.tensor([[[0.2, 0.8]]]), torch.tensor([[[False, True]]])
        >>> threshold_sweep(maps, truths, torch.tensor([0.0, 0.5, 0.9]))
        (tensor([[1, 1, 0]]), tensor([[2, 1, 1]]))
    """
    if maps.shape != truths.shape or truths.dtype != torch.bool or not maps.numel():
        raise ValueError(
            "maps and truths have one shape (map, h, w), truths are bool; "
            f"got {tuple(maps.shape)} and {truths.dtype} {tuple(truths.shape)}"
        )
    low, high = (float(end) for end in maps.aminmax())
    if not 0 <= low <= high <= 1:  # NaN is neither
        raise ValueError(f"maps lie in [0, 1], as to_pixels gives them; got {low} to {high}")
    if not len(thresholds) or not (thresholds.diff() >= 0).all() or thresholds.isnan().any():
        wanted = "thresholds ascend, at least one"
        raise refused("threshold_sweep", wanted, thresholds=thresholds.tolist())
    form = _launch() if choose(maps, backend) == "triton" else eager
    places = form.count_places(maps, truths, thresholds.to(maps))
    above = places.view(len(maps), -1, 2).flip(1).cumsum(1).flip(1)
    return above[:, 1:, 1].contiguous(), above[:, 1:, 0] + above[:, :1, 1]


def _attention(query: Tensor, backend: Form | None) -> ModuleType:
    """Returns the module that computes attention for these queries."""
    return _launch() if choose(query, backend, d=query.shape[-1]) == "triton" else eager


def _launch() -> ModuleType:
    """Imports Triton's launches when they are needed: Triton may be absent."""
    from nbhelpers.kernels import _launch as launch

    return launch


def _lack(tensor: Tensor, d: int) -> str:
    """Says what keeps Triton from computing with such tensors; nothing, if nothing does."""
    if importlib.util.find_spec("triton") is None:
        return "it isn't installed"
    if tensor.dtype not in DTYPES or d > WIDEST:
        return f"its kernels take float32, float16 and bfloat16 and at most {WIDEST} features " + (
            f"a head, not {tensor.dtype} and {d}"
        )
    if tensor.device.type == "cpu" and os.environ.get("TRITON_INTERPRET") == "1":
        return ""
    if tensor.device.type != "cuda" or torch.version.hip is not None:
        return f"it needs an NVIDIA GPU, and this is {tensor.device}"
    if torch.cuda.get_device_capability(tensor.device) < (8, 0):
        return f"it needs an NVIDIA GPU from Ampere on, and this is {tensor.device}"
    return ""
