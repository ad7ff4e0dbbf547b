"""Captions of a scene: what a person might write, always true, seldom complete."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nbhelpers.shapes.world import Scene, Thing

OPENINGS = ("a photograph of", "a picture of", "a drawing of", "an image of", "")
_OPENING_SHARES = (0.35, 0.15, 0.10, 0.05, 0.35)
_LINKS = ("and", "next to", "with", "beside")
_LINK_SHARES = (0.46, 0.22, 0.22, 0.10)

# Rarer words for the same things, so that the vocabulary has a tail and some words many tokens.
SYNONYMS = {
    "ball": "sphere",
    "ring": "hoop",
    "moon": "crescent",
    "square": "box",
    "flower": "blossom",
    "house": "cottage",
    "turquoise": "teal",
    "purple": "violet",
    "striped": "stripy",
    "dotted": "spotted",
}


def article(word: str) -> str:
    """Return "a" or "an", by the first letter of `word`."""
    return "an" if word[0] in "aeiou" else "a"


def name(thing: Thing, *, color: bool = True, pattern: bool = True) -> str:
    """Return a thing's name without an article: "striped red ring".

    "plain" goes without saying, and is not said.
    """
    words = [thing.pattern] if pattern and thing.pattern != "plain" else []
    words += [thing.color] if color else []
    return " ".join([*words, thing.noun])


def position(thing: Thing, scene: Scene) -> str | None:
    """Return "on the left", "at the top" and so on where that is plainly so, else None."""
    y, x = (c / n for c, n in zip(thing.center, scene.size, strict=True))
    sides = {
        "on the left": 0.40 - x,
        "on the right": x - 0.60,
        "at the top": 0.40 - y,
        "at the bottom": y - 0.60,
    }
    best = max(sides, key=lambda side: sides[side])
    return best if sides[best] > 0 else None


def describe(thing: Thing, scene: Scene, rng: np.random.Generator) -> str:
    """Return a noun phrase for one thing, as full as chance has it.

    12 % are a bare noun, 8 % drop the pattern, 4 % say "plain" of what is plain; one in ten
    begins with "the", one in twenty with nothing; one in eight says where it is; one word in
    twelve that has a synonym gives way to it; one in ten puts its attributes behind the noun,
    "a ring in striped red", where a causal encoder's noun cannot see them.
    """
    luck = rng.random()
    if luck < 0.12:
        words = thing.noun
    elif luck < 0.20:
        words = name(thing, pattern=False)
    elif luck < 0.24 and thing.pattern == "plain":
        words = f"plain {name(thing)}"
    else:
        words = name(thing)
    if luck >= 0.24 and rng.random() < 0.12:
        words = f"{thing.noun} in {words.removesuffix(thing.noun).strip()}"
    words = " ".join(
        SYNONYMS[word] if word in SYNONYMS and rng.random() < 0.08 else word
        for word in words.split()
    )
    luck = rng.random()
    if luck >= 0.15:
        words = f"{article(words)} {words}"
    elif luck >= 0.05:
        words = f"the {words}"
    where = position(thing, scene)
    return f"{words} {where}" if where and rng.random() < 0.125 else words


def _link(first: Thing, second: Thing, rng: np.random.Generator) -> str:
    """Return the words between two things; "above" and "below" only where they are true."""
    drop = second.center[0] - first.center[0]
    if abs(drop) > 1.2 * max(first.radius, second.radius) and rng.random() < 0.15:
        return "above" if drop > 0 else "below"
    return str(rng.choice(_LINKS, p=_LINK_SHARES))


def write_caption(
    scene: Scene, rng: np.random.Generator, *, things: Sequence[Thing] | None = None
) -> str:
    """Write one caption of a scene.

    The things come in random order. Three captions in ten name only some of them. Openings,
    links and places vary; what is said is true.

    Args:
        scene: what is seen.
        rng: source of all chance.
        things: the things to name, in this order; chosen by chance if not given.
    """
    if things is None:
        order = [scene.things[i] for i in rng.permutation(len(scene.things))]
        keep = len(order)
        if keep > 1 and rng.random() < 0.30:
            keep = int(rng.integers(1, keep))
        things = order[:keep]
    text = str(rng.choice(OPENINGS, p=_OPENING_SHARES))
    for index, thing in enumerate(things):
        if index:
            listed = len(things) == 3 and index == 1 and rng.random() < 0.3
            text += "," if listed else f" {_link(things[index - 1], thing, rng)}"
        text += f" {describe(thing, scene, rng)}"
    if rng.random() < 0.06:
        mean = np.mean([np.mean(tone) for tone in scene.ground])
        text += f" on a {'light' if mean > 0.64 else 'dark'} ground"
    return text.strip()
