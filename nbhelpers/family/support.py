"""Generated pictures with the maps that their attention gives, for OVDiff and DiffuMask."""

import numpy as np
from jaxtyping import Float, UInt8

from nbhelpers.family.dense import TEMPLATES, with_article
from nbhelpers.family.sampling import decode, sample
from nbhelpers.models import Models
from nbhelpers.segment import segment

BATCH = 8  # pictures that are sampled together


def sample_support(
    name: str, models: Models, *, pictures: int, seed: int = 0, steps: int = 20
) -> list[tuple[UInt8[np.ndarray, "h w 3"], Float[np.ndarray, "h w"]]]:
    """Pictures sampled from a class's name, each with the map that the attention has of it.

    Args:
        name: Of the class.
        models: Samples and reads.
        pictures: How many.
        seed: Of the first.
        steps: Of denoising.

    Returns:
        uint8 pictures, and maps in [0, 1] as large: those of DiffSegmenter's method.
    """
    prompts = [TEMPLATES[i % len(TEMPLATES)].format(with_article(name)) for i in range(pictures)]
    found = []
    for start in range(0, pictures, BATCH):
        some = prompts[start : start + BATCH]
        seeds = list(range(seed + start, seed + start + len(some)))
        for image in decode(sample(some, models, seeds=seeds, steps=steps), models):
            found.append((image, segment(image, name, models, method="diffsegmenter").map))
    return found
