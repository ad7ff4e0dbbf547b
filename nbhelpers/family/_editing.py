"""Attention that is changed while a picture is generated."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from nbhelpers.attention import Layer, block_of, factor_of, find_attentions, note_grids

Edit = Callable[[Layer, Tensor], Tensor]
"""Takes a layer with its queries and keys, and its values ``batch head token d``; returns the
layer's output ``batch head n d``, which is plain attention unless something is changed."""


@contextmanager
def edit_attention(unet: nn.Module, edit: Edit) -> Iterator[None]:
    """Lets a function compute the output of every attention layer while the block runs.

    The layers' processors are exchanged, and put back even when the block raises. A recorder may
    run inside: it sees the queries and keys before they are edited. Unlike a recorder it
    concerns every thread that uses the UNet.

    Args:
        unet: A UNet of diffusers with transformer blocks.
        edit: Is called once for each attention layer in each pass.

    Raises:
        ValueError: The UNet's attention does more than queries, keys and values: it normalizes
            its input, or adds it to its output.
    """
    attentions = list(find_attentions(unet))
    for name, _, attn in attentions:
        if attn.group_norm is not None or attn.spatial_norm is not None or attn.norm_cross:
            raise ValueError(f"{name} normalizes its input; this is no Stable Diffusion")
        if attn.residual_connection or attn.rescale_output_factor != 1:
            raise ValueError(f"{name} rescales its output; this is no Stable Diffusion")
    before = [(attn, attn.processor) for _, _, attn in attentions]
    with note_grids(unet, [transformer for _, transformer, _ in attentions]) as grids:
        try:
            for name, transformer, attn in attentions:
                attn.processor = _Edited(name, transformer, grids, edit)
            yield
        finally:
            for attn, processor in before:
                attn.processor = processor


class _Edited:
    """A processor that leaves the attention itself to a function."""

    def __init__(
        self, name: str, transformer: str, grids: dict[str, tuple[int, int]], edit: Edit
    ) -> None:
        self.name, self.transformer, self.grids, self.edit = name, transformer, grids, edit

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
    ) -> Tensor:
        if attention_mask is not None:
            raise ValueError(f"{self.name} was given a mask; edited attention has none")

        def heads(projected: Tensor) -> Tensor:
            return projected.unflatten(-1, (attn.heads, -1)).transpose(1, 2)

        tokens = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query, key, value = attn.to_q(hidden_states), attn.to_k(tokens), attn.to_v(tokens)
        grid = self.grids[self.transformer]
        layer = Layer(
            name=self.name,
            kind="cross" if attn.is_cross_attention else "self",
            block=block_of(self.name),
            query=heads(query),
            key=heads(key),
            grid=grid,
            factor=factor_of(self.grids["latent"], grid),
            scale=float(attn.scale),
        )
        output = self.edit(layer, heads(value)).transpose(1, 2).flatten(2)
        dropout, projection = attn.to_out[1], attn.to_out[0]
        return dropout(projection(output.to(query.dtype)))
