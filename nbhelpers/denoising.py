"""The latent of a picture, that latent with noise, and one pass of the UNet over it."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from nbhelpers.attention import find_attentions
from nbhelpers.datasets.pictures import Picture, as_image
from nbhelpers.embeddings import Prompt
from nbhelpers.errors import refused
from nbhelpers.models import Models


@torch.no_grad()
def encode_image(
    image: Picture, models: Models, *, seed: int = 0, size: tuple[int, int] | None = None
) -> Float[Tensor, "1 channel h_latent w_latent"]:
    """Returns the latent that the UNet works on: one scaled sample of the autoencoder's posterior.

    It depends on the picture alone: make it once and give it to `denoise_once` for each prompt.

    Args:
        image: uint8 ``(h, w, 3)``, or what `as_image` takes; it is resized to `size` by bilinear
            interpolation, and its aspect ratio is not kept, as in DiffSegmenter.
        models: From `load_models`.
        seed: The seed of the generator on the CPU that samples the posterior.
        size: ``(h, w)`` in pixels, multiples of the autoencoder's factor (8 in Stable Diffusion);
            the model's own size when None.

    Raises:
        ValueError: There is no picture, or the autoencoder can't halve the size evenly.
    """
    image = as_image(image)
    size = models.size if size is None else size
    unit = models.latent_factor
    if len(size) != 2 or any(side < unit or side % unit for side in size):
        nearest = tuple(max(unit, round(side / unit) * unit) for side in size)
        raise ValueError(
            f"encode_image(size={size}): {models.name} needs (h, w) in multiples of {unit} pixels;"
            f" got {size}, the nearest is {nearest}"
        )
    # Its own copy: a picture read from a file may be a read-only view.
    pixels = torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float()
    pixels = F.interpolate(pixels, size=size, mode="bilinear", antialias=True)
    pixels = (pixels / 127.5 - 1).clamp(-1, 1).to(models.device, models.vae.dtype)
    posterior = models.vae.encode(pixels).latent_dist
    draw = _draw(posterior.mean.shape, torch.Generator("cpu").manual_seed(seed))
    latent = posterior.mean + posterior.std * draw.to(posterior.mean)
    shift = models.vae.config.get("shift_factor") or 0.0
    return ((latent - shift) * models.vae.config.scaling_factor).to(models.dtype)


def add_noise(
    latent: Float[Tensor, "1 channel h w"],
    timesteps: Sequence[int],
    models: Models,
    *,
    seed: int = 0,
) -> Float[Tensor, "timestep channel h w"]:
    """Adds each timestep's noise to a latent, drawn independently from one generator.

    ``sqrt(a_t) z + sqrt(1 - a_t) e``, with a_t the scheduler's ``alphas_cumprod``: the
    forward process itself, whichever sampler the model comes with.

    Args:
        latent: From `encode_image`.
        timesteps: Scheduler indices, 0 (a little noise) to 999 (noise alone).
        models: From `load_models`.
        seed: The seed of a generator on the CPU, so that every device gets the same noise.

    Raises:
        ValueError: A timestep is out of range, there is none, or the scheduler has no
            ``alphas_cumprod``.
    """
    alphas = getattr(models.scheduler, "alphas_cumprod", None)
    if alphas is None:
        raise ValueError(
            f"{type(models.scheduler).__name__} has no alphas_cumprod; a diffusion model is "
            "needed, not a flow-matching one"
        )
    if not len(timesteps) or not all(0 <= t < len(alphas) for t in timesteps):
        wanted = f"timesteps are scheduler indices from 0 to {len(alphas) - 1}, at least one"
        raise refused("add_noise", wanted, timesteps=list(timesteps))
    generator = torch.Generator("cpu").manual_seed(seed)
    _draw(latent.shape, generator)  # skips the draw that encode_image used
    noise = _draw((len(timesteps), *latent.shape[1:]), generator)
    kept = alphas.to(torch.float32)[list(timesteps)].view(-1, 1, 1, 1).to(latent.device)
    noised = kept.sqrt() * latent.float() + (1 - kept).sqrt() * noise.to(latent.device)
    return noised.to(latent.dtype)


def _draw(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Draws float32 noise: another default dtype would draw other numbers from the same seed."""
    return torch.randn(tuple(shape), generator=generator, dtype=torch.float32, device="cpu")


