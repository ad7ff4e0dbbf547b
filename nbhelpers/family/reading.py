"""A system of the family in a run: its maps in place of the method's own settings."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from nbhelpers.family import SYSTEMS, System, check_made_with, load_weights
from nbhelpers.models import CLIP, Models
from nbhelpers.weights import EMBEDDED, HUB, locate

SOURCES = ("family/*.py",)  # on these a system's numbers depend as well


class SystemReader:
    """Maps by every choice of a system's own settings, in place of a `Reader`.

    Args:
        models: From `load_models`.
        system: From `SYSTEMS`.

    Raises:
        ValueError: Its weights were made with other models.
    """

    def __init__(self, models: Models, system: System) -> None:
        if system.trained:
            check_made_with(system.name, models)
        self.models, self.system = models, system
        self.choices = choices_of(system)
        self.names = tuple(self.choices)
        self._maps = system.load()

    def maps(self, questions: Sequence[Any]) -> list[Float[Tensor, "variant h w"]]:
        """Returns the maps of each question, an `image` and a `phrase`: one a choice, in order.

        Raises:
            ValueError: Anything that the system refuses.
        """
        return [self.together(q.image, [q.phrase])[0] for q in questions]

    def together(
        self, image: UInt8[np.ndarray, "h w 3"], texts: Sequence[str]
    ) -> list[Float[Tensor, "variant h w"]]:
        """Returns the maps of each text, all asked for in one call, so that they can compete.

        Raises:
            ValueError: Anything that the system refuses; or its maps are no maps.
        """
        wanted = (len(texts), *image.shape[:2])
        found = []
        for options in self.choices.values():
            maps = np.ascontiguousarray(
                self._maps(image, list(texts), self.models, **options), np.float32
            )
            if maps.shape != wanted or not (maps.min() >= 0 and maps.max() <= 1):
                raise ValueError(
                    f"{self.system.title} made maps of shape {maps.shape} from {maps.min():g} to "
                    f"{maps.max():g}; wanted {wanted} in [0, 1]"
                )
            found.append(torch.from_numpy(maps))
        return list(torch.stack(found, dim=1))


def find_system(name: str, prompts: str) -> System:
    """Returns the system of a name, if it can be asked so.

    Raises:
        ValueError: There is none, or it doesn't take such texts.
    """
    if name not in SYSTEMS:
        raise ValueError(f"there is no system {name!r:.80}; there are {', '.join(SYSTEMS)}")
    system = SYSTEMS[name]
    if prompts not in system.takes:
        raise ValueError(
            f"{system.title} takes {' and '.join(system.takes)} and not {prompts}; give "
            f"--prompts {system.takes[0]}"
        )
    return system


def choices_of(system: System) -> dict[str, dict[str, Any]]:
    """Returns the settings of a system's own that are tried, by the names of their variants.

    Example:
        >>> list(choices_of(SYSTEMS["maskclip"])), list(choices_of(SYSTEMS["diffseg"]))[:2]
        (['maskclip'], ['diffseg threshold=0.05', 'diffseg threshold=0.1'])
    """
    return {
        " ".join([system.name, *(f"{key}={value}" for key, value in given.items())]): dict(given)
        for given in system.choices
    }


def records_of(system: System, model: str, code: str) -> dict[str, dict[str, Any]]:
    """Records what a manifest says of each variant: all that its numbers depend on but the models.

    Args:
        system: From `SYSTEMS`.
        model: The model's name, which says which CLIP goes with it.
        code: The SHA-256 of `SOURCES`.

    Raises:
        OSError: The system's weights aren't there.
    """
    common = {
        "system": system.name,
        "code": code,
        "weights": _weights(system),
        "clip": _clip(model),
    }
    return {name: {**common, "options": options} for name, options in choices_of(system).items()}


def _weights(system: System) -> str | None:
    """Returns the SHA-256 of the weights that a system was trained to; None where it has none."""
    if not system.trained:
        return None
    load_weights(system.name)  # which says what to do where they are missing
    return _sha256([system.weights])


def _clip(model: str) -> str:
    """Returns the CLIP that goes with a model: its files' SHA-256, or its commit on the Hub."""
    if model not in EMBEDDED:
        return HUB[CLIP][0]
    folder = Path(locate(model, None, "clip")[0])
    return _sha256(sorted(path for path in folder.rglob("*") if path.is_file()))


def _sha256(paths: Sequence[Path]) -> str:
    """Returns the SHA-256 of files, their names included."""
    total = hashlib.sha256()
    for path in paths:
        total.update(path.name.encode() + b"\0" + path.read_bytes())
    return total.hexdigest()
