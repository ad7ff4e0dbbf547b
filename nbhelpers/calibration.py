"""On which attention a model is used: how each method's maps are gathered and cut."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args

Layers = Literal["all", "no-mid", "down", "up"]
Normalize = Literal["min-max", "none"]
SoftmaxOver = Literal["all", "words"]

RESOLUTION_WEIGHTS = {8: 0.3, 4: 0.5, 2: 0.1, 1: 0.1}  # DiffSegmenter's code: 8 to 64 cells
FILE = "nbhelpers.json"
FORMAT = 2  # of that file; 1 had no number, and one gathering for all methods
CHOICES = {"layers": Layers, "normalize": Normalize, "softmax_over": SoftmaxOver}


@dataclass(frozen=True)
class Gathering:
    """Which attention becomes a score map, and where the map is cut.

    The defaults are DiffSegmenter's.

    Attributes:
        timesteps: Scheduler indices; the attention is averaged over them.
        weights: A weight for each factor by which a resolution is coarser than the latent; equal
            weights when None.
        layers: The cross-attention layers that score: all, all but the middle block's, or those
            on the way down or up.
        normalize: "min-max" stretches each resolution's map to [0, 1] before the weighted sum, as
            DiffSegmenter does; "none" sums the mean probabilities themselves, as DAAM does.
        softmax_over: All tokens, or the prompt's words alone.
        threshold: In [0, 1].

    Raises:
        ValueError: No timesteps, an unknown word, or a threshold out of [0, 1].
    """

    timesteps: tuple[int, ...] = (100,)  # DiffSegmenter's code: one timestep, t = 100
    weights: Mapping[int, float] | None = field(default_factory=RESOLUTION_WEIGHTS.copy)
    layers: Layers = "all"
    normalize: Normalize = "min-max"
    softmax_over: SoftmaxOver = "all"
    threshold: float = 0.5  # the paper

    def __post_init__(self) -> None:
        for name, choice in CHOICES.items():
            if getattr(self, name) not in get_args(choice):
                raise ValueError(
                    f"{name} is one of {', '.join(get_args(choice))}; "
                    f"got {str(getattr(self, name))[:40]!r}"
                )
        if not self.timesteps:
            raise ValueError("timesteps holds at least one scheduler index; got none")
        if not 0 <= self.threshold <= 1:  # nor is NaN
            raise ValueError(f"threshold lies in [0, 1]; got {self.threshold}")


@dataclass(frozen=True)
class Calibration(Gathering):
    """The gathering on which each method uses a model, unless settings say otherwise.

    Real Stable Diffusions are used as DiffSegmenter does. A model folder may hold a calibration
    of its own in ``nbhelpers.json``; ``python -m recipe calibrate`` writes it.

    Attributes:
        methods: The gathering of each method by its name; the calibration itself is that of
            settings without a name.
        chosen: How they were chosen: the searches, each with its data, lists and best gatherings.
    """

    methods: Mapping[str, Gathering] = field(default_factory=dict)
    chosen: tuple[Mapping[str, Any], ...] = ()

    def of(self, method: str | None) -> Gathering:
        """Returns the gathering of a method; that of unnamed settings where it has none."""
        return self.methods.get(method or "", self)

    def record(self) -> dict[str, Any]:
        """Returns the calibration as ``nbhelpers.json`` holds it."""
        methods = {name: as_record(gathering) for name, gathering in self.methods.items()}
        own = {**as_record(self), "methods": methods, "chosen": list(self.chosen)}
        return {"format": FORMAT, **own}


def as_record(gathering: Gathering) -> dict[str, Any]:
    """Returns a gathering's fields as plain JSON."""
    found = {f.name: getattr(gathering, f.name) for f in fields(Gathering)}
    weights = gathering.weights
    found["weights"] = weights and {str(factor): w for factor, w in sorted(weights.items())}
    return {**found, "timesteps": list(gathering.timesteps)}


def read_calibration(folder: Path) -> Calibration:
    """Reads the calibration in a folder's ``nbhelpers.json``; DiffSegmenter's where there is none.

    A method's entry may name only what differs from the calibration of unnamed settings.

    Raises:
        ValueError: The file is damaged, of a later format, or holds other fields than a
            `Calibration` has.
    """
    path = folder / FILE
    if not path.is_file():
        return Calibration()
    text = path.read_text(encoding="utf-8")
    try:
        found = json.loads(text)
        version = found.pop("format", 1)
        if version not in (1, FORMAT):
            raise ValueError(f"its format is {version!r}, and {FORMAT} is read; update nbhelpers")
        methods = found.pop("methods", {}) if version == FORMAT else _methods_of_format_1(found)
        chosen = tuple(found.pop("chosen", ()))
        own = _plain(found)
        return Calibration(
            **own,
            methods={name: Gathering(**own | _plain(entry)) for name, entry in methods.items()},
            chosen=chosen,
        )
    except (TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{path} holds {text[:80]!r}: {error}") from error


def _methods_of_format_1(found: dict[str, Any]) -> dict[str, Any]:
    """Returns what each method had of its own: a threshold. The rest was the same for all."""
    unknown = sorted(set(found) - {"timesteps", "weights", "thresholds"})
    if unknown:
        raise ValueError(f'{", ".join(unknown)} is no field of it without "format": {FORMAT}')
    return {name: {"threshold": value} for name, value in found.pop("thresholds", {}).items()}


def _plain(record: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a gathering's fields from JSON."""
    found = dict(record)
    if "timesteps" in found:
        found["timesteps"] = tuple(found["timesteps"])
    if found.get("weights") is not None:
        found["weights"] = {int(factor): w for factor, w in found["weights"].items()}
    return found
