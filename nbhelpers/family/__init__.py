"""The systems that the paper and its relatives name, each one short file on the same recorder.

Those that segment share one form, so that the evaluation can run them all::

    maps(image, texts, models) -> one map in [0, 1] for each text, as large as the picture

Thresholds are chosen on val by the evaluation and never inside a system.
"""

import hashlib
import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from nbhelpers.models import Models
from nbhelpers.weights import data_folder

NAMES = {"clip": "CLIP", "unet": "UNet"}  # of the shared models, as a message has them


@dataclass(frozen=True)
class System:
    """A system that segments.

    Attributes:
        name: What the command line and the records call it, the name of its weights' file.
        title: Its authors' name for it.
        paper: Authors, year, arXiv id.
        takes: What its texts may be: noun phrases, the names of classes, or both.
        supervision: What the system itself learned from, beyond the shared models.
        maps: The dotted name of its function.
        made_with: The shared models by which `python -m recipe family` made weights of its own,
            which belong to these alone; none where it has no weights.
        choices: Settings of its own, from which the evaluation takes the best on val: keyword
            arguments of its function.
        quoted: The mIoU on COCO-Object in the paper's Table 1; None where it has none.
    """

    name: str
    title: str
    paper: str
    takes: tuple[Literal["phrase", "classes"], ...]
    supervision: Literal["none", "captions", "masks"]
    maps: str
    made_with: tuple[Literal["clip", "unet"], ...] = ()
    choices: tuple[Mapping[str, Any], ...] = ({},)
    quoted: float | None = None

    def load(self) -> Callable[..., Any]:
        """Returns its function ``maps(image, texts, models)``, imported when it is asked for."""
        module, _, name = self.maps.rpartition(".")
        found: Callable[..., Any] = getattr(importlib.import_module(module), name)
        return found

    @property
    def trained(self) -> bool:
        """Whether it has weights of its own."""
        return bool(self.made_with)

    @property
    def weights(self) -> Path:
        """Where the weights lie that it was trained to."""
        return data_folder() / "stickers" / "family" / f"{self.name}.safetensors"


SYSTEMS: dict[str, System] = {
    system.name: system
    for system in (
        System(
            "maskclip",
            "MaskCLIP",
            "Zhou, Loy and Dai, 2022, arXiv 2112.01071",
            takes=("phrase", "classes"),
            supervision="none",
            maps="nbhelpers.family.maskclip.maps",
            quoted=0.206,
        ),
        System(
            "daam",
            "DAAM",
            "Tang et al., 2022, arXiv 2210.04885",
            takes=("phrase", "classes"),
            supervision="none",
            maps="nbhelpers.family.daam.maps",
        ),
        System(
            "diffseg",
            "DiffSeg",
            "Tian et al., 2023, arXiv 2308.12469",
            takes=("phrase", "classes"),
            supervision="none",
            maps="nbhelpers.family.diffseg.maps",
            # The paper's 0.9 suits grids of 64 x 64; on 20 x 20 attention diverges less.
            choices=tuple({"threshold": nats} for nats in (0.05, 0.1, 0.2, 0.9)),
        ),
        System(
            "ovdiff",
            "OVDiff",
            "Karazija et al., 2023, arXiv 2306.09316",
            takes=("classes",),
            supervision="none",
            maps="nbhelpers.family.ovdiff.maps",
            made_with=("unet",),
            quoted=0.348,
        ),
        System(
            "reco",
            "ReCo",
            "Shin, Xie and Albanie, 2022, arXiv 2206.07045",
            takes=("classes",),
            supervision="none",
            maps="nbhelpers.family.reco.maps",
            made_with=("clip",),
            quoted=0.157,
        ),
        System(
            "diffumask",
            "DiffuMask",
            "Wu et al., 2023, arXiv 2303.11681",
            takes=("classes",),
            supervision="none",
            maps="nbhelpers.family.diffumask.maps",
            made_with=("clip", "unet"),
        ),
        System(
            "tcl",
            "TCL",
            "Cha, Mun and Roh, 2022, arXiv 2212.00785",
            takes=("phrase", "classes"),
            supervision="captions",
            maps="nbhelpers.family.tcl.maps",
            made_with=("clip",),
            quoted=0.304,
        ),
        System(
            "clippy",
            "CLIPpy",
            "Ranasinghe et al., 2022, arXiv 2210.09996",
            takes=("phrase", "classes"),
            supervision="captions",
            maps="nbhelpers.family.clippy.maps",
            made_with=("clip",),
            quoted=0.320,
        ),
        System(
            "viewco",
            "ViewCo",
            "Ren et al., 2023, arXiv 2302.10307",
            takes=("phrase", "classes"),
            supervision="captions",
            maps="nbhelpers.family.viewco.maps",
            made_with=("clip",),
            quoted=0.235,
        ),
        System(
            "segclip",
            "SegCLIP",
            "Luo et al., 2022, arXiv 2211.14813",
            takes=("phrase", "classes"),
            supervision="captions",
            maps="nbhelpers.family.segclip.maps",
            made_with=("clip",),
            quoted=0.265,
        ),
        System(
            "ovsegmentor",
            "OVSegmentor",
            "Xu et al., 2023, arXiv 2301.09121",
            takes=("phrase", "classes"),
            supervision="captions",
            maps="nbhelpers.family.ovsegmentor.maps",
            made_with=("clip",),
            quoted=0.251,
        ),
        System(
            "segdiff",
            "SegDiff",
            "Amit et al., 2021, arXiv 2112.00390",
            takes=("phrase", "classes"),
            supervision="masks",
            maps="nbhelpers.family.segdiff.maps",
            made_with=("clip",),
        ),
        System(
            "odise",
            "ODISE",
            "Xu et al., 2023, arXiv 2303.04803",
            takes=("phrase", "classes"),
            supervision="masks",
            maps="nbhelpers.family.odise.maps",
            made_with=("clip", "unet"),
        ),
    )
}


