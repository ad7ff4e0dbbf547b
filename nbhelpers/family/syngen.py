"""SynGen: a modifier must attend where its noun does, and nowhere else.

Rassin, Hirsch, Glickman, Ravfogel, Goldberg and Chechik, "Linguistic Binding in Diffusion Models:
Enhancing Attribute Correspondence through Attention Map Alignment" (2023, arXiv 2306.08877).

Before a step, the latents are moved to draw the maps of each modifier and its noun together and
to push both from the maps of all other words. Kept: the loss, one move a step in the first half.
Simplified: modifiers are the words before the noun, since a noun chunk ends there.
"""

import math
from collections.abc import Sequence
from itertools import product

import torch
from jaxtyping import Float
from torch import Tensor

from nbhelpers.attention import Layer
from nbhelpers.datasets import Picture, quoted
from nbhelpers.denoising import add_noise, encode_image
from nbhelpers.embeddings import embed
from nbhelpers.family.cross_maps import cross_maps, main_factor
from nbhelpers.family.guidance import descend
from nbhelpers.family.sampling import GUIDANCE, Step, sample
from nbhelpers.family.words import Thing, find_things, word_positions
from nbhelpers.models import Models
from nbhelpers.segment import attend

TINY = 1e-12  # a probability that underflowed has no logarithm


def generate(
    prompts: Sequence[str],
    models: Models,
    *,
    seeds: Sequence[int],
    step_size: float = 20.0,
    share: float = 0.5,
    steps: int = 30,
    guidance: float = GUIDANCE,
) -> Float[Tensor, "picture channel h_latent w_latent"]:
    """Returns the latents of pictures in which modifiers were bound to their nouns.

    Args:
        prompts: Texts that name at least one thing with a modifier each.
        models: From `load_models`.
        seeds: One for each prompt.
        step_size: By what the gradient is multiplied.
        share: The share of the steps, from the first, before which the latents are moved.
        steps: As for `sample`.
        guidance: Likewise.

    Raises:
        ValueError: A prompt names no such thing.
    """
    asked = [embed(text, (), models.text) for text in prompts]
    things = [_modified(text, models) for text in prompts]
    words = [word_positions(text, own, models) for text, own in zip(prompts, things, strict=True)]
    factor = main_factor(models)

    def loss(layers: Sequence[Layer]) -> Tensor:
        own = [[layer.part(i, len(prompts)) for layer in layers] for i in range(len(prompts))]
        return torch.stack([unbound(*one, factor) for one in zip(own, things, words, strict=True)])

    def before(latents: Tensor, step: Step) -> Tensor:
        if step.index >= share * step.count:
            return latents
        return descend(latents, step.timestep, asked, models, loss, step_size)[0]

    return sample(asked, models, seeds=seeds, steps=steps, guidance=guidance, before=before)


def measure(
    image: Picture,
    caption: str,
    models: Models,
    *,
    timesteps: Sequence[int] | None = None,
    seed: int = 0,
) -> tuple[float, float]:
    """Returns how far apart the maps of a caption's words are in a given picture, from one pass.

    Args:
        image: uint8 ``(h, w, 3)``, or what `as_image` takes.
        caption: What is in it; at least one thing has a modifier.
        models: From `load_models`.
        timesteps: Scheduler indices; the calibration's when None.
        seed: Of the noise.

    Returns:
        The mean distance in nats of a modifier to its own noun, and to other nouns (NaN: none).

    Raises:
        ValueError: No noun in the caption, or no modifier.
    """
    things = _modified(caption, models)
    chosen = list(timesteps or models.calibration.timesteps)
    noised = add_noise(encode_image(image, models, seed=seed), chosen, models, seed=seed)
    layers = attend([noised], [embed(caption, (), models.text)], chosen, models).cross_layers
    words = word_positions(caption, things, models)
    maps = dict(zip(words, _word_maps(layers, words, main_factor(models)), strict=True))
    own: list[float] = []
    other: list[float] = []
    for thing, noun in product(things, things):
        for modifier in thing.modifiers:
            nats = float(distance(maps[modifier], maps[noun.noun]))
            (own if thing is noun else other).append(nats)
    return sum(own) / len(own), sum(other) / len(other) if other else math.nan


def unbound(
    layers: Sequence[Layer], things: Sequence[Thing], words: Sequence[Sequence[int]], factor: int
) -> Float[Tensor, ""]:
    """Computes a picture's loss in nats: ``sum F(m, n) - sum mean_u (F(m, u) + F(n, u)) / 2``.

    The sums are over the modifiers m and their nouns n, the mean over the words u that belong to
    neither, and F is `distance`. `words` are the tokens of every word.
    """
    maps = dict(zip(words, _word_maps(layers, words, factor), strict=True))
    terms = []
    for thing in things:
        mine = {*thing.modifiers, thing.noun}
        others = [found for word, found in maps.items() if word not in mine]
        for m, n in ((maps[modifier], maps[thing.noun]) for modifier in thing.modifiers):
            away = [distance(m, u) + distance(n, u) for u in others]
            terms.append(distance(m, n) - sum(away) / (2 * max(1, len(away))))
    return torch.stack(terms).sum()


def distance(first: Float[Tensor, " cell"], second: Float[Tensor, " cell"]) -> Float[Tensor, ""]:
    """Computes the divergence ``(KL(p, q) + KL(q, p)) / 2`` of maps that sum to 1, in nats."""
    return ((first - second) * (first.log() - second.log())).sum() / 2


def _modified(text: str, models: Models) -> tuple[Thing, ...]:
    """Returns the things that a text names, at least one of them with a modifier."""
    things = find_things(text, models)
    if any(thing.modifiers for thing in things):
        return things
    raise ValueError(f"nothing in {quoted(text)} has a modifier, as in 'a red ring'")


def _word_maps(
    layers: Sequence[Layer], words: Sequence[Sequence[int]], factor: int
) -> Float[Tensor, "word cell"]:
    """Returns the map of each word, the mean over its tokens and over passes, summing to 1."""
    maps = [cross_maps(layers, word, factor).mean(dim=(0, 1)).flatten() for word in words]
    found = torch.stack(maps).clamp(min=TINY)
    return found / found.sum(dim=1, keepdim=True)
