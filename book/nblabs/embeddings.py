"""The checks of the lab on embeddings: replacement, leaks, isolation."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from nbhelpers.chunks import Chunk
from nbhelpers.embeddings import embed, encode_tokens
from nbhelpers.models import TextEncoder
from nbhelpers.tokens import find_spans, tokenize
from nblabs.checking import Round, rounds
from nblabs.chunks import NOUNS, draw

COLORS = "red blue white black brown purple".split()

Encode = Callable[[list[int]], Tensor]
"""Tokens to their embeddings, ``(token, d)``."""

# What each position attends to: those before it, all, its neighbors; and those before it again.
KINDS: dict[str, Callable[[int], Tensor]] = {
    "causal": lambda n: torch.ones(n, n).tril().bool(),
    "bidirectional": lambda n: torch.ones(n, n).bool(),
    "neighbors": lambda n: torch.ones(n, n).tril(1).triu(-1).bool(),
    "causal, deeper": lambda n: torch.ones(n, n).tril().bool(),
}


def check_replace(
    replace: Callable[[Tensor, Tensor, tuple[int, ...]], Tensor],
    text: TextEncoder,
    *,
    seed: int | None = None,
) -> None:
    """Checks ``replace(E, R, positions)``: equation 3, the chunk encoded alone in its place.

    Args:
        replace: Takes the prompt's embedding ``(token, d)``, the chunk's own, encoded alone
            between a start and an end token, ``(token, d)``, and the chunk's positions in the
            prompt; returns the changed embedding ``(token, d)``.
        text: The text encoder, ``models.text``.
        seed: Of the first inputs; fresh ones each time when None.

    Raises:
        Wrong: It differs from `embed` with ``isolate="target"``.
    """
    for trial in rounds(replace, seed):
        caption, chunks, target = _prompt(trial)
        E, R, _, positions = _parts(caption, chunks, target, text)
        wanted = embed(caption, chunks, text, target=target, isolate="target").keys[0]
        m, at = len(positions), list(positions)

        def put(rows: Tensor, where: Sequence[int], base: Tensor = E) -> Tensor:
            """Returns the base with other rows at these positions."""
            changed = base.clone()
            changed[list(where)] = rows
            return changed

        trial.compare(
            trial.ask(E, R, positions),
            wanted,
            {
                "off by one: row 0 of R is the start token; the chunk begins at row 1": put(
                    R[:m], at
                ),
                "off by one: the chunk begins at row 1 of R": put(R[2 : m + 2], at),
                "R has the chunk at its own positions, 1 to m, not the prompt's": put(R[at], at),
                "only the chunk's tokens change; start, end and padding stay the prompt's": R,
                "put them where the chunk stands in the prompt": put(
                    R[1 : m + 1], range(1, m + 1)
                ),
                "nothing has changed: put the rows of R in": E,
            },
            "rows 1 to m of R go to the m positions",
        )


def check_leaks_into(
    leaks_into: Callable[[Encode, list[int], int], Sequence[int]], *, seed: int | None = None
) -> None:
    """Checks ``leaks_into(encode, tokens, position)``: which tokens influence an embedding.

    Args:
        leaks_into: Takes an encoder of token lists, tokens from 0 to 99 and a position; returns,
            in ascending order, the positions of the other tokens on which the encoder's row at
            that position depends.
        seed: Of the first inputs; fresh ones each time when None.

    Raises:
        Wrong: A position is missing or shouldn't be there.
    """
    for trial, kind in zip(rounds(leaks_into, seed, count=4), KINDS, strict=True):
        length = int(torch.randint(7, 11, (1,), generator=trial.rng))
        tokens = torch.randint(0, 100, (length,), generator=trial.rng).tolist()
        position = int(torch.randint(3, length - 2, (1,), generator=trial.rng))
        skipped = int(torch.randint(0, position - 1, (1,), generator=trial.rng))
        reach = KINDS[kind](length)
        reach[position, skipped] = kind == "neighbors"  # no pattern tells it beforehand
        encode = _encoder(reach, trial)
        wanted = [i for i in range(length) if reach[position, i] and i != position]
        trial.compare(
            list(trial.ask(encode, tokens, position)),
            wanted,
            {
                "an encoder needn't be causal, nor see all: change each token and compare": [
                    *range(position)
                ],
                "a token's own position isn't asked for": sorted([*wanted, position]),
                "the embedding at `position` counts, not that of the changed token": [
                    i for i in range(length) if reach[i, position] and i != position
                ],
                "not all of them: compare the row at `position` alone": [
                    i for i in range(length) if i != position
                ],
            },
            "change one token at a time, encode again, compare the row at `position`",
        )


def check_sees(
    sees: Callable[[tuple[int, ...], int], Tensor], text: TextEncoder, *, seed: int | None = None
) -> None:
    """Checks ``sees(positions, length)``: what a chunk may attend to, where it stands.

    Args:
        sees: Takes a chunk's positions and the number of tokens that the encoder reads; returns
            bool ``(length,)``, True for the positions that it may attend to.
        text: The text encoder, ``models.text``.
        seed: Of the first inputs; fresh ones each time when None.

    Raises:
        Wrong: The chunk comes out other than from `embed` with ``by="masking"``.
    """
    for trial in rounds(sees, seed):
        caption, chunks, target = _prompt(trial)
        positions = find_spans(caption, chunks, text).chunks[target]
        wanted = embed(caption, chunks, text, target=target, isolate="target", by="masking")
        answer = trial.ask(positions, text.length)
        if not isinstance(answer, Tensor) or answer.shape != (text.length,):
            told = getattr(answer, "shape", type(answer).__name__)
            trial.refuse(f"it gave {told}", f"one bool for each of the {text.length} positions")
        if answer.dtype != torch.bool:
            trial.refuse(f"it gave {answer.dtype}", "torch.zeros(length, dtype=torch.bool)")

        def encoded(
            *shown: Sequence[int], caption: str = caption, positions: tuple[int, ...] = positions
        ) -> Tensor:
            """Returns the chunk's rows when these positions are seen."""
            row = torch.zeros(1, text.length, dtype=torch.bool)
            row[0, [position for part in shown for position in part]] = True
            states, _ = encode_tokens([tokenize(caption, text)], text, sees=row)
            return states[0, list(positions)]

        shown = answer.nonzero().flatten().tolist()
        trial.compare(
            encoded(shown) if shown else torch.zeros_like(wanted.keys[0, list(positions)]),
            wanted.keys[0, list(positions)],
            {
                "CLIP needs its start token, position 0, to attend to": encoded(positions),
                "what stands before the chunk is what it must not see": encoded(
                    range(positions[-1] + 1)
                ),
                "off by one: position 0 is the start token, positions count from it": encoded(
                    [0], [position - 1 for position in positions]
                ),
                "True is what may be seen; you have hidden the chunk": encoded(
                    [0], sorted(set(range(1, text.length)) - set(positions))
                ),
                "the whole chunk, not its noun alone": encoded([0], positions[-1:]),
            },
            "the start token and the chunk's own tokens, nothing else",
        )


