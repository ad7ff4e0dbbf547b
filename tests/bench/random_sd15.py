"""Models of Stable Diffusion 1.5's shape with random weights: nothing is downloaded.

What a pass costs doesn't depend on what the weights are, so time and memory can be measured with
any. Queries and keys are made louder than they start out, so that attention isn't flat and a
wrong map can be told from a right one.
"""

from typing import Any

import torch
from torch import nn

from nbhelpers.models import Models, TextEncoder, load_models

LOUDER = 3.0
# diffusers' defaults are Stable Diffusion 1.5 but for these.
UNET: dict[str, Any] = {"sample_size": 64, "cross_attention_dim": 768}
AUTOENCODER: dict[str, Any] = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "sample_size": 512,
}
TEXT: dict[str, Any] = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "max_position_embeddings": 77,
}


def make_unet(device: torch.device, dtype: torch.dtype, **changes: Any) -> nn.Module:
    """A UNet of Stable Diffusion 1.5's shape: 860 million random parameters."""
    from diffusers import UNet2DConditionModel

    torch.manual_seed(0)
    with device:
        unet = UNet2DConditionModel(**{**UNET, **changes})
    for name, weight in unet.named_parameters():
        if name.endswith(("to_q.weight", "to_k.weight")):
            weight.data.mul_(LOUDER)
    return _ready(unet, dtype)


def make_models(device: torch.device, dtype: torch.dtype) -> Models:
    """Stable Diffusion 1.5's shape whole, with the sticker world's words and parser."""
    from diffusers import AutoencoderKL
    from transformers import CLIPTextConfig, CLIPTextModel

    small = load_models("stickers")
    tokenizer = small.text.tokenizers[0]
    marks = {
        name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")
    }
    config = CLIPTextConfig(**TEXT, **marks, vocab_size=len(tokenizer))
    unet = make_unet(device, dtype)
    with device:
        vae, encoder = AutoencoderKL(**AUTOENCODER), CLIPTextModel(config)
    return Models(
        name="the shape of Stable Diffusion 1.5, random weights",
        revision=None,
        unet=unet,
        vae=_ready(vae, dtype),
        scheduler=small.scheduler,
        text=TextEncoder((tokenizer,), (_ready(encoder, dtype),)),
        device=device,
        dtype=dtype,
        size=(512, 512),
        sources=small.sources,
    )


def _ready(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """For inference. Not by the model's own `to`, which warns of a list that is empty here."""
    return nn.Module.to(model, dtype).eval().requires_grad_(False)
