"""The checks of the lab on the family: a loss that moves latents, and maps that merge."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from nblabs.checking import Round, rounds

LIMIT = 0.35  # of the divergence in nats


def check_neglect(
    neglect: Callable[[Tensor, Sequence[Sequence[int]]], float], *, seed: int | None = None
) -> None:
    """Checks ``neglect(maps, nouns)``: the loss of Attend-and-Excite.

    Args:
        neglect: Takes the maps of all tokens, a tensor ``(token, h, w)`` in [0, 1], and for each
            noun the list of its tokens' numbers; returns 1 minus the highest value of the token
            of a noun whose highest value is the lowest.
        seed: Of the first inputs; fresh ones each time when None.

    Raises:
        Wrong: It differs from the loss.
    """
    for trial in rounds(neglect, seed):
        maps = 0.1 + 0.8 * torch.rand(7, 4, 5, generator=trial.rng, dtype=torch.float64)
        maps *= 0.3 + 0.7 * torch.rand(7, 1, 1, generator=trial.rng, dtype=torch.float64)
        one, *others = (1 + torch.randperm(6, generator=trial.rng)[:4]).tolist()
        nouns = [[one], others[:2], others[2:]]
        maps[[token for token in range(7) if token not in (one, *others)]] *= 0.2
        peaks = maps.amax(dim=(1, 2))
        own = peaks[[token for noun in nouns for token in noun]]
        trial.compare(
            trial.ask(maps, nouns),
            float(1 - own.min()),
            {
                "the most neglected noun counts, not the mean of all": float((1 - own).mean()),
                "a noun needs one location, so take the highest value of its map, not the mean": (
                    float(1 - maps.mean(dim=(1, 2))[[t for n in nouns for t in n]].min())
                ),
                "that is the noun with the most attention; take the one with the least": (
                    float(1 - own.max())
                ),
                "the loss falls as attention rises: 1 minus the highest value": float(own.min()),
                "only tokens of nouns count": float(1 - peaks.min()),
                "the maximum of 1 minus, not the sum": float((1 - own).sum()),
            },
            "take each token's highest value, of these the lowest, and 1 minus that",
        )


def check_merge(
    merge: Callable[[Float[Tensor, "n cell"], float], Float[Tensor, "m cell"]],
    *,
    seed: int | None = None,
) -> None:
    """Checks ``merge(maps, limit)``: a round in which DiffSeg merges maps.

    Args:
        merge: Takes maps, each a row that sums to 1, and a limit in nats. Goes through the rows in
            their order: one that is left takes all that are left and whose symmetric divergence
            from it, ``(KL(p, q) + KL(q, p)) / 2``, is below the limit, itself among them; their
            mean is a row of what is returned.
        seed: Of the first inputs; fresh ones each time when None.

    Raises:
        Wrong: It differs from that.
    """
    for trial in rounds(merge, seed):
        maps = _proposals(trial)
        log = maps.log()
        forward = (maps[:, None] * (log[:, None] - log[None])).sum(dim=-1)  # KL(row, column)
        both = (forward + forward.T) / 2
        wanted = _merged(maps, both)
        shares = torch.stack([row / row.max() for row in wanted])
        trial.compare(
            trial.ask(maps, LIMIT),
            wanted,
            {
                "that is KL(p, q) alone; both directions count": _merged(maps, forward),
                "that is KL(q, p) alone; both directions count": _merged(maps, forward.T),
                "the mean of both divergences, not their sum": _merged(maps, 2 * both),
                "a row that was taken is gone; it is in no second group": (
                    _merged(maps, both, again=True)
                ),
                "near the first of the group, not near any of it": _merged(maps, both, chain=True),
                "the mean of a group, so that it sums to 1": torch.stack(
                    [maps[group].sum(dim=0) for group in _groups(both)]
                ),
                "the mean of a group, not its first row": torch.stack(
                    [maps[group[0]] for group in _groups(both)]
                ),
                "each row sums to 1; don't stretch it": shares,
            },
            "keep a list of what is left; each row that is left takes those near it, and their "
            "mean is one segment",
        )


def _groups(
    distance: Float[Tensor, "n n"], *, again: bool = False, chain: bool = False
) -> list[list[int]]:
    """Finds the rows that are merged: by the rule, or by a rule that is often taken for it."""
    near = distance < LIMIT
    left, found = set(range(len(near))), []
    for i in range(len(near)):
        if i not in left:
            continue
        among = set(range(len(near))) if again else left
        group = {j for j in among if near[i, j]} | {i}
        while chain and (more := {j for j in left - group for k in group if near[k, j]}):
            group |= more
        found.append(sorted(group))
        left -= group
    return found


def _merged(
    maps: Float[Tensor, "n cell"], distance: Float[Tensor, "n n"], **rule: bool
) -> Float[Tensor, "m cell"]:
    """Returns the mean of each group."""
    return torch.stack([maps[group].mean(dim=0) for group in _groups(distance, **rule)])


def _proposals(trial: Round) -> Float[Tensor, "row cell"]:
    """Draws maps of two things on which the rule differs from all that is taken for it.

    Of the first: one; one near it; one near the second alone; one that is near by KL(q, p) alone.
    Of the other: one, and one that is near it by KL(p, q) alone.
    """
    jitter = 0.01 * torch.randn(6, 12, generator=trial.rng, dtype=torch.float64)
    tilt = torch.tensor([-1.2, -0.8, 0.0, 0.0, 0.8, 1.2], dtype=torch.float64)
    tilt = tilt / tilt.std(correction=0)
    hole = torch.tensor([0.0, 0.0, -7.5, 0.0, 0.0, 0.0], dtype=torch.float64)
    flat, absent = torch.zeros_like(hole), torch.full_like(hole, -7.0)
    first = [flat, 0.75 * tilt, 1.5 * tilt, hole]
    rows = [torch.cat([logits, absent]) for logits in first]
    rows += [torch.cat([absent, logits]) for logits in (hole, flat)]
    maps = (torch.stack(rows) + jitter).softmax(dim=1)
    cells = torch.randperm(12, generator=trial.rng)
    other_first = bool(torch.rand((), generator=trial.rng) < 0.5)
    order = [4, 5, 0, 1, 2, 3] if other_first else [0, 1, 2, 3, 4, 5]
    return maps[order][:, cells]