@torch.no_grad()
def denoise_once(
    image: Picture | None,
    prompt: Prompt,
    models: Models,
    *,
    timestep: int | Sequence[int] = 100,
    seed: int = 0,
    size: tuple[int, int] | None = None,
    latent: Float[Tensor, "1 channel h_latent w_latent"] | None = None,
) -> Float[Tensor, "timestep channel h_latent w_latent"]:
    """Adds noise to the picture once and runs the UNet over it once, with the prompt.

    Section 3.1 in the form that its base runs: nothing is denoised and no unconditional half is
    run. Several timesteps are one batch, of one pass. The noise prediction that is returned, one
    item a timestep, is rarely of use: the attention is.

    Args:
        image: uint8 ``(h, w, 3)``, or what `as_image` takes; not needed where a latent is given.
        prompt: From `embed`; its keys and values may differ.
        models: From `load_models`.
        timestep: One or several scheduler indices, 0 to 999; 100 in DiffSegmenter.
        seed: The seed of the posterior's sample and of the noise.
        size: As in `encode_image`.
        latent: From `encode_image`, to be used in place of the picture.

    Raises:
        ValueError: A timestep is out of range, the picture or its size can't be used, there is
            neither picture nor latent, or the UNet wants other inputs (inpainting).
    """
    if latent is None:
        if image is None:
            raise ValueError("denoise_once(image=None): give a picture or a latent; got neither")
        latent = encode_image(image, models, seed=seed, size=size)
    timesteps = [timestep] if isinstance(timestep, int) else list(timestep)
    noised = add_noise(latent, timesteps, models, seed=seed)
    return predict_noise(noised, timesteps, [prompt], models)


def predict_noise(
    noised: Float[Tensor, "item channel h_latent w_latent"],
    timesteps: Sequence[int],
    prompts: Sequence[Prompt],
    models: Models,
) -> Float[Tensor, "item channel h_latent w_latent"]:
    """Returns the UNet's noise prediction for several prompts, in one pass over all of them.

    Latents that ask for a gradient get one; the weights of `load_models` never ask.

    Args:
        noised: For each prompt one latent a timestep, one prompt after the other.
        timesteps: Scheduler indices, the same for every prompt.
        prompts: From `embed`; the keys and values of each may differ.
        models: From `load_models`.

    Raises:
        ValueError: There isn't one latent for each prompt and timestep, or the UNet wants other
            inputs (inpainting).
    """
    channels, count = models.unet.config.in_channels, len(timesteps)
    if noised.shape[1] != channels:
        raise ValueError(
            f"the UNet of {models.name} takes {channels} channels and the latent has "
            f"{noised.shape[1]}; give a text-to-image model, not one for inpainting"
        )
    if len(noised) != count * len(prompts):
        raise ValueError(
            f"{len(prompts)} prompts at {count} timesteps need as many latents as both together; "
            f"got {len(noised)}"
        )

    def rows(parts: Sequence[Tensor]) -> Tensor:  # one of each prompt for each of its timesteps
        return torch.cat([part.expand(count, *part.shape[1:]) for part in parts])

    more: dict[str, Any] = {}
    if extras := [prompt.extra for prompt in prompts if prompt.extra is not None]:
        sides = [side * models.latent_factor for side in noised.shape[-2:]]
        # SDXL is told the picture's own size, where it was cropped, and the size wanted.
        ids = torch.tensor([[*sides, 0, 0, *sides]], device=models.device, dtype=models.dtype)
        extra = {name: rows([one[name] for one in extras]) for name in extras[0]}
        more["added_cond_kwargs"] = {**extra, "time_ids": ids.expand(len(noised), -1)}
    keys = rows([prompt.keys.to(noised) for prompt in prompts])
    parted = any(prompt.values is not prompt.keys for prompt in prompts)
    values = rows([prompt.values.to(noised) for prompt in prompts]) if parted else None
    with _give_values(models.unet, values):
        return models.unet(
            noised,
            torch.tensor(timesteps, device=models.device).repeat(len(prompts)),
            encoder_hidden_states=keys,
            **more,
        ).sample


@contextmanager
def _give_values(unet: nn.Module, values: Tensor | None) -> Iterator[None]:
    """Lets this thread's cross-attention take its values from an embedding inside the block."""
    mine = threading.get_ident()

    def give(module: nn.Module, args: tuple) -> tuple | None:
        return (values,) if threading.get_ident() == mine else None

    with ExitStack() as handles:
        for _, _, attn in find_attentions(unet) if values is not None else ():
            if attn.is_cross_attention:
                handles.callback(attn.to_v.register_forward_pre_hook(give).remove)
        yield
