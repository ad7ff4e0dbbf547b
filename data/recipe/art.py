"""Art: cut-outs of openly licensed emoji, and which part of each takes a color.

`python -m recipe art` makes the cut-outs anew from the packages named in `PACKAGES`; everything
else reads the PNG files in `data/stickers/art`. `windows.json` there says, for every drawing that
is recolored, which part of it is (`recipe.color.membership`); the windows were set by hand and
each drawing looked at in each of its colors (`recipe.sheets.art_sheet`).
"""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from recipe.color import membership, recolor, to_lab

FOLDER = Path(__file__).resolve().parents[1] / "stickers" / "art"
SIDE = 128

STYLES = ("fluent3d", "flat", "noto")
HELD_OUT_STYLE = "twemoji"

# The style's npm package, its version, and the folder of renders where it isn't an icon set.
PACKAGES = {
    "fluent3d": ("@lobehub/fluent-emoji-3d", "1.1.0"),
    "flat": ("@iconify-json/fluent-emoji-flat", "1.2.6"),
    "noto": ("@iconify-json/noto", "1.2.9"),
    "twemoji": ("@iconify-json/twemoji", "1.2.5"),
}

CODE_POINTS = {
    "man": "1f9cd-200d-2642-fe0f",
    "woman": "1f9cd-200d-2640-fe0f",
    "child": "1f9cd",
    "baby": "1f476",
    "dog": "1f415",
    "cat": "1f408",
    "horse": "1f40e",
    "sheep": "1f411",
    "cow": "1f404",
    "elephant": "1f418",
    "zebra": "1f993",
    "giraffe": "1f992",
    "bird": "1f426",
    "rabbit": "1f407",
    "teddy bear": "1f9f8",
    "car": "1f697",
    "bus": "1f68c",
    "airplane": "2708-fe0f",
    "bicycle": "1f6b2",
    "umbrella": "2602-fe0f",
    "chair": "1fa91",
    "cup": "2615",
    "clock": "23f0",
    "ball": "1f3c0",
    "backpack": "1f392",
    "hat": "1f452",
    "apple": "1f34e",
    "banana": "1f34c",
    "pizza": "1f355",
    "cake": "1f382",
}
NOUNS = tuple(CODE_POINTS)

# A coat of two colors: black (or brown) patches on white.
PATCHED = {"black and white": "black", "brown and white": "brown"}

_SHIRTS = ("red", "orange", "green", "blue", "purple", "pink", "black", "white")
_PAINT = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "black", "white", "gray")

# The colors in which a noun is drawn; a noun that isn't here keeps its own.
COLORS_OF: dict[str, tuple[str, ...]] = {
    "man": _SHIRTS,
    "woman": _SHIRTS,
    "child": _SHIRTS,
    "dog": ("black", "white", "brown", "gray", "orange", "black and white"),
    "cat": ("black", "white", "brown", "gray", "orange", "black and white"),
    "horse": ("black", "white", "brown", "gray", "orange", "black and white"),
    "sheep": ("white", "black", "brown", "gray", "pink"),
    "cow": ("black and white", "brown and white"),
    "elephant": ("gray", "blue", "pink", "white", "brown"),
    "bird": ("red", "blue", "yellow", "green", "black", "white", "pink"),
    "rabbit": ("white", "gray", "brown", "black", "pink"),
    "teddy bear": ("brown", "white", "pink", "blue", "purple", "yellow"),
    "car": _PAINT,
    "bus": ("red", "orange", "yellow", "green", "blue", "purple", "white"),
    "airplane": ("white", "gray", "red", "blue", "yellow", "green"),
    "bicycle": ("red", "orange", "yellow", "green", "blue", "purple", "black"),
    "umbrella": _PAINT,
    "chair": ("brown", *_PAINT),
    "cup": _PAINT,
    "clock": _PAINT,
    "ball": ("orange", "red", "yellow", "green", "blue", "purple", "pink", "white", "brown"),
    "backpack": ("red", "orange", "yellow", "green", "blue", "purple", "pink", "black", "brown"),
    "hat": ("yellow", "brown", "red", "green", "blue", "purple", "pink", "black", "white"),
    "apple": ("red", "yellow", "green"),
}
PEOPLE = frozenset({"man", "woman", "child"})  # their color is their shirt's

# One color a noun never has in training: the things of testB's unseen pairs.
UNSEEN = frozenset(
    (noun, colors[(3 * index + 1) % len(colors)])
    for index, (noun, colors) in enumerate(COLORS_OF.items())
    if len(colors) >= 5
)

SHADES = 4  # every sprite is painted in so many shades of a color


@cache
def windows() -> dict[str, dict[str, list[dict[str, tuple[float, float]]]]]:
    """Return the hand-made recoloring windows: noun -> style -> windows."""
    return json.loads((FOLDER / "windows.json").read_text())


@cache
def cut_out(noun: str, style: str) -> UInt8[np.ndarray, "h w 4"]:
    """Return the cut-out of `noun` as it was drawn, RGBA."""
    with Image.open(FOLDER / style / f"{noun.replace(' ', '-')}.png") as picture:
        return np.asarray(picture.convert("RGBA"))


