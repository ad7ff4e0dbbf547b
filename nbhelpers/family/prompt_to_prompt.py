"""Prompt-to-Prompt: a picture is edited by its prompt, because attention holds its layout.

Hertz, Mokady, Tenenbaum, Aberman, Pritch and Cohen-Or, "Prompt-to-Prompt Image Editing with
Cross Attention Control" (2022, arXiv 2208.01626).

Two pictures are generated from the same noise, one for the source prompt and one for the edited
prompt, and the second takes the attention of the first.

Kept: word swap, refinement and re-weighting; self-attention injected at the coarse grids in the
first part of the steps; LocalBlend, which confines the edit to a word's pixels. Simplified: one
share of the steps holds for all words, two prompts are aligned by their common tokens, and
LocalBlend reads the edited prompt's own maps, not the injected ones. The paper stores attention
probabilities; here none is formed, because every edit is two attentions with other values.
"""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from nbhelpers.attention import Layer, record_attention
from nbhelpers.denoising import predict_noise
from nbhelpers.embeddings import embed
from nbhelpers.family._alignment import align, attend, inject
from nbhelpers.family._editing import edit_attention
from nbhelpers.family.cross_maps import cross_maps, main_factor
from nbhelpers.family.sampling import GUIDANCE, Step, sample
from nbhelpers.family.words import token_positions
from nbhelpers.models import Models


def edit_prompt(
    source: str,
    edited: str,
    models: Models,
    *,
    seed: int,
    weights: Mapping[str, float] | None = None,
    blend: tuple[str, str] | None = None,
    cross_share: float = 0.8,
    self_share: float = 0.4,
    threshold: float = 0.3,
    steps: int = 30,
    guidance: float = GUIDANCE,
) -> Float[Tensor, "2 channel h_latent w_latent"]:
    """Makes two pictures of one noise: of the source prompt, and of the edited one in its layout.

    Args:
        source: The source prompt.
        edited: The edited prompt; the source again where only weights change.
        models: From `load_models`.
        seed: Of the noise that both start from.
        weights: Words of the edited prompt, and the factor of each one's attention.
        blend: LocalBlend: a word of the source and one of the edited prompt. Outside of what
            attends to either, the second picture stays the first.
        cross_share: The share of the steps, from the first, in which cross-attention is injected.
        self_share: Likewise of the self-attention whose grid is no finer than `main_factor`'s.
        threshold: Of LocalBlend's maps, relative to their highest value.
        steps: As for `sample`.
        guidance: Likewise.

    Returns:
        The latents of both. The source's are, bit for bit, those that `sample` makes of both
        prompts with this seed.

    Raises:
        ValueError: A word isn't in its prompt.
    """
    factor = main_factor(models)
    alignment = align(source, edited, models, weights=weights)
    prompts = [embed(text, (), models.text) for text in (source, edited)]
    words = [
        token_positions(word, text, models)
        for word, text in zip(blend or (), (source, edited), strict=bool(blend))
    ]
    seen: list[Tensor] = []  # of each step, the maps of both words: "2 h w"

    def predict(latents: Tensor, step: Step) -> Tensor:
        progress = step.index / step.count

        def edit(layer: Layer, value: Tensor) -> Tensor:
            output = attend(layer.query, layer.key, value, layer)
            if layer.kind == "cross" and progress < cross_share:
                output[1:] = inject(layer, value, alignment)
            elif layer.kind == "self" and progress < self_share and layer.factor >= factor:
                output[1:] = attend(layer.query[:1], layer.key[:1], value[1:], layer)
            return output

        with edit_attention(models.unet, edit):
            if not blend:
                return predict_noise(latents, [step.timestep], prompts, models)
            with record_attention(models.unet) as attention:
                noise = predict_noise(latents, [step.timestep], prompts, models)
        maps = [cross_maps(attention.cross_layers, tokens, factor).mean(dim=1) for tokens in words]
        seen.append(torch.stack([maps[0][0], maps[1][1]]))
        return noise

    def after(latents: Tensor, step: Step) -> Tensor:
        if not blend:
            return latents
        height, width = latents.shape[-2:]
        mask = blend_mask(torch.stack(seen).mean(dim=0), (height, width), threshold)
        return torch.stack([latents[0], torch.where(mask, latents[1], latents[0])])

    return sample(
        prompts,
        models,
        seeds=[seed, seed],
        steps=steps,
        guidance=guidance,
        predict=predict,
        after=after,
    )


def generate(
    prompts: Sequence[str],
    models: Models,
    *,
    sources: Sequence[str],
    seeds: Sequence[int],
    steps: int = 30,
    guidance: float = GUIDANCE,
) -> Float[Tensor, "picture channel h_latent w_latent"]:
    """Returns latents, each edited from that of its source prompt; see `edit_prompt`."""
    edited = [
        edit_prompt(source, text, models, seed=seed, steps=steps, guidance=guidance)[1:]
        for source, text, seed in zip(sources, prompts, seeds, strict=True)
    ]
    return torch.cat(edited)


def blend_mask(
    maps: Float[Tensor, "word h w"], size: tuple[int, int], threshold: float
) -> Bool[Tensor, "h_latent w_latent"]:
    """Makes LocalBlend's mask: where a word has a neighbor above a share of its map's maximum."""
    spread = F.max_pool2d(maps[None], 3, stride=1, padding=1)
    spread = F.interpolate(spread, size=size, mode="bilinear")[0]
    return (spread > threshold * spread.amax(dim=(1, 2), keepdim=True)).any(dim=0)
