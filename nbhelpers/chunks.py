"""A caption's noun chunks: the phrases that name things, and the one that is meant."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from spacy.language import Language
    from spacy.tokens import Doc, Token

__all__ = ["Chunk", "find_target", "noun_chunks"]

NOMINAL = frozenset({"NOUN", "PROPN", "PRON"})
# A noun with one of these labels is part of another phrase or of none ("far left", "last week").
DEPENDENT = frozenset(
    {"compound", "amod", "nmod", "poss", "nummod", "quantmod", "det", "predet", "npadvmod"}
    | {"advmod", "expl", "case", "punct", "prep", "aux", "nn", "intj", "meta", "mark", "cc"}
)
OBJECTS = frozenset({"nsubj", "nsubjpass", "dobj", "pobj", "dative"})
# What stands behind a noun.
BEHIND = frozenset({"prep", "acl", "relcl", "appos", "conj", "cc", "punct", "case"})
# What a noun phrase keeps to the left of its noun.
INSIDE = frozenset(
    {"det", "amod", "compound", "nmod", "nummod", "poss", "predet", "quantmod", "advmod", "neg"}
)


@dataclass(frozen=True)
class Chunk:
    """A base noun phrase of a caption and its head noun, both by characters.

    Attributes:
        text: The phrase with its determiner, ``caption[start:end]``.
        start: Its first character's index in the caption.
        end: The index after its last character.
        noun: The head noun as written, ``caption[noun_start:noun_end]``.
        noun_start: The noun's first character's index in the caption.
        noun_end: The index after the noun's last character.
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
    """The base noun phrases of a caption, in order (section 3.2, step "parse").

    They are spaCy's own, and what spaCy leaves out of a fragment: a noun that the parse hangs
    where its iterator doesn't look, and a head with an article that the tagger took for no noun.
    The opening of a prompt ("a photograph") is a chunk like any other.

    Args:
        caption: A sentence, a caption or a referring phrase such as "guy blue shirt far left".
        parser: A spaCy pipeline with parts of speech and dependencies.

    Returns:
        The chunks; they don't overlap. Emoji and other signs are read as spaces.

    Raises:
        ValueError: The caption is empty or names nothing, or the pipeline has no parser.
    """
    if not isinstance(caption, str):
        raise TypeError(f"the caption must be a string, got {type(caption).__name__}")
    text, places = _readable(caption)
    if not text:
        raise ValueError(f"the caption is empty (got {caption!r}); write what to look for")
    doc = parser(text)
    if not doc.has_annotation("DEP") or not doc.has_annotation("POS"):
        raise ValueError(
            f"the spaCy pipeline has {parser.pipe_names} and sets no parts of speech or no "
            'dependencies; load one with a tagger and a parser, such as "en_core_web_sm"'
        )
    chunks = []
    for start, end in _spans(doc):
        noun = doc[end - 1]
        first, last = places[doc[start].idx], places[noun.idx + len(noun) - 1] + 1
        noun_first = places[noun.idx]
        chunks.append(
            Chunk(caption[first:last], first, last, caption[noun_first:last], noun_first, last)
        )
    if not chunks:
        raise ValueError(
            f"no noun was found in {caption!r}; name a thing, as in 'the striped red ring'"
        )
    return tuple(chunks)


def _readable(caption: str) -> tuple[str, list[int]]:
    """The caption without emoji, controls and doubled spaces, and each character's own place."""
    kept: list[tuple[str, int]] = []
    for place, character in enumerate(caption):
        kind = unicodedata.category(character)
        if kind[0] == "Z" or kind in {"So", "Sk", "Cc", "Cs", "Cn", "Co"}:
            if kept and kept[-1][0] != " ":
                kept.append((" ", place))
        elif kind not in {"Cf", "Me"} and not "\ufe00" <= character <= "\ufe0f":
            kept.append((character, place))
    while kept and kept[-1][0] == " ":
        kept.pop()
    return "".join(c for c, _ in kept), [place for _, place in kept]


def _spans(doc: Doc) -> list[tuple[int, int]]:
    """Token spans of spaCy's chunks and of the nouns that it leaves out, in order."""
    found = []
    for chunk in doc.noun_chunks:
        start, end = trim(doc, chunk.start, chunk.end)
        if start < end:
            found.append((start, end))
    covered = {i for start, end in found for i in range(start, end)}
    for token in doc:
        if token.i not in covered and _names_a_thing(token):
            start = _left_end(token, covered)
            covered.update(range(start, token.i + 1))
            found.append((start, token.i + 1))
    return sorted(found)


def trim(doc: Doc, start: int, end: int) -> tuple[int, int]:
    """A phrase's span of tokens without quotes, brackets and "and" before it and signs behind."""
    while start < end and (not _is_word(doc[start]) or doc[start].pos_ == "CCONJ"):
        start += 1
    while start < end and not _is_word(doc[end - 1]):
        end -= 1
    return start, end