@cache
def body(noun: str, style: str) -> Float[np.ndarray, "h w"]:
    """Return the share of each pixel of a cut-out that takes the color, in [0, 1]."""
    rgba = cut_out(noun, style).astype(float) / 255
    return membership(to_lab(rgba[..., :3]), windows()[noun][style])


@cache
def sprite(noun: str, style: str, color: str | None, shade: int = 0) -> Image.Image:
    """Return a cut-out painted in `color`, one of its `SHADES`; as it was drawn for None.

    Raises:
        ValueError: if the noun is not drawn in that color.
    """
    picture = cut_out(noun, style)
    if color is None:
        return Image.fromarray(picture)
    if color not in COLORS_OF.get(noun, ()):
        known = ", ".join(COLORS_OF.get(noun, ())) or "none: it keeps its own"
        raise ValueError(f"a {noun} is not drawn in {color!r}; its colors are {known}")
    rng = np.random.default_rng((NOUNS.index(noun), shade))
    shift = tuple(rng.uniform((-4, -5, -5), (4, 5, 5)) * (shade > 0))
    if {color, PATCHED.get(color)} & {"black", "white", "gray"} or color in PATCHED:
        shift = (shift[0], shift[1] / 5, shift[2] / 5)
    rgba = picture.astype(float) / 255
    area = body(noun, style)
    if color not in PATCHED:
        painted = recolor(rgba, area, color, shift)
    elif noun == "cow":  # drawn with patches, which alone take the color
        painted = recolor(rgba, area, PATCHED[color], shift)
    else:
        painted = recolor(rgba, area, "white", shift)
        painted = recolor(painted, area * _patches(picture.shape[:2], rng), PATCHED[color], shift)
    return Image.fromarray(np.rint(255 * painted).astype(np.uint8))


def _patches(size: tuple[int, int], rng: np.random.Generator) -> Float[np.ndarray, "h w"]:
    """Return soft-edged patches over about half of `size`: smoothed noise, cut at its median."""
    coarse = Image.fromarray(rng.normal(size=(5, 5)).astype(np.float32))
    smooth = np.asarray(coarse.resize(size[::-1], Image.Resampling.BICUBIC))
    return np.clip((smooth - np.median(smooth)) * 8 + 0.5, 0, 1)


def make_cut_outs(folder: Path = FOLDER) -> None:
    """Fetch the packages with `npm pack`, draw every noun in every style, write the PNG files.

    Needs npm and the Python package `resvg-py`, which renders the SVG bodies of the icon sets.

    Raises:
        ValueError: if a package lacks a noun.
    """
    with tempfile.TemporaryDirectory() as scratch:
        for style, (package, version) in PACKAGES.items():
            archive = subprocess.run(
                ["npm", "pack", "--silent", f"{package}@{version}"],
                cwd=scratch,
                check=True,
                capture_output=True,
                text=True,
            ).stdout.split()[-1]
            with tarfile.open(Path(scratch) / archive) as packed:
                packed.extractall(Path(scratch) / style, filter="data")
            draw = _renders if style == "fluent3d" else _icons
            target = folder / style
            target.mkdir(parents=True, exist_ok=True)
            for noun, picture in draw(Path(scratch) / style / "package").items():
                crop = picture.crop(picture.getbbox())
                crop.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
                crop.save(target / f"{noun.replace(' ', '-')}.png", optimize=True)


def _renders(package: Path) -> dict[str, Image.Image]:
    """Return the drawings of a package of WebP renders."""
    found = {}
    for noun, point in CODE_POINTS.items():
        path = package / "assets" / f"{point}.webp"
        if not path.exists():
            raise ValueError(f"{package} has no drawing of a {noun} ({point})")
        found[noun] = Image.open(path).convert("RGBA")
    return found


def _icons(package: Path) -> dict[str, Image.Image]:
    """Return the drawings of an Iconify icon set, rendered from their SVG bodies."""
    import resvg_py

    names = json.loads((package / "chars.json").read_text())
    icons: dict[str, Any] = json.loads((package / "icons.json").read_text())
    found = {}
    for noun, point in CODE_POINTS.items():
        name = names.get(point) or names.get(point.removesuffix("-fe0f"))
        icon = icons["icons"].get(name)
        if icon is None:
            raise ValueError(f"{package} has no drawing of a {noun} ({point})")
        width, height = (icon.get(k, icons.get(k, 16)) for k in ("width", "height"))
        svg = (
            '<svg xmlns="http://www.w3.org/2000/svg" '
            'xmlns:xlink="http://www.w3.org/1999/xlink" '
            f'viewBox="0 0 {width} {height}" width="{4 * SIDE}" height="{4 * SIDE}">'
            f"{icon['body']}</svg>"
        )
        data = resvg_py.svg_to_bytes(svg_string=svg, width=4 * SIDE, height=4 * SIDE)
        found[noun] = Image.open(io.BytesIO(bytes(data))).convert("RGBA")
    return found


def paints() -> list[tuple[str, str]]:
    """Return every (noun, color) that is drawn."""
    return [(noun, color) for noun, colors in COLORS_OF.items() for color in colors]
