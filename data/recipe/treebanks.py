"""Universal Dependencies to the labels that spaCy's English `noun_chunks` reads.

spaCy's iterator asks for subjects, objects, `pobj`, `attr`, `appos`, `conj` and `ROOT` on nouns
and takes everything from the left edge of the noun's subtree to the noun. UD hangs prepositions
under nouns, copulas under predicates, "and" under the later conjunct and names under their first
word, so each would put wrong words in a chunk or lose it. `to_spacy` turns the tree over.
"""

from __future__ import annotations

import itertools

from recipe.trees import Tree

__all__ = ["to_spacy"]

NOMINAL = frozenset({"NOUN", "PROPN", "PRON", "NUM", "SYM", "X"})
INSIDE = frozenset({"det", "amod", "compound", "nummod", "nmod", "poss", "predet", "flat"})
LABELS = {
    "root": "ROOT", "nsubj": "nsubj", "nsubj:pass": "nsubjpass", "nsubj:outer": "nsubj",
    "obj": "dobj", "iobj": "dative", "csubj": "csubj", "csubj:pass": "csubjpass",
    "ccomp": "ccomp", "xcomp": "xcomp", "advcl": "advcl", "advcl:relcl": "advcl", "acl": "acl",
    "acl:relcl": "relcl", "amod": "amod", "nummod": "nummod", "det": "det",
    "det:predet": "predet", "nmod:poss": "poss", "nmod:desc": "compound", "compound": "compound",
    "compound:prt": "prt", "flat": "compound", "fixed": "prep", "appos": "appos", "conj": "conj",
    "cc": "cc", "cc:preconj": "preconj", "aux": "aux", "aux:pass": "auxpass", "mark": "mark",
    "advmod": "advmod", "discourse": "intj", "vocative": "npadvmod", "expl": "expl",
    "dislocated": "appos", "list": "appos", "parataxis": "parataxis", "orphan": "dep",
    "reparandum": "dep", "dep": "dep", "punct": "punct", "obl:agent": "agent",
}  # fmt: skip
UNMARKED = frozenset({"obl:tmod", "nmod:tmod", "obl:unmarked", "nmod:unmarked"})


def to_spacy(tree: Tree) -> Tree | None:
    """Turn a UD tree into one with spaCy's English labels.

    Returns:
        The new tree, or None where the sentence can't be read as one (words torn in two).
    """
    if "goeswith" in tree.deps or tree.heads.count(-1) != 1:
        return None
    new = Tree(
        list(tree.words), list(tree.spaces), list(tree.pos), list(tree.heads), list(tree.deps),
        tree.source,
    )  # fmt: skip
    for step in (_names, _copulas, _prepositions, _conjuncts, _labels, _edges):
        step(new)
    return new


def _swap(tree: Tree, old: int, new: int) -> None:
    """Let word `new` stand instead of word `old` under old's head."""
    tree.heads[new], tree.deps[new] = tree.heads[old], tree.deps[old]
    tree.heads[old] = new


def _names(tree: Tree) -> None:
    """A "flat" name leans on its first word in UD, on its last noun in spaCy ("Acrobat 4.0")."""
    for first in range(len(tree.words)):
        rest = [c for c in tree.children(first) if tree.deps[c] == "flat"]
        last = next((c for c in reversed(rest) if tree.pos[c] != "NUM"), first)
        if last != first:
            for child in tree.children(first):
                if child != last:
                    tree.heads[child] = last
            _swap(tree, first, last)
            tree.deps[first] = "compound"
        for child in rest:
            if child != last:
                tree.deps[child] = "compound" if child < last else "nummod"


def _copulas(tree: Tree) -> None:
    """A predicate carries its copula in UD; in spaCy "be" is the verb, the predicate its attr."""
    moved = {
        "nsubj", "nsubj:pass", "nsubj:outer", "csubj", "aux", "mark", "expl", "advcl", "punct",
        "discourse", "cc", "parataxis", "dislocated", "vocative", "ccomp", "list",
    }  # fmt: skip
    for be in range(len(tree.words)):
        if tree.deps[be] != "cop":
            continue
        predicate = tree.heads[be]
        children = tree.children(predicate)
        is_noun = tree.pos[predicate] in NOMINAL
        start = min(
            [predicate, *(c for c in children if c > be and tree.deps[c].split(":")[0] in INSIDE)]
        )
        for child in children:
            dep = tree.deps[child]
            before = child < start and (child < be or is_noun or tree.words[child] in NEGATIONS)
            clause = dep in moved or (dep.split(":")[0] in {"advmod", "obl"} and before)
            late = is_noun and child > predicate and dep.split(":")[0] in {"obl", "advmod"}
            sentence = dep == "conj" and any(
                tree.deps[c].split(":")[0] in {"nsubj", "cop", "aux"} for c in tree.children(child)
            )
            early = dep == "case" and child < be
            inner = dep == "punct" and predicate < child < be
            if child != be and not early and not inner and (clause or late or sentence):
                tree.heads[child] = be
        _swap(tree, predicate, be)
        tree.deps[predicate] = "attr" if is_noun else "acomp"
        if tree.pos[predicate] == "ADV":
            tree.deps[predicate] = "advmod"


