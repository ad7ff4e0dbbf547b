"""The checks of the labs: right answers pass, the usual wrong ones are named."""

import copy
import dataclasses
import inspect
import itertools
import math
import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import nblabs
from nbhelpers.models import load_models
from nblabs import Wrong
from nblabs.checking import Round

CHECKS = [name for name in nblabs.__all__ if name.startswith("check_")]


# The whole way


def cut(heat, threshold):
    return (heat - heat.min()) / (heat.max() - heat.min()) >= threshold


def overlap(mask, truth):
    return (mask & truth).sum() / max(int((mask | truth).sum()), 1)


CUTS = {
    "before you cut": lambda heat, threshold: heat >= threshold,
    "exactly on the threshold": lambda heat, t: ~cut(-heat, 1 - t),
    "needn't start at 0": lambda heat, t: heat / heat.max() >= t,
    "row by row": lambda heat, t: torch.stack([cut(row, t) for row in heat]).bool(),
    "type float": lambda heat, t: cut(heat, t).float(),
    "shape": lambda heat, t: cut(heat, t).T[:-1],
    "you kept what lies below": lambda heat, t: ~cut(heat, t),
}
OVERLAPS = {
    "precision": lambda m, t: (m & t).sum() / m.sum() if m.any() else 0,
    "recall": lambda m, t: (m & t).sum() / t.sum() if t.any() else 0,
    "Dice": lambda m, t: 2 * (m & t).sum() / max(m.sum() + t.sum(), 1),
    "accuracy": lambda m, t: (m == t).mean(),
    "return 0 for them": lambda m, t: (m & t).sum() / (m | t).sum(),
    "isn't in it twice": lambda m, t: (m & t).sum() / (m.sum() + t.sum()),
}


# Captions


def logs(scores):
    total = math.log(sum(map(math.exp, scores.values())))
    return {word: value - total for word, value in scores.items()}


def log_probability(words, score):
    return sum(logs(score(words[:i]))[words[i]] for i in range(1, len(words)))


def best_sentence(begin, score, end, most):
    ended, going = [], [(0.0, [begin])]
    for _ in range(most):
        grown = [
            (total + value, [*words, word])
            for total, words in going
            for word, value in logs(score(words)).items()
        ]
        ended += [pair for pair in grown if pair[1][-1] == end]
        going = [pair for pair in grown if pair[1][-1] != end]
    return max(ended)[1]


def by(begin, score, end, most, key):
    """The sentence with the largest key."""
    middles = itertools.chain.from_iterable(
        itertools.product([w for w in score([begin]) if w != end], repeat=n) for n in range(most)
    )
    return max(([begin, *middle, end] for middle in middles), key=key)


def greedy(begin, score, end, most):
    words = [begin]
    while words[-1] != end and len(words) <= most:
        words.append(max(score(words).items(), key=lambda pair: pair[1])[0])
    return words


def late(words, score):
    return sum(logs(score(words[: i + 1]))[words[i]] for i in range(1, len(words)))


LOG_PROBABILITIES = {
    "off by one": late,
    "softmax": lambda w, score: sum(score(w[:i])[w[i]] for i in range(1, len(w))),
    "the end is a word too": lambda w, score: log_probability(w[:-1], score),
    "its logarithm": lambda w, score: math.exp(log_probability(w, score)),
    "not the mean": lambda w, score: log_probability(w, score) / (len(w) - 1),
}
SENTENCES = {
    "greedy": greedy,
    "first word": lambda *given: best_sentence(*given)[1:],
    "least probable|that is greedy": lambda b, s, e, m: by(
        b, s, e, m, lambda words: -log_probability(words, s)
    ),
    "differ|shape": lambda b, s, e, m: best_sentence(b, s, e, m)[:-1],
}


# Parse trees


def positions(covers, start, end):
    return [i for i, (a, b) in enumerate(covers, 1) if a < end and b > start]


def whole_phrase(heads, noun):
    def hangs(word):
        while word != noun and heads[word] != word:
            word = heads[word]
        return word == noun

    words = [word for word in range(len(heads)) if hangs(word)]
    return min(words), max(words)


