"""One list of items cut into shares, for several processes, GPUs or machines."""

import re
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


def cut(items: Sequence[T], shard: tuple[int, int]) -> Sequence[T]:
    """The i-th of n shares, from 0: neighbors, in order, the sizes at most one apart.

    Neighbors stay together because they look at one picture, which is then encoded once.

    Example:
        >>> [cut("abcdefg", (i, 3)) for i in (0, 1, 2)]
        ['ab', 'cd', 'efg']
    """
    i, n = shard
    return items[len(items) * i // n : len(items) * (i + 1) // n]


def parse_shard(text: str) -> tuple[int, int]:
    """``"2/8"`` as the third of eight shares: they count from 0, as Slurm's arrays do.

    Raises:
        ValueError: It isn't of this form, or there is no such share.
    """
    found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text, re.ASCII)
    if not found or int(found[1]) >= int(found[2]):
        raise ValueError(f"wanted I/N with I from 0 to N - 1, as in 0/8; got {text[:40]!r}")
    return int(found[1]), int(found[2])
