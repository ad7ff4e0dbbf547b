"""Scenes of one to three things on a soft ground, drawn with exact masks.

A scene is sampled from a seed, so a picture is never stored where its seed will do. Masks exist
for the benchmark alone: nothing in `nbhelpers.shapes` passes one to a training step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, UInt8

SIZE = (80, 80)
SUPERSAMPLING = 3

COLORS: dict[str, tuple[float, float, float]] = {
    "red": (0.86, 0.15, 0.15),
    "orange": (0.96, 0.55, 0.08),
    "yellow": (0.97, 0.87, 0.18),
    "green": (0.18, 0.60, 0.22),
    "turquoise": (0.14, 0.76, 0.74),
    "blue": (0.14, 0.28, 0.82),
    "purple": (0.56, 0.20, 0.70),
    "white": (0.97, 0.97, 0.97),
}
PATTERNS = ("plain", "striped", "dotted")

Inside = Callable[[np.ndarray, np.ndarray], np.ndarray]


def _polygon(*corners: tuple[float, float]) -> Inside:
    """Return the even-odd test of a polygon with `corners` (x, y)."""

    def inside(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        crossed = np.zeros(x.shape, dtype=bool)
        for (x0, y0), (x1, y1) in zip(corners, corners[1:] + corners[:1], strict=True):
            if y0 != y1:
                between = (y0 > y) != (y1 > y)
                crossed ^= between & (x < (x1 - x0) * (y - y0) / (y1 - y0) + x0)
        return crossed

    return inside


def _star(points: int, inner: float) -> Inside:
    angles = np.pi * np.arange(2 * points) / points
    radii = np.where(np.arange(2 * points) % 2, inner, 1.0)
    return _polygon(*zip(radii * np.sin(angles), -radii * np.cos(angles), strict=True))


def _moon(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return (np.hypot(x, y) < 0.98) & (np.hypot(x - 0.55, y) > 0.78)


def _heart(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    u, v = 1.22 * x, 0.12 - 1.15 * y
    return (u * u + v * v - 1) ** 3 < u * u * v**3


def _flower(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.hypot(x, y) < 0.72 + 0.26 * np.cos(5 * np.arctan2(y, x))


_roof = _polygon((-0.98, -0.08), (0.0, -0.98), (0.98, -0.08))
_tail = _polygon((0.35, 0.0), (0.98, -0.55), (0.98, 0.55))
_crown = _polygon((-0.84, 0.55), (0.0, -0.98), (0.84, 0.55))

# Tests of "is (x, y) inside?", x to the right and y down, each within the circle of radius 1.3.
SHAPES: dict[str, Inside] = {
    "ball": lambda x, y: np.hypot(x, y) < 0.92,
    "ring": lambda x, y: np.abs(np.hypot(x, y) - 0.71) < 0.27,
    "moon": _moon,
    "star": _star(5, 0.48),
    "heart": _heart,
    "cross": lambda x, y: (
        (np.minimum(abs(x), abs(y)) < 0.36) & (np.maximum(abs(x), abs(y)) < 0.95)
    ),
    "square": lambda x, y: np.maximum(abs(x), abs(y)) < 0.80,
    "triangle": _polygon((-0.95, 0.75), (0.0, -0.92), (0.95, 0.75)),
    "flower": _flower,
    "house": lambda x, y: _roof(x, y) | ((abs(x) < 0.66) & (y > -0.12) & (y < 0.90)),
    "fish": lambda x, y: (np.hypot((x + 0.2) / 0.78, y / 0.56) < 1) | _tail(x, y),
    "tree": lambda x, y: _crown(x, y) | ((abs(x) < 0.17) & (y > 0.4) & (y < 0.98)),
}
NOUNS = tuple(SHAPES)

# One color a noun never has in training: the things of testB.
UNSEEN = frozenset(
    (noun, tuple(COLORS)[(5 * index + 3) % len(COLORS)]) for index, noun in enumerate(NOUNS)
)


@dataclass(frozen=True)
class Thing:
    """One drawn object: what it is called and where it stands (pixels and radians)."""

    noun: str
    color: str
    pattern: str
    center: tuple[float, float]
    radius: float
    angle: float
    shade: tuple[float, float, float]


@dataclass(frozen=True)
class Scene:
    """Things that do not overlap, on a ground that runs from one pale color to another."""

    things: tuple[Thing, ...]
    ground: tuple[tuple[float, float, float], tuple[float, float, float]]
    slope: float
    size: tuple[int, int] = SIZE


def sample_scene(
    rng: np.random.Generator,
    *,
    count: int | None = None,
    twins: bool | None = None,
    unseen: bool = False,
    size: tuple[int, int] = SIZE,
) -> Scene:
    """Sample a scene.

    Args:
        rng: source of all chance.
        count: number of things, 1 to 3; sampled (0.25, 0.35, 0.40) if not given.
        twins: whether the first two things share their noun (never their color); sampled with
            probability 0.35 if not given. It needs two things.
        unseen: whether the first thing is a pair of color and noun that training never shows.
        size: (h, w) in pixels.

    Raises:
        ValueError: if twins are asked of a single thing.
    """
    count = int(rng.choice(3, p=(0.25, 0.35, 0.40))) + 1 if count is None else count
    if twins and count < 2:
        raise ValueError(f"twins need two things or more (got count={count})")
    twins = bool(rng.random() < 0.35) if twins is None else twins
    names = _sample_names(rng, count, twins and count > 1, unseen)
    radius_limits = (0.17, 0.235) if count == 3 else (0.17, 0.27)
    circles: list[tuple[float, float, float]] = []
    while len(circles) < count:
        circles = _place(rng, count, radius_limits, size)
    things = tuple(
        Thing(
            noun,
            color,
            PATTERNS[int(rng.choice(3, p=(0.4, 0.3, 0.3)))],
            (y, x),
            radius,
            float(rng.uniform(-0.4, 0.4)),
            tuple(np.clip(np.array(COLORS[color]) + rng.uniform(-0.035, 0.035, 3), 0, 1)),
        )
        for (noun, color), (y, x, radius) in zip(names, circles, strict=True)
    )
    pale = [tuple(_pale(rng)) for _ in range(2)]
    return Scene(things, (pale[0], pale[1]), float(rng.uniform(0, 2 * np.pi)), size)


def _sample_names(
    rng: np.random.Generator, count: int, twins: bool, unseen: bool
) -> list[tuple[str, str]]:
    """Return `count` (noun, color): nouns differ, but for twins; twins differ in color."""
    nouns = [NOUNS[i] for i in rng.permutation(len(NOUNS))[:count]]
    if twins:
        nouns[1] = nouns[0]
    names: list[tuple[str, str]] = []
    for index, noun in enumerate(nouns):
        wanted_unseen = unseen and index == 0
        colors = [
            color
            for color in COLORS
            if ((noun, color) in UNSEEN) == wanted_unseen and (noun, color) not in names
        ]
        names.append((noun, colors[int(rng.integers(len(colors)))]))
    return names


def _place(
    rng: np.random.Generator,
    count: int,
    radius_limits: tuple[float, float],
    size: tuple[int, int],
) -> list[tuple[float, float, float]]:
    """Return up to `count` circles (y, x, radius) that do not touch; fewer if luck runs out."""
    circles: list[tuple[float, float, float]] = []
    for _ in range(80):
        radius = rng.uniform(*radius_limits) * min(size)
        margin = radius + 1
        y, x = rng.uniform(margin, size[0] - margin), rng.uniform(margin, size[1] - margin)
        if all(np.hypot(y - v, x - u) > radius + r + 1 for v, u, r in circles):
            circles.append((float(y), float(x), float(radius)))
        if len(circles) == count:
            break
    return circles


def _pale(rng: np.random.Generator) -> Float[np.ndarray, "3"]:
    """Return a pale color: a gray of 0.45 to 0.8 with a breath of hue."""
    return rng.uniform(0.48, 0.80) + rng.uniform(-0.07, 0.07, 3)


def draw(scene: Scene) -> tuple[UInt8[np.ndarray, "h w 3"], Bool[np.ndarray, "thing h w"]]:
    """Draw a scene, three samples a pixel side, averaged down.

    Returns:
        The picture, and a mask per thing: the pixels that it covers by half or more.
    """
    height, width = scene.size
    y, x = np.mgrid[:height, :width]
    along = np.cos(scene.slope) * (x / width - 0.5) + np.sin(scene.slope) * (y / height - 0.5)
    blend = np.clip(along + 0.5, 0, 1)[..., None]
    picture = (1 - blend) * np.array(scene.ground[0]) + blend * np.array(scene.ground[1])
    masks = np.zeros((len(scene.things), height, width), dtype=bool)
    for mask, thing in zip(masks, scene.things, strict=True):
        rows, columns, cover, paint = _paint(thing, scene.size)
        patch = picture[rows, columns]
        patch += cover[..., None] * (paint - patch)
        mask[rows, columns] = cover >= 0.5
    return np.rint(255 * np.clip(picture, 0, 1)).astype(np.uint8), masks


def _paint(
    thing: Thing, size: tuple[int, int]
) -> tuple[slice, slice, Float[np.ndarray, "h w"], Float[np.ndarray, "h w 3"]]:
    """Return where a thing stands, how far it covers each pixel there, and its color there."""
    reach = thing.radius * 1.05 + 1
    top, left = (max(0, int(c - reach)) for c in thing.center)
    bottom, right = (min(n, int(c + reach) + 2) for c, n in zip(thing.center, size, strict=True))
    fine = (np.arange(SUPERSAMPLING) + 0.5) / SUPERSAMPLING
    v = (np.arange(top, bottom)[:, None] + fine).ravel()[:, None] - thing.center[0]
    u = (np.arange(left, right)[:, None] + fine).ravel()[None, :] - thing.center[1]
    cos, sin = np.cos(thing.angle), np.sin(thing.angle)
    x, y = (cos * u + sin * v) / thing.radius, (cos * v - sin * u) / thing.radius
    inside = SHAPES[thing.noun](x, y)
    if thing.pattern == "striped":
        dark = np.mod(x + 0.7 * y, 0.56) < 0.28
    elif thing.pattern == "dotted":
        dark = np.hypot(np.mod(x, 0.56) - 0.28, np.mod(y, 0.56) - 0.28) < 0.17
    else:
        dark = np.zeros_like(inside)
    light = 1 - 0.10 * np.clip(y, -1, 1) - 0.5 * dark

    def average(a: np.ndarray) -> np.ndarray:
        s = SUPERSAMPLING
        return a.reshape(a.shape[0] // s, s, a.shape[1] // s, s).mean((1, 3))

    cover = average(inside.astype(float))
    shading = average(inside * light) / np.maximum(cover, 1e-9)
    paint = np.clip(shading[..., None] * np.array(thing.shade), 0, 1)
    return slice(top, bottom), slice(left, right), cover, paint
