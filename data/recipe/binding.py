"""The prompts of the attribute-binding test: two things in two colors, from a seed."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from nbhelpers.family.evaluation.binding import Asked, Judges, read_prompts
from nbhelpers.files import write_whole
from nbhelpers.models import Models
from recipe.art import COLORS_OF, NOUNS, PEOPLE, STYLES, UNSEEN
from recipe.color import COLORS
from recipe.scenes import compose_scene, draw
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


def true_pictures(count: int) -> list[tuple[UInt8[np.ndarray, "h w 3"], list[Asked]]]:
    """Return drawn pictures of what the first test prompts ask for, with the things in them."""
    found = []
    for number, one in enumerate(read_prompts()["prompts"]["test"][:count]):
        things = [Asked(**thing) for thing in one["things"]]
        rng = np.random.default_rng((SEED, number))
        names: list[tuple[str, str | None, int | None]] = [(t.noun, t.color, None) for t in things]
        found.append((draw(compose_scene(rng, names, STYLES[number % 3]))[0], things))
    return found


def score_judges(models: Models, *, count: int = 200) -> dict[str, dict[str, float]]:
    """Return how often each judge of attribute binding finds both colors on true pictures.

    "right" is the share in which it finds what is there; "exchanged" that in which it finds the
    two colors exchanged, which are never there; "elsewhere" that in which it finds what another
    prompt asks for, with two other nouns.
    """
    world = read_prompts()
    judges = Judges(models, world["nouns"], world["colors"])
    pictures = true_pictures(count)
    found: dict[str, dict[str, float]] = {}
    for name, judge in judges.all.items():
        right, exchanged, elsewhere = [], [], []
        for number, (picture, things) in enumerate(pictures):
            first, second = things
            right.append(all(judge(picture, things)))
            swapped = [Asked(first.noun, second.color), Asked(second.noun, first.color)]
            exchanged.append(all(judge(picture, swapped)))
            others = (asked for _, asked in (*pictures[number:], *pictures))
            strange = next(o for o in others if not _nouns(o) & _nouns(things))
            elsewhere.append(all(judge(picture, strange)))
        found[name] = {
            "right": float(np.mean(right)),
            "exchanged": float(np.mean(exchanged)),
            "elsewhere": float(np.mean(elsewhere)),
        }
    return found


def _nouns(things: Iterable[Asked]) -> set[str]:
    return {thing.noun for thing in things}
