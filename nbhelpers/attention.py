"""One noised pass of the UNet, and the queries and keys of its attention.

Probabilities are never recorded: what the method does with attention is itself attention, so the
queries and keys suffice, at a fiftieth of the memory. Ordinary forward hooks read them; no
processor is exchanged and no ``forward`` replaced, so the model's output is the same bit for bit.
"""

import math
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nbhelpers.anatomy import factor_of, find_attentions, find_transformers, note_grid, place_of
from nbhelpers.datasets.pictures import Picture
from nbhelpers.embeddings import Prompt
from nbhelpers.latents import encode_image, noise_latent
from nbhelpers.models import Models


@dataclass(frozen=True)
class Layer:
    """One attention layer in one pass of the UNet.

    Attributes:
        name: The module's path in the UNet.
        kind: "cross" where pixels look at tokens, "self" where they look at pixels.
        place: Where in the UNet: on the way down, in the middle, on the way up.
        query: The pixels' queries, detached.
        key: The tokens' or pixels' keys, detached.
        grid: ``(h, w)`` of the pixels, rows first; ``h * w`` is n also where the picture is not
            square.
        factor: How many times coarser than the latent the grid is: 1, 2, 4 or 8.
        scale: What the model multiplies its logits by.
    """

    name: str
    kind: Literal["cross", "self"]
    place: Literal["down", "mid", "up"]
    query: Float[Tensor, "batch head n d"]
    key: Float[Tensor, "batch head token d"]
    grid: tuple[int, int]
    factor: int
    scale: float

    def __post_init__(self) -> None:
        if math.prod(self.grid) != self.query.shape[-2]:
            raise ValueError(
                f"{self.name} has {self.query.shape[-2]} queries but the grid {self.grid}"
            )

    def part(self, index: int, count: int) -> "Layer":
        """The layer as one of several prompts saw it, which share its batch evenly, in order."""
        looks = len(self.query) // count
        own = slice(index * looks, (index + 1) * looks)
        return replace(self, query=self.query[own], key=self.key[own])


@dataclass
class Recording:
    """What `record_attention` has recorded so far, in the order of the passes."""

    layers: list[Layer] = field(default_factory=list)

    @property
    def cross_layers(self) -> tuple[Layer, ...]:
        """The layers in which pixels look at the prompt's tokens."""
        return tuple(layer for layer in self.layers if layer.kind == "cross")

    @property
    def self_layers(self) -> tuple[Layer, ...]:
        """The layers in which pixels look at each other."""
        return tuple(layer for layer in self.layers if layer.kind == "self")


@contextmanager
def record_attention(unet: nn.Module) -> Iterator[Recording]:
    """Record the queries and keys of every attention layer while the block runs.

    Every pass of the UNet inside the block adds one `Layer` for each attention layer; two passes
    give each layer twice, and `score_maps` and `complete` average over them. Recorders may be
    nested, each with a store of its own. No hook outlives the block, even when it raises. Only
    passes of the thread that opened the block are recorded, so that several may share one UNet.

    Args:
        unet: A UNet of diffusers with transformer blocks.

    Yields:
        The recording, filled as the passes run.

    Raises:
        ValueError: The model has no attention layer to record, or its projections are fused, or
            some layers were not run in the block: a recording is never empty, nor short, in
            silence.
    """
    attentions = list(find_attentions(unet))
    if not attentions:
        raise ValueError(
            f"{type(unet).__name__} holds no transformer block with attention (to_q, to_k); "
            "give the UNet of a Stable Diffusion, models.unet"
        )
    # The processor says it: `fused_projections` stays True after they were unfused.
    fused = [
        n
        for n, _, attn in attentions
        if type(getattr(attn, "processor", None)).__name__.startswith("Fused")
    ]
    if fused:
        raise ValueError(
            f"{len(fused)} of {len(attentions)} attention layers have fused projections, such as "
            f"{fused[0]}, and compute no queries and keys apart; call "
            "unet.unfuse_qkv_projections() first"
        )
    recording = Recording()
    with ExitStack() as handles:

        def hook(handle: Any) -> None:
            handles.callback(handle.remove)

        grids: dict[str, tuple[int, int]] = {}  # of the latent, and of each transformer
        hook(note_grid(unet, "sample", grids, "latent"))
        for transformer, module in find_transformers(unet):
            hook(note_grid(module, "hidden_states", grids, transformer))
        for name, transformer, attn in attentions:
            keep = _Keeper(recording, name, attn, grids, transformer)
            hook(attn.to_q.register_forward_hook(keep.query))
            hook(attn.to_k.register_forward_hook(keep.key))
        yield recording
        silent = {name for name, *_ in attentions} - {layer.name for layer in recording.layers}
        if len(silent) == len(attentions) and "latent" not in grids:
            raise ValueError(
                "no attention was recorded; call denoise_once inside record_attention, in the "
                "same thread (got 0 layers)"
            )
        if silent:
            raise ValueError(
                f"{len(silent)} of {len(attentions)} attention layers were not run or do not use "
                f"to_q and to_k: {', '.join(sorted(silent)[:3])}; call unfuse_qkv_projections(), "
                "set the default attention processor, and give the UNet uncompiled"
            )


