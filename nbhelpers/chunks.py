"""The noun chunks of a caption: the phrases that name things, and the one that is meant."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from spacy.language import Language
    from spacy.tokens import Doc, Token

from nbhelpers.errors import quoted
from nbhelpers.words import (
    BEINGS,
    FUNCTION_WORDS,
    MEASURES,
    POSITIONS,
    PREPOSITIONS,
    PRONOUNS,
    SPEAKERS,
    singular,
    split_words,
)

__all__ = ["Chunk", "find_head", "find_target", "noun_chunks"]

NOMINAL = frozenset({"NOUN", "PROPN", "PRON"})
# A noun with one of these labels is part of another phrase or of none ("far left", "last week").
DEPENDENT = frozenset(
    "compound amod nmod poss nummod quantmod det predet npadvmod advmod expl case punct prep aux "
    "nn intj meta mark cc".split()
)
OBJECTS = frozenset({"nsubj", "nsubjpass", "dobj", "pobj", "dative"})
# What stands behind a noun.
BEHIND = frozenset({"prep", "acl", "relcl", "appos", "conj", "cc", "punct", "case"})
# What a noun phrase keeps to the left of its noun.
INSIDE = frozenset("det amod compound nmod nummod poss predet quantmod advmod neg".split())


@dataclass(frozen=True)
class Chunk:
    """A base noun phrase of a caption and its head noun, both by characters.

    Attributes:
        text: The phrase with its determiner, ``caption[start:end]``.
        start: The index of its first character in the caption.
        end: The index after its last.
        noun: The head noun as written, ``caption[noun_start:noun_end]``.
        noun_start: The index of the noun's first character in the caption.
        noun_end: The index after its last.
    """

    text: str
    start: int
    end: int
    noun: str
    noun_start: int
    noun_end: int

    def __str__(self) -> str:
        return self.text


def noun_chunks(caption: str, parser: Language) -> tuple[Chunk, ...]:
    """Finds the base noun phrases of a caption, in order, none overlapping (section 3.2, "parse").

    They are spaCy's own, and what spaCy leaves out of a fragment: a noun that the parse hangs
    where its iterator doesn't reach, and a head with an article that the tagger took for no noun.
    Neighbors of one noun phrase ("red shirt" and "man", "mid" and "left ball") are one chunk.
    The opening of a prompt ("a photograph") is a chunk like any other.

    Args:
        caption: A sentence, a caption or a referring phrase such as "guy blue shirt far left".
            Emoji and other signs are read as spaces.
        parser: A spaCy pipeline with parts of speech and dependencies.

    Raises:
        ValueError: The caption is empty or names nothing, or the pipeline has no parser.
        TypeError: The caption is no text.
    """
    if not isinstance(caption, str):
        raise TypeError(f"the caption must be a string, got {type(caption).__name__}")
    text, origins = _readable(caption)
    if not text:
        raise ValueError(f"the caption is empty (got {quoted(caption)}); write what to look for")
    doc = parser(text)
    if not doc.has_annotation("DEP") or not doc.has_annotation("POS"):
        raise ValueError(
            f"the spaCy pipeline has {parser.pipe_names} and sets no parts of speech or no "
            'dependencies; load one with a tagger and a parser, such as "en_core_web_sm"'
        )
    chunks = []
    for start, end in _spans(doc):
        noun = doc[end - 1]
        first, last = origins[doc[start].idx], origins[noun.idx + len(noun) - 1] + 1
        head = origins[noun.idx]
        chunks.append(Chunk(caption[first:last], first, last, caption[head:last], head, last))
    if not chunks:
        raise ValueError(
            f"no noun was found in {quoted(caption)}; name a thing, as in 'the black horse'"
        )
    return tuple(chunks)


def _readable(caption: str) -> tuple[str, list[int]]:
    """Returns the caption without emoji, controls and doubled spaces, and where each was."""
    kept: list[tuple[str, int]] = []
    for index, character in enumerate(caption):
        kind = unicodedata.category(character)
        if kind[0] == "Z" or kind in {"So", "Sk", "Cc", "Cs", "Cn", "Co"}:
            if kept and kept[-1][0] != " ":
                kept.append((" ", index))
        elif kind not in {"Cf", "Me"} and not "\ufe00" <= character <= "\ufe0f":
            kept.append((character, index))
    text = "".join(character for character, _ in kept).rstrip(" ")
    return text, [index for _, index in kept]


def _spans(doc: Doc) -> list[tuple[int, int]]:
    """Finds the token spans of spaCy's chunks and of the nouns that it leaves out, in order."""
    found = [trim(doc, chunk.start, chunk.end) for chunk in doc.noun_chunks]
    found = [(start, end) for start, end in found if start < end]
    covered = {i for start, end in found for i in range(start, end)}
    for token in doc:
        if token.i not in covered and _names_a_thing(token):
            start = _left_end(token, covered)
            covered.update(range(start, token.i + 1))
            found.append((start, token.i + 1))
    joined: list[tuple[int, int]] = []
    for start, end in sorted(found):
        if joined and _is_one_phrase(doc, joined[-1], (start, end)):
            joined[-1] = joined[-1][0], end
        else:
            joined.append((start, end))
    return joined


