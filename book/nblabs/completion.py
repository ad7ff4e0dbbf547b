"""The checks of the labs on completion: gathering, in blocks, and in one pass over the logits."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from nbhelpers.attention import Layer
from nbhelpers.completion import complete
from nblabs.checking import rounds


def check_gather(
    gather: Callable[[Tensor, Tensor, Tensor, float], Tensor], *, seed: int | None = None
) -> None:
    """Checks ``gather(query, key, scores, scale)``: completion, S' = A S.

    Args:
        gather: Takes queries and keys ``(head, n, d)`` of one self-attention layer, score maps
            ``(chunk, h, w)`` with h * w = n, rows first, and the scale of the logits; returns the
            completed maps ``(chunk, h, w)``.
        seed: Of the first inputs; fresh ones each time when None.

    Raises:
        Wrong: It differs from `complete`.
    """
    h, w, d = 3, 5, 8

    def maps(rows: Tensor) -> Tensor:
        """Returns one row a map, as maps."""
        return rows.unflatten(1, (h, w))

    for trial in rounds(gather, seed):
        query, key = 2 * torch.randn((2, 3, h * w, d), generator=trial.rng)
        scores = torch.rand((2, h, w), generator=trial.rng)
        scale = d**-0.5
        layer = Layer("layer", "self", "mid", query[None], key[None], (h, w), 1, scale)
        wanted = complete(scores, [layer])
        logits = scale * query @ key.mT
        A = logits.softmax(dim=-1).mean(dim=0)
        flat = scores.flatten(1)

        trial.compare(
            trial.ask(query, key, scores, scale),
            wanted,
            {
                "A^T for A: a location takes the scores of the locations that it attends to": maps(
                    flat @ A
                ),
                "softmax over the wrong axis: the rows of A sum to 1": maps(
                    flat @ logits.softmax(dim=-2).mean(dim=0).T
                ),
                "unnormalized: the rows of A sum to 1": maps(flat @ logits.exp().mean(dim=0).T),
                "the mean of the heads' probabilities, not of their logits": maps(
                    flat @ logits.mean(dim=0).softmax(dim=-1).T
                ),
                "the scale is missing": maps(flat @ (query @ key.mT).softmax(-1).mean(0).T),
                "the mean over heads, not their sum": maps(3 * flat @ A.T),
                "(w, h) for (h, w): pixels are counted along rows": (
                    (scores.mT.flatten(1) @ A.T).unflatten(1, (w, h)).mT
                ),
                "(w, h) for (h, w): maps come back as they went": (
                    (flat @ A.T).unflatten(1, (w, h))
                ),
                "once, not twice": maps(flat @ A.T @ A.T),
            },
            "A = softmax(scale * query @ key.mT).mean(0); each map, flattened, becomes A @ map",
        )


def check_in_blocks(
    in_blocks: Callable[[Tensor, Tensor, Tensor, float, int], Tensor], *, seed: int | None = None
) -> None:
    """Checks ``in_blocks(query, key, scores, scale, rows)``: A S without ever holding A.

    Args:
        in_blocks: Takes what `gather` takes, and how many rows of A may exist at once; returns
            the completed maps ``(chunk, h, w)`` and makes no tensor of more than
            ``head * rows * n`` numbers.
        seed: Of the first inputs; fresh ones each time when None.

    Raises:
        Wrong: It differs from `complete`, or made a larger tensor.
    """
    h, w, d = 12, 15, 8
    for trial in rounds(in_blocks, seed):
        query, key = 2 * torch.randn((2, 3, h * w, d), generator=trial.rng)
        scores = torch.rand((2, h, w), generator=trial.rng)
        rows = int(torch.randint(20, 50, (1,), generator=trial.rng))
        layer = Layer("layer", "self", "mid", query[None], key[None], (h, w), 1, d**-0.5)
        with _Largest() as made:
            answer = trial.ask(query, key, scores, d**-0.5, rows)
        ones = torch.ones_like(scores)
        trial.compare(
            answer,
            complete(scores, [layer]),
            {
                "softmax over all keys: split the queries, not the keys": ones * scores.mean(),
                "put the blocks back in order": complete(scores, [layer]).flip(-2),
            },
            "for some queries at a time: their rows of A, times the maps; then join the parts",
        )
        if made.most > 3 * rows * h * w:
            trial.refuse(
                f"it made a tensor of {made.most:,} numbers, and {3 * rows * h * w:,} are allowed",
                "take some rows of the queries at a time, query[:, first:first + rows]",
            )


class _Largest(TorchDispatchMode):
    """Notes the size of the largest tensor of numbers made in the block."""

    most = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs an operation and records what it made."""
        out = func(*args, **(kwargs or {}))
        for each in out if isinstance(out, tuple | list) else [out]:
            if isinstance(each, Tensor) and each.is_floating_point():  # copies are made as bytes
                self.most = max(self.most, each.numel())
        return out


def check_walk(walk: Callable[[Tensor, Tensor, int], Tensor], *, seed: int | None = None) -> None:
    """Checks ``walk(logits, scores, tile)``: one row of A S, a tile of logits at a time.

    Args:
        walk: Takes a row of logits ``(n,)``, the scores ``(n,)`` and how many to read at once;
            returns the softmax's mean of the scores, one number.
        seed: Of the first inputs; fresh ones each time when None.

    Raises:
        Wrong: It differs from the softmax of the whole row.
    """
    for trial in rounds(walk, seed):
        tile, n = 7, 24  # the last tile is short
        logits = 3 * torch.randn(n, generator=trial.rng)
        logits[10] = logits[:7].max() + 1.5  # a later tile brings a larger one
        logits[-1] = logits.max() + 0.5  # and the last one too
        scores = torch.rand(n, generator=trial.rng)
        wanted = logits.double().softmax(dim=0) @ scores.double()
        whole = n - n % tile
        trial.compare(
            trial.ask(logits, scores, tile),
            wanted,
            {
                "the last tile is short, and counts": (
                    logits[:whole].softmax(dim=0) @ scores[:whole]
                ),
                "when the maximum rises, fade the sum of the scores too": _walk(
                    logits, scores, tile, fade_scores=False
                ),
                "when the maximum rises, fade the sum of the exponentials too": _walk(
                    logits, scores, tile, fade_sum=False
                ),
                "when the maximum rises, fade what was summed before": _walk(
                    logits, scores, tile, fade_sum=False, fade_scores=False
                ),
                "divide by the sum of the exponentials at the end": (
                    (logits - logits.max()).exp() @ scores
                ),
            },
            "keep a maximum, a sum and a weighted sum; fade both sums by e^(old - new maximum)",
        )
        large = logits * 1e4 / logits.abs().max()
        trial.compare(
            trial.ask(large, scores, tile),
            large.double().softmax(dim=0) @ scores.double(),
            hint="logits of 1e4 overflow: subtract the running maximum before you exponentiate",
        )


def _walk(
    logits: Tensor, scores: Tensor, tile: int, fade_sum: bool = True, fade_scores: bool = True
) -> Tensor:
    """Returns the running softmax, with or without what keeps it right."""
    top, total, weighted = torch.tensor(-torch.inf), torch.tensor(0.0), torch.tensor(0.0)
    for part, own in zip(logits.split(tile), scores.split(tile), strict=True):
        new = torch.maximum(top, part.max())
        fade, e = (top - new).exp(), (part - new).exp()
        total = total * (fade if fade_sum else 1) + e.sum()
        weighted = weighted * (fade if fade_scores else 1) + e @ own
        top = new
    return weighted / total
