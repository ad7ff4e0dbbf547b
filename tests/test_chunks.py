"""Noun chunks of captions and fragments, and the one that is meant."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import spacy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from spacy.tokens import Doc

from nbhelpers.chunks import Chunk, find_target, noun_chunks

SHIPPED = Path(__file__).parents[1] / "data" / "stickers" / "parser"


@pytest.fixture(scope="module")
def parser():
    """The pipeline that comes with the package."""
    if not (SHIPPED / "meta.json").is_file():
        pytest.skip("needs the parser in data/stickers/parser; train it")
    return spacy.load(SHIPPED)


class Parsed:
    """A parser that says what it is told: words with part of speech, head and label."""

    pipe_names = ("told",)

    def __init__(self, *rows):
        self.rows = rows
        self.vocab = spacy.blank("en").vocab
        self.text = None

    def __call__(self, text):
        self.text = text
        words, pos, heads, deps = zip(*self.rows, strict=True)
        at, spaces = 0, []
        for word in words:
            at = text.index(word, at) + len(word)
            spaces.append(text[at : at + 1] == " ")
        return Doc(
            self.vocab, words=list(words), spaces=spaces, pos=list(pos), heads=list(heads),
            deps=list(deps),
        )  # fmt: skip


def texts(caption, parser):
    return [chunk.text for chunk in noun_chunks(caption, parser)]


def made(*phrases):
    """Chunks laid one behind the other; the last word of each is its noun."""
    chunks, at = [], 0
    for phrase in phrases:
        noun = phrase.split()[-1]
        end = at + len(phrase)
        chunks.append(Chunk(phrase, at, end, noun, end - len(noun), end))
        at = end + 1
    return tuple(chunks)


# --- what is found ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("caption", "wanted"),
    [
        ("a photograph of a striped red ring and a blue moon",
         ["a photograph", "a striped red ring", "a blue moon"]),
        ("a black and white horse", ["a black and white horse"]),
        ("white dog playing with two black dogs", ["white dog", "two black dogs"]),
        ("yellow hat on a baby's head", ["yellow hat", "a baby's head"]),
        ("guy blue shirt far left", ["guy", "blue shirt"]),
        ("the red ring on the left", ["the red ring", "the left"]),
        ("RED SHIRT", ["RED SHIRT"]),
        ("zebra", ["zebra"]),
        ("two oranges sit on a tray", ["two oranges", "a tray"]),
        ("people ride bikes", ["people", "bikes"]),
        ("a photograph of left bottom corner", ["a photograph", "left bottom corner"]),
        ("clock face", ["clock face"]),
        ("a photograph of red shirt man", ["a photograph", "red shirt man"]),
        ("a photograph of white shirt lady", ["a photograph", "white shirt lady"]),
        ("a photograph of left man red shirt", ["a photograph", "left man", "red shirt"]),
        ("a photograph of mid-left ball", ["a photograph", "mid-left ball"]),
        ("a photograph of closest to us white ball", ["a photograph", "us", "white ball"]),
    ],
)  # fmt: skip
def test_chunks_of_the_shipped_parser(parser, caption, wanted):
    assert texts(caption, parser) == wanted


def test_offsets_cut_the_caption(parser):
    caption = 'A photograph of  the\tdog\'s ball,\n"a red   kite" and 🐶 two  cats'
    chunks = noun_chunks(caption, parser)
    assert [c.noun for c in chunks] == ["photograph", "ball", "kite", "cats"]
    for chunk in chunks:
        assert caption[chunk.start : chunk.end] == chunk.text
        assert caption[chunk.noun_start : chunk.noun_end] == chunk.noun
        assert chunk.noun_end == chunk.end
    assert chunks[1].text == "the\tdog's ball"
    assert chunks[2].text == "a red   kite"
    assert str(chunks[3]) == chunks[3].text == "two  cats"


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.text(st.sampled_from("a red dog's 🐶\u200f\ufe0f\tكلب,.-\"é\n🇩🇪👩‍👧"), max_size=40))
def test_any_text_gives_chunks_in_order_or_a_clear_error(parser, caption):
    try:
        chunks = noun_chunks(caption, parser)
    except ValueError as error:
        if not re.search("caption is empty|no noun was found", str(error)):
            raise
        return
    end = 0
    for chunk in chunks:
        assert end <= chunk.start <= chunk.noun_start < chunk.noun_end == chunk.end
        assert caption[chunk.start : chunk.end] == chunk.text
        assert any(character.isalnum() for character in chunk.noun)
        end = chunk.end


def test_emoji_are_read_as_spaces(parser):
    caption = "🐕‍🦺 the white dog 🐶❤️ on the grass 🌿"
    assert texts(caption, parser) == ["the white dog", "the grass"]


def test_right_to_left_text_keeps_its_offsets(parser):
    caption = "\u200fكلب\u200f next to the red car"
    found = noun_chunks(caption, parser)
    assert found[-1].text == "the red car"
    assert all(caption[c.start : c.end] == c.text for c in found)


@pytest.mark.parametrize("caption", ["", "  \n\t", "🐶🐱", "\u200f\u200e"])
def test_an_empty_caption_is_refused(caption):
    with pytest.raises(ValueError, match="the caption is empty"):
        noun_chunks(caption, Parsed(("x", "X", 0, "ROOT")))


@pytest.mark.parametrize("caption", ["striped", "running quickly", "far left", "!!!"])
def test_a_phrase_without_a_noun_is_refused(parser, caption):
    with pytest.raises(ValueError, match=re.escape(f"no noun was found in {caption!r}; name")):
        noun_chunks(caption, parser)


def test_a_pipeline_without_a_parser_is_refused():
    nlp = spacy.blank("en")
    nlp.add_pipe("sentencizer")
    with pytest.raises(ValueError, match=r"has \['sentencizer'\] and sets no"):
        noun_chunks("a red ring", nlp)


# --- what spaCy leaves out -------------------------------------------------------------------


def test_a_noun_under_a_label_that_spacy_skips_is_found():
    told = Parsed(
        ("Look", "VERB", 0, "ROOT"), ("a", "DET", 3, "det"), ("red", "ADJ", 3, "amod"),
        ("kite", "NOUN", 0, "dep"),
    )  # fmt: skip
    assert [c.text for c in told("Look a red kite").noun_chunks] == []
    assert texts("Look a red kite", told) == ["a red kite"]


def test_the_head_of_a_fragment_that_was_tagged_a_verb_is_found():
    told = Parsed(
        ("the", "DET", 2, "det"), ("left", "ADJ", 2, "amod"), ("bat", "VERB", 2, "ROOT"),
        ("near", "ADP", 2, "prep"), ("him", "PRON", 3, "pobj"),
    )  # fmt: skip
    assert texts("the left bat near him", told) == ["the left bat", "him"]


@pytest.mark.parametrize(
    ("rows", "wanted"),
    [
        ([("goalie", "VERB", 0, "ROOT"), ("in", "ADP", 0, "prep"), ("it", "PRON", 1, "pobj")],
         ["goalie", "it"]),
        ([("wrist", "NOUN", 0, "ROOT"), ("and", "CCONJ", 0, "cc"), ("ankle", "VERB", 0, "conj")],
         ["wrist", "ankle"]),
        ([("man", "NOUN", 0, "ROOT"), ("in", "ADP", 0, "prep"), ("red", "ADJ", 1, "pobj")],
         ["man", "red"]),
        ([("gulls", "VERB", 1, "nsubj"), ("follow", "VERB", 1, "ROOT"), ("it", "PRON", 1, "dobj")],
         ["gulls", "it"]),
        # and these are no nouns:
        ([("man", "NOUN", 0, "ROOT"), ("and", "CCONJ", 0, "cc"), ("sits", "VERB", 0, "conj"),
          ("down", "ADV", 2, "advmod")], ["man"]),
        ([("cats", "NOUN", 0, "ROOT"), ("graze", "VERB", 0, "dobj")], ["cats"]),
        ([("sit", "VERB", 0, "ROOT"), ("him", "PRON", 0, "dobj")], ["him"]),
        ([("sitting", "VERB", 0, "ROOT"), ("on", "ADP", 0, "prep"), ("it", "PRON", 1, "pobj")],
         ["it"]),
        ([("it", "PRON", 1, "nsubj"), ("is", "AUX", 1, "ROOT"), ("red", "ADJ", 1, "acomp")],
         ["it"]),
    ],
)  # fmt: skip
def test_a_position_in_the_sentence_outdoes_a_wrong_tag(rows, wanted):
    assert texts(" ".join(row[0] for row in rows), Parsed(*rows)) == wanted


def test_nouns_inside_another_phrase_are_no_chunks():
    told = Parsed(
        ("stop", "NOUN", 1, "compound"), ("sign", "NOUN", 1, "ROOT"), ("last", "ADJ", 3, "amod"),
        ("week", "NOUN", 1, "npadvmod"),
    )  # fmt: skip
    assert texts("stop sign last week", told) == ["stop sign"]


def test_a_found_noun_takes_no_word_of_a_neighbor():
    told = Parsed(
        ("dog", "NOUN", 3, "nsubj"), ("and", "CCONJ", 3, "cc"), ("big", "ADJ", 3, "amod"),
        ("cat", "NOUN", 3, "dep"),
    )  # fmt: skip
    told.rows = tuple((w, p, 3, "ROOT" if w == "cat" else d) for w, p, _, d in told.rows)
    assert texts("dog and big cat", told) == ["dog", "big cat"]


def test_quotes_and_conjunctions_stay_outside():
    told = Parsed(
        ("and", "CCONJ", 3, "cc"), ('"', "PUNCT", 3, "punct"), ("the", "DET", 3, "det"),
        ("dog", "NOUN", 3, "ROOT"),
    )  # fmt: skip
    assert texts('and "the dog', told) == ["the dog"]


# --- the target ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "index"),
    [
        (None, 0), ("dog", 1), ("dogs", 2), ("white dog", 1), ("black dog", 2), ("BLACK DOGS", 2),
        ("the black dogs", 2), ("white dogs", 1), ("balls", 3), ("stop", 4), ("sign", 4),
        ("dog in a black coat", 1), ("black dogs with a white ball", 2), ("men", 5),
        ("the fireman's boots", 6), ("boot", 6),
    ],
)  # fmt: skip
def test_target(target, index):
    chunks = made(
        "a photograph", "white dog", "two black dogs", "a ball", "the stop sign", "an old man",
        "the fireman's boots",
    )  # fmt: skip
    assert find_target(chunks, target, caption="...") == index


def test_the_first_of_equal_chunks_is_taken():
    assert find_target(made("the ring", "a ring"), "ring") == 0
    assert find_target(made("guy", "red", "a red ring"), "red ring") == 2
    assert find_target(made("guy", "blue shirt"), "guy in blue shirt") == 0


def test_after_leaves_out_the_opening():
    chunks = made("a photograph", "a photograph", "the ring")
    assert find_target(chunks, after=1) == 1
    assert find_target(chunks, "photograph", after=1) == 1
    with pytest.raises(ValueError, match="starts at character 99 or later in 'x'; the chunks are"):
        find_target(chunks, after=99, caption="x")


@pytest.mark.parametrize("target", ["cat", "dogma", "ten"])
def test_a_target_that_is_not_there_is_refused(target):
    with pytest.raises(ValueError, match=f"'{target}' is in no .*: 'white dog', 'two black dogs'"):
        find_target(made("white dog", "two black dogs"), target, caption="white dog and others")


@pytest.mark.parametrize("target", ["", " ", "🐶", "!"])
def test_a_target_without_a_word_is_refused(target):
    with pytest.raises(ValueError, match="holds no word"):
        find_target(made("white dog"), target)


def test_the_target_in_a_parsed_caption(parser):
    caption = "white dog playing with two black dogs"
    chunks = noun_chunks(caption, parser)
    for target, wanted in (("dog", 0), ("dogs", 1), ("white dog", 0), ("black dog", 1)):
        assert find_target(chunks, target, caption=caption) == wanted


def test_chunks_need_no_spacy():
    code = "import sys; sys.modules['spacy'] = None; import nbhelpers.chunks"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
