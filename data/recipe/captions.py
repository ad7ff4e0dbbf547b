"""Captions of a scene: what a person might write, always true, seldom complete."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from recipe.art import NOUNS, PATCHED, PEOPLE
from recipe.color import COLORS
from recipe.scenes import SIZE, Scene, Thing, visible_shares

# The words that open a caption say how the picture is drawn, or nothing.
OPENINGS = {
    "fluent3d": "a photograph of",
    "flat": "a drawing of",
    "noto": "a picture of",
    "twemoji": "an image of",
}
_SPOKEN_COLORS = frozenset({*COLORS, *PATCHED})
_SIDE = 0.10  # of the picture's width, by which one thing is plainly left of another
PLURALS = {"man": "men", "woman": "women", "child": "children", "baby": "babies"}
PLURALS |= {"sheep": "sheep", "bus": "buses"}
NUMBERS = {2: "two", 3: "three"}
LIVING = frozenset(
    "man woman child baby dog cat horse sheep cow elephant zebra giraffe bird rabbit".split()
)


@dataclass(frozen=True)
class Style:
    """How much a writer says.

    Attributes:
        bare: share of captions that leave out all colors, "a car next to a dog".
        colorless: share of single things whose color goes unsaid in the others.
        partial: share of captions that leave some of several things out.
    """

    bare: float
    colorless: float
    partial: float


# CLIP learns nouns from captions without colors; what they ask of the UNet is mostly complete;
# BLIP learns to write from annotators who were asked to describe.
BRIEF = Style(bare=0.30, colorless=0.05, partial=0.30)
ORDINARY = Style(bare=0.12, colorless=0.05, partial=0.12)
CAREFUL = Style(bare=0.0, colorless=0.0, partial=0.0)


def article(word: str) -> str:
    """Return "a" or "an", by the first letter of `word`."""
    return "an" if word[0] in "aeiou" else "a"


def plural(noun: str) -> str:
    """Return the plural of a noun."""
    return PLURALS.get(noun, f"{noun}s")


def name(thing: Thing, *, color: bool = True, number: int = 1) -> str:
    """Return a thing's name without an article: "red car", "man in a red shirt", "two dogs"."""
    noun = thing.noun if number == 1 else plural(thing.noun)
    if not color or thing.color is None:
        return noun
    return f"{noun} in {thing.color}" if thing.noun in PEOPLE else f"{thing.color} {noun}"


def describe(
    thing: Thing, rng: np.random.Generator, *, color: bool = True, number: int = 1
) -> str:
    """Return a noun phrase for one thing, or for `number` of its kind and color.

    One in ten begins with "the", one in twenty with nothing. A person is "a man in red" or "a
    man in a red shirt".
    """
    words = name(thing, color=color, number=number)
    if thing.noun in PEOPLE and color and thing.color and rng.random() < 0.5:
        shirt = f"a {thing.color} shirt" if number == 1 else f"{thing.color} shirts"
        if thing.color == "orange" and number == 1:
            shirt = "an orange shirt"
        words = f"{name(thing, color=False, number=number)} in {shirt}"
    if number > 1:
        return f"{NUMBERS[number]} {words}"
    luck = rng.random()
    if luck < 0.05:
        return words
    return f"the {words}" if luck < 0.15 else f"{article(words)} {words}"


def position(thing: Thing, scene: Scene) -> str | None:
    """Return "on the left" and so on where that is plain and tells things apart, else None."""
    x = thing.base[1]
    others = [other.base[1] for other in scene.things if other is not thing]
    if not others or thing.worn_by is not None:
        return None
    if x < 0.42 and all(x < other - _SIDE for other in others):
        return "on the left"
    if x > 0.58 and all(x > other + _SIDE for other in others):
        return "on the right"
    between = min(others) < x - _SIDE and x + _SIDE < max(others)
    return "in the middle" if between and 0.3 < x < 0.7 else None


def links(first: Thing, second: Thing, scene: Scene) -> list[str]:
    """Return the words that truly link two things, the plainest first."""
    if second.worn_by is not None and scene.things[second.worn_by] is first:
        return ["with", "wearing", "in"]
    if first.worn_by is not None and scene.things[first.worn_by] is second:
        return ["on"]
    words = ["and", "next to", "with", "beside"]
    (y0, x0), (y1, x1) = first.base, second.base
    if abs(x0 - x1) > 1.5 * _SIDE:
        words.append("to the left of" if x0 < x1 else "to the right of")
    flying = scene.flies(first), scene.flies(second)
    if flying[0] and y1 >= scene.ground.horizon:
        words.append("flying over")
    elif flying == (False, False) and abs(x0 - x1) < 0.3 and abs(y0 - y1) > 0.06:
        far, near = sorted((first, second), key=lambda thing: thing.base[0])
        both, alone = (
            visible_shares(Scene(things, scene.style, scene.ground), SIZE)[0]
            for things in ((far, near), (far,))
        )
        if both < alone - 0.05:
            words.append("behind" if first is far else "in front of")
    if {first.noun, second.noun} <= LIVING | {"ball"} and first.noun in LIVING and not any(flying):
        words.append("playing with")
    return words


