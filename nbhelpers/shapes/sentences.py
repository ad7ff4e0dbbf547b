"""Captions and referring phrases made up with their trees, to train the parser on.

Treebanks hold news and letters: "shirt" stands once in them, "zebra" never, "left" is a verb. This
grammar writes what people type of pictures: "a man riding a horse next to two dogs", "guy blue
shirt far left", "the zebra's head closest to us".
"""

from __future__ import annotations

import itertools
import random
import string

from nbhelpers.shapes import lexicon
from nbhelpers.shapes.modifiers import Modifiers
from nbhelpers.shapes.noun_phrases import Node, flatten
from nbhelpers.shapes.trees import Tree

__all__ = ["Grammar", "disguise"]


class Grammar(Modifiers):
    """A seeded writer of sentences; every call of `sentence` gives another tree.

    Args:
        seed: Two grammars of one seed write the same sentences.

    Example:
        >>> Grammar(0).sentence().text == Grammar(0).sentence().text
        True
    """

    def sentence(self) -> Tree:
        """One caption, referring phrase or fragment, as people type it."""
        forms = [
            (6, self.referring), (5, self.caption), (3, self.clause), (3, self.beside),
            (2, self.drawn), (2, self.bare), (1, self.fragment),
        ]  # fmt: skip
        weights, makers = zip(*forms, strict=True)
        maker = self.rng.choices(makers, weights)[0]
        root = maker()
        if maker in (self.referring, self.beside, self.bare) and self.chance(0.2):
            root = self.opened(root)
        return self.typed(root)

    def described(self, bare: float, least: int = 0) -> Node:
        node = self.group(bare) if self.chance(0.12) else self.phrase(bare=bare)
        count = self.rng.choices([0, 1, 2], [2, 7, 3])[0]
        for _ in range(max(least, count)):
            node.add(*self.modifier(bare))
        return node

    def referring(self) -> Node:
        """ "guy in blue shirt on left", with few articles, or with a bare place word behind"""
        bare = self.rng.choice([0.1, 0.6, 0.95])
        node = self.described(bare)
        if self.chance(0.15):
            node.add(*self.trailing())
        elif self.chance(0.08):
            node.add("acl", self.turned(bare))
        return node

    def turned(self, bare: float) -> Node:
        """ "facing us", "looking at the camera", "standing alone", "facing away" """
        verb = Node(self.pick("facing looking turned staring standing walking leaning"), "VERB")
        if verb.word == "facing" and self.chance(0.7):
            return verb.add("dobj", self.viewer(bare))
        if verb.word in {"looking", "staring"} and self.chance(0.6):
            return verb.add("prep", Node("at", "ADP").add("pobj", self.viewer(bare)))
        where = self.pick("away left right down up sideways alone forward back around")
        return verb.add("advmod", Node(where, "ADV"))

    def trailing(self) -> tuple[str, Node]:
        """A place without preposition: "far left", "top right", "on the left"."""
        word = self.pick("left right left right front back top bottom middle center")
        left = []
        if word in {"left", "right"} and self.chance(0.5):
            left = [("advmod", Node(self.pick("far far top bottom upper lower"), "ADV"))]
        return "advmod", Node(word, "ADV", left=left)

    def bare(self) -> Node:
        """A base noun phrase alone: "black and white horse", "the left guy", "red hat"."""
        return self.phrase(bare=self.rng.choice([0.0, 0.9]))

    def beside(self) -> Node:
        """Phrases side by side without a word between: "guy blue shirt", "woman left side"."""
        node = self.stand_in(0.9) if self.chance(0.1) else self.phrase(bare=0.9)
        if self.chance(0.7) or node.pos == "PRON":
            node = Node(self.pick(lexicon.PEOPLE), "NOUN")
            node.left = self.adjective() if self.chance(0.3) else []
        if self.chance(0.4):
            node.add(*self.modifier(0.95, deep=False))
        second = self.worn()
        if self.chance(0.25):
            second = Node(self.pick("side side corner row end"), "NOUN", left=self.place_word())
        if self.chance(0.25):
            node.add("punct", Node(",", "PUNCT"))
        node.add("appos", second)
        if self.chance(0.3):
            second.add("prep", self.prep(0.95, deep=False))
        elif self.chance(0.2):
            node.add(*self.trailing())
        return node

    def worn(self) -> Node:
        """What is said of someone without a word between: clothes, a body part, a thing."""
        lists = [lexicon.CLOTHES, lexicon.BODY, lexicon.THINGS]
        word = self.pick(self.rng.choices(lists, [6, 2, 2])[0])
        node = self.head(lexicon.plural(word) if self.chance(0.3) else word)
        if self.chance(0.6):
            node.left[:0] = self.adjective()
        return node

    def caption(self) -> Node:
        """ "a man riding a horse next to two dogs", with or without an opening"""
        node = self.described(0.05, least=1)
        if self.chance(0.25):
            self.join(node, self.described(0.05))
        return self.opened(node) if self.chance(0.3) else node

    def opened(self, node: Node) -> Node:
        """ "a photograph of" before a phrase"""
        opening = self.pick("photograph photograph picture photo image view shot drawing close-up")
        outer = self.head(opening)
        outer.left[:0] = self.adjective() if self.chance(0.1) else []
        if not self.chance(0.1):
            first = outer.left[0][1].word if outer.left else outer.word
            article = "an" if first[0] in "aeiou" else "a"
            outer.left.insert(0, ("det", Node(self.pick(f"{article} {article} the"), "DET")))
        word = self.pick("of of of of of with")
        return outer.add("prep", Node(word, "ADP").add("pobj", node))

    def clause(self) -> Node:
        """ "a dog is sleeping on the couch", "there are two cups", "this is a red bus" """
        bare = self.rng.choice([0.03, 0.1, 0.5])
        roll = self.rng.random()
        subject = self.described(bare) if self.chance(0.3) else self.listed(bare)
        if roll < 0.3:
            many = subject.word.endswith("s") or any(dep == "conj" for dep, _ in subject.right)
            verb = self.action(bare, "plain" if many else "present")
            verb.left = [("nsubj", subject)]
        elif roll < 0.62:
            verb = self.action(bare, "ing")
            verb.left = [("nsubj", subject), ("aux", Node(self.pick("is are"), "AUX"))]
        elif roll < 0.72:
            verb = Node(self.pick(lexicon.STATES), "VERB").add("prep", self.prep(bare))
            verb.left = [("nsubjpass", subject), ("auxpass", Node(self.pick("is are"), "AUX"))]
        elif roll < 0.82:
            verb = Node(self.pick("is are was"), "VERB").add("attr", subject)
            verb.left = [("expl", Node("there", "PRON"))]
            if self.chance(0.6):
                verb.add("prep", self.prep(bare))
        elif roll < 0.88:
            verb = Node(self.pick("is are"), "AUX").add("attr", self.described(0.0))
            first = Node(self.pick("this that it these he she"), "PRON")
            verb.left = [("nsubj", first)]
        else:
            verb = Node(self.pick("is are"), "AUX", left=[("nsubj", subject)])
            verb.add(*("prep", self.prep(bare)) if self.chance(0.5)
                     else ("acomp", self.adjective()[0][1]))  # fmt: skip
        if self.chance(0.06):
            verb.add("advcl", self._while(bare))
        return verb

    def _while(self, bare: float) -> Node:
        verb = self.action(bare, "ing", deep=False)
        verb.left = [("mark", Node(self.pick("while as while"), "SCONJ"))]
        if self.chance(0.5):
            verb.left += [("nsubj", self.phrase(bare=bare)), ("aux", Node("is", "AUX"))]
        return verb

    def drawn(self) -> Node:
        """What is said of the drawn world: "a photograph of a striped red ring and a moon"."""
        things = []
        for _ in range(self.rng.choice([1, 1, 2, 2, 3])):
            node = Node(self.pick(lexicon.SHAPES), "NOUN")
            words = [self.pick(lexicon.PATTERNS), self.pick(lexicon.COLORS)]
            keep = [w for w in words if self.chance(0.75)]
            node.left = [("amod", Node(w, "ADJ")) for w in keep]
            if self.chance(0.85):
                first = keep[0] if keep else node.word
                article = self.pick("the " + ("an" if first[0] in "aeiou" else "a"))
                node.left.insert(0, ("det", Node(article, "DET")))
            things.append(node)
        for before, after in itertools.pairwise(things):
            if self.chance(0.5):
                self.join(before, after)
            elif self.chance(0.5):
                to = Node("to", "ADP", left=[("advmod", Node("next", "ADV"))])
                before.add("prep", to.add("pobj", after))
            else:
                word = self.pick("with above below beside under over near behind")
                before.add("prep", Node(word, "ADP").add("pobj", after))
        root = things[0]
        if self.chance(0.3):
            side = Node(
                self.pick("left right top bottom"), "NOUN", left=[("det", Node("the", "DET"))]
            )
            things[-1].add("prep", Node("on", "ADP").add("pobj", side))
        if self.chance(0.5):
            outer = Node(self.pick("photograph picture"), "NOUN", left=[("det", Node("a", "DET"))])
            return outer.add("prep", Node("of", "ADP").add("pobj", root))
        return root

    def fragment(self) -> Node:
        """What has no noun of its own, or hardly one: "red", "far left", "third from left"."""
        roll = self.rng.random()
        if roll < 0.3:
            return self.adjective()[0][1]
        if roll < 0.5:
            return self.trailing()[1]
        if roll < 0.7:
            node = Node(self.pick("third second first last"), "ADJ")
            side = Node(self.pick("left right"), "NOUN")
            if self.chance(0.4):
                side.left.append(("det", Node("the", "DET")))
            node.left = [("det", Node("the", "DET"))] if self.chance(0.2) else []
            return node.add("prep", Node("from", "ADP").add("pobj", side))
        if roll < 0.85:
            return self.action(0.5, "ing")
        return self.prep(0.6)

    def typed(self, root: Node) -> Tree:
        """Spelled as people do: lower case or a capital, with or without the final stop."""
        if self.chance(0.3):
            root.add("punct", Node(".", "PUNCT"))
        tree = flatten(root)
        if self.chance(0.35):
            tree.words[0] = tree.words[0][0].upper() + tree.words[0][1:]
        elif self.chance(0.03):
            tree.words = [word.upper() for word in tree.words]
        return tree


