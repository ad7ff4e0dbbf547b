"""The recipe: every part of the shapes world from a seed, each resumable, each kept when done."""

from __future__ import annotations

import hashlib
import json
import platform
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from nbhelpers.shapes.autoencoder import encode_all, load_autoencoder, train_autoencoder
from nbhelpers.shapes.captioner import (
    EYE_PATCH,
    new_word_tokenizer,
    save_captioner,
    train_captioner,
)
from nbhelpers.shapes.clip import save_clip, text_encoder, train_clip
from nbhelpers.shapes.pictures import Pictures, draw_pictures
from nbhelpers.shapes.tokenizer import train_tokenizer
from nbhelpers.shapes.training import half
from nbhelpers.shapes.unet import save_pipeline, train_unet

PARTS = ("clip", "autoencoder", "unet", "eye", "captioner", "parser")
STEPS = {"clip": 600, "autoencoder": 2400, "unet": 4000, "eye": 3000, "captioner": 12_000}
COUNT = 40_000
# Pictures and autoencoder are shared by all seeds: what a second seed shows is the chance of the
# text encoder and the UNet.
SHARED_SEED = 0


def train(
    work: Path,
    out: Path,
    *,
    parts: Iterable[str] = PARTS,
    seed: int = 0,
    device: str = "cpu",
    scale: float = 1.0,
    treebanks: Path | None = None,
    autoencoder: Path | None = None,
) -> None:
    """Train `parts` and save them into `out`; a part that is done is loaded, not trained again.

    Args:
        work: for pictures, checkpoints and logs; the same folder resumes.
        out: for `clip`, `stable-diffusion`, `blip` and `parser`.
        parts: a choice of `PARTS`.
        seed: of the weights and batches of all but the autoencoder.
        device: "cpu" or "cuda".
        scale: multiplies the steps of every part.
        treebanks: folder of CoNLL-U files, needed for the parser.
        autoencoder: folder of a trained one to use, such as the shipped one for another seed;
            one is trained if not given.

    Raises:
        ValueError: if the parser is asked for and no treebanks are given, or the device is not
            there.
    """
    parts = list(parts)
    if "parser" in parts and treebanks is None:
        raise ValueError(
            "the parser is trained on Universal Dependencies treebanks; give their folder as "
            "--treebanks, or leave the parser out with --parts"
        )
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"{device} was asked for, and torch sees no CUDA; give --device cpu")
    pictures = draw_pictures(work / "pictures", count=COUNT, seed=SHARED_SEED)
    steps = {part: max(1, round(scale * count)) for part, count in STEPS.items()}
    own = work / f"seed-{seed}"
    chance: dict[str, Any] = {"seed": seed, "device": device}
    tokenizer = train_tokenizer(pictures.texts("ordinary"), own / "tokenizer")
    if {"clip", "unet"} & set(parts):
        clip = train_clip(pictures, tokenizer, own, steps=steps["clip"], **chance).cpu()
        if "clip" in parts:
            save_clip(clip, tokenizer, out / "clip")
            half(out / "clip")
    if {"autoencoder", "unet"} & set(parts):
        if autoencoder is not None:
            vae = load_autoencoder(autoencoder).to(device)
        else:
            vae = train_autoencoder(
                pictures, work, seed=SHARED_SEED, steps=steps["autoencoder"], device=device
            )
    if "unet" in parts:
        text = text_encoder(clip)
        unet = train_unet(
            pictures,
            _posteriors(vae, pictures, work, device),
            vae.config.scaling_factor,
            tokenizer,
            text,
            own,
            steps=steps["unet"],
            **chance,
        )
        folder = out / "stable-diffusion"
        save_pipeline(vae.cpu(), text.cpu(), tokenizer, unet.cpu(), folder)
        half(folder)
    if {"eye", "captioner"} & set(parts):
        eye = train_clip(
            pictures,
            tokenizer,
            own,
            name="eye",
            patch=EYE_PATCH,
            style="brief",
            steps=steps["eye"],
            **chance,
        )
    if "captioner" in parts:
        words = new_word_tokenizer(pictures.texts("careful"), own / "words")
        blip = train_captioner(pictures, words, eye, own, steps=steps["captioner"], **chance)
        save_captioner(blip.cpu(), words, out / "blip")
        half(out / "blip")
    if "parser" in parts and treebanks is not None:
        from nbhelpers.shapes.parser import train_parser

        train_parser(treebanks, out / "parser", folder=own, seed=seed)
    _note_machine(work, device)


def _posteriors(vae: AutoencoderKL, pictures: Pictures, work: Path, device: str) -> Tensor:
    """Return the autoencoder's posterior of every picture, encoded once for these weights."""
    digest = hashlib.sha256()
    for value in vae.state_dict().values():
        digest.update(value.float().cpu().numpy().tobytes())
    path = work / f"posteriors-{digest.hexdigest()[:8]}.pt"
    if not path.exists():
        partial = path.with_suffix(".partial")
        torch.save(encode_all(vae, pictures, device=device), partial)
        partial.replace(path)
    return torch.load(path, weights_only=True)


def _note_machine(work: Path, device: str) -> None:
    """Add a line on what ran here to the work folder's log."""
    record = {
        "finished": time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime()),
        "device": torch.cuda.get_device_name() if device.startswith("cuda") else "cpu",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    with (work / "machines.jsonl").open("a") as file:
        file.write(json.dumps(record) + "\n")