POSITIONS = {
    "position 0 is the start token's": lambda c, a, b: [i - 1 for i in positions(c, a, b)],
    "only touches": lambda c, a, b: positions(c, a - 1, b + 1),
    "the last token belongs": lambda c, a, b: positions(c, a, b)[:-1],
    "not its first alone": lambda c, a, b: positions(c, a, b)[:1],
    "not its last alone": lambda c, a, b: positions(c, a, b)[-1:],
}
PHRASES = {
    "to the right of the noun": lambda heads, noun: (whole_phrase(heads, noun)[0], noun),
    "not the one behind it": lambda heads, noun: (
        whole_phrase(heads, noun)[0],
        whole_phrase(heads, noun)[1] + 1,
    ),
    "not all words": lambda heads, noun: (0, len(heads) - 1),
    "the noun's own head doesn't|hangs|differ": lambda heads, noun: (
        min(whole_phrase(heads, noun)[0], heads[noun]),
        max(whole_phrase(heads, noun)[1], heads[noun]),
    ),
}


# Embeddings


def put(E, rows, where):
    E = E.clone()
    E[list(where)] = rows
    return E


def replace(E, R, positions):
    return put(E, R[1 : 1 + len(positions)], positions)


def moved(encode, tokens, i):
    """The rows that a token moves, and the rows' tokens that move its own."""

    def rows(other):
        changed = [(t + 7) % 100 if k == other else t for k, t in enumerate(tokens)]
        return (encode(changed) != encode(tokens)).any(1).nonzero().flatten().tolist()

    return rows(i), [k for k in range(len(tokens)) if i in rows(k)]


def leaks_into(encode, tokens, at):
    return [i for i in range(len(tokens)) if i != at and at in moved(encode, tokens, i)[0]]


def sees(positions, length):
    seen = torch.zeros(length, dtype=torch.bool)
    seen[[0, *positions]] = True
    return seen


def sees_before(positions, length):
    return torch.arange(length) <= positions[-1]


def in_place(E, R, positions):
    E[list(positions)] = R[1 : 1 + len(positions)]
    return E


REPLACEMENTS = {
    "row 0 of R is the start token": lambda E, R, at: put(E, R[: len(at)], at),
    "begins at row 1": lambda E, R, at: put(E, R[2 : 2 + len(at)], at),
    "not the prompt's": lambda E, R, at: put(E, R[list(at)], at),
    "only the chunk's tokens": lambda E, R, at: R,
    "where the chunk stands": lambda E, R, at: put(E, R[1 : 1 + len(at)], range(1, 1 + len(at))),
    "it changed its input number 1": in_place,
}
LEAKS = {
    "needn't be causal": lambda encode, tokens, position: [*range(position)],
    "own position isn't asked for": lambda *given: sorted([*leaks_into(*given), given[2]]),
    "the embedding at `position` counts": lambda encode, tokens, position: [
        i for i in range(len(tokens)) if i != position and position in moved(encode, tokens, i)[1]
    ],
    "not all of them": lambda encode, tokens, at: [i for i in range(len(tokens)) if i != at],
}
SIGHTS = {
    "start token, position 0": lambda at, n: (
        torch.zeros(n).index_fill(0, torch.tensor(at), 1.0).bool()
    ),
    "must not see": sees_before,
    "off by one": lambda at, n: sees([position - 1 for position in at], n),
    "hidden the chunk": lambda at, n: ~sees(at, n) | (torch.arange(n) == 0),
    "torch.bool": lambda at, n: sees(at, n).float(),
    "one bool for each": lambda at, n: sees(at, n)[:-1],
}


# Attention


def over_words(P, words):
    return torch.stack(
        [(head[:, list(words)].T / head[:, list(words)].sum(1)).T for head in P]
    ).mean(0)


def add_up(maps, weights, size):
    total = torch.zeros(size)
    for heat, weight in zip(maps, weights, strict=True):
        heat = (heat - heat.min()) / (heat.max() - heat.min())
        large = F.interpolate(heat[None, None], size=size, mode="bilinear")[0, 0]
        total += weight / sum(weights) * large
    return total


def listen(module, run):
    heard = []
    handle = module.register_forward_hook(lambda module, given, out: heard.append(out))
    try:
        run()
    finally:
        handle.remove()
    return heard


def listen_forever(module, run):
    heard = []
    module.register_forward_hook(lambda module, given, out: heard.append(out))
    run()
    return heard


