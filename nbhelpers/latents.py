"""A picture as the latent that the UNet works on, and that latent with noise."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from nbhelpers.datasets.pictures import Picture, as_image
from nbhelpers.models import Models


@torch.no_grad()
def encode_image(
    image: Picture,
    models: Models,
    *,
    seed: int = 0,
    size: tuple[int, int] | None = None,
) -> Float[Tensor, "1 channel h_latent w_latent"]:
    """A picture as the latent that the UNet works on: one sample of the autoencoder's posterior.

    Args:
        image: uint8 ``(h, w, 3)``, or what `as_image` takes; it is resized to `size` by bilinear
            interpolation, and its aspect ratio is not kept, as in DiffSegmenter.
        models: Whose autoencoder is used.
        seed: Of the generator on the CPU that samples the posterior.
        size: ``(h, w)`` in pixels, multiples of the autoencoder's factor (8 in Stable Diffusion);
            the model's own size when None.

    Returns:
        The latent times the autoencoder's scaling factor. It depends on the picture alone: make
        it once and give it to `denoise_once` for each prompt.

    Raises:
        ValueError: No picture, or a size that the autoencoder can't halve evenly.
    """
    image = as_image(image)
    size = models.size if size is None else size
    unit = models.latent_factor
    if len(size) != 2 or any(side < unit or side % unit for side in size):
        nearest = tuple(max(unit, round(side / unit) * unit) for side in size)
        raise ValueError(
            f"{models.name} needs a size (h, w) in multiples of {unit} pixels; got {size}, "
            f"the nearest is {nearest}"
        )
    # Its own copy: a picture read from a file may be a read-only view.
    pixels = torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float()
    pixels = F.interpolate(pixels, size=size, mode="bilinear", antialias=True)
    pixels = (pixels / 127.5 - 1).clamp(-1, 1).to(models.device, models.vae.dtype)
    posterior = models.vae.encode(pixels).latent_dist
    draw = _draw(posterior.mean.shape, _generator(seed))
    latent = posterior.mean + posterior.std * draw.to(posterior.mean)
    shift = models.vae.config.get("shift_factor") or 0.0
    return ((latent - shift) * models.vae.config.scaling_factor).to(models.dtype)


def noise_latent(
    latent: Float[Tensor, "1 channel h w"],
    timesteps: Sequence[int],
    models: Models,
    *,
    seed: int = 0,
) -> Float[Tensor, "timestep channel h w"]:
    """The latent with the noise of each timestep, drawn independently from one generator.

    ``sqrt(a_t) z + sqrt(1 - a_t) e``, with a_t the scheduler's ``alphas_cumprod``: the
    forward process itself, whichever sampler the model comes with.

    Args:
        latent: What `encode_image` returns.
        timesteps: Scheduler indices, 0 (a little noise) to 999 (noise alone).
        models: Whose scheduler says how much noise there is.
        seed: Of a generator on the CPU, so that every device sees the same noise.

    Raises:
        ValueError: A timestep out of range, none, or a scheduler without ``alphas_cumprod``.
    """
    alphas = getattr(models.scheduler, "alphas_cumprod", None)
    if alphas is None:
        raise ValueError(
            f"{type(models.scheduler).__name__} has no alphas_cumprod; a diffusion model is "
            "needed, not a flow-matching one"
        )
    wrong = [t for t in timesteps if not 0 <= t < len(alphas)]
    if wrong or not len(timesteps):
        raise ValueError(
            f"timesteps are scheduler indices from 0 to {len(alphas) - 1}, at least one; "
            f"got {list(timesteps)}"
        )
    generator = _generator(seed)
    _draw(latent.shape, generator)  # the draw that encode_image sampled with
    noise = _draw((len(timesteps), *latent.shape[1:]), generator)
    kept = alphas.to(torch.float32)[list(timesteps)].view(-1, 1, 1, 1).to(latent.device)
    noised = kept.sqrt() * latent.float() + (1 - kept).sqrt() * noise.to(latent.device)
    return noised.to(latent.dtype)


def _generator(seed: int) -> torch.Generator:
    """A generator on the CPU, whatever the default device is."""
    return torch.Generator("cpu").manual_seed(seed)


def _draw(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Normal noise; the default dtype would draw other numbers from the same seed."""
    return torch.randn(tuple(shape), generator=generator, dtype=torch.float32, device="cpu")