def _is_word(token: Token) -> bool:
    return any(character.isalnum() for character in token.text)


def _names_a_thing(token: Token) -> bool:
    """Whether a word outside every chunk is the head of a noun phrase, whatever its tag.

    A tagger that hasn't met a noun often takes it for a verb; its place tells better.
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
    """Where the phrase of `noun` begins."""
    start = noun.i
    for child in sorted((c for c in noun.children if c.i < noun.i), key=lambda c: -c.i):
        inside = range(child.left_edge.i, start)
        if child.dep_ not in INSIDE or covered.intersection(inside):
            break
        start = child.left_edge.i
    return start


FUNCTION_WORDS = frozenset(
    "a an the this that these those his her its their my your our some any".split()
)
# Where a target phrase's own noun phrase ends: "guy in blue shirt" is a guy.
PREPOSITIONS = frozenset(
    "in on at with without of from to near by behind beside under over above below between next "
    "closest nearest inside outside against across along around toward towards through who that "
    "which whose wearing holding and or".split()
)
IRREGULAR = {
    "men": "man", "women": "woman", "people": "person", "children": "child", "feet": "foot",
    "teeth": "tooth", "geese": "goose", "mice": "mouse", "knives": "knife", "wives": "wife",
    "calves": "calf", "halves": "half", "leaves": "leaf", "loaves": "loaf", "shelves": "shelf",
    "wolves": "wolf", "scarves": "scarf", "hooves": "hoof", "cacti": "cactus", "oxen": "ox",
}  # fmt: skip


def find_target(
    chunks: Sequence[Chunk], target: str | None = None, *, after: int = 0, caption: str = ""
) -> int:
    """The index of the chunk that a word or phrase means.

    A chunk whose noun is the target's comes first, singular or plural ("dog" finds "dogs"); among
    several the target's other words decide ("white dog"), then the very form of the noun, then
    the order. A target that is no chunk's noun is looked for among the chunks' other words.

    Args:
        chunks: From `noun_chunks`.
        target: A word or phrase; None for the first chunk.
        after: Only chunks that start at this character or later are looked at.
        caption: What the chunks were found in, for the error's text.

    Returns:
        An index into `chunks`.

    Raises:
        ValueError: No chunk holds the target; the message lists the chunks.

    Example:
        >>> dogs = [Chunk("white dog", 0, 9, "dog", 6, 9),
        ...         Chunk("two black dogs", 23, 37, "dogs", 33, 37)]
        >>> find_target(dogs), find_target(dogs, "dogs"), find_target(dogs, "black dog")
        (0, 1, 1)
    """
    listed = ", ".join(repr(chunk.text) for chunk in chunks) or "none"
    where = f" in {caption!r}" if caption else ""
    allowed = [i for i, chunk in enumerate(chunks) if chunk.start >= after]
    if not allowed:
        raise ValueError(
            f"no noun chunk starts at character {after} or later{where}; the chunks are: {listed}"
        )
    if target is None:
        return allowed[0]
    words = _own_words(target)
    if not words:
        raise ValueError(f"the target {target!r} holds no word; give a noun, such as 'ring'")
    singular = {_singular(word) for word in words}
    best: tuple[tuple[int, ...], int] | None = None
    for i in allowed:
        inside = [word.lower() for word in _words(chunks[i].text)]
        noun = chunks[i].noun.lower()
        is_noun = _singular(noun) in singular
        shared = len(set(words) & set(inside)) + (is_noun and noun not in words)
        if not shared:
            continue
        last = _singular(words[-1]) == _singular(noun)
        rank = (is_noun, shared, last, noun in words, -i)
        if best is None or rank > best[0]:
            best = rank, i
    if best is None:
        raise ValueError(
            f"the target {target!r} is in no noun chunk{where}; the chunks are: {listed}"
        )
    return best[1]


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+(?:['’](?!s\b)[^\W_]+)*", text)


def _own_words(target: str) -> list[str]:
    """The target's words without articles, up to the preposition that ends its noun phrase."""
    words: list[str] = []
    for word in map(str.lower, _words(target)):
        if word in PREPOSITIONS and words:
            break
        if word not in FUNCTION_WORDS:
            words.append(word)
    return words or [word.lower() for word in _words(target)]


def _singular(word: str) -> str:
    """A noun's singular, or close enough to tell two nouns apart.

    >>> _singular("Dogs"), _singular("glasses"), _singular("puppies"), _singular("bus")
    ('dog', 'glass', 'puppy', 'bus')
    """
    word = word.lower()
    if word in IRREGULAR:
        return IRREGULAR[word]
    for ending in ("men", "women"):
        if word.endswith(ending):
            return word[: -len(ending)] + ending.replace("e", "a")
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    if word.endswith(("sses", "shes", "ches", "xes", "buses", "toes")):
        return word[:-2]
    if word.endswith("s") and not word.endswith(("ss", "us", "is")) and len(word) > 3:
        return word[:-1]
    return word
