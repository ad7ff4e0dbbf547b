"""The other systems that the paper names, each one short file on the same recorder and models.

Those that segment share one form, so that the evaluation can run them all::

    maps(image, texts, models) -> one map in [0, 1] for each text, as large as the picture

Thresholds are chosen on val by the evaluation and never inside a system.
"""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from nbhelpers.weights import data_folder


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
        trained: Whether it has weights of its own, which `python -m recipe family` makes.
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
    trained: bool = False
    choices: tuple[Mapping[str, Any], ...] = ({},)
    quoted: float | None = None

    def load(self) -> Callable[..., Any]:
        """Returns its function ``maps(image, texts, models)``, imported when it is asked for."""
        module, _, name = self.maps.rpartition(".")
        found: Callable[..., Any] = getattr(importlib.import_module(module), name)
        return found

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
            trained=True,
            quoted=0.348,
        ),
        System(
            "reco",
            "ReCo",
            "Shin, Xie and Albanie, 2022, arXiv 2206.07045",
            takes=("classes",),
            supervision="none",
            maps="nbhelpers.family.reco.maps",
            trained=True,
            quoted=0.157,
        ),
        System(
            "diffumask",
            "DiffuMask",
            "Wu et al., 2023, arXiv 2303.11681",
            takes=("classes",),
            supervision="none",
            maps="nbhelpers.family.diffumask.maps",
            trained=True,
        ),
        System(
            "tcl",
            "TCL",
            "Cha, Mun and Roh, 2022, arXiv 2212.00785",
            takes=("phrase", "classes"),
            supervision="captions",
            maps="nbhelpers.family.tcl.maps",
            trained=True,
            quoted=0.304,
        ),
        System(
            "clippy",
            "CLIPpy",
            "Ranasinghe et al., 2022, arXiv 2210.09996",
            takes=("phrase", "classes"),
            supervision="captions",
            maps="nbhelpers.family.clippy.maps",
            trained=True,
            quoted=0.320,
        ),
        System(
            "viewco",
            "ViewCo",
            "Ren et al., 2023, arXiv 2302.10307",
            takes=("phrase", "classes"),
            supervision="captions",
            maps="nbhelpers.family.viewco.maps",
            trained=True,
            quoted=0.235,
        ),
        System(
            "segclip",
            "SegCLIP",
            "Luo et al., 2022, arXiv 2211.14813",
            takes=("phrase", "classes"),
            supervision="captions",
            maps="nbhelpers.family.segclip.maps",
            trained=True,
            quoted=0.265,
        ),
        System(
            "ovsegmentor",
            "OVSegmentor",
            "Xu et al., 2023, arXiv 2301.09121",
            takes=("phrase", "classes"),
            supervision="captions",
            maps="nbhelpers.family.ovsegmentor.maps",
            trained=True,
            quoted=0.251,
        ),
        System(
            "segdiff",
            "SegDiff",
            "Amit et al., 2021, arXiv 2112.00390",
            takes=("phrase", "classes"),
            supervision="masks",
            maps="nbhelpers.family.segdiff.maps",
            trained=True,
        ),
        System(
            "odise",
            "ODISE",
            "Xu et al., 2023, arXiv 2303.04803",
            takes=("phrase", "classes"),
            supervision="masks",
            maps="nbhelpers.family.odise.maps",
            trained=True,
        ),
    )
}


def load_weights(name: str) -> dict[str, Tensor]:
    """Returns the weights of a trained system, in float32.

    Args:
        name: Of a system in `SYSTEMS`.

    Raises:
        OSError: They aren't there.
    """
    from safetensors.torch import load_file

    path = SYSTEMS[name].weights
    if not path.is_file():
        raise OSError(
            f"the weights of {SYSTEMS[name].title} are not at {path}; train them in the folder "
            f"data of a checkout: python -m recipe family --systems {name}"
        )
    return {key: value.float() for key, value in load_file(path).items()}
