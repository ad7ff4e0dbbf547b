"""What the small Stable Diffusion draws when it is asked: a contact sheet, and shares."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from nbhelpers.captions import caption
from nbhelpers.models import Captioner
from nbhelpers.shapes.benchmark import said_of
from nbhelpers.shapes.captions import article
from nbhelpers.shapes.world import COLORS, NOUNS, UNSEEN
from nbhelpers.weights import from_pretrained

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline

GUIDANCE = 5.0

SHEET = (
    "a photograph of a red ring",
    "a photograph of a striped blue star",
    "a photograph of a dotted yellow fish",
    "a photograph of a green tree",
    "a photograph of a white house",
    "a photograph of a purple heart",
    "a photograph of a red ball and a blue square",
    "a photograph of a yellow moon and a striped green cross",
)


# Every pair of noun and color that training showed.
ASKED = tuple((noun, color) for noun in NOUNS for color in COLORS if (noun, color) not in UNSEEN)


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
) -> np.ndarray:
    """Return a picture a prompt by 50 steps, uint8 ``(count, h, w, 3)``."""
    pictures = pipeline(
        list(prompts),
        num_inference_steps=50,
        guidance_scale=guidance,
        generator=torch.Generator().manual_seed(seed),
        output_type="np",
    ).images
    return np.rint(255 * pictures).astype(np.uint8)


def contact_sheet(folder: Path, path: Path, *, columns: int = 6, seed: int = 0) -> None:
    """Generate pictures from `SHEET` by `StableDiffusionPipeline`, a row a prompt."""
    pipeline = load_pipeline(folder)
    rows = []
    for prompt in tqdm(SHEET, "contact sheet"):
        pictures = generate(pipeline, [prompt] * columns, seed=seed)
        rows.append(np.concatenate([np.pad(p, ((2, 2), (2, 2), (0, 0))) for p in pictures], 1))
    sheet = np.concatenate(rows)
    Image.fromarray(sheet).resize((2 * sheet.shape[1], 2 * sheet.shape[0]), 0).save(path)


def score_generated(
    folder: Path, captioner: Captioner, *, seed: int = 0, guidance: float = GUIDANCE
) -> dict[str, float]:
    """Ask for every color of every noun that training showed; return what BLIP recognizes.

    One picture for each of `ASKED`, a noun a batch, "a photograph of a red ring".

    Returns:
        As `recognized`.
    """
    pipeline = load_pipeline(folder)
    pictures: list[np.ndarray] = []
    for noun in tqdm(NOUNS, "generated"):
        colors = [color for asked, color in ASKED if asked == noun]
        prompts = [f"a photograph of {article(color)} {color} {noun}" for color in colors]
        pictures.extend(generate(pipeline, prompts, seed=seed, guidance=guidance))
    return recognized(pictures, ASKED, captioner)


def recognized(
    pictures: Iterable[np.ndarray], asked: Sequence[tuple[str, str]], captioner: Captioner
) -> dict[str, float]:
    """Return the shares of pictures whose caption names what they were to show.

    Args:
        pictures: each uint8 ``(h, w, 3)``.
        asked: the noun and the color of each.
        captioner: a BLIP that knows the nouns.

    Returns:
        The shares with the noun, the color, and `both` in one thing; the same with each caption
        held against every other picture's words (`by chance, ...`); the number of `pictures`.
    """
    said = [said_of(caption(picture, captioner)) for picture in pictures]
    tests = {
        "noun": lambda named, noun, color: any(n == noun for n, _ in named),
        "color": lambda named, noun, color: any(c == color for _, c in named),
        "both": lambda named, noun, color: (noun, color) in named,
    }
    count = len(asked)
    found: dict[str, float] = {"pictures": count}
    for part, test in tests.items():
        right = np.array([[test(named, *words) for words in asked] for named in said])
        found[part] = float(right.diagonal().mean())
        others = right.sum() - right.diagonal().sum()
        found[f"by chance, {part}"] = float(others / (count * (count - 1)))
    return found