def load_weights(name: str, models: Models | None = None) -> dict[str, Tensor]:
    """Returns the weights of a trained system, in float32.

    Args:
        name: Of a system in `SYSTEMS`.
        models: Those they are used with; when None, nobody asks whether they belong to these.

    Raises:
        OSError: They aren't there.
        ValueError: The file says that they were made with another CLIP or UNet.
    """
    from safetensors.torch import load_file

    system = SYSTEMS[name]
    if not system.weights.is_file():
        raise OSError(
            f"the weights of {system.title} are not at {system.weights}; train them in the folder "
            f"data of a checkout: python -m recipe family --systems {name}"
        )
    if models is not None:
        check_made_with(name, models)
    return {key: value.float() for key, value in load_file(system.weights).items()}


def check_made_with(name: str, models: Models) -> None:
    """Refuses a system's weights where they were made with other models than these.

    Raises:
        ValueError: They were; says what to do.
    """
    system = SYSTEMS[name]
    if others := foreign_to(system, models):
        raise ValueError(
            f"the weights of {system.title} at {system.weights} were made with another "
            f"{' and another '.join(others)} than {models.name} has; make new ones in the folder "
            f"data of a checkout: python -m recipe family --systems {name}"
        )


def foreign_to(system: System, models: Models) -> list[str]:
    """Names the shared models that are others than a system's weights were made with.

    Args:
        system: Whose weights are there.
        models: Those at hand.

    Returns:
        "CLIP", "UNet", both or nothing; nothing as well for a file that doesn't say.
    """
    known = read_made_with(system)
    at_hand = made_with(system, models) if known else {}
    return [NAMES[part] for part in known if known[part] != at_hand[part]]


def read_made_with(system: System) -> dict[str, str]:
    """Reads the digests of the shared models in a file of weights; none where it doesn't say.

    Raises:
        ValueError: The file is damaged.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(system.weights, "pt") as file:
            found = file.metadata() or {}
    except SafetensorError as error:
        raise ValueError(
            f"the weights of {system.title} at {system.weights} are damaged ({error}); make them "
            f"again in the folder data of a checkout: python -m recipe family --systems "
            f"{system.name}"
        ) from error
    return {part: found[part] for part in system.made_with if part in found}


def made_with(system: System, models: Models) -> dict[str, str]:
    """Returns the digests of the shared models that a system's weights belong to."""
    at_hand = {"clip": lambda: models.clip.model, "unet": lambda: models.unet}
    return {part: digest(at_hand[part]()) for part in system.made_with}


@lru_cache(maxsize=8)
def digest(module: nn.Module) -> str:
    """Computes the SHA-256 of a module's names and weights, which nothing trains while it is used.

    Weights count in bfloat16, so that those loaded in float32 and in half precision are the same.
    """
    total = hashlib.sha256()
    for name, value in module.state_dict().items():
        if value.is_floating_point():
            value = value.to(torch.bfloat16).view(torch.int16)
        total.update(name.encode() + b"\0" + value.cpu().contiguous().numpy().tobytes())
    return total.hexdigest()
