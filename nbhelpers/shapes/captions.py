"""Captions of a scene: what a person might write, always true, seldom complete."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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


@dataclass(frozen=True)
class Style:
    """How much a writer says: shares of things named barely, and of captions that leave some out.

    Attributes:
        bare: share of things that are only a noun, "a ring".
        colorless: share whose color goes unsaid, "a striped ring".
        patternless: share whose pattern goes unsaid, "a red ring".
        partial: share of captions that leave some of several things out.
    """

    bare: float
    colorless: float
    patternless: float
    partial: float


# CLIP and the UNet learn from ORDINARY captions, which nearly always say the color: what a causal
# encoder writes at a noun is then its color as well, and twins can be told apart there. Of BRIEF
# ones, like those found beside pictures on the Web, the nouns carry most, and BLIP's eye learns
# from them what things are called. Annotators who were asked to describe are CAREFUL and say what
# they see: BLIP learns to write from them.
ORDINARY = Style(bare=0.12, colorless=0.0, patternless=0.08, partial=0.30)
BRIEF = Style(bare=0.40, colorless=0.15, patternless=0.15, partial=0.50)
CAREFUL = Style(bare=0.0, colorless=0.0, patternless=0.04, partial=0.0)


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


def describe(thing: Thing, scene: Scene, rng: np.random.Generator, style: Style) -> str:
    """Return a noun phrase for one thing, as full as `style` and chance have it.

    4 % say "plain" of what is plain; one in ten begins with "the", one in twenty with nothing;
    one in eight says where it is; one word in twelve that has a synonym gives way to it; of
    those with a color one in eight puts it behind the noun, "a ring in striped red", where
    a causal encoder's noun cannot see them.
    """
    luck = rng.random()
    colorless = style.bare + style.colorless
    if luck < style.bare:
        words = thing.noun
    elif luck < colorless:
        words = name(thing, color=False)
    elif luck < colorless + style.patternless:
        words = name(thing, pattern=False)
    elif thing.pattern == "plain" and rng.random() < 0.04:
        words = f"plain {name(thing)}"
    else:
        words = name(thing)
    if thing.color in words and not words.startswith("plain") and rng.random() < 0.12:
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
    scene: Scene,
    rng: np.random.Generator,
    *,
    style: Style = ORDINARY,
    things: Sequence[Thing] | None = None,
) -> str:
    """Write one caption of a scene.

    The things come in random order; `style` says how many are left out and how much is said of
    the others. Openings, links and places vary; what is said is true.

    Args:
        scene: what is seen.
        rng: source of all chance.
        style: how much is said.
        things: the things to name, in this order; chosen by chance if not given.
    """
    if things is None:
        order = [scene.things[i] for i in rng.permutation(len(scene.things))]
        keep = len(order)
        if keep > 1 and rng.random() < style.partial:
            keep = int(rng.integers(1, keep))
        things = order[:keep]
    text = str(rng.choice(OPENINGS, p=_OPENING_SHARES))
    for index, thing in enumerate(things):
        if index:
            listed = len(things) == 3 and index == 1 and rng.random() < 0.3
            text += "," if listed else f" {_link(things[index - 1], thing, rng)}"
        text += f" {describe(thing, scene, rng, style)}"
    if rng.random() < 0.06:
        mean = np.mean([np.mean(tone) for tone in scene.ground])
        text += f" on a {'light' if mean > 0.64 else 'dark'} ground"
    return text.strip()
