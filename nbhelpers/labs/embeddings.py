"""Checks of the lab of chapter 3: the surgery, cut by cut."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from nbhelpers.chunks import Chunk
from nbhelpers.embeddings import embed, encode_tokens
from nbhelpers.labs.checking import Round, rounds
from nbhelpers.labs.chunks import NOUNS, draw
from nbhelpers.models import TextEncoder
from nbhelpers.tokens import find_spans, tokenize

COLORS = "red blue white black turquoise purple".split()


def check_replace(
    replace: Callable[[Tensor, Tensor, tuple[int, ...]], Tensor],
    text: TextEncoder,
    *,
    seed: int | None = None,
) -> None:
    """Check ``replace(E, R, places)``: equation 3, the chunk encoded alone in its place.

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
        E, R, _, places = _parts(caption, chunks, target, text)
        wanted = embed(caption, chunks, text, target=target, isolate="target").keys[0]
        m, at = len(places), list(places)

        def put(rows: Tensor, where: Sequence[int], base: Tensor = E) -> Tensor:
            """The base with other rows at these places."""
            changed = base.clone()
            changed[list(where)] = rows
            return changed

        trial.compare(
            trial.ask(E, R, places),
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
            "rows 1 to m of R go to the m places",
        )


def check_mix(
    mix: Callable[[Tensor, Tensor, tuple[int, ...], float], Tensor],
    text: TextEncoder,
    *,
    seed: int | None = None,
) -> None:
    """Check ``mix(E, U, noun, alpha)``: equations 4 and 5, the noun mixed with no words at all.

    Args:
        mix: Takes the prompt's embedding ``(token, d)``, the empty prompt's ``(token, d)``, the
            positions of the noun's tokens, and alpha; returns the changed embedding.
        text: The text encoder, ``models.text``.
        seed: Of the first inputs; fresh ones each time when None.

    Raises:
        Wrong: It differs from `embed` with this alpha.
    """
    for trial in rounds(mix, seed):
        caption, chunks, target = _prompt(trial)
        E, _, U, _ = _parts(caption, chunks, target, text)
        alpha = float(0.55 + 0.4 * torch.rand(1, generator=trial.rng))
        prompt = embed(caption, chunks, text, target=target, isolate="none", alpha=alpha)
        noun = prompt.spans[target]

        def mixed(
            a: float, b: float, rows: Tensor, where: Sequence[int], base: Tensor = E
        ) -> Tensor:
            """The base with ``a E + b rows`` at these places."""
            changed = base.clone()
            changed[list(where)] = a * base[list(where)] + b * rows
            return changed

        at, all_places = list(noun), list(range(len(E)))
        trial.compare(
            trial.ask(E, U, noun, alpha),
            prompt.keys[0],
            {
                "alpha is the noun's share, 1 - alpha that of U": mixed(
                    1 - alpha, alpha, U[at], at
                ),
                "only the noun's tokens are mixed": mixed(alpha, 1 - alpha, U, all_places),
                "U's row at the token's own position, not its first": mixed(
                    alpha, 1 - alpha, U[:1], at
                ),
                "U's row at the token's own position, not the row that CLIP pools": mixed(
                    alpha, 1 - alpha, U[1:2], at
                ),
                "the shares add up to 1: alpha and 1 - alpha": mixed(1, 1 - alpha, U[at], at),
                "a weight alone isn't enough: add (1 - alpha) U": mixed(alpha, 0, U[at], at),
            },
            "alpha * E + (1 - alpha) * U, at the noun's positions",
        )


def check_sees(
    sees: Callable[[tuple[int, ...], int], Tensor],
    text: TextEncoder,
    *,
    seed: int | None = None,
) -> None:
    """Check ``sees(places, length)``: what a chunk may look at, where it stands.

    Args:
        sees: Takes a chunk's positions and the number of tokens that the encoder reads; returns
            bool ``(length,)``, True for the positions that may be looked at.
        text: The text encoder, ``models.text``.
        seed: Of the first inputs; fresh ones each time when None.

    Raises:
        Wrong: The chunk comes out other than from `embed` with ``by="masking"``.
    """
    for trial in rounds(sees, seed):
        caption, chunks, target = _prompt(trial)
        places = find_spans(caption, chunks, text).chunks[target]
        wanted = embed(caption, chunks, text, target=target, isolate="target", by="masking")
        answer = trial.ask(places, text.length)
        if not isinstance(answer, Tensor) or answer.shape != (text.length,):
            told = getattr(answer, "shape", type(answer).__name__)
            trial.refuse(f"it gave {told}", f"one bool for each of the {text.length} positions")
        if answer.dtype != torch.bool:
            trial.refuse(f"it gave {answer.dtype}", "torch.zeros(length, dtype=torch.bool)")

        def encoded(
            *shown: Sequence[int], caption: str = caption, places: tuple[int, ...] = places
        ) -> Tensor:
            """The chunk's rows when these positions are seen."""
            row = torch.zeros(1, text.length, dtype=torch.bool)
            row[0, [place for part in shown for place in part]] = True
            states, _ = encode_tokens([tokenize(caption, text)], text, sees=row)
            return states[0, list(places)]

        shown = answer.nonzero().flatten().tolist()
        trial.compare(
            encoded(shown) if shown else torch.zeros_like(wanted.keys[0, list(places)]),
            wanted.keys[0, list(places)],
            {
                "CLIP needs its start token, position 0, to look at": encoded(places),
                "what stands before the chunk is what it must not see": encoded(
                    range(places[-1] + 1)
                ),
                "off by one: position 0 is the start token, places count from it": encoded(
                    [0], [place - 1 for place in places]
                ),
                "True is what may be seen; you have hidden the chunk": encoded(
                    [0], sorted(set(range(1, text.length)) - set(places))
                ),
                "the whole chunk, not its noun alone": encoded([0], places[-1:]),
            },
            "the start token and the chunk's own tokens, nothing else",
        )


def _prompt(trial: Round) -> tuple[str, list[Chunk], int]:
    """A caption of three phrases, and which of the later two is meant."""
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
    """E, R and U of the book, and the target's positions."""
    tokens = tokenize(caption, text)
    places = find_spans(caption, chunks, text).chunks[target]
    alone = [tokens[place - 1] for place in places]
    E, R, U = encode_tokens([tokens, alone, ()], text)[0]
    return E, R, U, places