def disguise(tree: Tree, rng: random.Random, share: float) -> Tree:
    """Put made-up words for a share of the nouns, verbs and adjectives, endings kept.

    The parser will meet words that no list holds; so it has to read them from their place.
    """
    words = list(tree.words)
    for i, (word, pos) in enumerate(zip(words, tree.pos, strict=True)):
        if pos not in {"NOUN", "VERB", "ADJ"} or len(word) < 3 or not word.isalpha():
            continue
        if rng.random() < share:
            ending = next((e for e in ENDINGS[pos] if word.lower().endswith(e)), "")
            syllables = rng.choice([1, 1, 2])
            stem = "".join(rng.choice(STARTS) + rng.choice("aeiou") for _ in range(syllables))
            stem += rng.choice(STOPS)
            words[i] = stem + ending
    return Tree(words, tree.spaces, tree.pos, tree.heads, tree.deps, tree.source)


ENDINGS = {
    "NOUN": ("tion", "ness", "ment", "ers", "er", "ies", "es", "s", "y"),
    "VERB": ("ing", "ed", "es", "s"),
    "ADJ": ("ing", "ed", "est", "er", "ful", "y"),
}
STARTS = [*string.ascii_lowercase.translate({ord(c): None for c in "aeiouxq"}), "br", "st", "tr",
          "fl", "gr", "sh", "ch", "pl", "cr"]  # fmt: skip
STOPS = [
    "b",
    "ck",
    "d",
    "ff",
    "g",
    "l",
    "m",
    "n",
    "p",
    "r",
    "ss",
    "t",
    "nk",
    "rd",
    "mp",
    "ndle",
    "lot",
]