def listen_until_an_error(module, run):
    heard = []
    handle = module.register_forward_hook(lambda module, given, out: heard.append(out))
    run()
    handle.remove()
    return heard


def listen_by_force(module, run):
    heard, forward = [], module.forward
    module.forward = lambda x: heard.append(forward(x)) or heard[-1]
    run()
    return heard


def listen_silently(module, run):
    try:
        return listen(module, run)
    except OSError:
        return []


def listen_to_inputs(module, run):
    heard = []
    handle = module.register_forward_hook(lambda module, given, out: heard.append(given[0]))
    try:
        run()
    finally:
        handle.remove()
    return heard


def stretched(heat):
    return (heat - heat.min()) / (heat.max() - heat.min())


SHARES = {
    "among all tokens": lambda P, w: P[..., list(w)].mean(0),
    "after that": lambda P, w: (
        P[..., list(w)].mean(0) / P[..., list(w)].mean(0).sum(-1, keepdim=True)
    ),
    "a softmax already": lambda P, w: P[..., list(w)].softmax(-1).mean(0),
    "not each word's": lambda P, w: (P[..., list(w)] / P[..., list(w)].sum(-2, keepdim=True)).mean(
        0
    ),
    "not their sum": lambda P, w: 3 * over_words(P, w),
}
SUMS = {
    "rows first": lambda maps, w, size: add_up(maps, w, size[::-1]),
    "so that they sum to 1": lambda maps, w, size: sum(w) * add_up(maps, w, size),
    "a weight of its own": lambda maps, w, size: add_up(maps, [1, 1, 1], size),
    "the brightest rules": lambda maps, w, size: sum(
        weight / sum(w) * F.interpolate(m[None, None], size=size, mode="bilinear")[0, 0]
        for m, weight in zip(maps, w, strict=True)
    ),
    "mode='bilinear'": lambda maps, w, size: sum(
        weight / sum(w) * F.interpolate(stretched(m)[None, None], size)[0, 0]
        for m, weight in zip(maps, w, strict=True)
    ),
}
EARS = {
    "remove the hook": listen_forever,
    "in `finally`": listen_until_an_error,
    "listens and changes nothing": listen_by_force,
    "let errors through": listen_silently,
    "keep the output": listen_to_inputs,
    "append every output": lambda module, run: listen(module, run)[-1],
}


# Completion


def gather(query, key, scores, scale):
    A = (scale * query @ key.mT).softmax(-1).mean(0)
    return torch.stack([(A @ one.flatten()).view(one.shape) for one in scores])


def walk(logits, scores, tile):
    top, total, weighted = -math.inf, 0.0, 0.0
    for start in range(0, len(logits), tile):
        part, own = logits[start : start + tile], scores[start : start + tile]
        new = max(top, float(part.max()))
        fade, e = math.exp(top - new), (part - new).exp()
        total = total * fade + float(e.sum())
        weighted = weighted * fade + float(e @ own)
        top = new
    return weighted / total


def sloppy_walk(fade_total, fade_weighted):
    def walk(logits, scores, tile):
        top, total, weighted = -math.inf, 0.0, 0.0
        for part, own in zip(logits.split(tile), scores.split(tile), strict=True):
            new = max(top, float(part.max()))
            fade, e = math.exp(top - new), (part - new).exp()
            total = total * (fade if fade_total else 1) + float(e.sum())
            weighted = weighted * (fade if fade_weighted else 1) + float(e @ own)
            top = new
        return weighted / total

    return walk


def plainly(A, scores):
    return (A @ scores.flatten(1).T).T.view(scores.shape)


