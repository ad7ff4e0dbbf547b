"""The queries and keys of a UNet's attention, in whatever passes are run.

Probabilities are never recorded: what the method does with attention is itself attention, so the
queries and keys suffice, at a fiftieth of the memory. Ordinary forward hooks read them; no
processor is exchanged and no ``forward`` replaced, so the model's output is the same bit for bit.
"""

import math
import threading
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from jaxtyping import Float
from torch import Tensor, nn


@dataclass(frozen=True)
class Layer:
    """One attention layer in one pass of the UNet.

    Attributes:
        name: The module's path in the UNet.
        kind: "cross" where pixels look at tokens, "self" where they look at pixels.
        place: Where in the UNet: on the way down, in the middle, on the way up.
        query: The pixels' queries, detached unless they were recorded with their gradient.
        key: The tokens' or pixels' keys, likewise.
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


@dataclass(repr=False)
class Recording:
    """What `record_attention` has recorded so far, in the order of the passes."""

    layers: list[Layer] = field(default_factory=list)

    def __repr__(self) -> str:
        counts = f"{len(self.cross_layers)} cross- and {len(self.self_layers)} self-attention"
        grids = sorted({layer.grid for layer in self.layers}, reverse=True)
        return f"<Recording: {counts} layers, grids {', '.join(f'{h} x {w}' for h, w in grids)}>"

    def part(self, index: int, count: int) -> "Recording":
        """The passes as one of several prompts saw them, see `Layer.part`."""
        return Recording([layer.part(index, count) for layer in self.layers])

    @property
    def cross_layers(self) -> tuple[Layer, ...]:
        """The layers in which pixels look at the prompt's tokens."""
        return tuple(layer for layer in self.layers if layer.kind == "cross")

    @property
    def self_layers(self) -> tuple[Layer, ...]:
        """The layers in which pixels look at each other."""
        return tuple(layer for layer in self.layers if layer.kind == "self")


@contextmanager
def record_attention(
    unet: nn.Module,
    layers: Literal["all", "down", "mid", "up"] | Collection[str] = "all",
    *,
    with_gradient: bool = False,
) -> Iterator[Recording]:
    """Record the queries and keys of a UNet's attention layers while the block runs.

    Every pass of the UNet inside the block adds one `Layer` for each attention layer; two passes
    give each layer twice, and `score_maps` and `complete` average over them. Recorders may be
    nested, each with a store of its own. No hook outlives the block, even when it raises. Only
    passes of the thread that opened the block are recorded, so that several may share one UNet.

    Args:
        unet: A UNet of diffusers with transformer blocks.
        layers: Which to record: "all", those of one part of the UNet, or those of these names.
        with_gradient: Whether what is recorded stays in the pass's graph, so that a loss on it
            has a gradient in the latents; the graph holds every layer's activations.

    Yields:
        The recording, filled as the passes run.

    Raises:
        ValueError: The model has no attention layer to record or none of a name, its projections
            are fused, or some layers were not run in the block: a recording is never empty, nor
            short, in silence.
    """
    attentions = _chosen(list(find_attentions(unet)), layers)
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
            keep = _Keeper(recording, name, attn, grids, transformer, with_gradient)
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


def _chosen(
    attentions: list[tuple[str, str, nn.Module]], layers: str | Collection[str]
) -> list[tuple[str, str, nn.Module]]:
    """The layers that are to be recorded.

    Raises:
        ValueError: There is no such layer.
    """
    if layers == "all" or not attentions:
        return attentions
    names = [name for name, *_ in attentions]
    if isinstance(layers, str):
        wanted = {name for name in names if place_of(name) == layers}
    else:
        wanted = set(layers)
    unknown = sorted(wanted - set(names))
    if unknown or not wanted:
        raise ValueError(
            f"record_attention(unet, layers={layers!r}) records nothing"
            f"{f' of {unknown[0]!r}' if unknown else ''}; layers is 'all', 'down', 'mid', 'up' or "
            f"names, such as {names[0]!r}"
        )
    return [found for found in attentions if found[0] in wanted]


class _Keeper:
    """Joins one layer's queries and keys, which two hooks bring one after the other."""

    def __init__(
        self,
        recording: Recording,
        name: str,
        attn: nn.Module,
        grids: Mapping[str, tuple[int, int]],
        transformer: str,
        with_gradient: bool,
    ) -> None:
        self.recording, self.name, self.attn = recording, name, attn
        self.grids, self.transformer, self.with_gradient = grids, transformer, with_gradient
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
        kept = projected if self.with_gradient else projected.detach()
        return kept.unflatten(-1, (self.attn.heads, -1)).transpose(1, 2)


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
