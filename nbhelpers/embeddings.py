"""The prompt's text embedding, and what the method changes in it.

E is the embedding of the prompt, R that of a noun chunk by itself, U that of no words at all;
section 3.2 puts R in E's place and section 3.3 mixes U into the target noun.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from nbhelpers.chunks import Chunk
from nbhelpers.datasets import quoted
from nbhelpers.models import TextEncoder

ISOLATE = ("none", "target", "others", "every")
BY = ("encoding", "masking")
TAILS = ("prompt", "empty", "empty-eos", "empty-padding")
INTO = ("keys", "values", "both")
UNCONDITIONAL = ("row", "pooled", "masked")


@dataclass(frozen=True)
class Spans:
    """The token positions of a prompt's chunks; ``spans[i]`` are those of chunk i's noun.

    Attributes:
        nouns: For each chunk the positions of its noun, every sub-token of it.
        chunks: For each chunk the positions of all its words.
        words: The positions of all words of the prompt: neither start, nor end, nor padding.
        end: The position of the end token; padding follows it.
    """

    nouns: tuple[tuple[int, ...], ...]
    chunks: tuple[tuple[int, ...], ...]
    words: tuple[int, ...]
    end: int

    def __len__(self) -> int:
        return len(self.nouns)

    def __getitem__(self, index: int) -> tuple[int, ...]:
        return self.nouns[index]


@dataclass(frozen=True)
class Prompt:
    """A prompt ready for the UNet.

    Attributes:
        text: The caption.
        chunks: The noun chunks that it was embedded with.
        keys: What the cross-attention makes its keys from.
        values: What it makes its values from; the same tensor where both were changed.
        spans: Where the chunks' tokens stand.
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
    """The prompt's embedding with its chunks isolated and its target's noun weighted.

    Equation 3 (section 3.2) puts the tokens of R, the chunk encoded alone, in the place of the
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
            sentence, or those of the empty prompt; or only the end token or only the padding of
            the empty prompt.
        alpha: Weight of the noun, in [0, 2]: 1 leaves it, 0.9 is the paper's, above 1 emphasizes.
        unconditional: U of equation 4: the empty prompt's row at the token's own position, or the
            one row that CLIP pools, its end token's. "masked" is Compel's weighting: "row", and
            below 1 the whole prompt is first blended with itself encoded with the noun hidden,
            ``(E + t M) / (1 + t)`` with ``t = tan((1 - alpha) pi / 2)``, so that the end token
            and the padding move too.
        into: What the changed embedding is used for; the prompt's own serves for the other.

    Returns:
        The prompt. `keys` and `values` are one tensor unless `into` parts them.

    Raises:
        ValueError: alpha out of [0, 2], an unknown setting, a chunk that isn't in the caption or
            whose noun lies beyond what the encoder reads, or a target that isn't among the chunks.
    """
    _check(isolate=(isolate, ISOLATE), by=(by, BY), tail=(tail, TAILS), into=(into, INTO))
    _check(unconditional=(unconditional, UNCONDITIONAL))
    if math.isnan(alpha) or not 0 <= alpha <= 2:
        raise ValueError(f"alpha is a weight in [0, 2], 1 for none; got {alpha}")
    if target is not None and not 0 <= target < len(chunks):
        raise ValueError(f"target is the index of one of {len(chunks)} chunks; got {target}")
    if isolate == "others" and target is None:
        raise ValueError("isolate='others' needs a target: the index of its chunk; got None")
    tokens = tokenize(caption, text)
    spans = find_spans(caption, chunks, text)
    plain, pooled = encode_tokens([tokens], text)
    isolated = [spans.chunks[i] for i in range(len(chunks)) if _is_isolated(i, target, isolate)]
    edited = _replaced(plain, tokens, isolated, text, by)
    weighted = spans.nouns if target is None else spans.nouns[target : target + 1]
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
    first = spans.end if tail in ("empty", "empty-eos") else spans.end + 1
    last = spans.end + 1 if tail == "empty-eos" else text.length
    if tail != "prompt":
        edited[0, first:last] = empty[first:last]
    if alpha != 1:
        for noun in weighted:
            places = list(noun)
            # Position 1 of the empty prompt is its end token, the row that CLIP pools.
            nothing = empty[1] if unconditional == "pooled" else empty[places]
            edited[0, places] = alpha * edited[0, places] + (1 - alpha) * nothing
    return Prompt(
        text=caption,
        chunks=tuple(chunks),
        keys=plain if into == "values" else edited,
        values=plain if into == "keys" else edited,
        spans=spans,
        target=target,
        extra=None if pooled is None else {"text_embeds": pooled},
    )


def tokenize(caption: str, text: TextEncoder) -> tuple[int, ...]:
    """The tokens of a text's words, without start and end, as many as the encoder reads."""
    return tuple(token for token, _, _ in _tokens(caption, text)[: text.length - 2])


def reach(caption: str, text: TextEncoder) -> int:
    """How many characters of a text the encoder reads; what follows them is cut off."""
    tokens = _tokens(caption, text)
    room = text.length - 2
    return len(caption) if len(tokens) <= room else tokens[room - 1][2]


