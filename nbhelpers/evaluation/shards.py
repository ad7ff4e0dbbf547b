"""One list of items cut into shares, for several processes, GPUs or machines."""

import re
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


def cut(items: Sequence[T], shard: tuple[int, int]) -> Sequence[T]:
    """The i-th of n shares, from 1: neighbors, in order, the sizes at most one apart.

    Neighbors stay together because they look at one picture, which is then encoded once.

    Example:
        >>> [cut("abcdefg", (i, 3)) for i in (1, 2, 3)]
        ['ab', 'cd', 'efg']
    """
    i, n = shard
    return items[len(items) * (i - 1) // n : len(items) * i // n]


def parse_shard(text: str) -> tuple[int, int]:
    """``"2/8"`` as the second of eight shares.

    Raises:
        ValueError: It isn't of this form, or there is no such share.
    """
    found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text, re.ASCII)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise ValueError(f"wanted i/n with i from 1 to n, as in 2/8; got {text[:40]!r}")
    return int(found[1]), int(found[2])
