"""Noun phrases made up with their trees: "the baby's red hat", "black and white horse"."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from recipe import lexicon
from recipe.trees import Tree

__all__ = ["Node", "NounPhrases", "flatten"]


@dataclass
class Node:
    """A word with what hangs on it to the left and to the right: (label, node)."""

    word: str
    pos: str
    left: list[tuple[str, Node]] = field(default_factory=list)
    right: list[tuple[str, Node]] = field(default_factory=list)

    def add(self, dep: str, node: Node) -> Node:
        """Hang `node` to the right; returns self."""
        self.right.append((dep, node))
        return self


def flatten(root: Node, *, source: str = "grammar") -> Tree:
    """Write a tree of nodes as words, heads and labels."""
    order: list[tuple[Node, Node | None, str]] = []

    def visit(node: Node, head: Node | None, dep: str) -> None:
        for label, child in node.left:
            visit(child, node, label)
        order.append((node, head, dep))
        for label, child in node.right:
            visit(child, node, label)

    visit(root, None, "ROOT")
    index = {id(node): i for i, (node, _, _) in enumerate(order)}
    words = [node.word for node, _, _ in order]
    glued = {"'s", "'", ",", ".", "n't", "-"}
    spaces = [
        w != "-" and after not in glued for w, after in zip(words, [*words[1:], ""], strict=True)
    ]
    return Tree(
        words, spaces, [node.pos for node, _, _ in order],
        [-1 if head is None else index[id(head)] for _, head, _ in order],
        [dep for _, _, dep in order], source,
    )  # fmt: skip


class NounPhrases:
    """A seeded writer of words and noun phrases.

    `bare` is the chance that a phrase has no article, as people leave them out when they refer.
    """

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(f"grammar-{seed}")

    def chance(self, share: float) -> bool:
        return self.rng.random() < share

    def pick(self, options: list[str] | str) -> str:
        return self.rng.choice(options.split() if isinstance(options, str) else options)

    def noun(self) -> tuple[str, bool, bool]:
        """Return a noun, whether plural, whether a mass noun."""
        if self.chance(0.08):
            return self.pick(lexicon.MASS), False, True
        if self.chance(0.055):
            return self.component(), False, False
        groups = [
            (5, lexicon.PEOPLE), (3, lexicon.ANIMALS), (3, lexicon.CLOTHES), (2, lexicon.BODY),
            (7, lexicon.THINGS), (3, lexicon.SCENERY), (1, lexicon.PARTS), (1, lexicon.SHAPES),
            (3, lexicon.STICKERS),
        ]  # fmt: skip
        weights, lists = zip(*groups, strict=True)
        word = self.pick(self.rng.choices(lists, weights)[0])
        if self.chance(0.22):
            return lexicon.plural(word), True, False
        return word, False, False

    def component(self) -> str:
        """Return two or three nouns that name one thing: "lamp base", "jam jar lid"."""
        first = self.pick(
            self.rng.choices(
                [lexicon.THINGS, lexicon.ANIMALS, lexicon.STICKERS, lexicon.SCENERY, lexicon.MASS,
                 lexicon.MATERIAL_NOUNS], [8, 4, 5, 2, 1, 1],
            )[0]
        )  # fmt: skip
        second = self.pick(lexicon.COMPONENTS if self.chance(0.8) else lexicon.THINGS)
        third = f" {self.pick(lexicon.COMPONENTS)}" if self.chance(0.12) else ""
        return f"{first} {second}{third}"

    def head(self, word: str) -> Node:
        """Return a noun's node, a compound's last word over its first ("stop sign", "t-shirt")."""
        parts = word.replace("-", " - ").split()
        node = Node(parts[-1], "NOUN")
        for part in parts[:-1]:
            pos = "PUNCT" if part == "-" else "NOUN"
            node.left.append(("punct" if part == "-" else "compound", Node(part, pos)))
        return node

    def color(self) -> Node:
        node = Node(self.pick(lexicon.COLORS), "ADJ")
        if self.chance(0.15):
            node.left.append(("amod", Node(self.pick("light dark bright pale deep hot"), "ADJ")))
        return node

    def adjective(self) -> list[tuple[str, Node]]:
        roll = self.rng.random()
        if roll < 0.42:
            node = self.color()
            if self.chance(0.18):  # "black and white horse", "red, white and blue kite"
                third = self.color()
                if self.chance(0.25):
                    second = self.color()
                    node.right = [("punct", Node(",", "PUNCT")), ("conj", second)]
                    second.right = [("cc", Node("and", "CCONJ")), ("conj", third)]
                else:
                    node.right = [("cc", Node("and", "CCONJ")), ("conj", third)]
            return [("amod", node)]
        if roll < 0.50:
            return [("amod", Node(self.pick(lexicon.PATTERNS), "ADJ"))]
        if roll < 0.66:
            return self.position_word()
        node = Node(self.pick(lexicon.ADJECTIVES), "ADJ")
        if self.chance(0.12):
            adverb = self.pick("very really slightly partially half mostly fully almost barely")
            node.left.append(("advmod", Node(adverb, "ADV")))
        elif self.chance(0.08):  # "long haired", "half eaten", "gray-haired"
            first = Node(self.pick("long short dark gray blond curly red brown white"), "ADJ")
            body = self.pick("haired sleeved legged eared tailed headed faced colored skinned")
            node = Node(body, "ADJ", left=[("amod", first)])
            if self.chance(0.4):
                node.left.append(("punct", Node("-", "PUNCT")))
        return [("amod", node)]

    def position_word(self) -> list[tuple[str, Node]]:
        if self.chance(0.3):
            return [("amod", Node(self.pick(lexicon.ORDINALS), "ADJ"))]
        word = self.pick(lexicon.SPATIAL)
        if word in lexicon.SIDES and self.chance(0.35):
            return self.two_positions()
        if word in lexicon.SIDES and self.chance(0.15):
            return [("amod", Node(word, "ADJ", left=[("advmod", Node("far", "ADV"))]))]
        if "-" in word:
            first, last = word.split("-")
            node = Node(last, "ADJ", left=[("advmod", Node(first, "ADV"))])
            if self.chance(0.5):
                node.left.append(("punct", Node("-", "PUNCT")))
            return [("amod", node)]
        if self.chance(0.12) and word in {"left", "right", "bottom", "top", "front"}:
            most = Node("most", "ADJ", left=[("advmod", Node(word, "ADV"))])
            return [("amod", most if self.chance(0.5) else Node(word + "most", "ADJ"))]
        return [("amod", Node(word, "ADJ"))]

    def two_positions(self) -> list[tuple[str, Node]]:
        """Return "top left", "left bottom"."""
        words = [self.pick(lexicon.LEVELS), self.pick(lexicon.SIDES)]
        if self.chance(0.4):
            words.reverse()
        return [("amod", Node(word, "ADJ")) for word in words]

    def corner(self, bare: float) -> Node:
        """Return "left bottom corner", "the upper right hand side"."""
        node = Node(self.pick("corner corner corner corner side edge part half end area"), "NOUN")
        node.left = self.two_positions() if self.chance(0.7) else self.position_word()
        if node.left[-1][1].word in lexicon.SIDES and self.chance(0.15):
            node.left.append(("compound", Node("hand", "NOUN")))
        if not self.chance(bare):
            node.left.insert(0, ("det", Node("the", "DET")))
        return node

    def wearer(self, bare: float) -> Node:
        """Return someone named by clothes before the noun: "red shirt man", "long hair girl"."""
        node = self.head(self.pick(lexicon.PEOPLE))
        worn = self.head(self.pick(lexicon.CLOTHES if self.chance(0.8) else "hair hair beard"))
        first = self.color() if self.chance(0.75) else Node(self.pick(lexicon.PATTERNS), "ADJ")
        worn.left.insert(0, ("amod", first))
        node.left.insert(0, ("compound", worn))
        if self.chance(0.25):
            node.left[:0] = self.position_word()
        if not self.chance(bare):
            node.left.insert(0, ("det", Node("the", "DET")))
        return node

    def phrase(self, *, bare: float = 0.25, depth: int = 0) -> Node:
        """Return a base noun phrase; without an article by the chance `bare`."""
        if self.chance(0.025):
            return Node(self.pick("it them him her you us me someone people everyone"), "PRON")
        if self.chance(0.04):
            return self.stand_in(bare)
        if self.chance(0.02):
            return self.corner(bare)
        if self.chance(0.015):  # "number 5", "player 23"
            node = Node(self.pick("number number player bus train shirt jersey car"), "NOUN")
            return node.add("nummod", Node(str(self.rng.randrange(1, 100)), "NUM"))
        word, many, mass = self.noun()
        node = self.head(word)
        compound = self.rng.random()
        if compound < 0.1:
            node.left.insert(0, ("compound", Node(self.pick(lexicon.MATERIAL_NOUNS), "NOUN")))
        elif compound < 0.13:
            first = self.pick(lexicon.SCENERY if self.chance(0.3) else lexicon.THINGS)
            node.left[:0] = [("compound", Node(w, "NOUN")) for w in first.split()]
        count = self.rng.choices([0, 1, 2, 3], [46, 42, 11, 1])[0]
        modifiers = [m for _ in range(count) for m in self.adjective()]
        if len(modifiers) > 1 and self.chance(0.1):
            modifiers.insert(1, ("punct", Node(",", "PUNCT")))
        node.left[:0] = modifiers
        self.determine(node, many, mass, bare, depth)
        return node

    def stand_in(self, bare: float) -> Node:
        """Return "the one", "the red one" or "the two on" something."""
        node = Node("one" if self.chance(0.8) else "ones", "NOUN")
        node.left = self.adjective() if self.chance(0.6) else []
        if not self.chance(bare):
            node.left.insert(0, ("det", Node(self.pick("the the the that this"), "DET")))
        return node

    def leftmost(self, node: Node) -> str:
        """Return the first word of what is written so far."""
        while node.left:
            node = node.left[0][1]
        return node.word

    def determine(self, node: Node, many: bool, mass: bool, bare: float, depth: int) -> None:
        """Put an article, an owner or a number before a noun phrase, or nothing."""
        first = self.leftmost(node)
        if depth < 2 and self.chance(0.07):  # "the baby's head", "guys shirt"
            owner = self.phrase(bare=bare, depth=depth + 1)
            if owner.pos == "PRON":
                owner.word = "someone"
            written = self.rng.random()
            if written < 0.8:
                owner.add("case", Node("'" if owner.word.endswith("s") else "'s", "PART"))
            elif not owner.word.endswith("s") and owner.word not in {"someone"}:
                owner.word += "s"
            else:
                owner.add("case", Node("'s", "PART"))
            node.left.insert(0, ("poss", owner))
            return
        if self.chance(0.06):
            node.left.insert(0, ("poss", Node(self.pick("his her their its my your our"), "PRON")))
            return
        if many and self.chance(0.35):
            node.left.insert(0, ("nummod", Node(self.pick(lexicon.NUMBERS), "NUM")))
            if self.chance(0.2):
                node.left.insert(0, ("det", Node(self.pick("the these those"), "DET")))
            elif self.chance(0.06):
                node.left.insert(0, ("advmod", Node(self.pick("about only just"), "ADV")))
            return
        if self.chance(bare) or ((mass or many) and self.chance(0.45)):
            return
        if many:
            word, pos = (
                self.pick("the the the some several many these those both all other"),
                "DET",
            )
        elif mass:
            word, pos = self.pick("the the some some any no"), "DET"
        elif self.chance(0.5):
            word, pos = ("an" if first[0] in "aeiou" else "a"), "DET"
        else:
            word, pos = self.pick("the the the the the the this that another each one"), "DET"
        if word == "one":
            node.left.insert(0, ("nummod", Node(word, "NUM")))
            return
        if word in {"many", "other"}:
            node.left.insert(0, ("amod", Node(word, "ADJ")))
            return
        node.left.insert(0, ("det", Node(word, pos)))
        if word in {"both", "all"} and self.chance(0.4):
            node.left[0] = ("predet", Node(word, pos))
            node.left.insert(1, ("det", Node("the", "DET")))

    def group(self, bare: float) -> Node:
        """Return "a group of people", "a slice of pizza", "top of the picture"."""
        word = self.pick(
            "group bunch couple pair row pile stack lot bowl plate cup glass slice piece set herd "
            "flock bottle box basket line crowd part side back front top edge end tail leg half "
            "close-up view picture photo photograph image bag number variety handful team corner"
        )
        node = self.head(word)
        if word in {"side", "part", "corner", "leg", "end"} and self.chance(0.5):
            node.left[:0] = self.position_word()
        elif self.chance(0.2):
            node.left[:0] = self.adjective()
        if not self.chance(bare):
            node.left.insert(0, ("det", Node(self.pick("a a the"), "DET")))
        return node.add("prep", Node("of", "ADP").add("pobj", self.listed(bare)))

    def listed(self, bare: float) -> Node:
        """Return one phrase, or several joined by commas and "and"."""
        node = self.phrase(bare=bare)
        roll = self.rng.random()
        if roll < 0.12:
            self.join(node, self.phrase(bare=bare))
        elif roll < 0.16:
            middle = self.phrase(bare=bare)
            node.add("punct", Node(",", "PUNCT")).add("conj", middle)
            if self.chance(0.3):
                middle.add("punct", Node(",", "PUNCT"))
            self.join(middle, self.phrase(bare=bare))
        elif roll < 0.19:
            return self.group(bare)
        return node

    def join(self, first: Node, second: Node) -> None:
        first.add("cc", Node(self.pick("and and and and or"), "CCONJ")).add("conj", second)