GATHERINGS = {
    "A\\^T for A": lambda q, k, S, s: plainly((s * q @ k.mT).softmax(-1).mean(0).T, S),
    "wrong axis": lambda q, k, S, s: plainly((s * q @ k.mT).softmax(-2).mean(0), S),
    "unnormalized": lambda q, k, S, s: plainly((s * q @ k.mT).exp().mean(0), S),
    "not of their logits": lambda q, k, S, s: plainly((s * q @ k.mT).mean(0).softmax(-1), S),
    "scale is missing": lambda q, k, S, s: gather(q, k, S, 1.0),
    "not their sum": lambda q, k, S, s: 3 * gather(q, k, S, s),
    "counted along rows": lambda q, k, S, s: gather(q, k, S.mT.contiguous(), s).mT,
    "come back as they went": lambda q, k, S, s: gather(q, k, S, s).view(2, 5, 3),
    "once, not twice": lambda q, k, S, s: gather(q, k, gather(q, k, S, s), s),
}
WALKS = {
    "the last tile": lambda x, S, tile: walk(x[:21], S[:21], tile),
    "fade the sum of the scores": sloppy_walk(True, False),
    "fade the sum of the exponentials": sloppy_walk(False, True),
    "fade what was summed": sloppy_walk(False, False),
    "overflow": lambda x, S, tile: float(x.exp() @ S / x.exp().sum()),
    "divide by the sum": lambda x, S, tile: float((x - x.max()).exp() @ S),
}


def in_blocks(query, key, scores, scale, rows):
    flat = scores.flatten(1)
    parts = []
    for first in range(0, query.shape[1], rows):
        A = (scale * query[:, first : first + rows] @ key.mT).softmax(-1).mean(0)
        parts.append(A @ flat.T)
    return torch.cat(parts).T.reshape(scores.shape)


def in_key_blocks(query, key, scores, scale, rows):
    """The softmax runs over a part of the keys at a time."""
    flat, total = scores.flatten(1), 0
    for first in range(0, key.shape[1], rows):
        A = (scale * query @ key[:, first : first + rows].mT).softmax(-1).mean(0)
        total = total + A @ flat[:, first : first + rows].T
    return total.T.reshape(scores.shape)


BLOCKS = {
    "it made a tensor of": lambda q, k, S, s, rows: gather(q, k, S, s),
    "for some queries at a time": in_key_blocks,
    "put the blocks back in order": lambda *given: in_blocks(*given).flip(-2),
}


# Noise


def clean(noised, predicted, kept):
    return torch.stack(
        [
            (z - math.sqrt(1 - a) * e) / math.sqrt(a)
            for z, e, a in zip(noised, predicted, kept.tolist(), strict=True)
        ]
    )


def wide(kept):
    return kept[:, None, None, None]


def timestep_for(kept, ratio):
    for t, a in enumerate(kept.tolist()):
        if (1 - a) / a >= ratio:
            return t
    return None


CLEANED = {
    "divide by the latent's factor": lambda z, e, a: z - (1 - wide(a)).sqrt() * e,
    "square roots": lambda z, e, a: (z - (1 - wide(a)) * e) / wide(a),
    "only the noise's share": lambda z, e, a: (z - e) / wide(a).sqrt(),
    "the noise's factor is": lambda z, e, a: (z - wide(a).sqrt() * e) / wide(a).sqrt(),
    "don't add it": lambda z, e, a: (z + (1 - wide(a)).sqrt() * e) / wide(a).sqrt(),
}
TIMESTEPS = {
    "no square roots": lambda kept, ratio: (
        timestep_for(kept.sqrt() / (kept.sqrt() + (1 - kept).sqrt()), ratio) or -1
    ),
    "off by one": lambda kept, ratio: timestep_for(kept, ratio) + 1,
    "the first timestep, not the last": lambda kept, ratio: len(kept) - 1,
    "where no timestep has": lambda kept, ratio: (
        len(kept) - 1 if (t := timestep_for(kept, ratio)) is None else t
    ),
}


# Leaks


def worth(value, seal):
    names = {name for closed in value for name in closed}
    total = 0.0
    for closed in value:
        if seal not in closed:
            k = len(closed)
            share = math.factorial(k) * math.factorial(len(names) - 1 - k)
            total += share / math.factorial(len(names)) * (value[closed | {seal}] - value[closed])
    return total


def holm(p, level):
    stands, left = [False] * len(p), len(p)
    for i in np.argsort(p):
        if p[i] > level / left:
            break
        stands[i], left = True, left - 1
    return stands


