"""Scenes of one to three stickers on soft ground under a soft sky, drawn with exact masks.

A scene is sampled from a seed, so a picture is never stored where its seed will do. Masks exist
for the benchmark alone: nothing in this package passes one to a training step.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache, lru_cache
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image

from recipe.art import COLORS_OF, NOUNS, SHADES, STYLES, UNSEEN, sprite

SIZE = (80, 80)

# Extent (the longer side) beside that of other things in the same picture.
_EXTENT = {"bus": 1.15, "elephant": 1.15, "giraffe": 1.2, "man": 1.3, "woman": 1.3}
_EXTENT |= {"child": 0.95, "apple": 0.75, "banana": 0.8, "cup": 0.8, "bird": 0.85, "hat": 0.85}
FLYING = frozenset({"airplane", "bird"})
HEADS = {  # (row, column, width) of the head in a sprite, as shares of its height and width
    "baby": (0.30, 0.5, 1.0),
    "man": (0.05, 0.5, 0.62),
    "woman": (0.05, 0.5, 0.62),
    "child": (0.05, 0.5, 0.62),
}
_SKIES = (
    *((0.75, 0.86, 0.97), (0.90, 0.93, 0.97), (0.97, 0.90, 0.80), (0.86, 0.84, 0.95)),
    *((0.96, 0.86, 0.87), (0.80, 0.90, 0.88)),
)
_GROUNDS = (
    *((0.47, 0.62, 0.38), (0.78, 0.70, 0.52), (0.62, 0.60, 0.60), (0.66, 0.56, 0.47)),
    *((0.76, 0.80, 0.86), (0.55, 0.66, 0.62)),
)


@dataclass(frozen=True)
class Thing:
    """One sticker: what it is called and where it stands, in shares of the picture.

    Attributes:
        noun: one of `NOUNS`.
        color: of its body, or of its shirt; None where it keeps its own.
        base: (y, x) of the middle of its lower edge.
        extent: its longer side.
        shade: which of the color's shades.
        flipped: whether it is mirrored.
        angle: by which it is turned, in degrees.
        worn_by: number of the thing on whose head it is, for a hat.
    """

    noun: str
    color: str | None
    base: tuple[float, float]
    extent: float
    shade: int = 0
    flipped: bool = False
    angle: float = 0.0
    worn_by: int | None = None


@dataclass(frozen=True)
class Ground:
    """What is behind the things: a sky over a ground, with a hilly horizon."""

    sky: tuple[tuple[float, ...], tuple[float, ...]]
    ground: tuple[tuple[float, ...], tuple[float, ...]]
    horizon: float
    hill: tuple[float, float, float]
    grain: int


@dataclass(frozen=True)
class Scene:
    """Things in the order of painting, the farthest first, all drawn in one style."""

    things: tuple[Thing, ...]
    style: str
    ground: Ground

    def flies(self, thing: Thing) -> bool:
        """Return whether a thing is in the sky, so that it has no shadow."""
        return thing.noun in FLYING and thing.base[0] < self.ground.horizon


def sample_scene(
    rng: np.random.Generator,
    *,
    count: int | None = None,
    twins: bool | None = None,
    unseen: bool = False,
    style: str | None = None,
) -> Scene:
    """Sample a scene in which at least two thirds of every thing are visible.

    Args:
        rng: source of all chance.
        count: number of things, 1 to 3; sampled (0.35, 0.45, 0.20) if not given.
        twins: whether two things share their noun and never their color; sampled with
            probability 0.35 if not given. It needs two things.
        unseen: whether one thing is a pair of color and noun that training never shows.
        style: a style of the art; one of the three training styles if not given.

    Raises:
        ValueError: if twins are asked of a single thing.
    """
    count = int(rng.choice(3, p=(0.35, 0.45, 0.20))) + 1 if count is None else count
    if twins and count < 2:
        raise ValueError(f"twins need two things or more (got count={count})")
    twins = bool(rng.random() < 0.35) if twins is None else twins
    style = STYLES[int(rng.integers(len(STYLES)))] if style is None else style
    return compose_scene(rng, _sample_names(rng, count, twins and count > 1, unseen), style)


def compose_scene(
    rng: np.random.Generator, names: list[tuple[str, str | None, int | None]], style: str
) -> Scene:
    """Sample a scene of given things in which at least two thirds of each are visible.

    Args:
        rng: source of all chance.
        names: the noun, the color and, for a hat that is worn, the number of its wearer.
        style: a style of the art.
    """
    while True:
        scene = Scene(_place(rng, names), style, sample_ground(rng))
        if (visible_shares(scene) >= 2 / 3).all():
            return scene


def sample_ground(rng: np.random.Generator) -> Ground:
    """Sample a ground."""
    sky, ground = _SKIES[rng.integers(len(_SKIES))], _GROUNDS[rng.integers(len(_GROUNDS))]
    shift = rng.uniform(-0.05, 0.05, (4, 3)) + rng.uniform(-0.04, 0.04, (4, 1))
    tones = zip((sky, sky, ground, ground), shift, strict=True)
    tints = [tuple(np.clip(np.array(tone) + moved, 0, 1)) for tone, moved in tones]
    hill = (rng.uniform(0, 0.05), rng.uniform(0.5, 1.6), rng.uniform(0, 2 * np.pi))
    return Ground(
        (tints[0], tints[1]),
        (tints[2], tints[3]),
        float(rng.uniform(0.3, 0.55)),
        (float(hill[0]), float(hill[1]), float(hill[2])),
        int(rng.integers(2**31)),
    )


def _sample_names(
    rng: np.random.Generator, count: int, twins: bool, unseen: bool
) -> list[tuple[str, str | None, int | None]]:
    """Return (noun, color, worn by) of each thing: nouns differ, but for twins, whose colors do.

    In one scene of twelve with two things or more the second is a hat on the first one's head; in
    one of three with twins a third thing is of the same noun as well and may share a color.
    """
    if twins or unseen:
        first = [noun for noun, colors in COLORS_OF.items() if len(colors) > 2 or not unseen]
        first = [n for n in first if not unseen or any(pair[0] == n for pair in UNSEEN)]
    else:
        first = list(NOUNS)
    noun = first[int(rng.integers(len(first)))]
    wears = count > 1 and not twins and not unseen and rng.random() < 1 / 12
    if wears:
        noun = tuple(HEADS)[int(rng.integers(len(HEADS)))]
    names: list[tuple[str, str | None, int | None]] = [(noun, _color(rng, noun, (), unseen), None)]
    if wears:
        names.append(("hat", _color(rng, "hat", ()), 0))
    elif twins:
        names.append((noun, _color(rng, noun, (names[0][1],)), None))
        if count > 2 and rng.random() < 1 / 3:
            names.append((noun, names[1][1], None))
    others = [n for n in NOUNS if n not in {name[0] for name in names}]
    for index in rng.permutation(len(others))[: count - len(names)]:
        names.append((others[index], _color(rng, others[index], ()), None))
    return names


def _color(
    rng: np.random.Generator, noun: str, taken: tuple[str | None, ...], unseen: bool = False
) -> str | None:
    """Return a color of `noun` that is not `taken`; `unseen`, one that training never shows."""
    colors = [
        color
        for color in COLORS_OF.get(noun, ())
        if color not in taken and ((noun, color) in UNSEEN) == unseen
    ]
    return colors[int(rng.integers(len(colors)))] if colors else None


def _place(
    rng: np.random.Generator, names: list[tuple[str, str | None, int | None]]
) -> tuple[Thing, ...]:
    """Return things at locations where their boxes hardly overlap, or one is behind another."""
    count = sum(worn is None for _, _, worn in names)
    low, high = {1: (0.58, 0.85), 2: (0.42, 0.62), 3: (0.34, 0.46)}[count]
    overlap = 0.45 if rng.random() < 0.25 else 0.12
    things: list[Thing] = []
    boxes: list[tuple[float, float, float, float]] = []
    for noun, color, worn in names:
        look: dict[str, Any] = {
            "shade": int(rng.integers(SHADES)),
            "flipped": bool(rng.random() < 0.5),
            "angle": float(rng.uniform(-6, 6)),
        }
        if worn is not None:
            things.append(_put_on(things[worn], worn, noun, color, look))
            continue
        for _ in range(60):
            extent = min(0.92, float(rng.uniform(low, high)) * _EXTENT.get(noun, 1.0))
            height, width = _shape(noun, extent)
            limits = (max(height + 0.02, 0.45), 0.97)
            if noun in FLYING and rng.random() < 0.5:
                limits = (height + 0.03, max(0.45, height + 0.05))
            y = float(rng.uniform(*limits))
            if limits[1] == 0.97:
                extent *= 0.8 + 0.2 * (y - limits[0]) / max(1e-6, limits[1] - limits[0])
                height, width = _shape(noun, extent)
            x = float(rng.uniform(width / 2 + 0.02, 0.98 - width / 2))
            box = (y - height, x - width / 2, y, x + width / 2)
            if all(_overlap(box, other) <= overlap for other in boxes):
                break
        boxes.append(box)
        things.append(Thing(noun, color, (y, x), extent, **look))
    return _back_to_front(things)


@cache
def _proportions(noun: str) -> tuple[float, float]:
    """Return height and width beside the longer side, as wide as the widest of the drawings."""
    sizes = [sprite(noun, style, None).size for style in STYLES]
    return (max(h / max(h, w) for w, h in sizes), max(w / max(h, w) for w, h in sizes))


def _shape(noun: str, extent: float) -> tuple[float, float]:
    """Return the height and width of a thing's box."""
    high, wide = _proportions(noun)
    return extent * high, extent * wide