def find_spans(caption: str, chunks: Sequence[Chunk], text: TextEncoder) -> Spans:
    """Where the chunks' words and nouns stand among the prompt's tokens.

    Positions come from the characters that each token covers, so repeated words, words of several
    tokens and accents are told apart.

    Args:
        caption: The prompt.
        chunks: Its noun chunks.
        text: The text encoder, ``models.text``.

    Returns:
        Positions that count the start token as 0.

    Raises:
        ValueError: A chunk that isn't at its place in the caption, or whose noun lies beyond the
            tokens that the encoder reads.
    """
    tokens = _tokens(caption, text)
    room = text.length - 2  # start and end take a place each

    def covered(start: int, end: int) -> tuple[int, ...]:
        """The positions of the tokens that cover these characters."""
        return tuple(i + 1 for i, (_, a, b) in enumerate(tokens) if a < end and b > start)

    nouns, places = [], []
    for chunk in chunks:
        if caption[chunk.start : chunk.end] != chunk.text:
            raise ValueError(
                f"the chunk {quoted(chunk.text)} isn't at characters {chunk.start} to {chunk.end} "
                f"of the caption {quoted(caption)}; parse the very caption that is embedded"
            )
        noun = covered(chunk.noun_start, chunk.noun_end)
        if not noun:
            raise ValueError(f"the noun {quoted(chunk.noun)} of {quoted(chunk.text)} has no token")
        if noun[-1] > room:
            raise ValueError(
                f"the chunk {quoted(chunk.text)} is cut off: its noun ends at token {noun[-1]} of "
                f"{len(tokens)}, and the text encoder reads {room}; shorten the caption"
            )
        nouns.append(noun)
        places.append(tuple(i for i in covered(chunk.start, chunk.end) if i <= room))
    words = tuple(range(1, min(len(tokens), room) + 1))
    return Spans(tuple(nouns), tuple(places), words, end=len(words) + 1)


@torch.no_grad()
def encode_tokens(
    rows: Sequence[Sequence[int]],
    text: TextEncoder,
    *,
    sees: Bool[Tensor, "row token"] | None = None,
) -> tuple[Float[Tensor, "row token d"], Float[Tensor, "row p"] | None]:
    """The embeddings of token rows, each put between start and end and padded.

    Args:
        rows: The words' tokens of each row, without start and end.
        text: The text encoder, ``models.text``.
        sees: The positions that can be looked at, besides the encoder's looking only back; all
            of them when None.

    Returns:
        A row of embeddings each, and Stable Diffusion XL's pooled vectors, else None. Stable
        Diffusion 1 and 2 read the last hidden state, XL those before it, of both encoders.
    """
    states, pooled = [], None
    for tokenizer, encoder in zip(text.tokenizers, text.encoders, strict=True):
        framed = [_frame(row, tokenizer, text.length) for row in rows]
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


def _is_isolated(chunk: int, target: int | None, isolate: str) -> bool:
    """Whether a chunk is to be isolated; without a target, each is the target of its own map."""
    is_target = target is None or chunk == target
    return {"none": False, "target": is_target, "others": not is_target, "every": True}[isolate]


def _replaced(
    prompt: Float[Tensor, "1 token d"],
    tokens: Sequence[int],
    places: Sequence[Sequence[int]],
    text: TextEncoder,
    by: str,
    *,
    hidden: Sequence[int] = (),
) -> Float[Tensor, "1 token d"]:
    """Equation 3: a copy of the prompt's embedding in which R stands at each chunk's `places`.

    Nothing in R attends to the positions in `hidden`.
    """
    edited = prompt.clone()
    if not places:
        return edited
    rows: list[Sequence[int]] = [tokens] * len(places)
    origins: Sequence[Sequence[int]] = places
    if by == "encoding":
        # The prompt's own tokens, so that each row of R has its place in E; equation 3's chunk
        # takes positions 1 to m, between a start and an end of its own.
        rows = [[tokens[i - 1] for i in span] for span in places]
        origins = [range(1, 1 + len(span)) for span in places]
        everything = torch.ones(len(places), text.length, dtype=torch.bool, device="cpu")
        sees = everything if hidden else None
    else:
        sees = torch.zeros(len(places), text.length, dtype=torch.bool, device="cpu")
        for row, span in zip(sees, places, strict=True):
            row[[0, *span]] = True
    if sees is not None:
        for row, span, origin in zip(sees, places, origins, strict=True):
            row[[at for i, at in zip(span, origin, strict=True) if i in hidden]] = False
    states, _ = encode_tokens(rows, text, sees=sees)
    for state, span, origin in zip(states, places, origins, strict=True):
        edited[0, list(span)] = state[list(origin)]
    return edited


def _tokens(caption: str, text: TextEncoder) -> list[tuple[int, int, int]]:
    """The tokens of a text with the characters that each covers, however many there are."""
    found = []
    for tokenizer in text.tokenizers:
        coded = tokenizer(
            caption, add_special_tokens=False, return_offsets_mapping=True, verbose=False
        )
        pairs = zip(coded["input_ids"], coded["offset_mapping"], strict=True)
        tokens = [(token, start, end) for token, (start, end) in pairs]
        special = {tokenizer.bos_token_id, tokenizer.eos_token_id}
        marks = [caption[start:end] for token, start, end in tokens if token in special]
        if marks:
            raise ValueError(
                f"the caption holds {marks[0]!r}, the mark of a prompt's start or end; take it out"
            )
        found.append(tokens)
    if any(tokens != found[0] for tokens in found):
        raise ValueError("the two tokenizers cut the caption differently; they must share one")
    return found[0]


def _frame(row: Sequence[int], tokenizer: Any, length: int) -> list[int]:
    """Tokens between start and end, padded to a length."""
    ids = [tokenizer.bos_token_id, *row[: length - 2], tokenizer.eos_token_id]
    return ids + [tokenizer.pad_token_id] * (length - len(ids))


def _check(**settings: tuple[str, tuple[str, ...]]) -> None:
    """Refuse a setting that has no such value."""
    for name, (value, known) in settings.items():
        if value not in known:
            raise ValueError(f"{name} is one of {', '.join(known)}; got {value!r}")