def _encoder(reach: Tensor, trial: Round) -> Encode:
    """Returns an encoder in which each position depends on the positions that it reaches."""
    table = torch.randn((100, 6), generator=trial.rng)
    weights = reach * (0.5 + torch.rand(reach.shape, generator=trial.rng))

    def encode(tokens: list[int]) -> Tensor:
        """Returns the weighted sum of what each position reaches."""
        if len(tokens) != len(reach) or not all(0 <= token < 100 for token in tokens):
            raise ValueError(f"this encoder takes {len(reach)} tokens from 0 to 99; got {tokens}")
        return weights @ table[tokens]

    return encode


def _prompt(trial: Round) -> tuple[str, list[Chunk], int]:
    """Returns a caption of three phrases, and which of the later two is meant."""
    things = zip(draw(trial, COLORS, 3), draw(trial, NOUNS, 3), strict=True)
    caption, chunks = "a photograph of ", []
    for number, (color, noun) in enumerate(things):
        phrase, start = f"a {color} {noun}", len(caption)
        end = start + len(phrase)
        chunks.append(Chunk(phrase, start, end, noun, end - len(noun), end))
        caption += phrase + (" and " if number < 2 else "")
    return caption, chunks, 1 + int(torch.randint(2, (1,), generator=trial.rng))


def _parts(
    caption: str, chunks: Sequence[Chunk], target: int, text: TextEncoder
) -> tuple[Tensor, Tensor, Tensor, tuple[int, ...]]:
    """Returns E, R and U of the book, and the target's positions."""
    tokens = tokenize(caption, text)
    positions = find_spans(caption, chunks, text).chunks[target]
    alone = [tokens[position - 1] for position in positions]
    E, R, U = encode_tokens([tokens, alone, ()], text)[0]
    return E, R, U, positions
