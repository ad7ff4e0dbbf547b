"""A small AutoencoderKL: 80 x 80 pixels to 20 x 20 latents of four channels, and back."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch import Tensor
from tqdm import tqdm

from nbhelpers.shapes.pictures import Pictures, to_unit
from nbhelpers.shapes.training import Average, fit
from nbhelpers.shapes.world import SIZE
from nbhelpers.weights import from_pretrained

# Beside a mean error the divergence is summed over the latents: Stable Diffusion's 1e-6 is set
# beside a summed error, and would here drown the ground's hue.
DIVERGENCE = 1e-8


def new_autoencoder() -> AutoencoderKL:
    """Return an untrained autoencoder; the width at full resolution rules its cost."""
    widths = (16, 32, 64)
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


def train_autoencoder(
    pictures: Pictures,
    folder: Path,
    *,
    seed: int,
    steps: int,
    device: str,
    batch: int = 16,
    progress: bool = True,
) -> AutoencoderKL:
    """Train the autoencoder to the mean absolute error plus a little of the divergence.

    Its scaling factor is set so that latents have a standard deviation of 1.
    """
    torch.manual_seed(seed)
    vae = new_autoencoder().to(device)
    average = Average(vae)
    kind = torch.device(device).type

    def loss(step: int, generator: torch.Generator) -> Tensor:
        seen = pictures.batch(generator, batch)[0].to(device)
        with torch.autocast(kind, torch.bfloat16):
            posterior = vae.encode(seen).latent_dist
            mean, deviation = posterior.mean.float(), posterior.std.float()
            noise = torch.randn(mean.shape, generator=generator).to(device)
            again = vae.decode(mean + deviation * noise).sample.float()
        divergence = 0.5 * (mean**2 + deviation**2 - 1 - 2 * deviation.log()).sum((1, 2, 3))
        return (again - seen).abs().mean() + DIVERGENCE * divergence.mean()

    fit(
        "autoencoder",
        loss,
        parameters=vae.parameters(),
        kept={"vae": vae, "average": average},
        folder=folder,
        steps=steps,
        rate=2e-3,
        seed=seed,
        after_step=lambda step: average.update(vae, step),
        progress=progress,
    )
    average.copy_to(vae)
    vae.eval()
    sample = encode_all(vae, pictures, device=device, count=1000, progress=False)
    deviation = sample.float().chunk(2, 1)[0].std().item()
    vae.register_to_config(scaling_factor=1 / deviation)
    return vae


def load_autoencoder(folder: Path) -> AutoencoderKL:
    """Load a trained autoencoder, with its scaling factor, in float32."""
    return from_pretrained(AutoencoderKL, str(folder), None, dtype=torch.float32).eval()


@torch.no_grad()
def encode_all(
    vae: AutoencoderKL,
    pictures: Pictures,
    *,
    device: str,
    count: int | None = None,
    batch: int = 100,
    progress: bool = True,
) -> Tensor:
    """Return the posterior (mean and log-variance) of the first `count` pictures, float16."""
    count = len(pictures) if count is None else min(count, len(pictures))
    starts = range(0, count, batch)
    parts = []
    for start in tqdm(starts, "encoding", disable=not progress, mininterval=5):
        seen = to_unit(pictures.pictures[start : min(start + batch, count)]).to(device)
        with torch.autocast(torch.device(device).type, torch.bfloat16):
            parts.append(vae.encode(seen).latent_dist.parameters.half().cpu())
    return torch.cat(parts)
