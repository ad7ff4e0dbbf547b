"""The prompts of the attribute-binding test: two things in two colors, from a seed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from nbhelpers.files import write_whole
from recipe.art import COLORS_OF, NOUNS, PEOPLE, UNSEEN
from recipe.color import COLORS
from recipe.sheets import prompt_of

COUNTS = {"val": 40, "test": 200}
SEED = 18


def colors_of(noun: str) -> list[str]:
    """Return the plain colors in which training draws a noun."""
    return [c for c in COLORS_OF[noun] if c in COLORS and (noun, c) not in UNSEEN]


def asked(count: int, seed: int = SEED) -> list[list[tuple[str, str | None]]]:
    """Return so many different pairs of things of two nouns in two colors.

    People are left out, whose color is their shirt's. Each noun comes up about equally often.
    """
    rng = np.random.default_rng(seed)
    nouns = [n for n in COLORS_OF if n not in PEOPLE and len(colors_of(n)) >= 3]
    found: list[list[tuple[str, str | None]]] = []
    while len(found) < count:
        order = [nouns[i] for i in rng.permutation(len(nouns))]
        for first, second in zip(order[::2], order[1::2], strict=False):
            pair: list[tuple[str, str | None]] = [
                (noun, str(rng.choice(colors_of(noun)))) for noun in (first, second)
            ]
            if pair[0][1] != pair[1][1] and pair not in found:
                found.append(pair)
    return found[:count]


def write_binding(folder: Path) -> None:
    """Write `binding.json`: the prompts of val and test, and the colors to judge by.

    Colors are given in CIELAB, and for each noun those in which it is drawn.
    """
    pairs = iter(asked(sum(COUNTS.values())))
    prompts: dict[str, list[dict[str, Any]]] = {}
    for split, count in COUNTS.items():
        prompts[split] = [
            {
                "text": prompt_of(things),
                "colorless": prompt_of([(noun, None) for noun, _ in things]),
                "things": [{"noun": noun, "color": color} for noun, color in things],
            }
            for things in (next(pairs) for _ in range(count))
        ]
    record = {
        "prompts": prompts,
        "colors": COLORS,
        "nouns": {noun: list(COLORS_OF.get(noun, ())) for noun in NOUNS},
    }
    write_whole(folder / "binding.json", (json.dumps(record, indent=1) + "\n").encode())
