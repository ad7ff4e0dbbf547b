"""Two prompts aligned token by token, and the attention that one takes from the other."""

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import SequenceMatcher

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from nbhelpers.attention import Layer
from nbhelpers.family.words import token_positions
from nbhelpers.models import Models
from nbhelpers.tokens import tokenize


@dataclass(frozen=True)
class Alignment:
    """Which token of the edited prompt takes the attention of which token of the source.

    The edited attention is ``(A_source M + A_edited diag(own)) diag(weights)``.

    Attributes:
        taken: M. A source token's row sums to 1, unless the edited prompt lacks it.
        own: 1 for a token that keeps its own attention, which is new in a refined prompt; else 0.
        weights: By what each token's attention is multiplied; 1 leaves it.
    """

    taken: Float[Tensor, "token token"]
    own: Float[Tensor, " token"]
    weights: Float[Tensor, " token"]


def align(
    source: str, edited: str, models: Models, *, weights: Mapping[str, float] | None = None
) -> Alignment:
    """Returns the alignment of two prompts, by the tokens that they share.

    Tokens that stand in place of others were swapped and take their attention, spread evenly
    where they are more or fewer. Tokens that were only added keep their own (refinement).

    Args:
        source: The source prompt.
        edited: The edited prompt; the source again where only weights change.
        models: Whose tokenizer is used.
        weights: Words of the edited prompt, and the factor of each one's attention.

    Raises:
        ValueError: A weighted word isn't in the edited prompt.
    """
    length = models.text.length
    before, after = (tokenize(text, models.text) for text in (source, edited))
    taken, own, factors = torch.zeros(length, length), torch.zeros(length), torch.ones(length)
    taken[0, 0] = 1  # the start token
    matcher = SequenceMatcher(None, before, after, autojunk=False)
    for kind, a, b, c, d in matcher.get_opcodes():
        if kind == "insert":
            own[1 + c : 1 + d] = 1
        elif b - a == d - c:
            taken[range(1 + a, 1 + b), range(1 + c, 1 + d)] = 1
        elif kind == "replace":
            taken[1 + a : 1 + b, 1 + c : 1 + d] = 1 / (d - c)
    shift = len(before) - len(after)
    for j in range(1 + len(after), length):  # the end token, then the padding
        taken[min(j + shift, length - 1), j] = 1
    for word, factor in (weights or {}).items():
        factors[list(token_positions(word, edited, models))] = factor
    return Alignment(taken, own, factors)


def inject(
    layer: Layer, value: Float[Tensor, "2 head token d"], alignment: Alignment
) -> Float[Tensor, "1 head n d"]:
    """Computes the edited prompt's cross-attention, with the source's attention in it.

    ``(A_s M + A_e diag(own)) diag(w) V`` is ``A_s (M w V) + A_e (own w V)``. The layer's queries
    and keys are those of source and edited prompt, like the values.
    """
    taken, own, weights = (
        part.to(value) for part in (alignment.taken, alignment.own, alignment.weights)
    )
    weighted = weights[:, None] * value[1:]
    output = attend(layer.query[:1], layer.key[:1], taken @ weighted, layer)
    if not own.any():
        return output
    return output + attend(layer.query[1:], layer.key[1:], own[:, None] * weighted, layer)


def attend(query: Tensor, key: Tensor, value: Tensor, layer: Layer) -> Tensor:
    """Returns plain attention with a layer's scale."""
    return F.scaled_dot_product_attention(query, key, value, scale=layer.scale)