def write_caption(
    scene: Scene,
    rng: np.random.Generator,
    *,
    style: Style = ORDINARY,
    things: Sequence[Thing] | None = None,
) -> str:
    """Write one caption of a scene; what is said is true.

    Two things of one noun and color are told together ("two black dogs"), and so are, sometimes,
    things of one noun where their colors go unsaid.

    Args:
        scene: what is seen.
        rng: source of all chance.
        style: how much is said.
        things: which things to name; sampled as `style` has it if not given.
    """
    bare = rng.random() < style.bare
    chosen = list(scene.things if things is None else things)
    if things is None and len(chosen) > 1 and rng.random() < style.partial:
        keep = 1 + int(rng.integers(len(chosen) - 1))
        chosen = [chosen[i] for i in rng.permutation(len(chosen))[:keep]]
    groups = _group(chosen, scene, bare)
    groups = [groups[i] for i in rng.permutation(len(groups))]
    text = ""
    for number, group in enumerate(groups):
        thing = group[0]
        colored = not bare and rng.random() >= style.colorless
        if len(group) > 1 and not bare:  # "two dogs" of three would be false
            colored = True
        words = describe(thing, rng, color=colored, number=len(group))
        where = position(thing, scene) if len(group) == 1 else None
        if where and rng.random() < 0.15:
            words += f" {where}"
        if not number:
            text = words
            continue
        before = groups[number - 1][0]
        if len(group) == len(groups[number - 1]) == 1:
            said = links(before, thing, scene)
            # The plainest one most often; "a hat on a baby's head".
            link = said[0] if rng.random() < 0.35 else said[int(rng.integers(len(said)))]
            if link == "in" and not words.startswith(("a ", "an ", "the ")):
                link = "with"  # "a man in green hat" would be in green
            if link == "on":
                words = f"{words}'s head" if "in " not in words else f"the head of {words}"
        else:
            link = ("and", "with", "next to")[int(rng.integers(3))]
        text += f" {link} {words}"
    luck = rng.random()
    opening = OPENINGS[scene.style] if luck < 0.5 else "an image of" if luck < 0.57 else ""
    return f"{opening} {text}".strip()


def _group(chosen: Sequence[Thing], scene: Scene, bare: bool) -> list[list[Thing]]:
    """Return things told together: all of one noun and color, all of one noun where `bare`.

    A group holds every thing of its kind in the scene, or else what it says would be false.
    """
    groups: list[list[Thing]] = []
    for thing in chosen:
        if any(thing in group for group in groups):
            continue
        alike = [
            other
            for other in scene.things
            if other.noun == thing.noun and (bare or other.color == thing.color)
        ]
        groups.append(alike if all(other in chosen for other in alike) else [thing])
    return groups


def said_of(caption: str) -> list[tuple[str, str | None]]:
    """Return the (noun, color) of each thing that a caption of this world names, in order.

    A color belongs to the next noun or, after "in", to the person before ("a man in a red
    shirt"); "two black dogs" are two things.
    """
    text = caption.lower()
    for words in ("teddy bear", *PATCHED):
        text = text.replace(words, words.replace(" ", "_"))
    singular = {plural(noun).replace(" ", "_"): noun for noun in NOUNS}
    singular |= {noun.replace(" ", "_"): noun for noun in NOUNS}
    counts = {word: number for number, word in NUMBERS.items()}
    things: list[tuple[str, str | None]] = []
    color: str | None = None
    number, behind = 1, False
    for word in text.replace("'s", "").replace("' s", "").replace(",", " ").split():
        if word in counts:
            number = counts[word]
        elif word == "in":
            behind = True
        elif word.replace("_", " ") in _SPOKEN_COLORS:
            spoken = word.replace("_", " ")
            if behind and things and things[-1][0] in PEOPLE and things[-1][1] is None:
                noun = things[-1][0]
                while things and things[-1] == (noun, None):
                    things.pop()
                    number += 1
                things.extend([(noun, spoken)] * (number - 1))
                number, behind = 1, False
            else:
                color = spoken
        elif word in singular:
            things.extend([(singular[word], color)] * number)
            color, number, behind = None, 1, False
        elif word not in ("a", "an", "the", "shirt", "shirts"):
            behind = False
    return things
