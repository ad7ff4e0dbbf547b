"""What people put behind a noun: "in front of a bus", "holding a kite", "who has a hat"."""

from __future__ import annotations

from collections.abc import Callable

from recipe import lexicon
from recipe.noun_phrases import Node, NounPhrases

__all__ = ["Modifiers"]


class Modifiers(NounPhrases):
    """A seeded writer of prepositional phrases, participles, verbs and relative clauses."""

    def prep(self, bare: float, *, deep: bool = True) -> Node:
        """Return a prepositional phrase."""
        roll = self.rng.random()
        if roll < 0.03:  # "in the left bottom corner"
            return Node(self.pick("in in in at on"), "ADP").add("pobj", self.corner(bare))
        if roll < 0.16:  # "on the left", "in back", "at the top right"
            word = self.pick(
                "left right left right middle center top bottom back front end corner"
            )
            node = Node(word, "NOUN")
            if word in {"left", "right"} and self.chance(0.3):
                extra = self.pick("far top bottom upper lower")
                node.left.append(("amod", Node(extra, "ADJ")))
            if not self.chance(max(bare, 0.3)):
                node.left.insert(0, ("det", Node("the", "DET")))
            if word not in {"left", "right"} and self.chance(0.2):
                node.add("prep", Node("of", "ADP").add("pobj", self.phrase(bare=bare)))
            return Node(self.pick("on on on in at to from"), "ADP").add("pobj", node)
        if roll < 0.24:  # "in front of", "on top of", "to the left of"
            form = self.pick("in-front on-top in-back in-middle to-left to-right on-side at-end")
            outer, inner = form.split("-")
            node = Node(inner, "NOUN")
            if inner in {"side", "end"}:
                node.left = self.position_word() if self.chance(0.6) else []
            if inner not in {"front", "top", "back"} and not self.chance(bare):
                node.left.insert(0, ("det", Node("the", "DET")))
            node.add("prep", Node("of", "ADP").add("pobj", self.listed(bare)))
            return Node(outer, "ADP").add("pobj", node)
        if roll < 0.32:  # "next to", "close to", "out of", "on to"
            outer, inner = self.pick(
                "next-to next-to next-to close-to out-of away-from because-of up-to down-from "
                "over-by up-against in-between along-with right-by closest-to nearest-to"
            ).split("-")
            pos = "ADV" if outer in {"next", "close", "away", "along", "closest"} else "ADP"
            node = Node(
                inner, "ADP", left=[("advmod" if pos == "ADV" else "prep", Node(outer, pos))]
            )
            return node.add("pobj", self.listed(bare))
        if roll < 0.40:  # "in red", "in all black"
            node = Node(self.pick(lexicon.COLORS), "NOUN")
            if self.chance(0.25):
                shade = self.pick("light dark bright all solid the")
                pos = "DET" if shade in {"all", "the"} else "ADJ"
                node.left.append(("det" if pos == "DET" else "amod", Node(shade, pos)))
            elif self.chance(0.12):
                self.join(node, Node(self.pick(lexicon.COLORS), "NOUN"))
            return Node(self.pick("in in in in wearing"), "ADP").add("pobj", node)
        if roll < 0.5:  # "with his mouth open", "with hat on", "without a shirt"
            thing = self.listed(bare)
            if self.chance(0.4):
                word, pos = self.pick(
                    "open-ADJ on-ADV up-ADV out-ADV crossed-VERB down-ADV raised-VERB closed-ADJ "
                    "extended-VERB showing-VERB visible-ADJ off-ADV folded-VERB hanging-VERB"
                ).split("-")
                dep = {"ADV": "advmod", "VERB": "acl", "ADJ": "amod"}[pos]
                thing.add(dep, Node(word, pos))
            return Node(self.pick("with with with without w w/"), "ADP").add("pobj", thing)
        word = self.pick(
            "in in in on on on with with at by near of from to under behind over above below "
            "beside between through across into onto around along against inside outside toward "
            "towards past among for underneath beneath without during before after like off "
            "down up"
        )
        node = Node(word, "ADP")
        if self.chance(0.05):
            node.left.append(("advmod", Node(self.pick("right just directly up down out"), "ADV")))
        thing = self.listed(bare)
        if word == "between" and not thing.right:
            self.join(thing, self.phrase(bare=bare))
        node.add("pobj", thing)
        if deep and self.chance(0.22):
            innermost = thing
            while innermost.right and innermost.right[-1][0] in {"conj", "prep", "pobj"}:
                innermost = innermost.right[-1][1]
            if innermost.pos == "NOUN":
                innermost.add(*self.modifier(bare, deep=False))
        return node

    def action(self, bare: float, form: str, *, deep: bool = True) -> Node:
        """Return a verb and what belongs to it; form: "ing", "present" (3rd person) or "plain"."""
        kind = self.rng.choices(["both", "object", "alone"], [4, 2, 4])[0]
        verb = self.pick(lexicon.VERBS[kind])
        forms: dict[str, Callable[[str], str]] = {
            "ing": lexicon.gerund, "present": lexicon.present, "plain": str,
        }  # fmt: skip
        node = Node(forms[form](verb), "VERB")
        if self.chance(0.06) and kind == "alone":
            node.add("prt", Node(self.pick("up down out over around off"), "ADP"))
        if kind == "object" or (kind == "both" and self.chance(0.7)):
            node.add("dobj", self.listed(bare))
        if kind == "alone" and self.chance(0.2):
            where = self.pick(
                "alone together away left right outside down forward sideways here there downhill "
                "upside-down upside-down low high fast close slowly quietly"
            )
            node.add("advmod", self.adverb(where))
        rest = {"object": 0.3, "both": 0.45, "alone": 0.7}[kind]
        if self.chance(rest):
            node.add("prep", self.prep(bare, deep=deep))
            if self.chance(0.25):
                node.add("prep", self.prep(bare, deep=False))
        if self.chance(0.07):
            node.add("cc", Node("and", "CCONJ"))
            node.add("conj", self.action(bare, form, deep=False))
        elif self.chance(0.05):
            node.add("advcl", self.action(bare, "ing", deep=False))
        return node

    def modifier(self, bare: float, *, deep: bool = True) -> tuple[str, Node]:
        """Return something that follows a noun, with its label."""
        roll = self.rng.random()
        if roll < 0.5:
            return "prep", self.prep(bare, deep=deep)
        if roll < 0.74:
            node = self.action(bare, "ing", deep=deep)
            if self.chance(0.05):
                node.left.insert(0, ("neg", Node("not", "PART")))
            elif self.chance(0.05):
                node.left.insert(0, ("advmod", Node(self.pick("about just also still"), "ADV")))
            return "acl", node
        if roll < 0.82:
            node = Node(self.pick(lexicon.STATES), "VERB")
            return "acl", node.add("prep", self.prep(bare, deep=deep))
        if roll < 0.93:
            return "relcl", self.relative(bare)
        if roll < 0.97:  # "closest to us", "third from the left", "full of water"
            word, after = self.pick(
                "closest-to nearest-to closest-to third-from second-from full-of "
                "next-to fourth-in first-on last-in farthest-from similar-to ready-for "
                "furthest-from first-from"
            ).split("-")
            target = self.listed(bare)
            if word in {"closest", "nearest", "farthest", "furthest"} and self.chance(0.5):
                target = self.viewer(bare)
            elif after in {"from", "in", "on"} and self.chance(0.8):
                target = Node(self.pick("left right left right front back end row line"), "NOUN")
                if not self.chance(bare):
                    target.left.append(("det", Node("the", "DET")))
            return "amod", Node(word, "ADJ").add("prep", Node(after, "ADP").add("pobj", target))
        degree = self.pick("partially barely mostly half only not almost")
        state = self.pick("visible hidden seen shown blocked blurry cropped facing")
        return "amod", Node(state, "ADJ", left=[("advmod", Node(degree, "ADV"))])

    def adverb(self, words: str) -> Node:
        """Return "alone"; "upside-down" as two words."""
        *first, last = words.split("-")
        return Node(last, "ADV", left=[("advmod", Node(word, "ADV")) for word in first])

    def viewer(self, bare: float) -> Node:
        word, pos = self.pick(
            "us-PRON you-PRON me-PRON camera-NOUN viewer-NOUN screen-NOUN"
        ).split("-")
        det = [] if pos == "PRON" or self.chance(bare) else [("det", Node("the", "DET"))]
        return Node(word, pos, left=det)

    def relative(self, bare: float) -> Node:
        """Return "that is red", "who has a hat", "whose hair is long", "the man is holding"."""
        who = Node(self.pick("who who that that that which"), "PRON")
        be, pos = Node(self.pick("is is are was looks seems"), "AUX"), self.rng.random()
        if be.word in {"looks", "seems"}:
            be.pos = "VERB"
        subject = [("nsubj", who)]
        if pos < 0.12:
            owned = self.phrase(bare=1.0)
            if owned.pos == "NOUN":
                owned.left = [("poss", Node("whose", "PRON")), *[
                    x for x in owned.left if x[0] in {"amod", "compound"}
                ]]  # fmt: skip
            subject = [("nsubj", owned)]
        if pos < 0.32:
            look = self.adjective()[0][1]
            return Node(be.word, be.pos, left=subject).add("acomp", look)
        if pos < 0.62:
            verb = self.action(bare, "ing", deep=False)
            be.pos, be.word = "AUX", self.pick("is are was")
            verb.left = [*subject, ("aux", be)]
            return verb
        if pos < 0.72:
            be.pos, be.word = "AUX", self.pick("is are was")
            verb = Node(self.pick(lexicon.STATES), "VERB", left=[*subject, ("auxpass", be)])
            if self.chance(0.15):  # "that was painted yellow"
                return verb.add("acomp", self.color())
            return verb.add("prep", self.prep(bare, deep=False))
        if pos < 0.82:  # the object is what is meant: "that the man is holding"
            verb = Node(lexicon.gerund(self.pick(lexicon.VERBS["object"])), "VERB")
            doer = self.phrase(bare=0.1)
            verb.left = [("nsubj", doer), ("aux", Node(self.pick("is are"), "AUX"))]
            if self.chance(0.5):
                verb.left.insert(0, ("dobj", Node(self.pick("that which"), "PRON")))
            return verb
        if pos < 0.9:
            be.pos, be.word = "AUX", self.pick("is are was")
            return Node(be.word, "AUX", left=subject).add("prep", self.prep(bare, deep=False))
        return self._with_subject(self.action(bare, "present", deep=False), subject)

    def _with_subject(self, verb: Node, subject: list[tuple[str, Node]]) -> Node:
        verb.left = [*subject, *verb.left]
        return verb
