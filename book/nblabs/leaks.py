"""The checks of the lab on leaks: what a seal is worth, and which gains stand among many."""

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations, permutations

import torch

from nblabs.checking import Round, rounds

SEALS = ("target", "others", "tail")
Closed = frozenset[str]
"""The seals that are closed; the others are open."""


def check_worth(
    worth: Callable[[Mapping[Closed, float], str], float], *, seed: int | None = None
) -> None:
    """Checks ``worth(value, seal)``: what a seal brings, whichever others are closed.

    Args:
        worth: Takes the mIoU of every combination of closed seals, by the frozenset of their
            names, and one name; returns its Shapley value: the mean, over all orders in which the
            seals can be closed, of what closing this one adds.
        seed: Of the first inputs; fresh ones each time when None.

    Raises:
        Wrong: It differs from the mean over all orders.
    """
    for trial in rounds(worth, seed):
        value = _values(trial)
        seal = SEALS[int(torch.randint(3, (1,), generator=trial.rng))]
        gains = []
        for order in permutations(SEALS):
            before = frozenset(order[: order.index(seal)])
            gains.append(value[before | {seal}] - value[before])
        others = [name for name in SEALS if name != seal]
        subsets = [frozenset(c) for k in range(3) for c in combinations(others, k)]
        flat = [value[s | {seal}] - value[s] for s in subsets]
        full, none = frozenset(SEALS), frozenset[str]()
        trial.compare(
            trial.ask(value, seal),
            sum(gains) / len(gains),
            {
                "that is what it brings alone; the others may be closed": (
                    value[frozenset({seal})] - value[none]
                ),
                "that is what it brings last; the others may be open": (
                    value[full] - value[full - {seal}]
                ),
                "each order counts once: of the four combinations, two come up twice": (
                    sum(flat) / len(flat)
                ),
                "closed minus open": -sum(gains) / len(gains),
                "the mean over the orders, not the sum": sum(gains),
            },
            "go through permutations of the three; add what this seal changes when it is closed",
        )


def check_holm(
    holm: Callable[[Sequence[float], float], Sequence[bool]], *, seed: int | None = None
) -> None:
    """Checks ``holm(p, level)``: which of many differences stand, by Holm's correction.

    Args:
        holm: Takes p-values and a level; returns for each, in the order given, whether it is
            rejected when the chance of any false rejection is to be at most the level.
        seed: Of the first inputs; fresh ones each time when None.

    Raises:
        Wrong: It differs from Holm's procedure.
    """
    level = 0.05
    for trial in rounds(holm, seed):
        p = _p_values(trial, level)
        order = sorted(range(len(p)), key=p.__getitem__)
        limits = [level / (len(p) - rank) for rank in range(len(p))]
        passed = [p[i] <= limit for i, limit in zip(order, limits, strict=True)]
        count = passed.index(False) if False in passed else len(p)
        wanted = [i in order[:count] for i in range(len(p))]
        trial.compare(
            list(trial.ask(p, level)),
            wanted,
            {
                "without a correction one of twenty passes by chance": [x <= level for x in p],
                "that is Bonferroni; Holm's limit rises as hypotheses are rejected": [
                    x <= level / len(p) for x in p
                ],
                "stop at the first that doesn't pass; none after it does": [
                    passed[order.index(i)] for i in range(len(p))
                ],
                "in the order given, not sorted": sorted(wanted, reverse=True),
                "True is rejected": [not x for x in wanted],
            },
            "sort; compare the smallest with level / n, the next with level / (n - 1); stop at "
            "the first failure",
        )


def _values(trial: Round) -> dict[Closed, float]:
    """Returns an mIoU for every combination, no two of them alike."""
    sets = [frozenset(c) for k in range(4) for c in combinations(SEALS, k)]
    draws = torch.rand(len(sets), generator=trial.rng, dtype=torch.float64)
    return {closed: 0.3 + 0.4 * float(x) for closed, x in zip(sets, draws, strict=True)}


def _p_values(trial: Round, level: float) -> list[float]:
    """Returns eight p-values on which Holm differs from what is done in its place."""
    jitter = (1 - 0.2 * torch.rand(8, generator=trial.rng, dtype=torch.float64)).tolist()
    # Two pass Bonferroni; a third passes Holm alone; the fourth fails; the fifth would pass.
    ranks = (0.1 / 8, 0.8 / 8, 0.99 / 6, 1.2 / 5, 0.995 / 4, 1.5, 4.0, 9.0)
    values = [
        level * r * (j if r < 0.5 / 4 or r > 1 else 1) for r, j in zip(ranks, jitter, strict=True)
    ]
    order = torch.randperm(8, generator=trial.rng).tolist()
    return [values[i] for i in order]
