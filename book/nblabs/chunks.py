"""The checks of the lab on parse trees: which words, and which tokens."""

from collections.abc import Callable, Sequence

import torch

from nbhelpers.chunks import Chunk
from nbhelpers.models import TextEncoder
from nbhelpers.tokens import find_spans
from nblabs.checking import Round, rounds

MARKS = "red brown very-old black striped pink yellow".split()
NOUNS = "dog zebra umbrella giraffe cat car backpack".split()


def check_positions(
    positions: Callable[[list[tuple[int, int]], int, int], Sequence[int]],
    text: TextEncoder,
    *,
    seed: int | None = None,
) -> None:
    """Checks ``positions(covers, start, end)``: the positions of the tokens that cover characters.

    Args:
        positions: Takes the characters ``(from, to)`` that each token of the words covers, in
            order and without start and end token; returns the positions, as CLIP counts them, of
            those that cover any character from `start` up to `end`.
        text: The text encoder whose tokenizer is used, ``models.text``.
        seed: Of the first inputs; fresh ones each time when None.

    Raises:
        Wrong: It differs from `find_spans`.
    """
    for trial in rounds(positions, seed, count=8):
        mark, other = draw(trial, MARKS, 2)
        noun, second = draw(trial, NOUNS, 2)
        caption = f"a {mark} {noun} and a blue-{other} {second}"
        start = caption.rindex(other)  # a chunk that begins within what is written together
        chunk = Chunk(caption[start:], start, len(caption), second, caption.rindex(second),
                      len(caption))  # fmt: skip
        coded = text.tokenizers[0](
            caption, add_special_tokens=False, return_offsets_mapping=True, verbose=False
        )
        covers = [tuple(pair) for pair in coded["offset_mapping"]]
        wanted = find_spans(caption, [chunk], text).chunks[0]
        touching = [
            i + 1 for i, (a, b) in enumerate(covers) if a <= chunk.end and b >= chunk.start
        ]
        trial.compare(
            list(trial.ask(covers, chunk.start, chunk.end)),
            list(wanted),
            {
                "off by one: position 0 is the start token's": [i - 1 for i in wanted],
                "a token that only touches the chunk's edge covers none of it": touching,
                "the last token belongs to the chunk too": [*wanted[:-1]],
                "every token of the chunk, not its first alone": [*wanted[:1]],
                "every token of the chunk, not its last alone": [*wanted[-1:]],
            },
            "two stretches overlap if each begins before the other ends",
        )


def check_whole_phrase(
    whole_phrase: Callable[[list[int], int], tuple[int, int]], *, seed: int | None = None
) -> None:
    """Checks ``whole_phrase(heads, noun)``: the first and the last word that hang on a noun.

    Args:
        whole_phrase: Takes each word's head, the root's being itself, and the position of a noun;
            returns the first and the last position from which a walk from head to head leads to
            it.
        seed: Of the first inputs; fresh ones each time when None.

    Raises:
        Wrong: It differs from spaCy's ``left_edge`` and ``right_edge``.
    """
    from spacy.tokens import Doc
    from spacy.vocab import Vocab

    vocabulary = Vocab()
    for trial in rounds(whole_phrase, seed, count=8):
        heads = _tree(trial, 12)
        words = ["word"] * len(heads)
        doc = Doc(vocabulary, words=words, heads=heads, deps=["dep"] * len(heads))
        edges = [(token.left_edge.i, token.right_edge.i) for token in doc]
        deep = [i for i, (a, b) in enumerate(edges) if a < i < b < len(heads) - 1] or [0]
        noun = deep[int(torch.randint(len(deep), (1,), generator=trial.rng))]
        first, last = edges[noun]
        near = [i for i, head in enumerate(heads) if head == noun or i == noun]
        trial.compare(
            tuple(trial.ask(heads, noun)),
            (first, last),
            {
                "that is the noun chunk; go on to the right of the noun": (first, noun),
                "what hangs on a word that hangs on the noun belongs to it too": (
                    min(near),
                    max(near),
                ),
                "give the last word's own position, not the one behind it": (first, last + 1),
                "words hang on the noun, the noun's own head doesn't": (
                    min(first, heads[noun]),
                    max(last, heads[noun]),
                ),
                "not all words hang on this one": (0, len(heads) - 1),
            },
            "from each word walk from head to head; does the walk meet the noun?",
        )


def draw(trial: Round, words: Sequence[str], count: int) -> list[str]:
    """Draws so many different words."""
    return [words[i] for i in torch.randperm(len(words), generator=trial.rng)[:count].tolist()]


def _tree(trial: Round, count: int) -> list[int]:
    """Returns a random tree over so many words, in which no arcs cross."""
    heads = list(range(count))
    waiting = [(0, count, -1)]
    while waiting:
        a, b, above = waiting.pop()
        if a >= b:
            continue
        root = a + int(torch.randint(b - a, (1,), generator=trial.rng))
        heads[root] = root if above < 0 else above
        waiting += [(a, root, root), (root + 1, b, root)]
    return heads
