"""DAAM: where a word of the prompt shows in a picture, by its cross-attention alone.

Tang, Liu, Pandey, Jiang, Yang, Kumar, Stenetorp, Lin and Ture, "What the DAAM: Interpreting Stable
Diffusion Using Cross Attention" (2022, arXiv 2210.04885).

Kept: the mean over heads and over the layers on the way down and up, each layer's map enlarged by
bicubic interpolation and clipped at 0, the sum over the denoising steps. Simplified: heads are
averaged before the map is enlarged, not after, which enlarges one map a layer; and `maps`
stretches a map to [0, 1] by its minimum and maximum, where DAAM divides by the maximum, so that a
threshold means what it means for the other systems.

`heat_maps` explains a picture while it is generated. `maps` reads a given picture in one pass,
where DAAM is another way than `score_maps` to gather the same layers.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from nbhelpers import kernels
from nbhelpers.attention import Layer, record_attention
from nbhelpers.denoising import add_noise, encode_image, predict_noise
from nbhelpers.embeddings import embed
from nbhelpers.family.sampling import GUIDANCE, Step, sample
from nbhelpers.family.words import token_positions
from nbhelpers.masks import to_pixels
from nbhelpers.models import Models
from nbhelpers.segment import attend, make_prompt
from nbhelpers.settings import resolve


def maps(
    image: UInt8[np.ndarray, "h w 3"],
    texts: Sequence[str],
    models: Models,
    *,
    timesteps: Sequence[int] | None = None,
    seed: int = 0,
) -> Float[np.ndarray, "text h w"]:
    """Returns a map of each text's noun in a given picture, from one pass.

    Args:
        image: uint8, of any size.
        texts: Class names or phrases; each is asked for by a prompt of its own, "a photograph of
            {text}".
        models: From `load_models`.
        timesteps: Scheduler indices, over which the maps are summed; those of the model's
            calibration when None.
        seed: Of the noise.

    Returns:
        In [0, 1], as large as the picture.

    Raises:
        ValueError: No noun in a text, or no timestep.
    """
    settings = resolve(models, "plain")
    chosen = tuple(timesteps or settings.timesteps or ())
    prompts = [make_prompt(text, models, settings) for text in texts]
    noised = add_noise(encode_image(image, models, seed=seed), chosen, models, seed=seed)
    attention = attend([noised] * len(prompts), prompts, chosen, models)
    size = (noised.shape[-2], noised.shape[-1])
    found = []
    for i, prompt in enumerate(prompts):
        layers = attention.part(i, len(prompts)).cross_layers
        found.append(word_maps(layers, [prompt.spans[prompt.target or 0]], size).sum(dim=0))
    return to_pixels(torch.cat(found), (image.shape[0], image.shape[1]))


def heat_maps(
    text: str,
    words: Sequence[str],
    models: Models,
    *,
    seed: int,
    steps: int = 30,
    guidance: float = GUIDANCE,
) -> tuple[Float[Tensor, "1 channel h w"], Float[Tensor, "word h w"]]:
    """Returns a generated picture and where each word shows in it, over the whole generation.

    Args:
        text: The prompt.
        words: Words of it; each is taken where it stands first.
        models: From `load_models`.
        seed: Of the noise that the picture starts from.
        steps: As for `sample`.
        guidance: Likewise. The pass with the empty prompt isn't read.

    Returns:
        The picture's latent for `decode`, and the words' maps as large as it, summed over the
        steps: at most `steps`.

    Raises:
        ValueError: A word isn't in the prompt.
    """
    prompt = embed(text, (), models.text)
    tokens = [token_positions(word, text, models) for word in words]
    total: list[Tensor] = []

    def predict(latents: Tensor, step: Step) -> Tensor:
        with record_attention(models.unet) as attention:
            noise = predict_noise(latents, [step.timestep], [prompt], models)
        size = (latents.shape[-2], latents.shape[-1])
        total.append(word_maps(attention.cross_layers, tokens, size)[0])
        return noise

    latent = sample(
        [prompt], models, seeds=[seed], steps=steps, guidance=guidance, predict=predict
    )
    return latent, torch.stack(total).sum(dim=0)


def word_maps(
    layers: Sequence[Layer], words: Sequence[Sequence[int]], size: tuple[int, int]
) -> Float[Tensor, "pass word h w"]:
    """Averages words' maps over their tokens, the heads and all layers but the middle ones.

    Args:
        layers: What `record_attention` recorded of the cross-attention in one pass.
        words: For each word the positions of its tokens.
        size: The grid ``(h, w)`` that every layer's map is enlarged to.

    Returns:
        float32, not negative: where bicubic interpolation falls below 0, it is cut off.
    """
    found = []
    for layer in layers:
        if layer.block == "mid":
            continue
        columns = [
            kernels.columns(layer.query, layer.key, tokens, layer.scale).mean(dim=(1, 3))
            for tokens in words
        ]
        grid = torch.stack(columns, dim=1).unflatten(-1, layer.grid)
        found.append(F.interpolate(grid, size=size, mode="bicubic").clamp(min=0))
    return torch.stack(found).mean(dim=0)
