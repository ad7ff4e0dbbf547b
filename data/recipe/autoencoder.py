"""A small AutoencoderKL: each side shrinks four times, to latents of four channels, and back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor
from tqdm import tqdm

from nbhelpers.weights import from_pretrained
from recipe.pictures import Pictures, to_unit
from recipe.scenes import SIZE
from recipe.training import average_of, fit, half_precision

# Beside a mean error the divergence is summed over the latents: Stable Diffusion's 1e-6 is set
# beside a summed error, and would here drown the ground's hue.
DIVERGENCE = 1e-8
# Of the error of the differences between neighboring pixels, which keeps edges sharp.
GRADIENT = 0.5
CROP = 48


def new_autoencoder() -> AutoencoderKL:
    """Return an untrained autoencoder; the width at full resolution rules its cost."""
    widths = (24, 48, 96)
    return AutoencoderKL(
        block_out_channels=widths,
        down_block_types=("DownEncoderBlock2D",) * len(widths),
        up_block_types=("UpDecoderBlock2D",) * len(widths),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=SIZE[0],
        force_upcast=False,
    )


def crops(pictures: Pictures, generator: torch.Generator, count: int) -> Tensor:
    """Return random squares of `CROP` pixels of both sizes of picture, some mirrored."""
    seen = []
    for source in (pictures.pictures, pictures.small):
        index, top, left, flip = (
            torch.randint(high, (count // 2,), generator=generator).tolist()
            for high in (len(source), *(n - CROP + 1 for n in source.shape[1:3]), 2)
        )
        for i, y, x, mirrored in zip(index, top, left, flip, strict=True):
            crop = source[i, y : y + CROP, x : x + CROP]
            seen.append(crop[:, ::-1] if mirrored else crop)
    return to_unit(np.stack(seen))


def sharp_error(again: Tensor, seen: Tensor) -> Tensor:
    """Return the mean absolute error of pixels and `GRADIENT` times that of their differences."""
    error = (again - seen).abs().mean()
    for axis in (2, 3):
        error = error + GRADIENT * (again.diff(dim=axis) - seen.diff(dim=axis)).abs().mean()
    return error


def train_autoencoder(
    pictures: Pictures,
    folder: Path,
    *,
    seed: int,
    steps: int,
    device: str,
    batch: int = 24,
    progress: bool = True,
) -> AutoencoderKL:
    """Train the autoencoder to `sharp_error` plus a little of the divergence.

    Its scaling factor is set so that latents have a standard deviation of 1. The log's `psnr` is
    of whole pictures at full size, in dB, on the last 64 of the set, which training sees too; the
    card's is of held-out ones.
    """
    torch.manual_seed(seed)
    vae = new_autoencoder().to(device)
    average = average_of(vae, 0.999)
    kind = torch.device(device).type

    def loss(step: int, generator: torch.Generator) -> Tensor:
        seen = crops(pictures, generator, batch).to(device)
        with half_precision(kind):
            posterior = vae.encode(seen).latent_dist
            mean, deviation = posterior.mean.float(), posterior.std.float()
            noise = torch.randn(mean.shape, generator=generator).to(device)
            again = vae.decode(mean + deviation * noise).sample.float()
        divergence = 0.5 * (mean**2 + deviation**2 - 1 - 2 * deviation.log()).sum((1, 2, 3))
        return sharp_error(again, seen) + DIVERGENCE * divergence.mean()

    @torch.no_grad()
    def watch(step: int) -> dict[str, float]:
        average.store(vae.parameters())
        average.copy_to(vae.parameters())
        found = psnr(vae, pictures.pictures[-64:])
        average.restore(vae.parameters())
        return {"psnr": found}

    fit(
        "autoencoder",
        loss,
        parameters=vae.parameters(),
        kept={"vae": vae},
        average=average,
        folder=folder,
        steps=steps,
        rate=2e-3,
        seed=seed,
        watch=watch,
        progress=progress,
    )
    average.copy_to(vae.parameters())
    vae.eval()
    sample = encode_all(vae, pictures.pictures[:1000], progress=False)
    deviation = sample.float().chunk(2, 1)[0].std().item()
    vae.register_to_config(scaling_factor=1 / deviation)
    return vae


@torch.no_grad()
def psnr(vae: AutoencoderKL, pictures: np.ndarray) -> float:
    """Return the mean peak signal-to-noise ratio of pictures after the posterior's mean, in dB."""
    seen = to_unit(np.asarray(pictures)).to(vae.device)
    again = vae.decode(vae.encode(seen).latent_dist.mean).sample.clamp(-1, 1)
    error = ((again - seen) / 2).square().mean((1, 2, 3))
    return float((-10 * error.log10()).mean())


def load_autoencoder(folder: Path) -> AutoencoderKL:
    """Load a trained autoencoder, with its scaling factor, in float32."""
    return from_pretrained(AutoencoderKL, str(folder), None, dtype=torch.float32).eval()


@torch.no_grad()
def encode_all(
    vae: AutoencoderKL, pictures: np.ndarray, *, batch: int = 100, progress: bool = True
) -> Tensor:
    """Return the posterior (mean and log-variance) of pictures, float16."""
    starts = range(0, len(pictures), batch)
    kind = vae.device.type
    parts = []
    for start in tqdm(starts, "encoding", disable=not progress, mininterval=5):
        seen = to_unit(pictures[start : start + batch]).to(vae.device)
        with half_precision(kind):
            parts.append(vae.encode(seen).latent_dist.parameters.half().cpu())
    return torch.cat(parts)
