"""The queries and keys of a UNet's attention, in whatever passes are run.

Probabilities are never recorded: what the method does with attention is itself attention, so the
queries and keys suffice, at a fiftieth of the memory. Ordinary forward hooks read them; no
processor is exchanged and no ``forward`` replaced, so the model's output is the same bit for bit.
"""

import math
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from jaxtyping import Float
from torch import Tensor, nn

Hook = Callable[..., None]


@dataclass(frozen=True)
class Layer:
    """One attention layer in one pass of the UNet.

    Attributes:
        name: The module's path in the UNet.
        kind: "cross" where pixels attend to tokens, "self" where they attend to pixels.
        block: The kind of the UNet's block: on the way down, in the middle, on the way up.
        query: The pixels' queries, detached unless they were recorded with their gradient.
        key: The tokens' or pixels' keys, likewise.
        grid: ``(h, w)`` of the pixels; ``h * w`` is n also where the picture is not square.
        factor: How many times coarser than the latent the grid is: 1, 2, 4 or 8.
        scale: The factor by which the model multiplies its logits.
    """

    name: str
    kind: Literal["cross", "self"]
    block: Literal["down", "mid", "up"]
    query: Float[Tensor, "batch head n d"]
    key: Float[Tensor, "batch head token d"]
    grid: tuple[int, int]
    factor: int
    scale: float

    def __post_init__(self) -> None:
        if math.prod(self.grid) != self.query.shape[-2]:
            queries = self.query.shape[-2]
            raise ValueError(f"{self.name} has {queries} queries but the grid {self.grid}")

    def part(self, index: int, count: int) -> "Layer":
        """Returns the passes of one of several prompts, which share the batch evenly, in order."""
        query, key = (batch.unflatten(0, (count, -1))[index] for batch in (self.query, self.key))
        return replace(self, query=query, key=key)


@dataclass(repr=False)
class Recording:
    """The layers that `record_attention` has recorded so far, in the order of the passes."""

    layers: list[Layer] = field(default_factory=list)

    def __repr__(self) -> str:
        counts = f"{len(self.cross_layers)} cross- and {len(self.self_layers)} self-attention"
        grids = sorted({layer.grid for layer in self.layers}, reverse=True)
        return f"<Recording: {counts} layers, grids {', '.join(f'{h} x {w}' for h, w in grids)}>"

    def _repr_html_(self) -> str:
        """Returns a table of the layers, with layers of one kind, block and grid in one row."""
        alike = Counter(
            (layer.kind, layer.block, *layer.grid, layer.query.shape[1], layer.key.shape[2])
            for layer in self.layers
        )
        head = "<th>attention<th>block<th>h<th>w<th>heads<th>keys<th>layers"
        cells = (map(str, (*row, count)) for row, count in alike.items())
        body = "".join(f"<tr><td>{'<td>'.join(row)}" for row in cells)
        return f"<table><caption>{repr(self)[1:-1]}</caption><tr>{head}{body}</table>"

    def part(self, index: int, count: int) -> "Recording":
        """Returns the passes of one of several prompts, see `Layer.part`."""
        return Recording([layer.part(index, count) for layer in self.layers])

    @property
    def cross_layers(self) -> tuple[Layer, ...]:
        """The layers in which pixels attend to the prompt's tokens."""
        return tuple(layer for layer in self.layers if layer.kind == "cross")

    @property
    def self_layers(self) -> tuple[Layer, ...]:
        """The layers in which pixels attend to each other."""
        return tuple(layer for layer in self.layers if layer.kind == "self")


