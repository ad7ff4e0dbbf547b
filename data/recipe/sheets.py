"""Sheets to look at: every sprite in every color, and pictures that the models generate."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image, ImageDraw

from nbhelpers.weights import from_pretrained
from recipe.art import COLORS_OF, HELD_OUT_STYLE, NOUNS, STYLES, UNSEEN, sprite
from recipe.captions import article, name
from recipe.scenes import Thing

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline

GUIDANCE = 4.0

# Eight prompts of the contact sheet, six pictures each.
SHEET = (
    "a photograph of a red car",
    "a photograph of a black dog",
    "a photograph of a white horse",
    "a photograph of a yellow umbrella",
    "a photograph of a zebra",
    "a photograph of a black dog next to a white dog",
    "a photograph of a red car and a yellow umbrella",
    "a photograph of a man in a red shirt next to a brown horse",
)


def art_sheet(size: int = 64) -> Image.Image:
    """Return every sprite as it was drawn, then in each of its colors, a row a noun and style.

    A pair that training never shows is framed.
    """
    styles = (*STYLES, HELD_OUT_STYLE)
    columns = 1 + max(len(colors) for colors in COLORS_OF.values())
    label = 90
    sheet = Image.new(
        "RGB", (label + columns * size, len(NOUNS) * len(styles) * size), (140, 160, 140)
    )
    pen = ImageDraw.Draw(sheet)
    rows = [(noun, style) for noun in NOUNS for style in styles]
    for row, (noun, style) in enumerate(rows):
        pen.text((2, row * size + 4), f"{noun}\n{style}", fill=0)
        for column, color in enumerate((None, *COLORS_OF.get(noun, ()))):
            drawn = sprite(noun, style, color).copy()
            drawn.thumbnail((size - 4, size - 4))
            corner = (label + column * size, row * size)
            sheet.paste(drawn, (corner[0] + 2, corner[1] + 2), drawn)
            if (noun, color) in UNSEEN:
                pen.rectangle((*corner, corner[0] + size - 1, corner[1] + size - 1), outline=0)
    return sheet


def load_pipeline(folder: Path) -> StableDiffusionPipeline:
    """Load the pipeline saved in `folder`, in float32 and without its bar."""
    from diffusers import StableDiffusionPipeline

    pipeline = from_pretrained(StableDiffusionPipeline, str(folder), None, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def generate(
    pipeline: StableDiffusionPipeline,
    prompts: Sequence[str],
    *,
    seed: int = 0,
    guidance: float = GUIDANCE,
    steps: int = 30,
    batch: int = 25,
) -> np.ndarray:
    """Return a picture a prompt, uint8 ``(count, h, w, 3)``; picture i's noise is (seed, i)'s."""
    pictures = []
    for start in range(0, len(prompts), batch):
        part = list(prompts[start : start + batch])
        chances = [
            torch.Generator().manual_seed(seed * 1_000_003 + start + i) for i in range(len(part))
        ]
        pictures.append(
            pipeline(
                part,
                num_inference_steps=steps,
                guidance_scale=guidance,
                generator=chances,
                output_type="np",
            ).images
        )
    return np.rint(255 * np.concatenate(pictures)).astype(np.uint8)


def contact_sheet(folder: Path, *, columns: int = 6, seed: int = 0) -> Image.Image:
    """Return pictures generated from `SHEET`, a row a prompt; none is left out."""
    pipeline = load_pipeline(folder)
    pictures = generate(pipeline, [p for p in SHEET for _ in range(columns)], seed=seed)
    padded = np.pad(pictures, ((0, 0), (2, 2), (2, 2), (0, 0)))
    rows = padded.reshape(len(SHEET), columns, *padded.shape[1:])
    grid = rows.transpose(0, 2, 1, 3, 4).reshape(len(SHEET) * padded.shape[1], -1, 3)
    sheet = Image.fromarray(grid)
    return sheet.resize((2 * sheet.width, 2 * sheet.height), Image.Resampling.NEAREST)


def asked_singles(count: int = 100) -> list[list[tuple[str, str | None]]]:
    """Return `count` things to ask for, one a picture, evenly over nouns and their seen colors."""
    rng = np.random.default_rng(0)
    asked: list[list[tuple[str, str | None]]] = []
    for number in range(count):
        noun = NOUNS[number % len(NOUNS)]
        colors = [c for c in COLORS_OF.get(noun, (None,)) if (noun, c) not in UNSEEN]
        asked.append([(noun, colors[int(rng.integers(len(colors)))])])
    return asked


def asked_pairs(count: int = 100) -> list[list[tuple[str, str | None]]]:
    """Return `count` pairs of things of two nouns in two colors to ask for."""
    rng = np.random.default_rng(1)
    nouns = [noun for noun, colors in COLORS_OF.items() if len(colors) >= 3]
    asked: list[list[tuple[str, str | None]]] = []
    while len(asked) < count:
        chosen = [nouns[i] for i in rng.permutation(len(nouns))[:2]]
        pair = [
            (noun, COLORS_OF[noun][int(rng.integers(len(COLORS_OF[noun])))]) for noun in chosen
        ]
        if pair[0][1] != pair[1][1] and not {*pair} & UNSEEN:
            asked.append([(noun, color) for noun, color in pair])
    return asked


def prompt_of(things: Sequence[tuple[str, str | None]]) -> str:
    """Return "a photograph of a red car and a black dog"."""
    names = [name(Thing(noun, color, (0, 0), 0)) for noun, color in things]
    return "a photograph of " + " and ".join(f"{article(words)} {words}" for words in names)