def _put_on(wearer: Thing, number: int, noun: str, color: str | None, look: dict) -> Thing:
    """Return a hat on the head of `wearer`, a little wider than the head."""
    row, column, width = HEADS[wearer.noun]
    height, breadth = _shape(wearer.noun, wearer.extent)
    y, x = wearer.base
    top = y - height * (1 - row)
    return Thing(
        noun,
        color,
        (top + 0.04 * height, x + (column - 0.5) * breadth),
        1.15 * width * breadth,
        look["shade"],
        look["flipped"],
        look["angle"],
        number,
    )


def _back_to_front(things: list[Thing]) -> tuple[Thing, ...]:
    """Return things by their lower edges, the farthest first, hats right after their wearers."""

    def depth(number: int) -> tuple[float, bool]:
        worn_by = things[number].worn_by
        return things[number if worn_by is None else worn_by].base[0], worn_by is not None

    order = sorted(range(len(things)), key=depth)
    return tuple(
        thing if thing.worn_by is None else replace(thing, worn_by=order.index(thing.worn_by))
        for thing in (things[i] for i in order)
    )


def _overlap(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    """Return the share of the smaller box that lies in both."""
    height = min(one[2], other[2]) - max(one[0], other[0])
    width = min(one[3], other[3]) - max(one[1], other[1])
    if height <= 0 or width <= 0:
        return 0.0
    return height * width / min((b[2] - b[0]) * (b[3] - b[1]) for b in (one, other))


def sticker(
    thing: Thing, style: str, size: tuple[int, int]
) -> tuple[UInt8[np.ndarray, "h w 4"], tuple[int, int]]:
    """Return a thing as RGBA at the picture's resolution, and the (row, column) of its corner."""
    drawn = sprite(thing.noun, style, thing.color, thing.shade)
    if thing.flipped:
        drawn = drawn.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    scale = thing.extent * min(size) / max(drawn.size)
    width, height = (max(1, round(scale * n)) for n in drawn.size)
    # Premultiplied, so that what is transparent does not bleed into the edges.
    small = drawn.convert("RGBa").resize((width, height), Image.Resampling.LANCZOS)
    if thing.angle:
        small = small.rotate(thing.angle, Image.Resampling.BICUBIC, expand=True)
    picture = np.asarray(small.convert("RGBA"))
    rows, columns = picture.shape[:2]
    y, x = thing.base
    lift = (rows - height) / 2  # what turning added below
    return picture, (round(y * size[0] + lift) - rows, round(x * size[1] - columns / 2))


def draw(
    scene: Scene, size: tuple[int, int] = SIZE
) -> tuple[UInt8[np.ndarray, "h w 3"], Bool[np.ndarray, "thing h w"]]:
    """Draw a scene.

    Returns:
        The picture, and a mask per thing: the pixels it covers by half or more and that no nearer
        thing covers by half or more.
    """
    picture = _paint_ground(scene.ground, size)
    masks = np.zeros((len(scene.things), *size), dtype=bool)
    for number, thing in enumerate(scene.things):
        rgba, corner = sticker(thing, scene.style, size)
        inside, there = _windows(rgba.shape[:2], corner, size)
        patch = rgba[inside].astype(float) / 255
        if not scene.flies(thing) and thing.worn_by is None:
            _paint_shadow(picture, thing, rgba.shape[:2], size)
        alpha = patch[..., 3:]
        picture[there] += alpha * (patch[..., :3] - picture[there])
        cover = patch[..., 3] >= 0.5
        for nearer in masks[:number]:
            nearer[there] &= ~cover
        masks[number][there] = cover
    return np.rint(255 * np.clip(picture, 0, 1)).astype(np.uint8), masks


@lru_cache(maxsize=8)
def visible_shares(scene: Scene, size: tuple[int, int] = (40, 40)) -> Float[np.ndarray, " thing"]:
    """Return the share of each thing that is inside the picture and not hidden."""
    covers, whole = [], []
    for thing in scene.things:
        rgba, corner = sticker(thing, scene.style, size)
        inside, there = _windows(rgba.shape[:2], corner, size)
        cover = np.zeros(size, dtype=bool)
        cover[there] = rgba[inside][..., 3] >= 128
        covers.append(cover)
        whole.append(max(1, int((rgba[..., 3] >= 128).sum())))
    shares = np.ones(len(covers))
    nearer = np.zeros(size, dtype=bool)
    for number in reversed(range(len(covers))):
        shares[number] = (covers[number] & ~nearer).sum() / whole[number]
        nearer |= covers[number]
    return shares


def _windows(
    shape: tuple[int, int], corner: tuple[int, int], size: tuple[int, int]
) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Return the part of a patch that lies in the picture, and where it lies there."""
    inside, there = [], []
    for length, start, limit in zip(shape, corner, size, strict=True):
        first, last = max(0, -start), min(length, limit - start)
        last = max(first, last)
        inside.append(slice(first, last))
        there.append(slice(start + first, start + last))
    return (inside[0], inside[1]), (there[0], there[1])


def _paint_ground(ground: Ground, size: tuple[int, int]) -> Float[np.ndarray, "h w 3"]:
    """Return the sky and the ground, each from one tint to another, the ground with a grain."""
    height, width = size
    y, x = np.mgrid[:height, :width] / np.array([height, width])[:, None, None]
    wave, waves, phase = ground.hill
    edge = ground.horizon + wave * np.sin(2 * np.pi * waves * x + phase)
    below = np.clip((y - edge) * height + 0.5, 0, 1)[..., None]
    sky, soil = np.array(ground.sky), np.array(ground.ground)
    up = np.clip(y / np.maximum(edge, 1e-6), 0, 1)[..., None]
    down = np.clip((y - edge) / np.maximum(1 - edge, 1e-6), 0, 1)[..., None]
    grain = np.random.default_rng(ground.grain).normal(0, 0.02, (20, 20)).astype(np.float32)
    speckle = np.asarray(Image.fromarray(grain).resize((width, height), Image.Resampling.BICUBIC))
    above = (1 - up) * sky[0] + up * sky[1]
    under = (1 - down) * soil[0] + down * soil[1] + speckle[..., None]
    return (1 - below) * above + below * under


def _paint_shadow(
    picture: Float[np.ndarray, "h w 3"],
    thing: Thing,
    shape: tuple[int, int],
    size: tuple[int, int],
) -> None:
    """Darken an ellipse under a thing."""
    y, x = thing.base[0] * size[0] - 1, thing.base[1] * size[1]
    across = 0.45 * shape[1]
    down = max(1.5, 0.16 * across)
    top, bottom = max(0, int(y - 2 * down)), min(size[0], int(y + 2 * down) + 1)
    left, right = max(0, int(x - 1.3 * across)), min(size[1], int(x + 1.3 * across) + 1)
    v, u = np.mgrid[top:bottom, left:right]
    far = ((v - y) / down) ** 2 + ((u - x) / across) ** 2
    picture[top:bottom, left:right] *= 1 - 0.35 * np.clip(1.3 - far, 0, 1)[..., None]
