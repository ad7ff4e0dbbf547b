"""What the small Stable Diffusion draws when it is asked: a contact sheet, none left out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from nbhelpers.weights import from_pretrained

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


def contact_sheet(folder: Path, path: Path, *, columns: int = 6, seed: int = 0) -> None:
    """Generate pictures from `SHEET` by `StableDiffusionPipeline`, a row a prompt."""
    from diffusers import StableDiffusionPipeline

    pipeline = from_pretrained(StableDiffusionPipeline, str(folder), None, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    rows = []
    for prompt in tqdm(SHEET, "contact sheet"):
        pictures = pipeline(
            prompt,
            num_images_per_prompt=columns,
            num_inference_steps=50,
            guidance_scale=5.0,
            generator=torch.Generator().manual_seed(seed),
            output_type="np",
        ).images
        rows.append(np.concatenate([np.pad(p, ((2, 2), (2, 2), (0, 0))) for p in pictures], 1))
    sheet = np.rint(255 * np.concatenate(rows)).astype(np.uint8)
    Image.fromarray(sheet).resize((2 * sheet.shape[1], 2 * sheet.shape[0]), 0).save(path)
