"""A small random CLIP with both towers, whose weights are large enough to tell things apart."""

import torch
import transformers

from nbhelpers.models import Clip

SIDE, PATCH, WIDTH = 32, 8, 32


def make_clip(tokenizer):
    """CLIP for pictures of 32 x 32 in patches of 8, with the vocabulary of a tokenizer."""
    tower = {
        "hidden_size": WIDTH,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "projection_dim": WIDTH,
    }
    text = {
        **tower,
        "vocab_size": len(tokenizer),
        "max_position_embeddings": 77,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    vision = {**tower, "image_size": SIDE, "patch_size": PATCH}
    config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=WIDTH)
    torch.manual_seed(0)
    model = transformers.CLIPModel(config).eval().requires_grad_(False)
    for name, weight in model.named_parameters():
        if name.endswith("proj.weight"):
            weight.mul_(6)
        elif "embedding" in name:
            weight.mul_(30)
    processor = transformers.CLIPImageProcessorPil(image_mean=[0.5] * 3, image_std=[0.5] * 3)
    return Clip(tokenizer, processor, model, torch.device("cpu"))