NONE, FULL = frozenset(), frozenset({"target", "others", "tail"})
WORTHS = {
    "brings alone": lambda v, s: v[frozenset({s})] - v[NONE],
    "brings last": lambda v, s: v[FULL] - v[FULL - {s}],
    "two come up twice": lambda v, s: np.mean([v[c | {s}] - v[c] for c in v if s not in c]),
    "closed minus open": lambda v, s: -worth(v, s),
    "not the sum": lambda v, s: 6 * worth(v, s),
}
HOLMS = {
    "without a correction": lambda p, level: [x <= level for x in p],
    "that is Bonferroni": lambda p, level: [x <= level / len(p) for x in p],
    "none after it does": lambda p, level: [x <= level / (len(p) - sorted(p).index(x)) for x in p],
    "True is rejected": lambda p, level: [not x for x in holm(p, level)],
}


# The family


def neglect(maps, nouns):
    return 1 - min(float(maps[token].max()) for noun in nouns for token in noun)


def every_token(change):
    return lambda maps, nouns: change(
        torch.stack([maps[token] for noun in nouns for token in noun]).flatten(1)
    )


def divergence(p, q):
    return float((p * (p / q).log()).sum())


def both_ways(p, q):
    return (divergence(p, q) + divergence(q, p)) / 2


def merge(maps, limit, distance=both_ways, gather=lambda group: group.mean(0), keep=False):
    left, found = list(range(len(maps))), []
    while left:
        among = range(len(maps)) if keep else left
        group = [j for j in among if distance(maps[left[0]], maps[j]) < limit]
        found.append(gather(maps[group]))
        left = [j for j in left if j not in group]
    return torch.stack(found)


def merge_chains(maps, limit):
    left, found = list(range(len(maps))), []
    while left:
        group = [left[0]]
        for i in group:
            group += [j for j in left if j not in group and both_ways(maps[i], maps[j]) < limit]
        found.append(maps[group].mean(0))
        left = [j for j in left if j not in group]
    return torch.stack(found)


NEGLECTS = {
    "not the mean of all": every_token(lambda own: float((1 - own.amax(1)).mean())),
    "a noun needs one location": every_token(lambda own: float(1 - own.mean(1).min())),
    "the noun with the most attention": every_token(lambda own: float(1 - own.amax())),
    "the loss falls as attention rises": lambda *given: 1 - neglect(*given),
    "only tokens of nouns": lambda maps, nouns: float(1 - maps.amax((1, 2)).min()),
    "not the sum": every_token(lambda own: float((1 - own.amax(1)).sum())),
}
MERGERS = {
    r"KL\(p, q\) alone": lambda *given: merge(*given, distance=divergence),
    r"KL\(q, p\) alone": lambda *given: merge(*given, lambda p, q: divergence(q, p)),
    "not their sum": lambda *given: merge(*given, lambda p, q: 2 * both_ways(p, q)),
    "in no second group": lambda *given: merge(*given, keep=True),
    "not near any of it": merge_chains,
    "so that it sums to 1": lambda *given: merge(*given, gather=lambda group: group.sum(0)),
    "not its first row": lambda *given: merge(*given, gather=lambda group: group[0]),
    "don't stretch it": lambda *given: merge(
        *given, gather=lambda group: group.mean(0) / group.mean(0).max()
    ),
}


# Evaluation


def two_means(shared, either):
    each = shared / np.maximum(either, 1)
    return each.mean(), shared.sum() / either.sum()


def report(val, test):
    return test.mean(0)[val.mean(0).argmax()]


def resampled(a, b, pictures, seed, ends=(0.025, 0.975), paired=True, clustered=True):
    rng = np.random.default_rng(seed)
    groups = pictures if clustered else np.arange(len(a))
    names = np.unique(groups)
    of = {name: np.flatnonzero(groups == name) for name in names}
    found = []
    for _ in range(1000):
        one = np.concatenate([of[n] for n in rng.choice(names, len(names))])
        two = one if paired else np.concatenate([of[n] for n in rng.choice(names, len(names))])
        found.append(a[one].mean() - b[two].mean())
    return tuple(np.quantile(found, ends))


def interval(a, b, pictures, seed):
    return resampled(a, b, pictures, seed)


