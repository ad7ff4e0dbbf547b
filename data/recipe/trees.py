"""Sentences with their trees: read from treebanks, cut into phrases, typed as captions are."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Tree", "fragments", "plain", "read_conllu", "read_folder", "split_trees"]


@dataclass
class Tree:
    """One sentence with its universal part of speech, head (-1: root) and label per word."""

    words: list[str]
    spaces: list[bool]
    pos: list[str]
    heads: list[int]
    deps: list[str]
    source: str = field(default="")

    def children(self, head: int) -> list[int]:
        """Return the words that hang on word `head`, in order."""
        return [i for i, other in enumerate(self.heads) if other == head]

    def subtree(self, head: int) -> list[int]:
        """Word `head` and everything below it, in order."""
        found, stack = {head}, [head]
        while stack:
            below = [c for c in self.children(stack.pop()) if c not in found]
            found.update(below)
            stack.extend(below)
        return sorted(found)

    @property
    def text(self) -> str:
        """Return the sentence as written."""
        pieces = (w + " " * s for w, s in zip(self.words, self.spaces, strict=True))
        return "".join(pieces).strip()


def read_conllu(lines: Iterable[str], *, source: str = "") -> Iterator[Tree]:
    """Read CoNLL-U sentences, without their empty nodes.

    Args:
        lines: the lines of a file.
        source: kept in each tree, to tell where it came from.
    """
    rows: list[list[str]] = []
    inside_range, range_end = -1, -1
    glued: set[int] = set()
    for line in [*lines, ""]:
        line = line.rstrip("\n")
        if not line:
            if rows:
                yield _tree(rows, glued, source)
            rows, glued, range_end = [], set(), -1
        elif not line.startswith("#"):
            columns = line.split("\t")
            if len(columns) != 10:
                raise ValueError(f"a CoNLL-U row has 10 columns, got {len(columns)}: {line!r}")
            if "-" in columns[0]:
                inside_range, range_end = map(int, columns[0].split("-"))
                glued.update(range(inside_range, range_end))
                if "SpaceAfter=No" in columns[9]:
                    glued.add(range_end)
            elif "." not in columns[0]:
                if int(columns[0]) > range_end and "SpaceAfter=No" in columns[9]:
                    glued.add(int(columns[0]))
                rows.append(columns)


def _tree(rows: list[list[str]], glued: set[int], source: str) -> Tree:
    return Tree(
        words=[r[1] for r in rows],
        spaces=[int(r[0]) not in glued for r in rows],
        pos=[r[3] for r in rows],
        heads=[int(r[6]) - 1 for r in rows],
        deps=[r[7] for r in rows],
        source=source,
    )


def plain(tree: Tree) -> Tree:
    """Return the sentence in lower case without punctuation, as captions and phrases are typed."""
    keep = [
        i for i, pos in enumerate(tree.pos)
        if pos != "PUNCT" or tree.children(i) or tree.words[i] in {"-", "'"}
    ]  # fmt: skip
    copy = _select(tree, keep)
    copy.words = [w.lower() for w in copy.words]
    return copy


def fragments(tree: Tree, rng: random.Random, *, most: int = 1) -> list[Tree]:
    """Return noun phrases of a sentence, each a tree of its own ("the cat on the mat")."""
    roots = []
    for i in range(len(tree.words)):
        span = tree.subtree(i)
        whole = span[-1] - span[0] + 1 == len(span)
        if tree.pos[i] in {"NOUN", "PROPN"} and whole and 2 <= len(span) <= 12:
            roots.append(i)
    cut = []
    for root in rng.sample(roots, min(most, len(roots))):
        span = [i for i in tree.subtree(root) if tree.deps[i] != "punct"]
        piece = _select(tree, span, root=root)
        if len(piece.words) > 1 and "case" not in piece.deps[-1:]:
            cut.append(piece)
    return cut


def _select(tree: Tree, keep: list[int], *, root: int | None = None) -> Tree:
    index = {old: new for new, old in enumerate(keep)}
    heads = [-1 if i == root else index.get(tree.heads[i], -1) for i in keep]
    deps = ["ROOT" if i == root else tree.deps[i] for i in keep]
    words, pos = [tree.words[i] for i in keep], [tree.pos[i] for i in keep]
    spaces = [tree.spaces[i] or (i + 1 < len(tree.words) and i + 1 not in index) for i in keep]
    return Tree(words, spaces, pos, heads, deps, tree.source)


def split_trees(
    trees: list[Tree], *, held_out: int, seed: int = 0
) -> tuple[list[Tree], list[Tree]]:
    """Set `held_out` trees aside by a seed: (to train on, to score on)."""
    order = list(range(len(trees)))
    random.Random(seed).shuffle(order)
    aside = set(order[:held_out])
    return [t for i, t in enumerate(trees) if i not in aside], [trees[i] for i in sorted(aside)]


def read_folder(folder: Path, pattern: str) -> list[Tree]:
    """Return all sentences of the CoNLL-U files of `folder` that match, by the files' names.

    Raises:
        FileNotFoundError: no file of the folder matches.
    """
    paths = sorted(Path(folder).glob(pattern))
    if not paths:
        raise FileNotFoundError(
            f"no treebank {pattern!r} in {folder}: give the folder that holds the Universal "
            "Dependencies English treebanks (EWT, PUD, ATIS) as .conllu files"
        )
    trees: list[Tree] = []
    for path in paths:
        with path.open(encoding="utf-8") as lines:
            trees.extend(read_conllu(lines, source=path.stem))
    return trees
