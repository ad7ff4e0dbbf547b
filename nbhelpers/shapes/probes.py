"""What the small CLIP's two sides know of noun, color and pattern."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import torch
from transformers import CLIPModel

from nbhelpers.models import Models
from nbhelpers.shapes.captions import article, name
from nbhelpers.shapes.pictures import to_unit
from nbhelpers.shapes.world import COLORS, NOUNS, PATTERNS, Scene, Thing, draw, sample_scene
from nbhelpers.weights import from_pretrained


def probe_text(models: Models, *, prompts: int = 1500) -> dict[str, float]:
    """Return how well a linear probe reads noun, color and pattern from the pooled text vector.

    Prompts name one thing, "a photograph of a striped red ring".
    """
    things = _single_things(prompts)
    words = [f"a photograph of {article(name(thing))} {name(thing)}" for thing in things]
    tokens = models.text.tokenizers[0](words, padding="max_length", return_tensors="pt")
    with torch.no_grad():
        pooled = models.text.encoders[0](tokens.input_ids).pooler_output
    return _probe(pooled, things)


def probe_noun_token(models: Models) -> dict[str, float]:
    """Return the shares of a noun's token that its noun and the color before it account for.

    Of every "a photograph of a red ring" the last hidden state at the noun's last token is taken.
    The shares are of the total variance over all colors and nouns: between the means of the nouns,
    and between those of the colors. What is left is told by neither alone.
    """
    words = [
        f"a photograph of {article(color)} {color} {noun}" for noun in NOUNS for color in COLORS
    ]
    tokenizer, encoder = models.text.tokenizers[0], models.text.encoders[0]
    states = []
    for text in words:
        tokens = tokenizer(text, return_tensors="pt").to(encoder.device)
        with torch.no_grad():
            states.append(encoder(tokens.input_ids).last_hidden_state[0, -2].double().cpu())
    each = torch.stack(states).unflatten(0, (len(NOUNS), len(COLORS)))
    each = each - each.mean((0, 1))
    total = each.square().sum(-1).mean()
    return {
        part: float(each.mean(axis).square().sum(-1).mean() / total)
        for part, axis in (("noun", 1), ("color", 0))
    }


def probe_pictures(folder: Path) -> dict[str, float]:
    """Return what `probe_vision` reads from the CLIP saved in `folder`."""
    clip = from_pretrained(CLIPModel, str(folder), None, dtype=torch.float32)
    return probe_vision(clip.eval())


@torch.no_grad()
def probe_vision(clip: CLIPModel, *, pictures: int = 1500) -> dict[str, float]:
    """Return how well a linear probe reads a thing's noun, color and pattern from CLIP's eye.

    Scenes hold one thing.
    """
    device = clip.device
    scenes, seen = _single_scenes(pictures)
    parts = [clip.vision_model(part.to(device)).pooler_output for part in seen.split(100)]
    return _probe(torch.cat(parts).float().cpu(), [scene.things[0] for scene in scenes])


@cache
def _single_scenes(count: int) -> tuple[list[Scene], torch.Tensor]:
    """Return scenes that hold one thing, and their pictures."""
    rng = np.random.default_rng(0)
    scenes = [sample_scene(rng, count=1) for _ in range(count)]
    return scenes, to_unit(np.stack([draw(scene)[0] for scene in scenes]))


def _single_things(count: int) -> list[Thing]:
    """Return things of scenes that hold one."""
    rng = np.random.default_rng(0)
    return [sample_scene(rng, count=1).things[0] for _ in range(count)]


def _probe(features: torch.Tensor, things: Sequence[Thing]) -> dict[str, float]:
    """Return the held-out accuracy of a least-squares probe for each part of a thing's name.

    Two thirds fit it, the rest is held out. Chance is 1/12, 1/8 and, for the commonest pattern,
    0.4.
    """
    rows = torch.cat([features, torch.ones(len(features), 1)], 1).double()
    cut = 2 * len(things) // 3
    found = {}
    for part, names in (("noun", NOUNS), ("color", tuple(COLORS)), ("pattern", PATTERNS)):
        truth = torch.tensor([names.index(getattr(thing, part)) for thing in things])
        goal = torch.nn.functional.one_hot(truth[:cut], len(names)).double()
        weights = torch.linalg.lstsq(rows[:cut], goal, driver="gelsd").solution
        right = (rows[cut:] @ weights).argmax(1) == truth[cut:]
        found[part] = right.double().mean().item()
    return found
