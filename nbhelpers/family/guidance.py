"""Latents moved against the gradient of a loss on the cross-attention, before a denoising step."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from nbhelpers.attention import Layer, record_attention
from nbhelpers.denoising import predict_noise
from nbhelpers.embeddings import Prompt
from nbhelpers.models import Models

Loss = Callable[[Sequence[Layer]], Tensor]
"""Takes the cross-attention of one pass, recorded with its gradient; returns a loss a picture."""


def descend(
    latents: Float[Tensor, "picture channel h w"],
    timestep: int,
    prompts: Sequence[Prompt],
    models: Models,
    loss: Loss,
    step_size: float,
) -> tuple[Float[Tensor, "picture channel h w"], Float[Tensor, " picture"]]:
    """Returns one step of gradient descent in the latents.

    Args:
        latents: Of the pictures that are being generated.
        timestep: The scheduler index of the latents.
        prompts: One for each picture.
        models: Whose UNet is used.
        loss: Of each picture, on its own attention alone.
        step_size: By what the gradient is multiplied.

    Returns:
        The moved latents, and the losses before they were moved.
    """
    with torch.enable_grad():
        moving = latents.detach().requires_grad_()
        with record_attention(models.unet, with_gradient=True) as attention:
            predict_noise(moving, [timestep], prompts, models)
        losses = loss(attention.cross_layers)
        (gradient,) = torch.autograd.grad(losses.sum(), moving)
    return latents - step_size * gradient, losses.detach()
