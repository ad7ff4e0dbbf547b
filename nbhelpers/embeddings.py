"""The prompt's text embedding, and what the method changes in it.

E is the embedding of the prompt, R that of a noun chunk by itself, U that of no words at all;
section 3.2 replaces E by R and section 3.3 mixes U into the target noun.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from nbhelpers.chunks import Chunk
from nbhelpers.errors import refused
from nbhelpers.models import TextEncoder
from nbhelpers.tokens import Spans, find_spans, tokenize

CHOICES = {
    "isolate": ("none", "target", "others", "every"),
    "by": ("encoding", "masking"),
    "tail": ("prompt", "empty", "empty-eos", "empty-padding"),
    "into": ("keys", "values", "both"),
    "unconditional": ("row", "pooled", "masked"),
}


@dataclass(frozen=True)
class Prompt:
    """A prompt ready for the UNet.

    Attributes:
        text: The caption.
        chunks: The noun chunks that it was embedded with.
        keys: The embedding that the cross-attention makes its keys from.
        values: The one that it makes its values from; the same tensor where both were changed.
        spans: The positions of the chunks' tokens.
        target: The index of the chunk that is asked for; None for all.
        extra: Stable Diffusion XL's pooled text vector, which stays the whole prompt's; else None.
    """

    text: str
    chunks: tuple[Chunk, ...]
    keys: Float[Tensor, "1 token d"]
    values: Float[Tensor, "1 token d"]
    spans: Spans
    target: int | None = None
    extra: Mapping[str, Tensor] | None = None


def embed(
    caption: str,
    chunks: Sequence[Chunk],
    text: TextEncoder,
    *,
    target: int | None = None,
    isolate: Literal["none", "target", "others", "every"] = "target",
    by: Literal["encoding", "masking"] = "encoding",
    tail: Literal["prompt", "empty", "empty-eos", "empty-padding"] = "prompt",
    alpha: float = 1.0,
    unconditional: Literal["row", "pooled", "masked"] = "row",
    into: Literal["keys", "values", "both"] = "both",
) -> Prompt:
    """Embeds a prompt with its chunks isolated and its target's noun weighted.

    Equation 3 (section 3.2) puts the tokens of R, the chunk encoded alone, in place of the
    chunk's tokens in E. Equation 4 (section 3.3) replaces those of the target's noun by
    ``alpha R_q + (1 - alpha) U``, with E_q for R_q where the target isn't isolated.

    Args:
        caption: The prompt.
        chunks: Its noun chunks, from `noun_chunks`; give those that name things.
        text: The text encoder, ``models.text``.
        target: The index of the chunk that is asked for, from `find_target`. None makes each chunk
            the target of its own map: all are isolated and all nouns weighted.
        isolate: The chunks that are to know nothing of the rest: none of them, the target
            (equation 3), the others, or every one.
        by: How a chunk is isolated. "encoding": encoded alone, its tokens then standing at
            positions that they were not encoded at (equation 3). "masking": encoded where it
            stands, seeing only the start token and itself.
        tail: Whose end token and padding follow the words: the prompt's, which hold the whole
            sentence, or those of the empty prompt, or only its end token or only its padding.
        alpha: Weight of the noun, in [0, 2]: 1 leaves it, 0.9 is the paper's, above 1 emphasizes.
        unconditional: U of equation 4: the empty prompt's row at the token's own position, or the
            one row that CLIP pools, its end token's. "masked" is Compel's weighting: "row", and
            below 1 the whole prompt is first blended with itself encoded with the noun hidden,
            ``(E + t M) / (1 + t)`` with ``t = tan((1 - alpha) pi / 2)``, so that the end token
            and the padding move too.
        into: What the changed embedding is used for; the prompt's own serves for the other. With
            "both", `Prompt.keys` and `Prompt.values` are one tensor.

    Raises:
        ValueError: A setting has no such value, alpha is out of [0, 2], a chunk isn't in the
            caption or its noun lies beyond what the encoder reads, or the target is no chunk's.
    """
    chosen = (isolate, by, tail, into, unconditional)
    for (name, known), value in zip(CHOICES.items(), chosen, strict=True):
        if value not in known:
            raise refused("embed", f"{name} is one of {', '.join(known)}", **{name: value})
    if not 0 <= alpha <= 2:  # NaN doesn't either
        raise refused("embed", "alpha is a weight in [0, 2], 1 for none", alpha=alpha)
    if target is not None and not 0 <= target < len(chunks):
        wanted = f"target is the index of one of {len(chunks)} chunks"
        raise refused("embed", wanted, target=target)
    if isolate == "others" and target is None:
        wanted = "isolating the others needs a target: the index of its chunk"
        raise refused("embed", wanted, isolate=isolate, target=target)
    tokens = tokenize(caption, text)
    spans = find_spans(caption, chunks, text)
    plain, pooled = encode_tokens([tokens], text)
    every = range(len(chunks))
    meant = every if target is None else [target]  # no target: every chunk is one
    others = [i for i in every if i not in meant]
    indices = {"none": [], "target": meant, "others": others, "every": every}[isolate]
    isolated = [spans.chunks[i] for i in indices]
    edited = _replaced(plain, tokens, isolated, text, by)
    weighted = [spans.nouns[i] for i in meant]
    if unconditional == "masked" and alpha < 1:
        masked = []
        for noun in weighted:
            sees = torch.ones(1, text.length, dtype=torch.bool, device="cpu")
            sees[0, list(noun)] = False
            without, _ = encode_tokens([tokens], text, sees=sees)
            masked.append(_replaced(without, tokens, isolated, text, by, hidden=noun))
        # t as sine over cosine: at alpha = 0, where t has no end, the masked prompts are left.
        sine, cosine = (f((1 - alpha) * math.pi / 2) for f in (math.sin, math.cos))
        edited = (cosine * edited + sine * sum(masked)) / (cosine + sine * len(masked))

    if tail != "prompt" or alpha != 1:
        empty = encode_tokens([()], text)[0][0]
    if tail != "prompt":
        first = spans.end if tail in ("empty", "empty-eos") else spans.end + 1
        last = spans.end + 1 if tail == "empty-eos" else text.length
        edited[0, first:last] = empty[first:last]
    for positions in map(list, weighted if alpha != 1 else ()):
        # Position 1 of the empty prompt is its end token, the row that CLIP pools.
        nothing = empty[1] if unconditional == "pooled" else empty[positions]
        edited[0, positions] = alpha * edited[0, positions] + (1 - alpha) * nothing
    return Prompt(
        text=caption,
        chunks=tuple(chunks),
        keys=plain if into == "values" else edited,
        values=plain if into == "keys" else edited,
        spans=spans,
        target=target,
        extra=None if pooled is None else {"text_embeds": pooled},
    )


@torch.no_grad()
def encode_tokens(
    rows: Sequence[Sequence[int]],
    text: TextEncoder,
    *,
    sees: Bool[Tensor, "row token"] | None = None,
) -> tuple[Float[Tensor, "row token d"], Float[Tensor, "row p"] | None]:
    """Returns the embeddings of token rows, and Stable Diffusion XL's pooled vectors, else None.

    Each row is put between start and end and padded. Stable Diffusion 1 and 2 read the last
    hidden state, XL those before it, of both encoders.

    Args:
        rows: The words' tokens of each row, without start and end.
        text: The text encoder, ``models.text``.
        sees: The positions that can be attended to, among those that the encoder's causal mask
            allows; all of them when None.
    """
    states, pooled, room = [], None, text.length - 2
    for tokenizer, encoder in zip(text.tokenizers, text.encoders, strict=True):
        start, end, padding = (getattr(tokenizer, f"{n}_token_id") for n in ("bos", "eos", "pad"))
        framed = [[start, *row[:room], end] + [padding] * (room - len(row)) for row in rows]
        out = encoder(
            torch.tensor(framed, device=encoder.device),
            attention_mask=None if sees is None else sees.to(encoder.device, torch.long),
            output_hidden_states=len(text.encoders) > 1,
        )
        if len(text.encoders) == 1:
            return out.last_hidden_state, None
        states.append(out.hidden_states[-2])
        pooled = getattr(out, "text_embeds", pooled)
    return torch.cat(states, dim=-1), pooled


def _replaced(
    prompt: Float[Tensor, "1 token d"],
    tokens: Sequence[int],
    spans: Sequence[Sequence[int]],
    text: TextEncoder,
    by: str,
    *,
    hidden: Sequence[int] = (),
) -> Float[Tensor, "1 token d"]:
    """Replaces E by R at each chunk's positions, in a copy of the prompt's embedding (eq. 3).

    Nothing in R attends to the positions in `hidden`.
    """
    edited = prompt.clone()
    if not spans:
        return edited
    rows: list[Sequence[int]] = [tokens] * len(spans)
    origins: Sequence[Sequence[int]] = spans
    sees = torch.ones(len(spans), text.length, dtype=torch.bool, device="cpu")
    if by == "encoding":
        # The prompt's own tokens, so that each row of R belongs to one of E; equation 3's chunk
        # takes positions 1 to m, between a start and an end of its own.
        rows = [[tokens[i - 1] for i in span] for span in spans]
        origins = [range(1, 1 + len(span)) for span in spans]
    else:
        for row, span in zip(sees.fill_(False), spans, strict=True):
            row[[0, *span]] = True
    for row, span, origin in zip(sees, spans, origins, strict=True):
        row[[at for i, at in zip(span, origin, strict=True) if i in hidden]] = False
    masked = bool(hidden) or by == "masking"
    states, _ = encode_tokens(rows, text, sees=sees if masked else None)
    for state, span, origin in zip(states, spans, origins, strict=True):
        edited[0, list(span)] = state[list(origin)]
    return edited