class _Keeper:
    """Joins one layer's queries and keys, which two hooks bring one after the other."""

    def __init__(
        self,
        recording: Recording,
        name: str,
        attn: nn.Module,
        grids: Mapping[str, tuple[int, int]],
        transformer: str,
    ) -> None:
        self.recording, self.name, self.attn = recording, name, attn
        self.grids, self.transformer = grids, transformer
        self.place = place_of(name)
        self.pending: Tensor | None = None
        self.thread = threading.get_ident()

    def query(self, module: nn.Module, args: tuple, output: Tensor) -> None:
        if threading.get_ident() == self.thread:
            self.pending = self._heads(output)

    def key(self, module: nn.Module, args: tuple, output: Tensor) -> None:
        if threading.get_ident() != self.thread:
            return
        query, self.pending = self.pending, None
        if query is None:
            raise RuntimeError(f"{self.name} computed keys before queries")
        grid = self.grids[self.transformer]
        self.recording.layers.append(
            Layer(
                name=self.name,
                kind="cross" if self.attn.is_cross_attention else "self",
                place=self.place,
                query=query,
                key=self._heads(output),
                grid=grid,
                factor=factor_of(self.grids["latent"], grid),
                scale=float(self.attn.scale),
            )
        )

    def _heads(self, projected: Tensor) -> Tensor:
        """The heads of a projection, as a view: ``batch head n d``."""
        return projected.detach().unflatten(-1, (self.attn.heads, -1)).transpose(1, 2)


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
    """Noise the picture once and let the UNet look at it once, with the prompt.

    Section 3.1 in the form that its base runs: nothing is denoised and no unconditional half is
    run. Several timesteps are one batch, of one pass.

    Args:
        image: uint8 ``(h, w, 3)``, or what `as_image` takes; not needed where a latent is given.
        prompt: From `embed`; its keys and values may differ.
        models: Whose autoencoder, scheduler and UNet are used.
        timestep: One or several scheduler indices, 0 to 999; 100 in DiffSegmenter.
        seed: Of the posterior's sample and of the noise.
        size: ``(h, w)`` in pixels that the picture is resized to; the model's own when None.
        latent: From `encode_image`, to be used in place of the picture.

    Returns:
        What the UNet says, one item a timestep. It is rarely of use: the attention is.

    Raises:
        ValueError: A timestep out of range, a bad picture or size, neither picture nor latent, or
            a UNet that wants other inputs (inpainting).
    """
    if latent is None:
        if image is None:
            raise ValueError("give a picture or a latent; got neither")
        latent = encode_image(image, models, seed=seed, size=size)
    timesteps = [timestep] if isinstance(timestep, int) else list(timestep)
    noised = noise_latent(latent, timesteps, models, seed=seed)
    return look(noised, timesteps, [prompt], models)


@torch.no_grad()
def look(
    noised: Float[Tensor, "look channel h_latent w_latent"],
    timesteps: Sequence[int],
    prompts: Sequence[Prompt],
    models: Models,
) -> Float[Tensor, "look channel h_latent w_latent"]:
    """One pass of the UNet in which several prompts look at noised latents, a batch of them all.

    Args:
        noised: For each prompt one latent a timestep, one prompt after the other.
        timesteps: Scheduler indices, the same for every prompt.
        prompts: From `embed`; of each, keys and values may differ.
        models: Whose UNet is used.

    Returns:
        What the UNet says, in the order of the latents.

    Raises:
        ValueError: Not one latent for each prompt and timestep, or a UNet that wants other inputs
            (inpainting).
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

    def rows(parts: Sequence[Tensor]) -> Tensor:
        """One row of each prompt for each of its timesteps."""
        return torch.cat([part.expand(count, *part.shape[1:]) for part in parts])

    more: dict[str, Any] = {}
    extras = [prompt.extra for prompt in prompts if prompt.extra is not None]
    if extras:
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
    """Let the cross-attention of this thread take its values from this embedding in the block."""
    mine = threading.get_ident()

    def give(module: nn.Module, args: tuple) -> tuple | None:
        return (values,) if threading.get_ident() == mine else None

    with ExitStack() as handles:
        for _, _, attn in find_attentions(unet) if values is not None else ():
            if attn.is_cross_attention:
                handles.callback(attn.to_v.register_forward_pre_hook(give).remove)
        yield
