"""Captions and referring phrases made up with their trees, to train the parser on.

Treebanks hold news and letters: "shirt" stands once in them, "zebra" never, "left" is a verb. This
grammar writes what people type of pictures: "a man riding a horse next to two dogs", "three cows
graze in a field", "guy blue shirt far left", "red shirt man", "left bottom corner", "lamp base".
"""

from __future__ import annotations

import itertools
import random
import string

from recipe import lexicon
from recipe.modifiers import Modifiers
from recipe.noun_phrases import Node, flatten
from recipe.trees import Tree

__all__ = ["Grammar", "disguise"]


class Grammar(Modifiers):
    """A seeded writer of sentences; every call of `sentence` gives another tree.

    Args:
        seed: two grammars of one seed write the same sentences.

    Example:
        >>> Grammar(0).sentence().text == Grammar(0).sentence().text
        True
    """

    def sentence(self) -> Tree:
        """Return one caption, referring phrase or fragment, as people type it."""
        forms = [
            (6, self.referring), (5, self.caption), (9, self.clause), (4, self.beside),
            (3, self.drawn), (2, self.bare), (3, self.pointed), (1, self.fragment),
        ]  # fmt: skip
        weights, makers = zip(*forms, strict=True)
        maker = self.rng.choices(makers, weights)[0]
        root = maker()
        behind = {self.referring: 0.25, self.beside: 0.25, self.bare: 0.25, self.pointed: 0.35}
        if self.chance(behind.get(maker, 0.12 if maker == self.clause else 0)):
            root = self.opened(root)
        return self.typed(root)

    def described(self, bare: float, least: int = 0) -> Node:
        node = self.group(bare) if self.chance(0.12) else self.phrase(bare=bare)
        count = self.rng.choices([0, 1, 2], [2, 7, 3])[0]
        for _ in range(max(least, count)):
            node.add(*self.modifier(bare))
        return node

    def referring(self) -> Node:
        """Return "guy in blue shirt on left", with few articles, or a bare position behind."""
        bare = self.rng.choice([0.1, 0.6, 0.95])
        node = self.described(bare)
        if self.chance(0.15):
            node.add(*self.trailing())
        elif self.chance(0.08):
            node.add("acl", self.turned(bare))
        return node

    def turned(self, bare: float) -> Node:
        """Return "facing us", "looking at the camera", "standing alone", "facing away"."""
        verb = Node(self.pick("facing looking turned staring standing walking leaning"), "VERB")
        if verb.word == "facing" and self.chance(0.7):
            return verb.add("dobj", self.viewer(bare))
        if verb.word in {"looking", "staring"} and self.chance(0.6):
            return verb.add("prep", Node("at", "ADP").add("pobj", self.viewer(bare)))
        where = self.pick("away left right down up sideways alone forward back around")
        return verb.add("advmod", Node(where, "ADV"))

    def trailing(self) -> tuple[str, Node]:
        """Return a position without preposition: "far left", "top right", "on the left"."""
        word = self.pick("left right left right front back top bottom middle center")
        left = []
        if word in {"left", "right"} and self.chance(0.5):
            left = [("advmod", Node(self.pick("far far top bottom upper lower"), "ADV"))]
        return "advmod", Node(word, "ADV", left=left)

    def bare(self) -> Node:
        """Return a base noun phrase alone: "black and white horse", "the left guy", "red hat"."""
        return self.phrase(bare=self.rng.choice([0.0, 0.9]))

    def pointed(self) -> Node:
        """Return a phrase in haste: "red shirt man on left", "closest to us white ball"."""
        roll, bare = self.rng.random(), 0.85
        if roll < 0.4:
            node = self.wearer(bare)
            if self.chance(0.25):
                node.add(*self.trailing())
        elif roll < 0.7:
            node = self.corner(bare)
            if self.chance(0.35):  # "mug, left bottom corner"
                thing = self.phrase(bare=bare)
                if self.chance(0.3):
                    thing.add("punct", Node(",", "PUNCT"))
                return thing.add("appos", node)
            if self.chance(0.3):
                return node.add("prep", Node("of", "ADP").add("pobj", self.phrase(bare=bare)))
        else:  # the position first, then the thing
            word, to = self.pick(
                "closest-to closest-to nearest-to nearest-to next-to furthest-from farthest-from "
                "second-from third-from first-from fourth-from last-on first-on"
            ).split("-")
            where = self.viewer(bare)
            if to in {"from", "on"}:
                where = Node(self.pick(lexicon.SIDES), "NOUN")
                if not self.chance(bare):
                    where.left.append(("det", Node("the", "DET")))
            elif self.chance(0.15):
                where = self.phrase(bare=0.1)
            node = self.phrase(bare=0.9)
            if self.chance(0.25):
                node = self.wearer(0.95)
            position = Node(word, "ADJ").add("prep", Node(to, "ADP").add("pobj", where))
            return position.add("appos", node)
        if self.chance(0.3):
            node.add("prep", self.prep(0.9, deep=False))
        return node

    def beside(self) -> Node:
        """Return phrases side by side, no word between: "guy blue shirt", "woman left side"."""
        node = self.stand_in(0.9) if self.chance(0.1) else self.phrase(bare=0.9)
        if self.chance(0.7) or node.pos == "PRON":
            node = self.head(self.pick(lexicon.PEOPLE))
            if self.chance(0.4):
                node.left[:0] = self.position_word() if self.chance(0.4) else self.adjective()
        if self.chance(0.25):
            node.add(*self.modifier(0.95, deep=False))
        second = self.worn()
        if self.chance(0.25):
            second = Node(self.pick("side side corner row end"), "NOUN", left=self.position_word())
        # Without a comma or an adjective, "lamp base" is a compound; "girl braids" is not.
        two_things = not second.left and node.word not in lexicon.PEOPLE and not node.right
        if two_things or self.chance(0.25):
            node.add("punct", Node(",", "PUNCT"))
        node.add("appos", second)
        if self.chance(0.3):
            second.add("prep", self.prep(0.95, deep=False))
        elif self.chance(0.2):
            node.add(*self.trailing())
        return node

    def worn(self) -> Node:
        """Return what is said of someone without a word between: clothes, a body part, a thing."""
        lists = [lexicon.CLOTHES, lexicon.BODY, lexicon.THINGS]
        word = self.pick(self.rng.choices(lists, [6, 2, 2])[0])
        node = self.head(lexicon.plural(word) if self.chance(0.3) else word)
        if self.chance(0.5):
            node.left[:0] = self.adjective()
        return node

    def caption(self) -> Node:
        """Return "a man riding a horse next to two dogs", with or without an opening."""
        node = self.described(0.05, least=1)
        if self.chance(0.25):
            self.join(node, self.described(0.05))
        return self.opened(node) if self.chance(0.3) else node

    def opened(self, node: Node) -> Node:
        """Return "a photograph of" before a phrase."""
        opening = self.pick("photograph photograph picture photo image view shot drawing close-up")
        outer = self.head(opening.replace("-", " ") if self.chance(0.3) else opening)
        outer.left[:0] = self.adjective() if self.chance(0.1) else []
        if not self.chance(0.1):
            first = outer.left[0][1].word if outer.left else outer.word
            article = "an" if first[0] in "aeiou" else "a"
            outer.left.insert(0, ("det", Node(self.pick(f"{article} {article} the"), "DET")))
        word = self.pick("of of of of of with")
        label = "pobj" if node.pos in {"NOUN", "PRON"} else "pcomp"
        return outer.add("prep", Node(word, "ADP").add(label, node))

    def clause(self) -> Node:
        """Return "a dog is sleeping on the couch", "there are two cups", "this is a red bus"."""
        bare = self.rng.choice([0.03, 0.1, 0.5])
        roll = self.rng.random()
        subject = self.doer(bare)
        if roll < 0.55:
            many = lexicon.is_plural(subject.word) or any(d == "conj" for d, _ in subject.right)
            verb = self.action(bare, "plain" if many else "present")
            verb.left = [("nsubj", subject)]
        elif roll < 0.72:
            verb = self.action(bare, "ing")
            verb.left = [("nsubj", subject), ("aux", Node(self.pick("is are"), "AUX"))]
        elif roll < 0.79:
            verb = Node(self.pick(lexicon.STATES), "VERB").add("prep", self.prep(bare))
            verb.left = [("nsubjpass", subject), ("auxpass", Node(self.pick("is are"), "AUX"))]
        elif roll < 0.86:
            verb = Node(self.pick("is are was"), "VERB").add("attr", subject)
            verb.left = [("expl", Node("there", "PRON"))]
            if self.chance(0.6):
                verb.add("prep", self.prep(bare))
        elif roll < 0.91:
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

    def doer(self, bare: float) -> Node:
        """Return the subject of a clause, often a brief one: "two cats", "an old man"."""
        roll = self.rng.random()
        if roll < 0.2:
            return self.described(bare)
        if roll < 0.45:
            return self.listed(bare)
        node = self.brief(bare)
        if self.chance(0.12):
            self.join(node, self.brief(bare))
        return node

    def brief(self, bare: float) -> Node:
        """Return a noun with little before it and nothing behind."""
        many, kinds = self.chance(0.5), [lexicon.PEOPLE, lexicon.ANIMALS, lexicon.THINGS]
        word = self.pick(self.rng.choices([*kinds, lexicon.STICKERS], [4, 4, 3, 4])[0])
        node = self.head(lexicon.plural(word) if many else word)
        if self.chance(0.35):
            node.left[:0] = self.adjective()
        self.determine(node, many, False, bare, 0)
        return node

    def _while(self, bare: float) -> Node:
        mark = ("mark", Node(self.pick("while as while"), "SCONJ"))
        if self.chance(0.35):  # "while dogs chase it"
            doer = self.brief(bare)
            form = "plain" if lexicon.is_plural(doer.word) else "present"
            verb = self.action(bare, form, deep=False)
            verb.left = [mark, ("nsubj", doer)]
            return verb
        verb = self.action(bare, "ing", deep=False)
        verb.left = [mark]
        if self.chance(0.5):
            verb.left += [("nsubj", self.phrase(bare=bare)), ("aux", Node("is", "AUX"))]
        return verb

    def drawn(self) -> Node:
        """Return a drawn scene: "a photograph of a gray dog behind a red and blue cup"."""
        things = [self.drawn_thing() for _ in range(self.rng.choice([1, 1, 2, 2, 3]))]
        for before, after in itertools.pairwise(things):
            if self.chance(0.4):
                self.join(before, after)
            elif self.chance(0.25):
                before.add("acl", self.shown_doing(after))
            elif self.chance(0.3):
                to = Node("to", "ADP", left=[("advmod", Node("next", "ADV"))])
                before.add("prep", to.add("pobj", after))
            elif self.chance(0.25):  # "to the left of"
                side = Node(self.pick(lexicon.SIDES), "NOUN", left=[("det", Node("the", "DET"))])
                side.add("prep", Node("of", "ADP").add("pobj", after))
                before.add("prep", Node(self.pick("to to on"), "ADP").add("pobj", side))
            else:
                word = self.pick("with above below beside under over near behind on in")
                before.add("prep", Node(word, "ADP").add("pobj", after))
        root = things[0]
        if self.chance(0.2):
            side = Node(
                self.pick("left right top bottom"), "NOUN", left=[("det", Node("the", "DET"))]
            )
            things[-1].add("prep", Node("on", "ADP").add("pobj", side))
        if self.chance(0.5):
            opening = self.pick("photograph photograph drawing picture")
            outer = Node(opening, "NOUN", left=[("det", Node("a", "DET"))])
            return outer.add("prep", Node("of", "ADP").add("pobj", root))
        return root

    def drawn_thing(self) -> Node:
        """Return "the teddy bear", "two black and white sheep", "a woman in the pink shirt"."""
        shape = self.chance(0.25)
        word = self.pick(lexicon.SHAPES if shape else lexicon.STICKERS)
        many = self.chance(0.2)
        node = self.head(lexicon.plural(word) if many else word)
        if shape and self.chance(0.75):
            node.left.insert(0, ("amod", Node(self.pick(lexicon.PATTERNS), "ADJ")))
        if self.chance(0.75):
            color = Node(self.pick(lexicon.COLORS), "ADJ")
            if self.chance(0.15):
                second = Node(self.pick(lexicon.COLORS), "ADJ")
                color.right = [("cc", Node("and", "CCONJ")), ("conj", second)]
            node.left.insert(0, ("amod", color))
        if many and self.chance(0.6):
            node.left.insert(0, ("nummod", Node(self.pick(lexicon.NUMBERS), "NUM")))
        elif self.chance(0.85):
            first = self.leftmost(node)
            one = "some" if many else "an" if first[0] in "aeiou" else "a"
            node.left.insert(0, ("det", Node(self.pick(["the", one]), "DET")))
        if word in lexicon.PEOPLE and self.chance(0.35):
            worn = Node(self.pick(lexicon.COLORS), "NOUN")
            if self.chance(0.5):
                worn = self.worn()
                worn.left.insert(0, ("det", Node(self.pick("the the a"), "DET")))
            node.add("prep", Node("in", "ADP").add("pobj", worn))
        return node

    def shown_doing(self, other: Node) -> Node:
        """Return "holding", "playing with", "sitting on" something."""
        words = self.pick(
            "holding playing-with playing-with riding wearing pulling sitting-on standing-on "
            "standing-behind chasing looking-at"
        ).split("-")
        verb = Node(words[0], "VERB")
        if len(words) == 1:
            return verb.add("dobj", other)
        return verb.add("prep", Node(words[1], "ADP").add("pobj", other))

    def fragment(self) -> Node:
        """Return what has hardly a noun of its own: "red", "far left", "third from left"."""
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

    The parser will meet words that no list holds; so it has to read them by the words around.
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
