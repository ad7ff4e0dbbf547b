"""A small CLIP, trained contrastively on pictures and captions (Radford et al., 2021)."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPTextModel,
    CLIPTokenizer,
)

from nbhelpers.weights import from_pretrained
from recipe.art import COLORS_OF, NOUNS, PATCHED, UNSEEN
from recipe.captions import article, name, plural
from recipe.color import COLORS
from recipe.pictures import Pictures, to_unit
from recipe.scenes import SIZE, Scene, Thing, draw, sample_scene
from recipe.tokenizer import TOKENS
from recipe.training import fit, half_precision

WIDTH = 128
PATCH = 8
TOKEN_SCALE = 25.0  # of the cosines of words and patches, before the softmax
HELD_OUT = 10_000_000  # scenes that are measured on come from seeds beyond this one


def new_clip(tokenizer: CLIPTokenizer) -> CLIPModel:
    """Return an untrained CLIP: 4 + 4 layers, width 128, pictures in patches of `PATCH` pixels.

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
    vision = {**tower, "image_size": SIZE[0], "patch_size": PATCH}
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
    batch: int = 128,
    progress: bool = True,
) -> CLIPModel:
    """Train CLIP on brief captions; checkpoints and the log go to `folder`.

    Pictures are moved by up to four pixels and half of them are mirrored where their captions
    name no side. The log's `top1` is the share of a batch that finds its own caption in it, `noun`
    and `color` are `zero_shot`'s of 400 held-out single things.
    """
    torch.manual_seed(seed)
    clip = new_clip(tokenizer).to(device)
    clip.set_attn_implementation("eager")  # on a CPU half the time of the fused one's backward
    kind = torch.device(device).type

    def logits(generator: torch.Generator) -> Tensor:
        index, captions = pictures.sample(generator, batch, "brief")
        seen = to_unit(pictures.pictures[index.numpy()])
        ids = tokenize(tokenizer, captions)
        ids = ids[:, : 1 + (ids == tokenizer.eos_token_id).int().argmax(1).max()]
        with half_precision(kind):
            output = clip(
                input_ids=ids.to(device), pixel_values=jitter(seen, captions, generator).to(device)
            )
        return output.logits_per_image.float()

    @torch.no_grad()
    def watch(step: int) -> dict[str, float]:
        scores = logits(torch.Generator().manual_seed(HELD_OUT + step))
        right = scores.argmax(1).cpu() == torch.arange(batch)
        found = zero_shot(clip, tokenizer, count=400)
        return {"top1": right.float().mean().item(), **found}

    fit(
        "clip",
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


def bind(
    clip: CLIPModel,
    pictures: Pictures,
    tokenizer: CLIPTokenizer,
    folder: Path,
    *,
    seed: int,
    steps: int,
    device: str,
    batch: int = 64,
    progress: bool = True,
) -> CLIPModel:
    """Teach a trained CLIP to say at each word what it means in its phrase, on ordinary captions.

    CLIP's own loss sees the end token alone, and its token of a noun then holds next to nothing of
    the color before it. Here the words' tokens are held against the picture's patches as well
    (`token_scores`), and each picture against its own caption with the colors of two things
    exchanged (NegCLIP: Yuksekgonul et al., 2023): "a red car and a black dog" for "a black car
    and a red dog".
    """
    torch.manual_seed(seed)
    clip = clip.to(device).train()
    clip.set_attn_implementation("eager")
    kind = torch.device(device).type

    def loss(step: int, generator: torch.Generator) -> Tensor:
        index, captions = pictures.sample(generator, batch, "ordinary")
        seen = jitter(to_unit(pictures.pictures[index.numpy()]), captions, generator)
        false = [text for text in map(exchange_colors, captions) if text]
        ids = tokenize(tokenizer, captions + false)
        end = (ids == tokenizer.eos_token_id).int().argmax(1)
        ids = ids[:, : 1 + end.max()].to(device)
        with half_precision(kind):
            texts = clip.text_model(input_ids=ids)
            views = clip.vision_model(pixel_values=seen.to(device))
            pooled = (
                _unit(clip.visual_projection(views.pooler_output))
                @ _unit(clip.text_projection(texts.pooler_output)).T
            )
            grid = clip.vision_model.post_layernorm(views.last_hidden_state[:, 1:])
            words = torch.arange(ids.shape[1])[None] < end[:, None]
            words[:, 0] = False
            fine = token_scores(
                _unit(clip.text_projection(texts.last_hidden_state)),
                _unit(clip.visual_projection(grid)),
                words.to(device),
            )
        target = torch.arange(batch, device=device)
        total = torch.zeros((), device=device)
        for logits in (clip.logit_scale.exp() * pooled, TOKEN_SCALE * fine):
            logits = logits.float()
            total = total + nn.functional.cross_entropy(logits, target)
            total = total + nn.functional.cross_entropy(logits[:, :batch].T, target)
        return total / 4

    fit(
        "clip-bound",
        loss,
        parameters=clip.parameters(),
        kept={"clip": clip},
        folder=folder,
        steps=steps,
        rate=5e-4,
        seed=seed,
        weight_decay=0.1,
        watch=lambda step: zero_shot(clip, tokenizer, count=400),
        watch_every=250,
        progress=progress,
    )
    return clip.eval()


def token_scores(
    texts: Float[Tensor, "caption token width"],
    grids: Float[Tensor, "picture patch width"],
    words: Bool[Tensor, "caption token"],
) -> Float[Tensor, "picture caption"]:
    """Return how well each caption's words are found in each picture (FILIP: Yao et al., 2022).

    The mean over a caption's words of the best cosine with any patch of the picture.
    """
    best = torch.einsum("ctw,bpw->bcpt", texts, grids).amax(2)
    return (best * words).sum(2) / words.sum(1)


_COLORED = re.compile(
    rf"(?P<color>{'|'.join([*PATCHED, *COLORS])}) (?P<noun>{'|'.join(NOUNS)})s?\b"
    r"|(?P<person>man|woman|child|men|women|children) in (?:an? )?"
    rf"(?P<clothes>{'|'.join([*PATCHED, *COLORS])})\b"
)


def exchange_colors(caption: str) -> str | None:
    """Return a caption with the colors of its first two things exchanged, if that makes it false.

    None where there are no two colored things, where their nouns or colors are the same, and where
    a pair would come of it that training never shows.

    Example:
        >>> exchange_colors("a red car next to a woman in blue")
        'a blue car next to a woman in red'
    """
    found = list(_COLORED.finditer(caption))[:2]
    if len(found) < 2:
        return None
    names = [match["noun"] or match["person"] for match in found]
    groups = ["color" if match["color"] else "clothes" for match in found]
    (first, other) = (match[group] for match, group in zip(found, groups, strict=True))
    singular = [next((n for n in NOUNS if plural(n) == word), word) for word in names]
    new = {(singular[0], other), (singular[1], first)}
    if names[0] == names[1] or first == other or new & UNSEEN:
        return None
    (a, b), (c, d) = (match.span(group) for match, group in zip(found, groups, strict=True))
    return caption[:a] + other + caption[b:c] + first + caption[d:]


def jitter(seen: Tensor, captions: list[str], generator: torch.Generator) -> Tensor:
    """Return pictures moved by up to four pixels; half are mirrored where no side is named."""
    padded = nn.functional.pad(seen, (4, 4, 4, 4), mode="replicate")
    moves = torch.randint(9, (len(seen), 2), generator=generator).tolist()
    mirrored = (torch.rand(len(seen), generator=generator) < 0.5).tolist()
    height, width = seen.shape[2:]
    rows = []
    for picture, caption, (y, x), flip in zip(padded, captions, moves, mirrored, strict=True):
        part = picture[:, y : y + height, x : x + width]
        sided = "left" in caption or "right" in caption
        rows.append(part.flip(2) if flip and not sided else part)
    return torch.stack(rows)


@cache
def single_things(count: int, style: str | None = None) -> tuple[list[Thing], Tensor]:
    """Return held-out scenes of one thing each, and their pictures."""
    scenes: list[Scene] = [
        sample_scene(np.random.default_rng((HELD_OUT, number)), count=1, style=style)
        for number in range(count)
    ]
    pictures = to_unit(np.stack([draw(scene)[0] for scene in scenes]))
    return [scene.things[0] for scene in scenes], pictures


@torch.no_grad()
def zero_shot(
    clip: CLIPModel, tokenizer: CLIPTokenizer, *, count: int = 1500, style: str | None = None
) -> dict[str, float]:
    """Return how often CLIP names a single thing's noun, of all, and its color given the noun.

    The prompts are "a photograph of a dog" for every noun, and "a photograph of a black dog" for
    every color of `COLORS` and every coat; a thing that keeps its own color counts for the noun
    alone.
    """
    things, seen = single_things(count, style)
    clip.eval()
    parts = [clip.get_image_features(part.to(clip.device)) for part in seen.split(100)]
    pictures = _unit(torch.cat([part.pooler_output for part in parts]))
    nouns = _encode_prompts(clip, tokenizer, [f"{article(noun)} {noun}" for noun in NOUNS])
    guess = (pictures @ nouns.T).argmax(1).tolist()
    right = [NOUNS[g] == thing.noun for g, thing in zip(guess, things, strict=True)]
    colors = [*COLORS, "black and white", "brown and white"]
    colored = []
    for noun in COLORS_OF:
        rows = [i for i, thing in enumerate(things) if thing.noun == noun]
        if not rows:
            continue
        names = [name(Thing(noun, color, (0, 0), 0)) for color in colors]
        prompts = _encode_prompts(clip, tokenizer, [f"{article(n)} {n}" for n in names])
        for row, best in zip(rows, (pictures[rows] @ prompts.T).argmax(1).tolist(), strict=True):
            colored.append(colors[best] == things[row].color)
    clip.train()
    return {"noun": float(np.mean(right)), "color": float(np.mean(colored))}


def _encode_prompts(clip: CLIPModel, tokenizer: CLIPTokenizer, names: list[str]) -> Tensor:
    """Return the normalized text vectors of "a photograph of ..."."""
    ids = tokenize(tokenizer, [f"a photograph of {words}" for words in names]).to(clip.device)
    return _unit(clip.get_text_features(ids).pooler_output)


def _unit(vectors: Tensor) -> Tensor:
    return nn.functional.normalize(vectors.float(), dim=-1)


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


def load_clip(folder: Path) -> tuple[CLIPModel, CLIPTokenizer]:
    """Load a trained CLIP in float32, and its tokenizer."""
    clip = from_pretrained(CLIPModel, str(folder), None, dtype=torch.float32)
    return clip.eval(), from_pretrained(CLIPTokenizer, str(folder), None)


def text_encoder(clip: CLIPModel) -> CLIPTextModel:
    """Return CLIP's text tower as the class that Stable Diffusion's pipeline loads."""
    text = CLIPTextModel(clip.config.text_config)
    text.load_state_dict(clip.text_model.state_dict())
    return text.eval()
