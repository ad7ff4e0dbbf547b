"""How well a spaCy pipeline finds noun chunks: F1 on sentences and phrases it has not seen."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recipe.sentences import Grammar
from recipe.treebanks import to_spacy
from recipe.trees import Tree, plain, read_folder, split_trees

if TYPE_CHECKING:
    from spacy.language import Language
    from spacy.tokens import Doc

__all__ = ["as_doc", "chunk_f1", "read_treebanks", "score_parser"]

HELD_OUT = 500  # sentences of EWT, never trained on


def as_doc(tree: Tree, nlp: Language) -> Doc:
    """Return a converted tree as spaCy's own document, to read its noun chunks or to train on."""
    from spacy.tokens import Doc

    return Doc(
        nlp.vocab,
        words=tree.words,
        spaces=tree.spaces,
        pos=["" if p == "_" else p for p in tree.pos],
        heads=[i if head < 0 else head for i, head in enumerate(tree.heads)],
        deps=tree.deps,
    )


def read_treebanks(treebanks: Path) -> tuple[list[Tree], list[Tree]]:
    """Read and convert the treebanks: (sentences to train on, EWT sentences held out).

    Args:
        treebanks: folder with `en_ewt-ud-{dev,test}.conllu`, `en_pud-ud-test.conllu` and
            `en_atis-ud-*.conllu`. Which EWT sentences are held out never changes.
    """
    ewt, aside = split_trees(read_folder(treebanks, "en_ewt-*.conllu"), held_out=HELD_OUT)
    rest = read_folder(treebanks, "en_pud-*.conllu") + read_folder(treebanks, "en_atis-*.conllu")
    converted = [[new for t in part if (new := to_spacy(t))] for part in (ewt + rest, aside)]
    seen = {plain(t).text for t in converted[1]}
    return [t for t in converted[0] if plain(t).text not in seen], converted[1]


def chunk_f1(gold: Iterable[set[tuple[int, int]]], found: Iterable[set[tuple[int, int]]]) -> float:
    """Return the F1 of noun chunks: a chunk counts when both its ends are right.

    >>> chunk_f1([{(0, 5), (9, 14)}], [{(0, 5), (9, 12)}])
    0.5
    """
    both = of_gold = of_found = 0
    for g, f in zip(gold, found, strict=True):
        both, of_gold, of_found = both + len(g & f), of_gold + len(g), of_found + len(f)
    return 2 * both / max(1, of_gold + of_found)


def spans(doc: Doc) -> set[tuple[int, int]]:
    """Return the character spans of spaCy's noun chunks, without signs at their ends.

    spaCy's iterator begins at whatever stands leftmost under a noun, so that the reference of
    "(Applause" or "** News" holds the sign too. `nbhelpers.noun_chunks` drops it; so does this.
    """
    from nbhelpers.chunks import trim

    trimmed = [trim(doc, chunk.start, chunk.end) for chunk in doc.noun_chunks]
    kept = [doc[start:end] for start, end in trimmed if start < end]
    return {(chunk.start_char, chunk.end_char) for chunk in kept}


def trees_f1(nlp: Language, trees: Sequence[Tree]) -> float:
    """Return the noun-chunk F1 on converted trees, from their raw text."""
    gold = [spans(as_doc(t, nlp)) for t in trees]
    return chunk_f1(gold, [spans(doc) for doc in nlp.pipe(t.text for t in trees)])


def phrase_spans(phrase: dict[str, Any]) -> set[tuple[int, int]]:
    """Return character spans of a hand-written phrase's chunks, which stand in their order."""
    found, at = set(), 0
    for text, _ in phrase["chunks"]:
        at = phrase["text"].index(text, at)
        found.add((at, at + len(text)))
        at += len(text)
    return found


def score_parser(
    nlp: Language,
    *,
    treebanks: Path | None = None,
    phrases: Path | None = None,
    made_up: int = 500,
) -> dict[str, float]:
    """Return the noun-chunk F1 on what the parser has not seen.

    Args:
        nlp: the pipeline.
        treebanks: folder; adds "treebank", the 500 EWT sentences held out.
        phrases: JSON file of hand-written phrases; adds a figure for each list in it, read by
            `nbhelpers.noun_chunks` as users read them.
        made_up: sentences of the grammar from a seed that training never uses ("grammar").
    """
    from nbhelpers.chunks import noun_chunks

    scores: dict[str, float] = {}
    if treebanks is not None:
        scores["treebank"] = trees_f1(nlp, read_treebanks(treebanks)[1])
    if phrases is not None:
        for name, rows in json.loads(Path(phrases).read_text(encoding="utf-8")).items():
            if isinstance(rows, list) and rows and isinstance(rows[0], dict):
                found = []
                for row in rows:
                    try:
                        chunks = noun_chunks(row["text"], nlp)
                    except ValueError:
                        chunks = ()
                    found.append({(c.start, c.end) for c in chunks})
                scores[name] = chunk_f1(map(phrase_spans, rows), found)
    if made_up:
        grammar = Grammar(-1)
        scores["grammar"] = trees_f1(nlp, [grammar.sentence() for _ in range(made_up)])
    return scores
