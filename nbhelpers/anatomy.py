"""Where a UNet's attention layers stand, and on what grids they work."""

import math
import threading
from collections.abc import Iterator
from typing import Any, Literal

from torch import nn


def find_transformers(unet: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The UNet's transformers, which know the grid, by name."""
    from diffusers import Transformer2DModel

    for name, module in unet.named_modules():
        if isinstance(module, Transformer2DModel):
            yield name, module


def find_attentions(unet: nn.Module) -> Iterator[tuple[str, str, nn.Module]]:
    """The UNet's attention layers: name, the name of their transformer, module."""
    for transformer, module in find_transformers(unet):
        for number, block in enumerate(module.transformer_blocks):
            for part in ("attn1", "attn2"):
                attn = getattr(block, part, None)
                if attn is None:
                    continue
                name = f"{transformer}.transformer_blocks.{number}.{part}"
                if getattr(attn, "norm_q", None) is not None:
                    raise ValueError(f"{name} normalizes its queries; this is no Stable Diffusion")
                yield name, transformer, attn


def note_grid(module: nn.Module, name: str, grids: dict[str, tuple[int, int]], key: str) -> Any:
    """Note the grid of a module's image-like input on every call; returns the hook's handle.

    Calls of other threads than this one are not noted.
    """
    mine = threading.get_ident()

    def note(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        if threading.get_ident() != mine:
            return
        height, width = (args[0] if args else kwargs[name]).shape[-2:]
        grids[key] = (int(height), int(width))

    return module.register_forward_pre_hook(note, with_kwargs=True)


def factor_of(latent: tuple[int, int], grid: tuple[int, int]) -> int:
    """How many times coarser than the latent a grid is; each halving rounds odd sides up."""
    side = 0 if latent[0] >= latent[1] else 1
    return 2 ** round(math.log2(latent[side] / grid[side]))


def place_of(name: str) -> Literal["down", "mid", "up"]:
    """Where in the UNet a layer stands, by its name."""
    for place in ("down", "mid", "up"):
        if f"{place}_block" in name:
            return place
    raise ValueError(f"{name} stands in no down, mid or up block of a UNet of diffusers")
