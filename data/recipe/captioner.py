"""A small BLIP, trained to caption: a vision transformer and a text decoder that attends to it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import (
    BertTokenizerFast,
    BlipConfig,
    BlipForConditionalGeneration,
    BlipImageProcessor,
    BlipProcessor,
    CLIPModel,
)

from recipe.clip import PATCH, WIDTH, jitter
from recipe.pictures import Pictures, to_unit
from recipe.scenes import SIZE
from recipe.training import average_of, fit, half_precision

START = "[DEC]"


def new_word_tokenizer(captions: Iterable[str], folder: Path) -> BertTokenizerFast:
    """Return BLIP's kind of tokenizer: every word of the captions, and letters for the rest."""
    words = sorted({word for text in captions for word in text.replace(",", " , ").split()})
    letters = [chr(code) for code in range(33, 127) if not chr(code).isupper()]
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters]
    pieces += [f"##{letter}" for letter in letters if letter.isalnum()]
    pieces += [word for word in words if word not in letters]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join([*pieces, START]) + "\n")
    (folder / "tokenizer.json").unlink(missing_ok=True)  # it would be taken for the words
    tokenizer = BertTokenizerFast.from_pretrained(
        folder,
        revision=None,
        use_safetensors=True,
        trust_remote_code=False,
        model_max_length=64,
    )
    tokenizer.add_special_tokens({"bos_token": START})
    return tokenizer


def new_captioner(tokenizer: BertTokenizerFast) -> BlipForConditionalGeneration:
    """Return an untrained BLIP of width 128: four layers that see, three that write."""
    shared = {"hidden_size": WIDTH, "intermediate_size": 4 * WIDTH, "num_attention_heads": 4}
    # CLIP's activation, since it starts from CLIP's weights
    look = {"hidden_act": "quick_gelu", "num_hidden_layers": 4}
    vision = {**shared, **look, "image_size": SIZE[0], "patch_size": PATCH}
    text = {
        **shared,
        "num_hidden_layers": 3,
        "vocab_size": len(tokenizer),
        "encoder_hidden_size": WIDTH,
        "max_position_embeddings": 64,
        "bos_token_id": tokenizer.convert_tokens_to_ids(START),
        "eos_token_id": tokenizer.sep_token_id,
        "sep_token_id": tokenizer.sep_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    }
    config = BlipConfig(text_config=text, vision_config=vision, projection_dim=WIDTH)
    return BlipForConditionalGeneration(config)


@torch.no_grad()
def start_from_clip(
    blip: BlipForConditionalGeneration,
    clip: CLIPModel,
    pictures: Float[Tensor, "batch 3 h w"],
) -> None:
    """Give BLIP's vision transformer the weights of CLIP's, as BLIP's own began pretrained.

    CLIP normalizes its embeddings before the first layer and BLIP does not. That layer norm is
    folded into the embeddings, with the mean deviation over `pictures` for each token's own.
    """
    old, new = clip.vision_model, blip.vision_model
    norm = old.pre_layrnorm
    deviation = old.embeddings(pictures).std(-1, correction=0).mean()

    def fold(rows: Tensor) -> Tensor:
        return norm.weight * (rows - rows.mean(-1, keepdim=True)) / deviation

    kernel = old.embeddings.patch_embedding.weight
    folded = fold(kernel.flatten(1).T).T.reshape(kernel.shape)
    new.embeddings.patch_embedding.weight.copy_(folded)
    new.embeddings.patch_embedding.bias.copy_(norm.bias)
    new.embeddings.position_embedding.copy_(fold(old.embeddings.position_embedding.weight)[None])
    first = fold(old.embeddings.class_embedding) + norm.bias
    new.embeddings.class_embedding.copy_(first.view(1, 1, -1))
    for ours, theirs in zip(new.encoder.layers, old.encoder.layers, strict=True):
        parts = [getattr(theirs.self_attn, f"{name}_proj") for name in "qkv"]
        ours.self_attn.qkv.weight.copy_(torch.cat([part.weight for part in parts]))
        ours.self_attn.qkv.bias.copy_(torch.cat([part.bias for part in parts]))
        ours.self_attn.projection.load_state_dict(theirs.self_attn.out_proj.state_dict())
        for name in ("layer_norm1", "layer_norm2", "mlp"):
            getattr(ours, name).load_state_dict(getattr(theirs, name).state_dict())
    new.post_layernorm.load_state_dict(old.post_layernorm.state_dict())


def train_captioner(
    pictures: Pictures,
    tokenizer: BertTokenizerFast,
    clip: CLIPModel,
    folder: Path,
    *,
    seed: int,
    steps: int,
    device: str,
    batch: int = 64,
    progress: bool = True,
) -> BlipForConditionalGeneration:
    """Train BLIP's captioning half by the cross-entropy of the next word.

    Its vision transformer starts from `clip`'s. Pictures are moved a little, elsewhere each time,
    and mirrored where no side is named: without that it learns the pictures by heart.
    """
    torch.manual_seed(seed)
    blip = new_captioner(tokenizer)
    start_from_clip(blip, clip.cpu(), to_unit(pictures.pictures[:64]))
    blip.to(device)
    average = average_of(blip)
    kind = torch.device(device).type

    def loss(step: int, generator: torch.Generator) -> Tensor:
        index, captions = pictures.sample(generator, batch, "careful")
        seen = jitter(to_unit(pictures.pictures[index.numpy()]), captions, generator)
        tokens = tokenizer(captions, padding=True, return_tensors="pt").to(device)
        ids = tokens.input_ids
        ids[:, 0] = blip.config.text_config.bos_token_id
        labels = ids.masked_fill(tokens.attention_mask == 0, -100)
        with half_precision(kind):
            return blip(
                pixel_values=seen.to(device),
                input_ids=ids,
                attention_mask=tokens.attention_mask,
                labels=labels,
            ).loss.float()

    fit(
        "captioner",
        loss,
        parameters=blip.parameters(),
        kept={"blip": blip},
        average=average,
        folder=folder,
        steps=steps,
        rate=7e-4,
        seed=seed,
        weight_decay=0.05,
        progress=progress,
    )
    average.copy_to(blip.parameters())
    return blip.eval()


def save_captioner(
    blip: BlipForConditionalGeneration, tokenizer: BertTokenizerFast, folder: Path
) -> None:
    """Save the folder that `BlipForConditionalGeneration` and `BlipProcessor` load."""
    blip.save_pretrained(folder)
    half = [0.5] * 3
    images = BlipImageProcessor(
        size={"height": SIZE[0], "width": SIZE[1]}, image_mean=half, image_std=half
    )
    BlipProcessor(images, tokenizer).save_pretrained(folder)