MEANS = {
    "mIoU first": lambda s, e: two_means(s, e)[::-1],
    "weigh each expression alike": lambda s, e: (s.sum() / e.sum(),) * 2,
    "took the mean of IoUs twice": lambda s, e: (two_means(s, e)[0],) * 2,
    "not percent": lambda s, e: tuple(100 * x for x in two_means(s, e)),
    "counts in the mean": lambda s, e: ((s / e).mean(), s.sum() / e.sum()),
}
REPORTS = {
    "on the test split": lambda val, test: test.mean(0).max(),
    "of each item": lambda val, test: test.max(1).mean(),
    "but report test": lambda val, test: val.mean(0).max(),
    "not the mean of all": lambda val, test: test.mean(),
    "not the worst": lambda val, test: test.mean(0)[val.mean(0).argmin()],
}
INTERVALS = {
    "draw pictures, not expressions": lambda *given: resampled(*given, clustered=False),
    "for both methods alike": lambda *given: resampled(*given, paired=False),
    "0.025 and 0.975": lambda *given: resampled(*given, ends=(0.05, 0.95)),
    "a - b, not b - a": lambda a, b, *rest: resampled(b, a, *rest),
    "the lower end comes first": lambda *given: interval(*given)[::-1],
}

RIGHT = {
    "check_cut": (cut, CUTS),
    "check_overlap": (overlap, OVERLAPS),
    "check_log_probability": (log_probability, LOG_PROBABILITIES),
    "check_best_sentence": (best_sentence, SENTENCES),
    "check_positions": (positions, POSITIONS),
    "check_whole_phrase": (whole_phrase, PHRASES),
    "check_replace": (replace, REPLACEMENTS),
    "check_leaks_into": (leaks_into, LEAKS),
    "check_sees": (sees, SIGHTS),
    "check_over_words": (over_words, SHARES),
    "check_clean": (clean, CLEANED),
    "check_timestep_for": (timestep_for, TIMESTEPS),
    "check_add_up": (add_up, SUMS),
    "check_listen": (listen, EARS),
    "check_gather": (gather, GATHERINGS),
    "check_in_blocks": (in_blocks, BLOCKS),
    "check_walk": (walk, WALKS),
    "check_two_means": (two_means, MEANS),
    "check_report": (report, REPORTS),
    "check_interval": (interval, INTERVALS),
    "check_worth": (worth, WORTHS),
    "check_holm": (holm, HOLMS),
    "check_neglect": (neglect, NEGLECTS),
    "check_merge": (merge, MERGERS),
}
MISTAKES = [(check, hint) for check, (_, wrong) in RIGHT.items() for hint in wrong]


@pytest.fixture(scope="module")
def examine(text):
    """Calls a check by name with a student's function, and the text encoder if it wants one."""

    def call(name, function, **more):
        check = getattr(nblabs, name)
        given = [text] if "text" in inspect.signature(check).parameters else []
        return check(function, *given, **more)

    return call


def test_every_check_is_tried_with_three_wrong_answers():
    assert set(RIGHT) == set(CHECKS)
    assert all(len(wrong) >= 3 for _, wrong in RIGHT.values())


@pytest.mark.parametrize("name", CHECKS)
def test_right_answers_pass(name, examine, capsys):
    function, _ = RIGHT[name]
    for seed in (None, None, 7):
        assert examine(name, function, seed=seed) is None
    assert re.search(r"is right on \d inputs", capsys.readouterr().out)


@pytest.mark.parametrize(("name", "hint"), MISTAKES, ids=lambda value: value[:40])
def test_wrong_answers_are_refused_with_the_hint_they_need(name, hint, examine):
    function = RIGHT[name][1][hint]
    for seed in (3, 1000):
        with pytest.raises(Wrong, match=hint) as caught:
            examine(name, function, seed=seed)
        what = "it (gave|returned|replaced|kept|changed|made)|a hook|came back"
        assert re.search(what, str(caught.value)), "it says what differs"


@pytest.mark.parametrize("seed", [1573, 2299])  # of these, 1,000 draws are a little off
def test_an_interval_of_a_thousand_draws_is_right(seed):
    nblabs.check_interval(interval, seed=seed)


def test_mistakes_that_give_the_same_are_all_told():
    trial = Round(len, torch.Generator(), 0)
    with pytest.raises(Wrong, match="Hint: a half; or: two of four[.]$"):
        trial.compare(0.5, 0.3, {"a half": 1 / 2, "a third": 1 / 3, "two of four": 2 / 4}, "read")
    with pytest.raises(Wrong, match="Hint: read[.]$"):
        trial.compare(0.6, 0.3, {"a half": 1 / 2}, "read")