def _is_one_phrase(doc: Doc, left: tuple[int, int], right: tuple[int, int]) -> bool:
    """Tells whether neighboring chunks are one phrase whose noun is the last ("red shirt man").

    In fragments the parse says little of it: "man" hangs on "shirt" there, and "shirt" on "man"
    in "man red shirt". The words decide. A person or animal is never a mere modifier.
    """
    if any(doc[i].text != "-" for i in range(left[1], right[0])):
        return False
    first, last, opens = doc[left[1] - 1], doc[right[1] - 1], doc[right[0]]
    if first.pos_ == "PRON" or last.pos_ not in {"NOUN", "PROPN"}:
        return False
    if opens.pos_ in {"DET", "PRON"} or opens.dep_ in {"det", "poss"}:
        return False
    if first.lower_ in POSITIONS:
        return True
    if opens.pos_ == "NUM" or last.lower_ in POSITIONS:
        return False
    if singular(last.text) in BEINGS:
        return True
    # Not "two oranges sit" nor "the ring lies", whose verbs a tagger may take for nouns.
    agrees = singular(first.text) != first.lower_ or last.lower_.endswith("s")
    return singular(first.text) not in BEINGS and right[1] - right[0] == 1 and not agrees


def trim(doc: Doc, start: int, end: int) -> tuple[int, int]:
    """Trims quotes, brackets and "and" before a phrase's span of tokens, and signs behind it."""
    while start < end and (not _is_word(doc[start]) or doc[start].pos_ == "CCONJ"):
        start += 1
    while start < end and not _is_word(doc[end - 1]):
        end -= 1
    return start, end


def _is_word(token: Token) -> bool:
    return any(character.isalnum() for character in token.text)


def _names_a_thing(token: Token) -> bool:
    """Tells whether a word outside every chunk is the head of a noun phrase, whatever its tag.

    A tagger that hasn't met a noun often takes it for a verb; its position tells better.
    """
    if not _is_word(token) or token.pos_ in {"PRON", "DET", "NUM", "ADP", "AUX"}:
        return False
    if token.pos_ in {"NOUN", "PROPN"}:
        return token.dep_ not in DEPENDENT
    lefts = [child for child in token.children if child.i < token.i]
    if any(child.dep_ in {"det", "poss"} for child in lefts):  # "the bat"
        return token.dep_ not in {"amod", "advmod", "npadvmod"}
    if token.pos_ == "ADV" or re.search(r"\w\w(ing|[^e]ed)$", token.lower_):  # a participle
        return False
    if token.dep_ in OBJECTS:  # "in red", "wearing red"
        return token.head.pos_ in {"VERB", "AUX", "ADP"}
    alone = token.pos_ != "ADJ" and all(c.dep_ in BEHIND for c in token.children)
    if token.dep_ == "conj":  # "wrist and ankle"
        return alone and token.head.pos_ in NOMINAL
    return alone and token.dep_ == "ROOT" and not lefts and token.i == 0  # "goalie in orange"


def _left_end(noun: Token, covered: set[int]) -> int:
    """Finds where the phrase of `noun` begins."""
    start = noun.i
    for child in sorted((c for c in noun.children if c.i < noun.i), key=lambda c: -c.i):
        inside = range(child.left_edge.i, start)
        if child.dep_ not in INSIDE or covered.intersection(inside):
            break
        start = child.left_edge.i
    return start


def find_target(
    chunks: Sequence[Chunk], target: str | None = None, *, after: int = 0, caption: str = ""
) -> int:
    """Returns the index of the chunk that a word or phrase means.

    A chunk whose noun is the target's comes first, singular or plural ("dog" finds "dogs"); among
    several the target's other words decide ("white dog"), then the very form of the noun, then
    the order. A target that is no chunk's noun is sought among the chunks' other words.

    Args:
        chunks: From `noun_chunks`.
        target: A word or phrase; None for the first chunk.
        after: Only chunks that start at this character or later count.
        caption: What the chunks were found in, for the error's text.

    Raises:
        ValueError: No chunk holds the target; the message lists the chunks.

    Example:
        >>> dogs = [Chunk("white dog", 0, 9, "dog", 6, 9),
        ...         Chunk("two black dogs", 23, 37, "dogs", 33, 37)]
        >>> find_target(dogs), find_target(dogs, "dogs"), find_target(dogs, "black dog")
        (0, 1, 1)
    """
    listed = ", ".join(quoted(chunk.text) for chunk in chunks[:8]) or "none"
    listed += f", and {len(chunks) - 8} more" if len(chunks) > 8 else ""
    where = f" in {quoted(caption)}" if caption else ""
    allowed = [i for i, chunk in enumerate(chunks) if chunk.start >= after]
    if not allowed:
        raise ValueError(
            f"no noun chunk starts at character {after} or later{where}; the chunks are: {listed}"
        )
    if target is None:
        return allowed[0]
    words = _own_words(target)
    if not words:
        raise ValueError(f"the target {quoted(target)} holds no word; give a noun, such as 'ring'")
    singulars = {singular(word) for word in words}
    ranks: dict[int, tuple[int, ...]] = {}
    for i in allowed:
        inside = [word.lower() for word in split_words(chunks[i].text)]
        noun = chunks[i].noun.lower()
        is_noun = singular(noun) in singulars
        shared = len(set(words) & set(inside)) + (is_noun and noun not in words)
        # "red car" is not "a red ring": where the noun is another, all of the words are there.
        if not shared or not (is_noun or set(words) <= set(inside)):
            continue
        last = singular(words[-1]) == singular(noun)
        ranks[i] = (is_noun, last, shared, noun in words, -i)
    if not ranks:
        raise ValueError(
            f"the target {quoted(target)} is in no noun chunk{where}; the chunks are: {listed}"
        )
    return max(ranks, key=ranks.__getitem__)


