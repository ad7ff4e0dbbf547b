"""Attend-and-Excite: every thing that the prompt names must attract some location's attention.

Chefer, Alaluf, Vinker, Wolf and Cohen-Or, "Attend-and-Excite: Attention-Based Semantic Guidance
for Text-to-Image Diffusion Models" (2023, arXiv 2301.13826).

Before a step, the latents are moved so that the most neglected noun gains attention where it has
most already. Kept: the loss, its maps, the step sizes, and the refinement at three steps, until
every noun's maximum reaches that step's threshold. Simplified: the parser chooses the nouns, and
steps are named by their share of all, since the paper's 50 are many here.
"""

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from nbhelpers.attention import Layer
from nbhelpers.embeddings import embed
from nbhelpers.family.cross_maps import cross_maps, main_factor
from nbhelpers.family.guidance import descend
from nbhelpers.family.sampling import GUIDANCE, Step, sample
from nbhelpers.family.words import find_things
from nbhelpers.models import Models

THRESHOLDS = {0.0: 0.05, 0.2: 0.5, 0.4: 0.8}  # the paper's at steps 0, 10 and 20 of 50


def generate(
    prompts: Sequence[str],
    models: Models,
    *,
    seeds: Sequence[int],
    step_size: float = 20.0,
    share: float = 0.5,
    thresholds: Mapping[float, float] = THRESHOLDS,
    refinements: int = 20,
    steps: int = 30,
    guidance: float = GUIDANCE,
) -> Float[Tensor, "picture channel h_latent w_latent"]:
    """Returns the latents of pictures in which every named thing was attended to.

    Args:
        prompts: Texts that name at least one thing each.
        models: From `load_models`.
        seeds: One for each prompt.
        step_size: Of the first step; it falls with the steps, to 0.71 of it at the last.
        share: The share of the steps, from the first, before which the latents are moved.
        thresholds: What every noun's maximum must reach, by the share of the steps at which the
            latents are refined.
        refinements: The most moves of one refinement.
        steps: As for `sample`.
        guidance: Likewise.

    Raises:
        ValueError: A prompt names nothing.
    """
    asked = [embed(text, (), models.text) for text in prompts]
    nouns = [[thing.noun for thing in find_things(text, models)] for text in prompts]
    factor = main_factor(models)

    def move(
        latents: Tensor, timestep: int, size: float, pictures: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        def loss(layers: Sequence[Layer]) -> Tensor:
            maps = excited_maps(layers, factor)
            return torch.stack(
                [neglect(own, nouns[i]) for own, i in zip(maps, pictures, strict=True)]
            )

        own = [asked[i] for i in pictures]
        return descend(latents[list(pictures)], timestep, own, models, loss, size)

    def before(latents: Tensor, step: Step) -> Tensor:
        if step.index >= share * step.count:
            return latents
        size = step_size * math.sqrt(1 - 0.5 * step.index / max(1, step.count - 1))
        everyone = list(range(len(asked)))
        for at, threshold in thresholds.items():
            neglected = everyone if step.index == round(at * step.count) else []
            for _ in range(refinements):
                if not neglected:
                    break
                moved, losses = move(latents, step.timestep, size, neglected)
                still = (losses > 1 - threshold).tolist()
                neglected = [i for i, one in zip(neglected, still, strict=True) if one]
                latents = latents.clone()
                latents[neglected] = moved[still]
        return move(latents, step.timestep, size, everyone)[0]

    return sample(asked, models, seeds=seeds, steps=steps, guidance=guidance, before=before)


def excited_maps(layers: Sequence[Layer], factor: int) -> Float[Tensor, "picture token h w"]:
    """Returns maps in which the tokens compete for each location.

    The start token, which draws most attention, and the last position are dropped; what is left
    is multiplied by 100, goes through a softmax over the tokens, and is smoothed by a Gaussian of
    3 x 3 cells.

    Args:
        layers: What `record_attention` recorded of the cross-attention.
        factor: As for `cross_maps`.

    Returns:
        The map of token i of the prompt, the start token counted, at ``i - 1``.
    """
    length = layers[0].key.shape[-2]
    maps = (100 * cross_maps(layers, range(1, length - 1), factor)).softmax(dim=1)
    offsets = torch.arange(-1.0, 2.0, device=maps.device)
    # The released code's exponent, with its sigma of 0.5: ((x - mean) / (2 sigma)) ** 2.
    line = torch.exp(-(offsets**2))
    kernel = torch.outer(line, line) / line.sum() ** 2
    padded = F.pad(maps, (1, 1, 1, 1), mode="reflect").flatten(0, 1)[:, None]
    return F.conv2d(padded, kernel[None, None])[:, 0].unflatten(0, maps.shape[:2])


def neglect(maps: Float[Tensor, "token h w"], nouns: Sequence[Sequence[int]]) -> Float[Tensor, ""]:
    """Returns the loss: ``max_s (1 - max map_s)`` over the nouns' tokens.

    Args:
        maps: One picture's, from `excited_maps`.
        nouns: For each noun the positions of its tokens, the start token at 0.
    """
    tokens = [token - 1 for noun in nouns for token in noun]
    return (1 - maps[tokens].amax(dim=(1, 2))).amax()