@pytest.mark.parametrize("name", ["check_positions", "check_replace", "check_sees"])
def test_whatever_words_are_drawn_the_shipped_text_encoder_reads_them(name, monkeypatch):
    """It reads 32 tokens, and it spells the words that it doesn't know."""
    text = load_models("stickers").text

    def dearest(trial, words, count):
        return sorted(words, key=lambda word: len(text.tokenizers[0].tokenize(word)))[-count:]

    for module in ("chunks", "embeddings"):
        monkeypatch.setattr(f"nblabs.{module}.draw", dearest)
    getattr(nblabs, name)(RIGHT[name][0], text)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", ["check_replace", "check_sees"])
def test_checks_allow_for_half_precision_and_no_more(name, dtype, text):
    """A text encoder on a GPU is in half precision: its rows round, and differ still."""
    halved = dataclasses.replace(
        text, encoders=tuple(copy.deepcopy(part).to(dtype) for part in text.encoders)
    )
    right, wrong = RIGHT[name]
    eps = torch.finfo(dtype).eps
    for seed in (3, 1000):
        getattr(nblabs, name)(right, halved, seed=seed)
        if name != "check_sees":  # its answer is bool
            getattr(nblabs, name)(lambda *given: right(*given) * (1 + 2 * eps), halved, seed=seed)
            with pytest.raises(Wrong):
                getattr(nblabs, name)(lambda *g: right(*g) * (1 + 16 * eps), halved, seed=seed)
        for mistake in wrong.values():
            with pytest.raises(Wrong):
                getattr(nblabs, name)(mistake, halved, seed=seed)


@pytest.mark.parametrize("name", CHECKS)
def test_nobody_passes_by_printing(name, examine, capsys):
    function, _ = RIGHT[name]

    def prints(*given):
        print(function(*given))
        print(f"{function.__name__} is right on 4 inputs drawn just now.")

    with pytest.raises(Wrong, match="returned None"):
        examine(name, prints)


@pytest.mark.parametrize("name", sorted({*CHECKS} - {"check_listen"}))  # hears what runs
def test_nobody_passes_by_remembering(name, examine):
    function, _ = RIGHT[name]
    seen = []

    def remembers(*given):
        seen.append(function(*given))
        return seen[0]

    with pytest.raises(Wrong):
        examine(name, remembers)


@pytest.mark.parametrize("name", CHECKS)
def test_what_is_not_written_is_said_in_one_line(name, examine):
    def todo(*given):
        raise NotImplementedError("write this")

    with pytest.raises(Wrong, match="todo isn't written yet") as caught:
        examine(name, todo)
    assert caught.value._render_traceback_() == [str(caught.value)]


@pytest.mark.parametrize("name", CHECKS)
def test_what_makes_no_sense_is_refused_and_mistakes_in_the_code_are_shown(name, examine):
    with pytest.raises((Wrong, TypeError)):
        examine(name, lambda *given: "a ring")

    def breaks(*given):
        return given[17]

    with pytest.raises(IndexError):
        examine(name, breaks)


def test_fresh_inputs_are_fresh(examine):
    drawn = []

    def keeps(heat, threshold):
        drawn.append(heat)
        return cut(heat, threshold)

    for _ in range(2):
        examine("check_cut", keeps)
    assert len({tuple(heat.flatten().tolist()) for heat in drawn}) == len(drawn) == 8


def test_log_probability_is_blips_own_loss(captioner):
    model = captioner.model
    pixels = torch.zeros(1, 3, *[model.config.vision_config.image_size] * 2)
    seen = model.vision_model(pixels)[0]

    def score(words):
        out = model.text_decoder(torch.tensor([list(words)]), encoder_hidden_states=seen)
        return dict(enumerate(out.logits[0, -1].double().tolist()))

    words = [1, 5, 6, 2]
    logits = model.text_decoder(torch.tensor([words]), encoder_hidden_states=seen).logits[0]
    wanted = -F.cross_entropy(logits[:-1].double(), torch.tensor(words[1:]), reduction="sum")
    assert log_probability(words, score) == pytest.approx(float(wanted), rel=1e-4)