NEGATIONS = frozenset({"not", "n't", "never"})


def _prepositions(tree: Tree) -> None:
    """UD's `case` hangs under its noun; spaCy's prep stands over it (possessive 's stays)."""
    taken = {"nmod", "obl", "xcomp", "advcl", "acl", "dep", "attr", "acomp", "advmod", "list"}
    for noun in range(len(tree.words)):
        cases = [c for c in tree.children(noun) if tree.deps[c] == "case" and c < noun]
        cases = [c for c in cases if tree.words[c].lower() not in {"'s", "’s", "'"}]
        if not cases:
            continue
        first, last = cases[0], cases[-1]
        dep = tree.deps[noun]
        _swap(tree, noun, first)
        if dep.split(":")[0] in taken and dep != "obl:agent":
            tree.deps[first] = "prep"
        for outer, inner in itertools.pairwise(cases):  # "out of", "next to"
            tree.heads[inner], tree.deps[inner] = outer, "prep"
        tree.heads[noun] = last
        tree.deps[noun] = "pcomp" if tree.pos[noun] == "VERB" else "pobj"
        for child in tree.children(noun):  # "only in the house": "only" may not enter the chunk
            if child < first:
                tree.heads[child] = first
            elif child < last and tree.deps[child] != "case":
                tree.heads[child] = last


def _conjuncts(tree: Tree) -> None:
    """UD hangs "and" and commas on the later conjunct; spaCy on the one before, in a chain."""
    for first in range(len(tree.words)):
        chain = [c for c in tree.children(first) if tree.deps[c] == "conj" and c > first]
        before = first
        for conjunct in chain:
            tree.heads[conjunct] = before
            for child in tree.children(conjunct):
                if child < conjunct and tree.deps[child] in {"cc", "punct"}:
                    tree.heads[child] = before
            before = conjunct


def _labels(tree: Tree) -> None:
    """Write spaCy's label for UD's; adjuncts without a preposition depend on where they stand."""
    known = set(LABELS.values()) | {"prep", "pobj", "pcomp", "attr", "acomp", "case"}
    for i, dep in enumerate(tree.deps):
        word, pos, left = tree.words[i].lower(), tree.pos[i], i < tree.heads[i]
        if dep in UNMARKED:
            new = "npadvmod"
        elif dep in {"nmod", "obl"} and any(tree.deps[c] == "case" for c in tree.children(i)):
            new = "pobj"  # its preposition was left behind: "which box is it in"
        elif dep == "nmod":  # no preposition: "round trip flight"
            new = "compound" if left else "npadvmod"
        elif dep == "obl":
            new = "npadvmod" if pos != "PROPN" else "dobj"
        elif dep == "xcomp" and pos in NOMINAL:
            new = "attr"
        elif dep == "xcomp" and pos == "ADJ":
            new = "acomp"
        elif dep == "parataxis" and pos in {"NOUN", "PROPN"}:
            new = "appos"  # a noun phrase beside another: a phrase of its own
        elif dep == "advmod" and word in NEGATIONS:
            new = "neg"
        elif dep == "expl" and word == "it":  # "it is good to see you": a subject to spaCy
            new = "nsubj"
        elif dep == "mark" and word == "to" and pos == "PART":
            new = "aux"
        else:
            new = LABELS.get(dep) or (
                dep if dep in known else LABELS.get(dep.split(":")[0], "dep")
            )
        tree.deps[i] = new


def _edges(tree: Tree) -> None:
    """Opening quotes, brackets and "and" at a noun's left edge go to the word above it."""
    for i in range(len(tree.words)):
        head = tree.heads[i]
        loose = tree.deps[i] in {"punct", "cc"} and i < head
        while loose and tree.pos[head] in NOMINAL and tree.heads[head] >= 0:
            if min(tree.subtree(head)) != i:
                break
            head = tree.heads[head]
            tree.heads[i] = head
            if head < i:
                break
