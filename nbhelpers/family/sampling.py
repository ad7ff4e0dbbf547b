"""Prompts become pictures: DDIM steps with classifier-free guidance, from a seed.

DDIM is Song, Meng and Ermon's deterministic sampler (2020, arXiv 2010.02502), guidance Ho and
Salimans's (2022, arXiv 2207.12598). Every system that generates runs on `sample`; what one adds
to it are functions that are called before a step, in place of its prediction, or after it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from nbhelpers.denoising import predict_noise
from nbhelpers.embeddings import Prompt, embed
from nbhelpers.family.dense import TEMPLATES, with_article
from nbhelpers.models import Models
from nbhelpers.segment import segment

GUIDANCE = 4.0  # suits the sticker world; the pipelines of Stable Diffusion use 7.5
TOGETHER = 8  # pictures of `sample_support` in one batch


@dataclass(frozen=True)
class Step:
    """One step of the denoising.

    Attributes:
        index: Its number, from 0.
        count: How many steps there are.
        timestep: The scheduler index of the latents that go into it, from high to low.
    """

    index: int
    count: int
    timestep: int


Hook = Callable[[Tensor, Step], Tensor]
"""Takes the latents ``picture channel h w`` and the step; returns a tensor of that shape."""


@torch.no_grad()
def sample(
    prompts: Sequence[str | Prompt],
    models: Models,
    *,
    seeds: Sequence[int],
    steps: int = 30,
    guidance: float = GUIDANCE,
    size: tuple[int, int] | None = None,
    before: Hook | None = None,
    predict: Hook | None = None,
    after: Hook | None = None,
) -> Float[Tensor, "picture channel h_latent w_latent"]:
    """Returns the latents of generated pictures, one for each prompt, in one batch.

    Each step predicts ``e_empty + g (e_prompt - e_empty)``, with g the guidance and e the UNet's
    noise predictions, and takes DDIM's step without new noise.

    Args:
        prompts: Texts, or prompts from `embed`, whose keys and values may differ.
        models: Whose text encoder, UNet and noise schedule are used, whichever sampler it has.
        seeds: One for each prompt: of the noise that its picture starts from, drawn on the CPU,
            so that every device starts alike.
        steps: How many denoising steps.
        guidance: The factor g; 1 uses the prompt's prediction alone and skips the other pass.
        size: ``(h, w)`` of the pictures in pixels; the model's own when None.
        before: Changes the latents before a step, such as by a gradient's step.
        predict: Predicts the noise with the prompts in place of `predict_noise`, such as inside
            of `record_attention`. The pass with the empty prompt is never its concern.
        after: Changes the latents after a step.

    Returns:
        Latents for `decode`. Equal calls give equal bits on one machine; another batch may round
        in another way.

    Raises:
        ValueError: No prompt, not one seed for each, no step or more than the schedule has, or a
            size that isn't a multiple of the autoencoder's factor.
    """
    from diffusers import DDIMScheduler

    unit = models.latent_factor
    height, width = size or models.size
    if not prompts or len(seeds) != len(prompts):
        raise ValueError(
            f"give at least one prompt and a seed for each; got {len(prompts)} prompts and "
            f"{len(seeds)} seeds"
        )
    if min(height, width) < unit or height % unit or width % unit:
        raise ValueError(
            f"{models.name} makes pictures of sizes (h, w) in multiples of {unit} pixels; got "
            f"{(height, width)}"
        )
    # A scheduler of its own, since one counts its steps. Latents may leave [-1, 1].
    scheduler = DDIMScheduler.from_config(models.scheduler.config, clip_sample=False)
    if not 1 <= steps <= scheduler.config.num_train_timesteps:
        raise ValueError(
            f"steps are from 1 to {scheduler.config.num_train_timesteps}, the timesteps of "
            f"{models.name}; got {steps}"
        )
    scheduler.set_timesteps(steps)
    asked = [embed(one, (), models.text) if isinstance(one, str) else one for one in prompts]
    empty = [embed("", (), models.text)] * len(asked)

    def plain(latents: Tensor, step: Step) -> Tensor:
        return predict_noise(latents, [step.timestep], asked, models)

    predict = predict or plain
    shape = (models.unet.config.in_channels, height // unit, width // unit)
    latents = torch.stack([_noise(shape, seed) for seed in seeds]).to(models.device, models.dtype)
    for index, timestep in enumerate(scheduler.timesteps.tolist()):
        step = Step(index, steps, timestep)
        if before is not None:
            latents = before(latents, step)
        noise = predict(latents, step)
        if guidance != 1:
            unguided = predict_noise(latents, [timestep], empty, models)
            noise = unguided + guidance * (noise - unguided)
        latents = scheduler.step(noise, timestep, latents).prev_sample
        if after is not None:
            latents = after(latents, step)
    return latents


@torch.no_grad()
def decode(
    latents: Float[Tensor, "picture channel h_latent w_latent"], models: Models
) -> UInt8[np.ndarray, "picture h w 3"]:
    """Returns the pictures of latents, by the model's autoencoder.

    Args:
        latents: From `sample` or `encode_image`.
        models: Whose autoencoder is used.

    Returns:
        uint8 pictures; values that the autoencoder puts out of range are clipped.
    """
    shift = models.vae.config.get("shift_factor") or 0.0
    scaled = latents.to(models.vae.dtype) / models.vae.config.scaling_factor + shift
    pixels = (models.vae.decode(scaled).sample.float() + 1) * 127.5
    return pixels.round().clamp(0, 255).permute(0, 2, 3, 1).to("cpu", torch.uint8).numpy()


def _noise(shape: Sequence[int], seed: int) -> Tensor:
    """Returns normal noise from a seed; the default dtype would draw other numbers from it."""
    generator = torch.Generator("cpu").manual_seed(seed)
    return torch.randn(tuple(shape), generator=generator, dtype=torch.float32, device="cpu")


def sample_support(
    name: str, models: Models, *, pictures: int, seed: int = 0, steps: int = 20
) -> list[tuple[UInt8[np.ndarray, "h w 3"], Float[np.ndarray, "h w"]]]:
    """Returns pictures sampled from a class's name, each with its attention map.

    Args:
        name: Of the class.
        models: Samples and reads.
        pictures: How many.
        seed: Of the first.
        steps: Of denoising.

    Returns:
        uint8 pictures, and maps in [0, 1] as large: those of DiffSegmenter's method.
    """
    prompts = [TEMPLATES[i % len(TEMPLATES)].format(with_article(name)) for i in range(pictures)]
    found = []
    for start in range(0, pictures, TOGETHER):
        some = prompts[start : start + TOGETHER]
        seeds = list(range(seed + start, seed + start + len(some)))
        for image in decode(sample(some, models, seeds=seeds, steps=steps), models):
            found.append((image, segment(image, name, models, method="diffsegmenter").map))
    return found
