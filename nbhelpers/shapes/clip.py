"""A small CLIP, trained contrastively on pictures and captions (Radford et al., 2021)."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPTextModel,
    CLIPTokenizer,
)

from nbhelpers.shapes.pictures import Pictures
from nbhelpers.shapes.probes import probe_vision
from nbhelpers.shapes.tokenizer import TOKENS
from nbhelpers.shapes.training import fit
from nbhelpers.shapes.world import SIZE

WIDTH = 128
PATCH = 8


def new_clip(tokenizer: CLIPTokenizer, *, patch: int = PATCH) -> CLIPModel:
    """Return an untrained CLIP: 4 + 4 layers, width 128, pictures in patches of `patch` pixels.

    The end token's id is written into the text configuration, so the pooled vector is taken at
    the end token (with an id of 2, transformers falls back to the largest id of the sentence).
    """
    tower = {
        "hidden_size": WIDTH,
        "intermediate_size": 4 * WIDTH,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "projection_dim": WIDTH,
    }
    text = {
        **tower,
        "vocab_size": len(tokenizer),
        "max_position_embeddings": TOKENS,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    vision = {**tower, "image_size": SIZE[0], "patch_size": patch}
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=WIDTH))


def tokenize(tokenizer: CLIPTokenizer, captions: list[str]) -> Tensor:
    """Return token ids, padded to the full length as Stable Diffusion does."""
    return tokenizer(
        captions, padding="max_length", max_length=TOKENS, truncation=True, return_tensors="pt"
    ).input_ids


def contrastive_loss(logits: Tensor) -> Tensor:
    """Return CLIP's loss: the mean cross-entropy over rows and over columns."""
    target = torch.arange(len(logits), device=logits.device)
    rows, columns = (nn.functional.cross_entropy(a, target) for a in (logits, logits.T))
    return (rows + columns) / 2


def train_clip(
    pictures: Pictures,
    tokenizer: CLIPTokenizer,
    folder: Path,
    *,
    seed: int,
    steps: int,
    device: str,
    name: str = "clip",
    patch: int = PATCH,
    style: str = "ordinary",
    batch: int = 256,
    progress: bool = True,
) -> CLIPModel:
    """Train CLIP on captions of one style; checkpoints and the log go to `folder` by `name`.

    The log's `top1` is the share of 256 pictures that find their own caption among 256, on
    batches that training has not reached yet. Its `noun`, `color` and `pattern` say what a
    linear probe reads from the picture's side: color and pattern suffice to tell most captions
    of a batch apart, so that `top1` and the loss can look well while nouns go unlearned.
    """
    torch.manual_seed(seed)
    clip = new_clip(tokenizer, patch=patch).to(device)
    clip.set_attn_implementation("eager")  # on a CPU half the time of the fused one's backward

    def logits(generator: torch.Generator) -> Tensor:
        seen, captions, _ = pictures.batch(generator, batch, style)
        ids = tokenize(tokenizer, captions)
        ids = ids[:, : 1 + (ids == tokenizer.eos_token_id).int().argmax(1).max()].to(device)
        kind = torch.device(device).type
        with torch.autocast(kind, torch.bfloat16):
            output = clip(input_ids=ids, pixel_values=seen.to(device))
        return output.logits_per_image.float()

    @torch.no_grad()
    def watch(step: int) -> dict[str, float]:
        scores = logits(torch.Generator().manual_seed(step))
        right = scores.argmax(1).cpu() == torch.arange(batch)
        return {"top1": right.float().mean().item(), **probe_vision(clip)}

    fit(
        name,
        lambda step, generator: contrastive_loss(logits(generator)),
        parameters=clip.parameters(),
        kept={"clip": clip},
        folder=folder,
        steps=steps,
        rate=1e-3,
        seed=seed,
        weight_decay=0.1,
        watch=watch,
        watch_every=250,
        progress=progress,
    )
    return clip.eval()


def save_clip(clip: CLIPModel, tokenizer: CLIPTokenizer, folder: Path) -> None:
    """Save the whole CLIP with its tokenizer and picture processor."""
    clip.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    half = [0.5] * 3
    CLIPImageProcessor(
        size={"height": SIZE[0], "width": SIZE[1]},
        do_center_crop=False,
        image_mean=half,
        image_std=half,
    ).save_pretrained(folder)


def text_encoder(clip: CLIPModel) -> CLIPTextModel:
    """Return CLIP's text tower as the class that Stable Diffusion's pipeline loads."""
    text = CLIPTextModel(clip.config.text_config)
    text.load_state_dict(clip.text_model.state_dict())
    return text.eval()
