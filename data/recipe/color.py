"""Colors: CIELAB and back, the eleven basic colors of English, and the recoloring of a sprite."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

# Targets in CIELAB (D65): lightness 0 to 100, a (green to red), b (blue to yellow).
COLORS: dict[str, tuple[float, float, float]] = {
    "red": (47, 66, 44),
    "orange": (68, 38, 72),
    "yellow": (86, -2, 80),
    "green": (50, -46, 38),
    "blue": (44, 12, -62),
    "purple": (42, 44, -48),
    "pink": (72, 42, -2),
    "brown": (36, 20, 30),
    "black": (17, 0, 0),
    "white": (92, 0, 0),
    "gray": (60, 0, -2),
}
# How much of the shading of the original stays: black and white leave little room for it.
_SHADING = {"black": 0.45, "white": 0.55}

_TO_XYZ = np.array(
    [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.0721750],
        [0.0193339, 0.1191920, 0.9503041],
    ]
)
_WHITE = _TO_XYZ.sum(1)
_EPSILON = 6 / 29


def to_lab(rgb: Float[np.ndarray, "*shape 3"]) -> Float[np.ndarray, "*shape 3"]:
    """Convert sRGB in [0, 1] to CIELAB under D65 (CIE 15:2004; IEC 61966-2-1)."""
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    ratio = linear @ _TO_XYZ.T / _WHITE
    f = np.where(ratio > _EPSILON**3, np.cbrt(ratio), ratio / (3 * _EPSILON**2) + 4 / 29)
    x, y, z = np.moveaxis(f, -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], -1)


def to_rgb(lab: Float[np.ndarray, "*shape 3"]) -> Float[np.ndarray, "*shape 3"]:
    """Convert CIELAB to sRGB, clipped to [0, 1]."""
    light, a, b = np.moveaxis(lab, -1, 0)
    y = (light + 16) / 116
    f = np.stack([y + a / 500, y, y - b / 200], -1)
    ratio = np.where(f > _EPSILON, f**3, 3 * _EPSILON**2 * (f - 4 / 29))
    linear = np.clip((ratio * _WHITE) @ np.linalg.inv(_TO_XYZ).T, 0, 1)
    return np.clip(
        np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055), 0, 1
    )


def membership(
    lab: Float[np.ndarray, "h w 3"], windows: list[dict[str, tuple[float, float]]]
) -> Float[np.ndarray, "h w"]:
    """Return how far each pixel lies in any of `windows`, in [0, 1], with soft edges.

    Args:
        lab: a sprite in CIELAB.
        windows: each a box of `hue` (degrees, may wrap past 360), `chroma`, `light`, `rows` and
            `columns` (shares of the sprite's height and width); what is absent is unbounded.
    """
    height, width = lab.shape[:2]
    values = {
        "light": (lab[..., 0], 4.0),
        "chroma": (np.hypot(lab[..., 1], lab[..., 2]), 4.0),
        "rows": (np.linspace(0, 1, height)[:, None], 0.01),
        "columns": (np.linspace(0, 1, width)[None, :], 0.01),
    }
    hue = np.degrees(np.arctan2(lab[..., 2], lab[..., 1]))
    best = np.zeros((height, width))
    for window in windows:
        inside = np.ones((height, width))
        for key, (low, high) in window.items():
            if key == "hue":
                center, reach = (low + high) / 2, (high - low) / 2
                distance = np.abs((hue - center + 180) % 360 - 180)
                inside = np.minimum(inside, np.clip((reach - distance) / 8 + 0.5, 0, 1))
            else:
                value, soft = values[key]
                inside = np.minimum(inside, np.clip((value - low) / soft + 0.5, 0, 1))
                inside = np.minimum(inside, np.clip((high - value) / soft + 0.5, 0, 1))
        best = np.maximum(best, inside)
    return best


def recolor(
    rgba: Float[np.ndarray, "h w 4"],
    body: Float[np.ndarray, "h w"],
    color: str,
    shift: tuple[float, float, float] = (0, 0, 0),
) -> Float[np.ndarray, "h w 4"]:
    """Paint the `body` of a sprite in `color`; its shading stays, about the color's lightness.

    Args:
        rgba: the sprite, straight alpha, in [0, 1].
        body: share of each pixel that takes the color, in [0, 1].
        color: a key of `COLORS`.
        shift: added to the target in CIELAB, so that no two reds are the same red.
    """
    lab = to_lab(rgba[..., :3])
    weights = body * rgba[..., 3]
    middle = np.average(lab[..., 0], weights=weights) if weights.sum() > 0 else 50.0
    light, a, b = np.add(COLORS[color], shift)
    painted = np.empty_like(lab)
    painted[..., 0] = np.clip(light + _SHADING.get(color, 0.7) * (lab[..., 0] - middle), 3, 98)
    # Towards white and black a color loses some of its chroma, as a highlight on it does.
    room = np.minimum(painted[..., 0] / max(light, 1), (100 - painted[..., 0]) / (100 - light))
    painted[..., 1:] = np.array([a, b]) * np.sqrt(np.clip(room, 0, 1))[..., None]
    share = body[..., None]
    mixed = to_rgb(share * painted + (1 - share) * lab)
    return np.concatenate([mixed, rgba[..., 3:]], -1)