def find_head(
    chunks: Sequence[Chunk], caption: str, start: int = 0, end: int | None = None
) -> int:
    """Returns the index of the chunk that a phrase is about, where it stands in a caption.

    It is the first chunk that names a thing by itself. Words of position ("the left side of
    the bus"), measures ("a pair of skis"), the viewer ("closest to us white ball") and what
    follows a preposition are taken only where nothing better is there.

    Args:
        chunks: From `noun_chunks`.
        caption: What the chunks were found in.
        start: The index of the phrase's first character in the caption.
        end: The index after its last; the caption's end when None.

    Raises:
        ValueError: No chunk touches the phrase.

    Example:
        >>> text = "a pair of old skis"
        >>> find_head([Chunk("a pair", 0, 6, "pair", 2, 6),
        ...            Chunk("old skis", 10, 18, "skis", 14, 18)], text)
        1
    """
    end = len(caption) if end is None else end
    inside = [i for i, c in enumerate(chunks) if c.start < end and c.end > start]
    if not inside:
        raise ValueError(
            f"no noun chunk was found in {quoted(caption[start:end])}; name a thing, as in "
            "'the black horse'"
        )
    best, at, skipped = (9, 0), start, False
    for i in inside:
        noun = chunks[i].noun.lower()
        before = split_words(caption[at : chunks[i].start].lower())
        behind = split_words(caption[chunks[i].end : end].lower())
        position = is_position(noun)
        measure = singular(noun) in MEASURES and behind[:1] == ["of"]
        measured = skipped and before == ["of"]
        governed = bool(before) and before[-1] in PREPOSITIONS and not measured
        if position or measure:
            tier = 4
        elif noun in SPEAKERS and (noun not in ("camera", "viewer") or governed):
            tier = 3
        elif noun in PRONOUNS and not governed:
            tier = 1
        else:
            tier = 2 if governed else 0
        best = min(best, (tier, i))
        at, skipped = chunks[i].end, tier == 4
    return best[1]


def is_position(noun: str) -> bool:
    """Tells whether a noun is a word of position, such as "left" or "2nd"."""
    return noun.lower() in POSITIONS or re.fullmatch(r"\d+[a-z]{2}", noun.lower()) is not None


def is_thing(noun: str) -> bool:
    """Tells whether a noun names a thing by itself, as "left", "one" and "him" don't."""
    return not is_position(noun) and noun.lower() not in {*SPEAKERS, *PRONOUNS, "one", "ones"}


def find_phrase(phrase: str, caption: str, chunks: Sequence[Chunk]) -> tuple[int, int] | None:
    """Finds where a phrase stands in a caption, by whole words, with or without its article.

    Of several spans the first counts that holds the noun of a chunk: "ball" in "a ball bearing
    and a ball". None without any.

    Args:
        phrase: Such as "the white ball", which is found in "a white ball and a ring".
        caption: The text to search.
        chunks: The caption's, from `noun_chunks`.

    Example:
        >>> find_phrase("ring", "a string and a ring", [])
        (15, 19)
    """
    words = split_words(phrase)
    for first in range(len(words)):
        if first and words[first - 1].lower() not in FUNCTION_WORDS:
            break
        pattern = r"[\W_]+".join(map(re.escape, words[first:]))
        found = re.finditer(rf"(?<![^\W_]){pattern}(?![^\W_])", caption, re.IGNORECASE)
        spans = [match.span() for match in found]
        nouns = [
            s for s in spans if any(s[0] <= c.noun_start and c.noun_end <= s[1] for c in chunks)
        ]
        touched = [s for s in spans if any(c.start < s[1] and c.end > s[0] for c in chunks)]
        if best := nouns or touched or (spans if not chunks else []):
            return best[0]
    return None


def _own_words(target: str) -> list[str]:
    """Returns a target's words without articles, up to the preposition that ends its phrase."""
    words: list[str] = []
    for word in map(str.lower, split_words(target)):
        if word in PREPOSITIONS and words:
            break
        if word not in FUNCTION_WORDS:
            words.append(word)
    return words or [word.lower() for word in split_words(target)]
