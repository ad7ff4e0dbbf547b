"""The checks of the lab on captions: what a sentence is worth to its writer."""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence

import torch

from nblabs.checking import Round, rounds

Score = Callable[[Sequence[str]], Mapping[str, float]]
"""All words' scores (logits) for the position behind the words so far."""

WORDS, END = ("a", "red", "ring"), "."


def check_log_probability(
    log_probability: Callable[[list[str], Score], float], *, seed: int | None = None
) -> None:
    """Checks ``log_probability(words, score)``: the log of a sentence's probability.

    Args:
        log_probability: Takes a sentence, whose first word is given, and ``score(words)``, all
            words' scores for the position behind these; returns the sum over all words but the
            first of the log of their probability, the softmax of the scores.
        seed: Of the first inputs; fresh ones each time when None.

    Raises:
        Wrong: It differs from the sum written out here.
    """
    for trial in rounds(log_probability, seed):
        score = _writer(trial)
        length = int(torch.randint(2, 5, (1,), generator=trial.rng))
        picks = torch.randint(0, len(WORDS), (length,), generator=trial.rng).tolist()
        words = [*(WORDS[i] for i in picks), END]
        logs = [_shares(score(words[:i]))[words[i]] for i in range(1, len(words))]
        late = [_shares(score(words[: i + 1]))[words[i]] for i in range(1, len(words))]
        trial.compare(
            trial.ask(words, score),
            math.fsum(logs),
            {
                "off by one: a word is scored by the words before it, without itself": sum(late),
                "scores aren't logarithms yet: take the log of their softmax": (
                    sum(score(words[:i])[words[i]] for i in range(1, len(words)))
                ),
                "the end is a word too, and has its probability": math.fsum(logs[:-1]),
                "add up logarithms, not probabilities": sum(map(math.exp, logs)),
                "that is the probability; its logarithm is asked for": math.exp(math.fsum(logs)),
                "the sum, not the mean": math.fsum(logs) / len(logs),
            },
            "for i from 1: the log of the softmax of score(words[:i]), at words[i]",
        )


def check_best_sentence(
    best_sentence: Callable[[str, Score, str, int], list[str]], *, seed: int | None = None
) -> None:
    """Checks ``best_sentence(begin, score, end, most)``: the most probable whole sentence.

    Args:
        best_sentence: Returns the sentence that starts with `begin`, ends with `end`, has at most
            `most` words behind `begin`, the end counted, and is the most probable of all such.
        seed: Of the first inputs; fresh ones each time when None.

    Raises:
        Wrong: There is a more probable one.
    """
    wanted: tuple[str, ...] = ()
    for trial in rounds(best_sentence, seed):
        most, last = 4, wanted
        while True:  # until greedy writing, for one, goes wrong, and the last answer does
            score = _writer(trial)
            ways = _sentences(score, most)
            wanted = max(ways, key=lambda words: math.fsum(ways[words]))
            greedy = _greedy(score, most)
            if wanted not in (greedy, last):
                break
        longer = _sentences(score, most + 1)
        mean = max(ways, key=lambda words: math.fsum(ways[words]) / len(ways[words]))
        raw = max(ways, key=lambda words: _raw(score, words))
        trial.compare(
            list(trial.ask(WORDS[0], score, END, most)),
            list(wanted),
            {
                "that is greedy: the best next word needn't lead to the best sentence": [*greedy],
                "compare the sums of logarithms, not their means": [*mean],
                "compare probabilities: take the log of the softmax of the scores": [*raw],
                "the end counts as one of the words": [
                    *max(longer, key=lambda words: math.fsum(longer[words]))
                ],
                "the least probable: sort the other way": [
                    *min(ways, key=lambda words: math.fsum(ways[words]))
                ],
                "give the sentence with its first word": [*wanted[1:]],
            },
            "keep every beginning, or the best few hundred; set those aside that have ended",
        )


def _writer(trial: Round) -> Score:
    """Returns a pen whose scores depend on the last word and on how many there are."""
    names = (*WORDS, END)
    after = 1.5 * torch.randn((len(names), len(names)), generator=trial.rng, dtype=torch.float64)
    position = torch.randn((16, len(names)), generator=trial.rng, dtype=torch.float64)

    def score(words: Sequence[str]) -> dict[str, float]:
        row = after[names.index(words[-1])] + position[min(len(words), 15)]
        return dict(zip(names, row.tolist(), strict=True))

    return score


def _shares(scores: Mapping[str, float]) -> dict[str, float]:
    """Returns the log of each word's probability."""
    total = math.log(math.fsum(math.exp(x) for x in scores.values()))
    return {word: x - total for word, x in scores.items()}


def _sentences(score: Score, most: int) -> dict[tuple[str, ...], list[float]]:
    """Returns every sentence that ends in time, with the logs of its words' probabilities."""
    found = {}
    for length in range(most):
        for middle in itertools.product(WORDS, repeat=length):
            words = (WORDS[0], *middle, END)
            found[words] = [_shares(score(words[:i]))[words[i]] for i in range(1, len(words))]
    return found


def _greedy(score: Score, most: int) -> tuple[str, ...]:
    words = [WORDS[0]]
    for _ in range(most):
        scores = score(words)
        words.append(max(scores, key=lambda word: scores[word]))
        if words[-1] == END:
            break
    return tuple(words)


def _raw(score: Score, words: Sequence[str]) -> float:
    return math.fsum(score(words[:i])[words[i]] for i in range(1, len(words)))
