"""Reads a caption of the sticker world back, and says what in it is false of a scene.

Written from the scenes alone, and apart from what writes the captions.
"""

import itertools
import re

import numpy as np
from recipe.art import COLORS_OF, NOUNS
from recipe.scenes import Scene, Thing, draw

IRREGULAR = {"man": "men", "woman": "women", "child": "children", "baby": "babies"}
IRREGULAR |= {"sheep": "sheep", "bus": "buses"}
MANY = {IRREGULAR.get(noun, noun + "s"): noun for noun in NOUNS}
COLORS = sorted({color for colors in COLORS_OF.values() for color in colors}, key=len)[::-1]
OPENINGS = {
    "a photograph of": "fluent3d",
    "a drawing of": "flat",
    "a picture of": "noto",
    "an image of": None,
}
_NOUN = "|".join(sorted([*NOUNS, *MANY], key=len)[::-1])
_COLOR = "|".join(COLORS)
PHRASE = re.compile(
    rf"(?:(?P<number>two|three|an|a|the) )?(?:(?P<color>{_COLOR}) )?(?P<noun>{_NOUN})\b"
    rf"(?: in (?:(?:an? )?(?P<shirt>{_COLOR}) shirts?|(?P<clothes>{_COLOR})(?! hat)))?"
    r"(?P<head>'s head)?(?: (?P<side>on the left|on the right|in the middle))?"
)
LINK = re.compile(
    r"and|next to|with|beside|to the left of|to the right of|behind|in front of|flying over|"
    r"playing with|wearing|in|on the head of|on"
)


def falsehoods(caption: str, scene: Scene) -> list[str]:
    """Return what is false; an empty list for a true caption."""
    text = caption
    for opening, style in OPENINGS.items():
        if caption.startswith(opening + " "):
            text = caption[len(opening) + 1 :]
            if style not in (None, scene.style):
                return [f"{opening} a {scene.style}"]
    phrases, links, at = [], [], 0
    while at < len(text):
        found = PHRASE.match(text, at)
        if not found:
            return [f"not read from {text[at:]!r}"]
        phrases.append(found)
        at = found.end() + 1
        if at < len(text):
            link = LINK.match(text, at)
            if not link:
                return [f"no link at {text[at:]!r}"]
            links.append(link.group())
            at = link.end() + 1
    options = [_meanings(phrase, scene) for phrase in phrases]
    for phrase, meanings in zip(phrases, options, strict=True):
        if not meanings:
            return [f"there is no {phrase.group()!r}"]
    for chosen in itertools.product(*options):
        things = [number for group in chosen for number in group]
        if len(set(things)) == len(things) and _linked(chosen, links, scene):
            return []
    return [f"no things are so linked: {links}"]


def _meanings(phrase: re.Match, scene: Scene) -> list[tuple[int, ...]]:
    """Return the groups of things that a phrase can mean, by their numbers."""
    noun = MANY.get(phrase["noun"], phrase["noun"])
    color = phrase["color"] or phrase["shirt"] or phrase["clothes"]
    fits = [
        number
        for number, thing in enumerate(scene.things)
        if thing.noun == noun and color in (None, thing.color)
    ]
    count = {"two": 2, "three": 3}.get(phrase["number"])
    if count:
        return [tuple(fits)] if len(fits) == count else []
    side = phrase["side"]
    return [(n,) for n in fits if side is None or _on(scene.things[n], side, scene)]


def _on(thing: Thing, side: str, scene: Scene) -> bool:
    xs = [other.base[1] for other in scene.things if other is not thing]
    if side == "on the left":
        return thing.base[1] < min(*xs, 0.5)
    if side == "on the right":
        return thing.base[1] > max(*xs, 0.5)
    return min(xs) < thing.base[1] < max(xs)


def _linked(chosen: tuple[tuple[int, ...], ...], links: list[str], scene: Scene) -> bool:
    for (one, *_), (other, *_), link in zip(chosen, chosen[1:], links, strict=False):
        a, b = scene.things[one], scene.things[other]
        true = {
            "to the left of": a.base[1] < b.base[1] - 0.1,
            "to the right of": a.base[1] > b.base[1] + 0.1,
            "flying over": a.base[0] < scene.ground.horizon <= b.base[0],
            "wearing": b.worn_by == one,
            "in": b.worn_by == one,
            "on": a.worn_by == other,
            "on the head of": a.worn_by == other,
        }
        if link in ("behind", "in front of"):
            far, near = (one, other) if link == "behind" else (other, one)
            if not (far < near and _hides(near, far, scene)):
                return False
        elif not true.get(link, True):
            return False
    return True


def _hides(near: int, far: int, scene: Scene) -> bool:
    """Whether pixels of `far` come to light when everything nearer is taken away."""
    alone = Scene((scene.things[far],), scene.style, scene.ground)
    whole, seen = draw(alone)[1][0], draw(scene)[1][far]
    return bool(np.any(whole & ~seen)) and near > far
