"""OVDiff's prototypes of every class, each from pictures that the model generates."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from nbhelpers.family import digest
from nbhelpers.family.ovdiff import make_prototypes
from nbhelpers.models import Models

PICTURES = 16


def make(
    names: Sequence[str],
    models: Models,
    folder: Path,
    *,
    pictures: int = PICTURES,
    seed: int = 0,
    progress: bool = True,
) -> dict[str, Tensor]:
    """Return the prototypes of each class, of foreground and of background.

    Args:
        names: of the classes.
        models: generate the pictures and give their features.
        folder: for the classes that are done; the same folder resumes.
        pictures: sampled of each class.
        seed: of the pictures.
        progress: whether to show a bar.
    """
    folder = folder / f"ovdiff-{digest(models.unet)[:8]}-{seed}-{pictures}"
    folder.mkdir(parents=True, exist_ok=True)
    found: dict[str, Tensor] = {}
    for number, name in enumerate(tqdm(names, "ovdiff", disable=not progress)):
        path = folder / f"{name}.safetensors"
        if not path.exists():
            own = make_prototypes(name, models, pictures=pictures, seed=seed + 10_000 * number)
            partial = path.with_suffix(".partial")
            save_file({"foreground": own.foreground, "background": own.background}, partial)
            partial.replace(path)
        found |= {f"{name}.{side}": value for side, value in load_file(path).items()}
    return found
