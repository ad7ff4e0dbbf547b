"""A small Stable Diffusion UNet, trained to predict noise in the autoencoder's latents."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from diffusers.training_utils import compute_snr
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from recipe.clip import WIDTH, tokenize
from recipe.pictures import CAPTIONS_A_PICTURE, Pictures
from recipe.scenes import SIZE
from recipe.training import average_of, fit, half_precision

EMPTY_SHARE = 0.10
# Share of the steps that are taken on small pictures, at half the cost each: by then colors and
# textures are right, and forms need the full size.
SMALL_SHARE = 0.385
RATES = {"cpu": 8e-4, "cuda": 1e-3}  # peak rates, for batches of 64 and of 512
# A run of fewer steps isn't worth the minute or two of compiling.
COMPILE_FROM = 1000
# Weights of min-SNR (Hang et al., 2023): no timestep counts for more than this ratio allows.
SNR_LIMIT = 5.0


def new_unet() -> UNet2DConditionModel:
    """Return an untrained UNet: grids of 20, 10 and 5, each with self- and cross-attention."""
    widths = (64, 128, 192)
    return UNet2DConditionModel(
        sample_size=SIZE[0] // 4,
        in_channels=4,
        out_channels=4,
        block_out_channels=widths,
        down_block_types=("CrossAttnDownBlock2D",) * len(widths),
        up_block_types=("CrossAttnUpBlock2D",) * len(widths),
        layers_per_block=1,
        cross_attention_dim=WIDTH,
        attention_head_dim=(2, 2, 3),  # diffusers reads it as the number of heads
        norm_num_groups=16,
    )


def new_scheduler() -> DDIMScheduler:
    """Return Stable Diffusion's noise schedule."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )


def sample_latents(parameters: Tensor, scaling: float, generator: torch.Generator) -> Tensor:
    """Sample latents from posteriors (mean and log-variance stacked), and scale them."""
    mean, variance = parameters.float().chunk(2, 1)
    noise = torch.randn(mean.shape, generator=generator, device=mean.device)
    return scaling * (mean + torch.exp(0.5 * variance.clamp(-30, 20)) * noise)


def train_unet(
    pictures: Pictures,
    posteriors: Tensor,
    small: Tensor | None,
    scaling: float,
    tokenizer: CLIPTokenizer,
    text: CLIPTextModel,
    folder: Path,
    *,
    seed: int,
    steps: int,
    device: str,
    batch: int = 64,
    progress: bool = True,
) -> UNet2DConditionModel:
    """Train the UNet as Stable Diffusion is trained, each timestep weighted by min-SNR.

    Args:
        pictures: the training set; only its captions are used here.
        posteriors: the autoencoder's mean and log-variance of every picture.
        small: those of the small pictures, for the first `SMALL_SHARE` of the steps; None to take
            all steps at full size.
        scaling: the autoencoder's scaling factor.
        tokenizer: of the text encoder.
        text: the frozen text encoder.
        folder: for checkpoints and the log.
        seed: of the weights and the batches.
        steps: in all.
        device: "cpu" or "cuda".
        batch: pictures a step; one in ten has an empty prompt.
        progress: whether to show a bar.

    Returns:
        The UNet with the moving average of its weights.
    """
    torch.manual_seed(seed)
    unet = new_unet().to(device, memory_format=torch.channels_last)
    average = average_of(unet)
    text = text.to(device).requires_grad_(False)
    scheduler = new_scheduler()
    kind = torch.device(device).type
    if kind == "cpu":
        unet.set_attn_processor(AttnProcessor())  # the fused one's backward takes longer
    # Compiled it takes a sixth less time; compiling takes more than a short run.
    predict = torch.compile(unet, dynamic=False) if steps >= COMPILE_FROM else unet
    # What a step draws from lies on its device.
    full = posteriors.to(device)
    small = full if small is None else small.to(device)
    small_until = SMALL_SHARE * steps
    captions = tokenize(tokenizer, [*pictures.texts("ordinary"), ""]).to(device)
    nothing = len(captions) - 1

    def loss(step: int, generator: torch.Generator) -> Tensor:
        def draw(limit: int) -> Tensor:
            return torch.randint(limit, (batch,), generator=generator, device=device)

        index, which, timesteps = draw(len(pictures)), draw(CAPTIONS_A_PICTURE), draw(1000)
        empty = torch.rand(batch, generator=generator, device=device) < EMPTY_SHARE
        told = torch.where(empty, nothing, index * CAPTIONS_A_PICTURE + which)
        parameters = (small if step < small_until else full)[index]
        latents = sample_latents(parameters, scaling, generator)
        noise = torch.randn(latents.shape, generator=generator, device=device)
        noised = scheduler.add_noise(latents, noise, timesteps)
        ratio = compute_snr(scheduler, timesteps)
        weights = ratio.clamp(max=SNR_LIMIT) / ratio
        with half_precision(kind):
            states = text(captions[told]).last_hidden_state
            guess = predict(noised, timesteps, states).sample
        error = (guess.float() - noise).square().mean((1, 2, 3))
        return (weights * error).mean()

    fit(
        "unet",
        loss,
        parameters=unet.parameters(),
        kept={"unet": unet},
        average=average,
        folder=folder,
        steps=steps,
        rate=RATES[kind],
        seed=seed,
        warmup=500,
        save_every_seconds=300 if kind == "cpu" else 60,
        device=device,
        progress=progress,
    )
    average.copy_to(unet.parameters())
    return unet.to(memory_format=torch.contiguous_format).eval()


def save_pipeline(
    vae: AutoencoderKL,
    text: CLIPTextModel,
    tokenizer: CLIPTokenizer,
    unet: UNet2DConditionModel,
    folder: Path,
) -> None:
    """Save the folder that `StableDiffusionPipeline.from_pretrained` loads."""
    pipeline = StableDiffusionPipeline(
        vae=vae,
        text_encoder=text,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=new_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder, safe_serialization=True)
