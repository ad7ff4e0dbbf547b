"""The chain: every part of the sticker world from a seed, each resumable, each kept when done."""

from __future__ import annotations

import copy
import json
import platform
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor

from nbhelpers.family import digest
from recipe.autoencoder import encode_all, load_autoencoder, train_autoencoder
from recipe.captioner import new_word_tokenizer, save_captioner, train_captioner
from recipe.clip import bind, load_clip, save_clip, text_encoder, train_clip
from recipe.judge import train_judge
from recipe.parser import train_parser
from recipe.pictures import draw_pictures
from recipe.tokenizer import train_tokenizer
from recipe.training import publish
from recipe.unet import save_pipeline, train_unet

PARTS = ("autoencoder", "clip", "unet", "captioner", "judge", "parser")
# Pictures and autoencoder are shared by all seeds: what a second seed shows is the chance of the
# text encoder and the UNet.
SHARED_SEED = 0


@dataclass(frozen=True)
class Budget:
    """How much is drawn and trained: pictures, the parser's sentences and epochs, steps."""

    pictures: int
    sentences: int  # made up anew for each of the parser's epochs, beside the treebanks'
    autoencoder: int
    clip: int
    bind: int
    unet: int
    captioner: int
    judge: int
    parser: int
    unet_batch: int = 64


FULL = Budget(
    60_000,
    4500,
    autoencoder=3500,
    clip=3200,
    bind=1200,
    unet=13_000,
    captioner=6000,
    judge=3500,
    parser=28,
)
# For a GPU. It takes all the UNet's steps at full size: compiling for a second size costs it more
# than small pictures save.
LARGE = replace(FULL, pictures=120_000, unet=3000, unet_batch=512)
QUICK = Budget(120, 200, autoencoder=3, clip=2, bind=1, unet=2, captioner=2, judge=1, parser=1)


def train(
    work: Path,
    out: Path,
    *,
    parts: Iterable[str] = PARTS,
    seed: int = 0,
    device: str = "cpu",
    budget: Budget | None = None,
    treebanks: Path | None = None,
    autoencoder: Path | None = None,
    clip_folder: Path | None = None,
) -> None:
    """Train `parts` and save them into `out`; a part that is done is loaded, not trained again.

    Args:
        work: for pictures, checkpoints and logs; the same folder resumes.
        out: for `clip`, `stable-diffusion`, `blip` and `parser`; the judge stays in `work`.
        parts: a choice of `PARTS`.
        seed: of the weights and batches of all but the autoencoder and the judge.
        device: "cpu" or "cuda".
        budget: `QUICK` to try the whole chain; by itself `FULL` on a CPU and `LARGE` on a GPU.
        treebanks: folder of Universal Dependencies CoNLL-U files, which the parser needs.
        autoencoder: folder of a trained one to use, such as the shipped one for another seed;
            one is trained if not given.
        clip_folder: of a trained CLIP with its tokenizer to use, such as the shipped one.

    Raises:
        ValueError: if there is no such part, the device is not there, or the parser is asked for
            without treebanks.
    """
    parts = list(parts)
    if unknown := sorted(set(parts) - set(PARTS)):
        raise ValueError(f"the parts are {', '.join(PARTS)}; got {', '.join(unknown)}")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"{device} was asked for, and torch sees no CUDA; give --device cpu")
    if budget is None:
        budget = FULL if device == "cpu" else LARGE
    own = work / f"seed-{seed}"
    if "parser" in parts:
        if treebanks is None:
            raise ValueError(
                "the parser is trained on Universal Dependencies treebanks; give their folder as "
                "--treebanks, or leave the parser out with --parts"
            )
        train_parser(
            treebanks,
            out / "parser",
            folder=own,
            seed=seed,
            epochs=budget.parser,
            made_up=budget.sentences,
        )
    if parts == ["parser"]:  # which needs no pictures
        note_machine(work, "cpu")
        return
    pictures = draw_pictures(work / "pictures", count=budget.pictures, seed=SHARED_SEED)
    chance: dict[str, Any] = {"seed": seed, "device": device}
    if clip_folder is None:
        tokenizer = train_tokenizer(pictures.texts("ordinary"), own / "tokenizer")
    else:
        clip, tokenizer = load_clip(clip_folder)
    if {"autoencoder", "unet"} & set(parts):
        if autoencoder is not None:
            vae = load_autoencoder(autoencoder).to(device)
        else:
            vae = train_autoencoder(
                pictures, work, seed=SHARED_SEED, steps=budget.autoencoder, device=device
            )
            vae.save_pretrained(work / "vae")
    if clip_folder is None and {"clip", "unet", "captioner"} & set(parts):
        clip = train_clip(pictures, tokenizer, own, steps=budget.clip, **chance).cpu()
    if "captioner" in parts:
        eye = copy.deepcopy(clip)  # BLIP begins from what CLIP sees before it is bound
    if clip_folder is None and {"clip", "unet"} & set(parts):
        clip = bind(clip, pictures, tokenizer, own, steps=budget.bind, **chance).cpu()
    if "clip" in parts:
        save_clip(clip, tokenizer, out / "clip")
        publish(out / "clip")
    if "unet" in parts:
        text = text_encoder(clip)
        small = posteriors(vae, pictures.small, work, "small") if device == "cpu" else None
        unet = train_unet(
            pictures,
            posteriors(vae, pictures.pictures, work, "full"),
            small,
            vae.config.scaling_factor,
            tokenizer,
            text,
            own,
            steps=budget.unet,
            batch=budget.unet_batch,
            **chance,
        )
        folder = out / "stable-diffusion"
        save_pipeline(vae.cpu(), text.cpu(), tokenizer, unet.cpu(), folder)
        publish(folder)
    if "captioner" in parts:
        words = new_word_tokenizer(pictures.texts("careful"), own / "words")
        blip = train_captioner(pictures, words, eye, own, steps=budget.captioner, **chance)
        save_captioner(blip.cpu(), words, out / "blip")
        publish(out / "blip")
    if "judge" in parts:
        train_judge(work, steps=budget.judge, device=device)
    note_machine(work, device)


def posteriors(vae: AutoencoderKL, pictures: np.ndarray, work: Path, name: str) -> Tensor:
    """Return the autoencoder's posterior of every picture, encoded once for these weights."""
    path = work / f"posteriors-{name}-{digest(vae)[:8]}.pt"
    if not path.exists():
        partial = path.with_suffix(".partial")
        torch.save(encode_all(vae, pictures), partial)
        partial.replace(path)
    return torch.load(path, weights_only=True, mmap=True)


def note_machine(work: Path, device: str) -> None:
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
