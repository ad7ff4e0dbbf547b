"""Two prompts held against each other, token by token, for Prompt-to-Prompt."""

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import SequenceMatcher

import torch
from jaxtyping import Float
from torch import Tensor

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
    """The alignment of two prompts, by the tokens that they share.

    Tokens that stand in the place of others were swapped and take their attention, spread evenly
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
