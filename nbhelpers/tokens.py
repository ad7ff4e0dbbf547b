"""The text encoder's tokens of a caption, and the positions of its chunks among them."""

from collections.abc import Sequence
from dataclasses import dataclass

from nbhelpers.chunks import Chunk
from nbhelpers.errors import quoted
from nbhelpers.models import TextEncoder


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


def tokenize(caption: str, text: TextEncoder) -> tuple[int, ...]:
    """Returns the tokens of a text, without start and end, as many as the encoder reads."""
    return tuple(token for token, _, _ in _tokens(caption, text)[: text.length - 2])


def reach(caption: str, text: TextEncoder) -> int:
    """Counts the characters of a text that the encoder reads; what follows them is cut off."""
    tokens = _tokens(caption, text)
    room = text.length - 2
    return len(caption) if len(tokens) <= room else tokens[room - 1][2]


def find_spans(caption: str, chunks: Sequence[Chunk], text: TextEncoder) -> Spans:
    """Finds the positions of the chunks' words and nouns among the prompt's tokens.

    They come from the characters that each token covers, so repeated words, words of several
    tokens and accents are told apart; the start token is position 0.

    Args:
        caption: The prompt.
        chunks: Its noun chunks.
        text: The text encoder, ``models.text``.

    Raises:
        ValueError: A chunk isn't where it says it is in the caption, or its noun lies beyond the
            tokens that the encoder reads.
    """
    tokens = _tokens(caption, text)
    room = text.length - 2  # start and end take a position each

    def covered(start: int, end: int) -> tuple[int, ...]:
        return tuple(i + 1 for i, (_, a, b) in enumerate(tokens) if a < end and b > start)

    nouns, whole = [], []
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
        whole.append(tuple(i for i in covered(chunk.start, chunk.end) if i <= room))
    words = tuple(range(1, min(len(tokens), room) + 1))
    return Spans(tuple(nouns), tuple(whole), words, end=len(words) + 1)


def _tokens(caption: str, text: TextEncoder) -> list[tuple[int, int, int]]:
    """Returns the tokens of a text and the characters that each covers, however many there are."""
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
