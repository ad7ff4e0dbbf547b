"""The paper's own six prompts (Figures 2 to 6 and 8), each with a picture to try it on."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from nbhelpers.files import write_whole
from recipe.benchmark import run_lengths
from recipe.scenes import Scene, Thing, draw, sample_ground


@dataclass(frozen=True)
class Prompt:
    """A prompt of the paper, and things to draw for it, the farthest first.

    Attributes:
        figure: of the paper.
        phrase: as the paper has it, without "a photograph of".
        style: of the drawing.
        things: what is drawn.
        meant: the numbers of the things that the phrase means.
    """

    figure: int
    phrase: str
    style: str
    things: tuple[Thing, ...]
    meant: tuple[int, ...]


PROMPTS = (
    Prompt(
        2,
        "a black and white horse",
        "fluent3d",
        (
            Thing("horse", "brown", (0.66, 0.24), 0.40, flipped=True),
            Thing("horse", "black and white", (0.93, 0.40), 0.50, shade=1),
            Thing("horse", "brown", (0.72, 0.77), 0.40, shade=2),
        ),
        (1,),
    ),
    Prompt(
        3,
        "yellow hat on a baby's head",
        "fluent3d",
        (
            Thing("baby", None, (0.95, 0.5), 0.56),
            Thing("hat", "yellow", (0.57, 0.5), 0.54, worn_by=0),
        ),
        (1,),
    ),
    Prompt(
        4,
        "children in red",
        "flat",
        (
            Thing("child", "blue", (0.82, 0.5), 0.54),
            Thing("child", "red", (0.92, 0.24), 0.58, shade=1),
            Thing("child", "red", (0.92, 0.77), 0.56, flipped=True),
        ),
        (1, 2),
    ),
    Prompt(
        5,
        "white horse",
        "flat",
        (
            Thing("horse", "brown", (0.66, 0.70), 0.44, flipped=True),
            Thing("horse", "white", (0.92, 0.33), 0.52),
        ),
        (1,),
    ),
    Prompt(
        6,
        "white horse",
        "noto",
        (
            Thing("horse", "white", (0.62, 0.30), 0.42),
            Thing("man", "blue", (0.93, 0.70), 0.66),
        ),
        (0,),
    ),
    Prompt(
        8,
        "white dog playing with two black dogs",
        "noto",
        (
            Thing("dog", "black", (0.68, 0.25), 0.38, flipped=True),
            Thing("dog", "black", (0.72, 0.76), 0.38),
            Thing("dog", "white", (0.95, 0.5), 0.42),
        ),
        (2,),
    ),
)


def scene_of_prompt(prompt: Prompt) -> Scene:
    """Return the scene of one of `PROMPTS`."""
    ground = sample_ground(np.random.default_rng((prompt.figure, 2024)))
    return Scene(prompt.things, prompt.style, ground)


def write_prompts(folder: Path) -> None:
    """Write `paper/figure-N.png` and `paper/prompts.json` with the mask of what is meant."""
    (folder / "paper").mkdir(parents=True, exist_ok=True)
    records = []
    for prompt in PROMPTS:
        picture, masks = draw(scene_of_prompt(prompt))
        file_name = f"figure-{prompt.figure}.png"
        Image.fromarray(picture).save(folder / "paper" / file_name, optimize=True)
        records.append(
            {
                "figure": prompt.figure,
                "phrase": prompt.phrase,
                "file_name": file_name,
                "segmentation": run_lengths(np.any(masks[list(prompt.meant)], axis=0)),
            }
        )
    text = json.dumps(records, separators=(",", ":")) + "\n"
    write_whole(folder / "paper" / "prompts.json", text.encode())