@contextmanager
def record_attention(
    unet: nn.Module,
    layers: Literal["all", "down", "mid", "up"] | Collection[str] = "all",
    *,
    with_gradient: bool = False,
) -> Iterator[Recording]:
    """Records the queries and keys of a UNet's attention layers while the block runs.

    Every pass of the UNet inside the block adds one `Layer` for each attention layer; two passes
    give each layer twice, and `score_maps` and `complete` average over them. Recorders may be
    nested, each with a store of its own. No hook outlives the block, even when it raises. Only
    passes of the thread that opened the block are recorded, so that several may share one UNet.

    Args:
        unet: A UNet of diffusers with transformer blocks.
        layers: Which to record: "all", those of one kind of block, or those of these names.
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
    processors = ((n, type(getattr(attn, "processor", None))) for n, _, attn in attentions)
    fused = [name for name, processor in processors if processor.__name__.startswith("Fused")]
    if fused:
        raise ValueError(
            f"{len(fused)} of {len(attentions)} attention layers have fused projections, such as "
            f"{fused[0]}, and compute no queries and keys apart; call "
            "unet.unfuse_qkv_projections() first"
        )
    recording = Recording()
    with note_grids(unet, [name for _, name, _ in attentions]) as grids, ExitStack() as handles:
        for name, transformer, attn in attentions:
            keep_query, keep_key = _layer_keepers(
                recording, name, attn, grids, transformer, with_gradient
            )
            handles.callback(attn.to_q.register_forward_hook(keep_query).remove)
            handles.callback(attn.to_k.register_forward_hook(keep_key).remove)
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
    """Chooses the layers that are to be recorded; `ValueError` where there is none."""
    if layers == "all" or not attentions:
        return attentions
    names = [name for name, *_ in attentions]
    one = isinstance(layers, str)
    wanted = {name for name in names if block_of(name) == layers} if one else set(layers)
    unknown = sorted(wanted - set(names))
    if unknown or not wanted:
        raise ValueError(
            f"record_attention(unet, layers={layers!r}) records nothing"
            f"{f' of {unknown[0]!r}' if unknown else ''}; layers is 'all', 'down', 'mid', 'up' or "
            f"names, such as {names[0]!r}"
        )
    return [found for found in attentions if found[0] in wanted]


@contextmanager
def note_grids(
    unet: nn.Module, transformers: Iterable[str]
) -> Iterator[dict[str, tuple[int, int]]]:
    """Records the grid of the latent and of each transformer's input as this thread runs passes.

    Args:
        unet: A UNet of diffusers.
        transformers: Their paths in it, from `find_attentions`.

    Yields:
        ``(h, w)`` under "latent" and each transformer's path, filled by the first pass.
    """
    mine, grids = threading.get_ident(), dict[str, tuple[int, int]]()

    def noter(argument: str, name: str) -> Hook:
        def note(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
            if threading.get_ident() == mine:
                height, width = (args[0] if args else kwargs[argument]).shape[-2:]
                grids[name] = (int(height), int(width))

        return note

    inputs = {"latent": (unet, "sample")}
    inputs |= {name: (unet.get_submodule(name), "hidden_states") for name in transformers}
    with ExitStack() as handles:
        for name, (module, argument) in inputs.items():
            note = noter(argument, name)
            handles.callback(module.register_forward_pre_hook(note, with_kwargs=True).remove)
        yield grids


def _layer_keepers(
    recording: Recording,
    name: str,
    attn: nn.Module,
    grids: Mapping[str, tuple[int, int]],
    transformer: str,
    with_gradient: bool,
) -> tuple[Hook, Hook]:
    """Makes the hooks that join a layer's queries and keys, which come one after the other."""
    mine, pending, block = threading.get_ident(), list[Tensor](), block_of(name)

    def heads(projected: Tensor) -> Float[Tensor, "batch head n d"]:
        kept = projected if with_gradient else projected.detach()
        return kept.unflatten(-1, (attn.heads, -1)).transpose(1, 2)  # a view

    def keep_query(module: nn.Module, args: tuple, output: Tensor) -> None:
        if threading.get_ident() == mine:
            pending[:] = [heads(output)]

    def keep_key(module: nn.Module, args: tuple, output: Tensor) -> None:
        if threading.get_ident() != mine:
            return
        if not pending:
            raise RuntimeError(f"{name} computed keys before queries")
        grid = grids[transformer]
        recording.layers.append(
            Layer(
                name=name,
                kind="cross" if attn.is_cross_attention else "self",
                block=block,
                query=pending.pop(),
                key=heads(output),
                grid=grid,
                factor=factor_of(grids["latent"], grid),
                scale=float(attn.scale),
            )
        )

    return keep_query, keep_key


def find_attentions(unet: nn.Module) -> Iterator[tuple[str, str, nn.Module]]:
    """Yields the UNet's attention layers: name, the name of their transformer, module."""
    from diffusers import Transformer2DModel

    for transformer, module in unet.named_modules():
        if not isinstance(module, Transformer2DModel):
            continue
        for number, block in enumerate(module.transformer_blocks):
            for part in ("attn1", "attn2"):
                attn = getattr(block, part, None)
                if attn is None:
                    continue
                name = f"{transformer}.transformer_blocks.{number}.{part}"
                if getattr(attn, "norm_q", None) is not None:
                    raise ValueError(f"{name} normalizes its queries; this is no Stable Diffusion")
                yield name, transformer, attn


def factor_of(latent: tuple[int, int], grid: tuple[int, int]) -> int:
    """Returns how many times coarser than the latent a grid is; halving rounds odd sides up."""
    side = 0 if latent[0] >= latent[1] else 1
    return 2 ** round(math.log2(latent[side] / grid[side]))


def block_of(name: str) -> Literal["down", "mid", "up"]:
    """Returns the kind of the UNet's block that a layer lies in, by its name."""
    for block in ("down", "mid", "up"):
        if f"{block}_block" in name:
            return block
    raise ValueError(f"{name} stands in no down, mid or up block of a UNet of diffusers")
