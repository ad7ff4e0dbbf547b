"""What the method's variants turn: settings by name, completed by a model's calibration."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from nbhelpers.calibration import Gathering, Layers, Normalize, SoftmaxOver
from nbhelpers.datasets import quoted
from nbhelpers.models import Models


@dataclass(frozen=True)
class Settings:
    """Every setting of the method. What is None comes from the model's `Calibration`.

    The defaults are the plain baseline with the paper's choices where it makes them; `SETTINGS`
    names the combinations.
    """

    isolate: Literal["none", "target", "others", "every"] = "none"  # table 4, baseline
    by: Literal["encoding", "masking"] = "encoding"  # eq. 3: the chunk encoded by itself
    tail: Literal["prompt", "empty", "empty-eos", "empty-padding"] = "prompt"  # eq. 3 leaves it
    alpha: float = 1.0  # eq. 4 without effect
    unconditional: Literal["row", "pooled", "masked"] = "row"  # ours; the paper doesn't say
    into: Literal["keys", "values", "both"] = "both"  # one embedding feeds both in the paper
    timesteps: tuple[int, ...] | None = None  # DiffSegmenter's code: (100,)
    seed: int = 0  # ours; neither paper nor code names one
    softmax_over: SoftmaxOver | None = None  # DiffSegmenter's code: all, the model's own softmax
    weights: Mapping[int, float] | Literal["equal"] | None = None  # DiffSegmenter: .3 .5 .1 .1
    layers: Layers | None = None  # DiffSegmenter's code: all; DAAM's: no-mid
    normalize: Normalize | None = None  # DiffSegmenter's code: min-max; DAAM's: none
    subtokens: Literal["all", "last"] = "all"  # ours; "last" in DiffSegmenter's code
    transpose: bool = False  # DiffSegmenter's code: A S
    steps: int = 1  # DiffSegmenter's code: once
    threshold: float | None = None  # table 2: 0.5
    prompt_from: Literal["phrase", "blip"] = "phrase"  # figures 2 to 8: "a photograph of {phrase}"
    size: tuple[int, int] | None = None  # DiffSegmenter's code: the model's own, 512 x 512
    calibrated_for: str | None = None  # the method whose calibration fills what is None


SETTINGS: Mapping[str, Settings] = {
    name: replace(settings, calibrated_for=name)
    for name, settings in {
        "plain": Settings(),
        "chunk": Settings(isolate="target"),  # eq. 3; table 4, "Noun chunk replacement"
        "paper": Settings(isolate="target", alpha=0.9),  # eq. 3 and 4; table 3's best alpha
        # The class word carries Compel's "++", a weight of 1.1 ** 2; its last token scores it.
        "diffsegmenter": Settings(alpha=1.21, subtokens="last"),
        "sealed": Settings(isolate="every", by="masking", tail="empty"),  # ours
    }.items()
}
DEFAULT = "sealed"
OF_THE_PROMPT = ("isolate", "by", "tail", "alpha", "unconditional", "into")


def resolve(
    models: Models, method: str | None = None, settings: Settings | None = None, **overrides: Any
) -> Settings:
    """Returns the settings as they are used with a model, nothing left open.

    Args:
        models: Whose `Calibration` fills what the settings leave open.
        method: A name in `SETTINGS`; "sealed" when None.
        settings: Settings instead of the named ones; `method` then only says whose
            calibration fills them, their own `calibrated_for` when None.
        **overrides: Single settings, by name.

    Returns:
        Settings with nothing open: what a person gave wins over the calibration.

    Raises:
        ValueError: An unknown method or setting, or a value that a `Gathering` refuses.
    """
    if method is not None and method not in SETTINGS:
        raise ValueError(f"method is one of {', '.join(SETTINGS)}; got {quoted(method)}")
    if settings is not None and not isinstance(settings, Settings):
        raise ValueError(
            f"settings is a Settings, such as Settings(alpha=0.9); got {settings!r:.80}"
        )
    known = Settings.__dataclass_fields__
    unknown = sorted(set(overrides) - set(known))
    if unknown:
        raise ValueError(
            f"there is no setting {quoted(', '.join(unknown))[1:-1]}; there are {', '.join(known)}"
        )
    chosen = replace(settings or SETTINGS[method or DEFAULT], **overrides)
    if chosen.prompt_from not in ("phrase", "blip"):
        raise ValueError(
            f"prompt_from is 'phrase' or 'blip'; got {quoted(chosen.prompt_from)}. "
            "A prompt of your own is caption="
        )
    names = [field.name for field in fields(Gathering)]
    given = {name: value for name in names if (value := getattr(chosen, name)) is not None}
    if given.get("weights") == "equal":
        given["weights"] = None
    gathering = replace(models.calibration.of(method or chosen.calibrated_for), **given)
    settled = {name: getattr(gathering, name) for name in names}
    return replace(chosen, **settled | {"weights": gathering.weights or "equal"})
