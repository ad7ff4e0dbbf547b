"""The words of a prompt: the things that it names, what modifies them, and their tokens."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from nbhelpers.captions import opening
from nbhelpers.chunks import Chunk, noun_chunks
from nbhelpers.datasets import quoted
from nbhelpers.models import Models
from nbhelpers.tokens import find_spans
from nbhelpers.words import FUNCTION_WORDS

WORD = re.compile(r"\w[\w'’-]*")


@dataclass(frozen=True)
class Thing:
    """A thing that a prompt names, as the positions of its tokens, the start token at 0.

    Attributes:
        chunk: Its noun phrase.
        noun: The tokens of its noun.
        modifiers: For each word before the noun, articles left out, its tokens. What a hyphen
            joins to the noun ("t-shirt") is none.
    """

    chunk: Chunk
    noun: tuple[int, ...]
    modifiers: tuple[tuple[int, ...], ...]


def find_things(prompt: str, models: Models) -> tuple[Thing, ...]:
    """Returns the things that a prompt names after its opening, "a photograph of".

    Raises:
        ValueError: It names nothing.
    """
    chunks = [c for c in noun_chunks(prompt, models.parser) if c.start >= opening(prompt)]
    if not chunks:
        raise ValueError(f"no noun was found in {quoted(prompt)}; name a thing")
    nouns = find_spans(prompt, chunks, models.text).nouns
    every = [found for found in WORD.finditer(prompt) if found[0].lower() not in FUNCTION_WORDS]
    things = []
    for chunk, noun in zip(chunks, nouns, strict=True):
        words = [
            found.span()
            for found in every
            if chunk.start <= found.start() and found.end() <= chunk.noun_start
        ]
        things.append(Thing(chunk, noun, _positions(prompt, words, models)))
    return tuple(things)


def word_positions(
    prompt: str, things: Sequence[Thing], models: Models
) -> tuple[tuple[int, ...], ...]:
    """Returns the positions of each word's tokens in a prompt.

    The nouns and modifiers of its things come first, then the words that have no part in them.
    """
    own = list(dict.fromkeys(word for t in things for word in (t.noun, *t.modifiers)))
    every = _positions(prompt, [found.span() for found in WORD.finditer(prompt)], models)
    taken = {token for word in own for token in word}
    return (*own, *(word for word in every if not taken & set(word)))


def token_positions(word: str, prompt: str, models: Models) -> tuple[int, ...]:
    """Returns the positions of a word's tokens in a prompt, where it stands first.

    Raises:
        ValueError: The word isn't in the prompt, or beyond what the text encoder reads.
    """
    found = re.search(rf"\b{re.escape(word)}\b", prompt)
    if not found:
        raise ValueError(f"{quoted(word)} is no word of the prompt {quoted(prompt)}")
    return _positions(prompt, [found.span()], models)[0]


def _positions(
    prompt: str, spans: list[tuple[int, int]], models: Models
) -> tuple[tuple[int, ...], ...]:
    """Returns the positions of the tokens that cover these characters."""
    words = [Chunk(prompt[a:b], a, b, prompt[a:b], a, b) for a, b in spans]
    return find_spans(prompt, words, models.text).nouns
