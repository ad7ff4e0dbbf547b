"""English words by what they do in a phrase, and the check of what may be asked for at all."""

import re
import unicodedata

from nbhelpers.errors import quoted

FUNCTION_WORDS = frozenset(
    "a an the this that these those his her its their my your our some any".split()
)
# Words of position, which stand for no thing of their own.
POSITIONS = frozenset(
    "left right mid middle center centre top bottom upper lower front back rear far near corner "
    "side edge end half background foreground leftmost rightmost first second third fourth fifth "
    "last next closest nearest farthest furthest number".split()
)
# What is counted or measured stands behind them: "a pair of skis", "a slice of pizza".
MEASURES = frozenset(
    "pair bunch group set couple lot piece slice bit row crowd herd flock stack pile kind type "
    "sort part handful dozen cluster collection pack portion".split()
)
SPEAKERS = frozenset("i me we us you myself ourselves yourself camera viewer".split())
PRONOUNS = frozenset(
    "he him she her it they them this that these those what which who whom someone somebody "
    "anyone anybody everyone everybody something anything everything himself herself itself "
    "themselves".split()
)
# Persons and animals, whom a fragment names before or behind what they wear.
BEINGS = frozenset(
    "man woman person guy lady girl boy kid child baby toddler gentleman dude gal male female "
    "adult teenager player batter catcher pitcher umpire goalie referee coach rider skier surfer "
    "snowboarder skater skateboarder driver cook chef waiter waitress officer cop policeman "
    "fireman soldier worker farmer nurse doctor teacher student bride groom mother father mom dad "
    "brother sister dog cat horse cow sheep bird elephant bear zebra giraffe puppy "
    "kitten pony calf lamb goat pig duck goose chicken monkey fish lion tiger deer rabbit mouse "
    "bull ox donkey camel".split()
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


def check_text(text: object, what: str = "phrase") -> str:
    """Returns a text with single spaces and composed characters (NFC), nothing else changed.

    Args:
        text: As someone gave it.
        what: What it is, for the message.

    Raises:
        ValueError: The English parser and CLIP can't read it: it is no text, blank, holds half a
            character, or no word in Latin letters.

    Example:
        >>> check_text("  the  white\\nball ")
        'the white ball'
    """
    example = "name a thing, as in 'the black horse'"
    if not isinstance(text, str):
        raise ValueError(f"the {what} is a text; got {type(text).__name__}: {example}")
    tidied = unicodedata.normalize("NFC", " ".join(text.split()))
    if not tidied:
        raise ValueError(f"the {what} is empty; {example}")
    if any("\ud800" <= character <= "\udfff" for character in tidied):
        raise ValueError(f"{quoted(text)} is not valid text: it holds half a character")
    if not is_latin(tidied):
        lack = "holds no word in Latin letters, and the models read English"
        raise ValueError(f"{quoted(text)} {lack}; {example}")
    return tidied


def is_latin(text: str) -> bool:
    """Tells whether any letter of a text is a Latin one.

    >>> is_latin("白い ball"), is_latin("白い球"), is_latin("42")
    (True, False, False)
    """
    names = (unicodedata.name(c, "") for c in text if c.isalpha())
    return any(name.startswith(("LATIN", "FULLWIDTH LATIN")) for name in names)


def split_words(text: str) -> list[str]:
    """Returns the words of a text, without signs."""
    return re.findall(r"[^\W_]+(?:['’](?!s\b)[^\W_]+)*", text)


def singular(word: str) -> str:
    """Returns a noun's singular, or close enough to tell two nouns apart.

    >>> singular("Dogs"), singular("glasses"), singular("puppies"), singular("bus")
    ('dog', 'glass', 'puppy', 'bus')
    """
    word = word.lower()
    if word in IRREGULAR:
        return IRREGULAR[word]
    if word.endswith("men"):
        return word[:-2] + "an"
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    if word.endswith(("sses", "shes", "ches", "xes", "buses", "toes")):
        return word[:-2]
    if word.endswith("s") and not word.endswith(("ss", "us", "is")) and len(word) > 3:
        return word[:-1]
    return word
