"""BLIP's calls, on a small random BLIP."""

import pytest
import torch
from PIL import Image

from nbhelpers.captions import caption, opening


def greedy(captioner, image, start):
    """The words of a step-by-step greedy decoding, without generate."""
    tokenizer, model = captioner.processor.tokenizer, captioner.model
    pixels = captioner.processor(images=Image.fromarray(image), return_tensors="pt").pixel_values
    seen = model.vision_model(pixels)[0]
    ids = [tokenizer.convert_tokens_to_ids(word) for word in ["[DEC]", *start.split()]]
    for _ in range(40):
        logits = model.text_decoder(torch.tensor([ids]), encoder_hidden_states=seen).logits
        ids.append(int(logits[0, -1].argmax()))
        if ids[-1] == tokenizer.sep_token_id:
            break
    return tokenizer.decode(ids, skip_special_tokens=True)


@pytest.mark.parametrize("about", ["the red ring", "moon"])
def test_a_caption_goes_on_from_what_it_is_about(captioner, image, about):
    found = caption(image, captioner, about=about)
    assert found == greedy(captioner, image, f"a photograph of {about}")
    assert found.startswith(f"a photograph of {about} ")


def test_a_free_caption_has_no_prefix(captioner, image):
    found = caption(image, captioner)
    assert found == greedy(captioner, image, "")
    assert found
    assert caption(image, captioner) == found


def test_length_and_prefix(captioner, image):
    short = caption(image, captioner, about="moon", prefix="the", max_tokens=2)
    assert short.split()[:2] == ["the", "moon"]
    assert len(short.split()) <= 4


@pytest.mark.parametrize("about", ["", "  \n"])
def test_about_nothing_is_refused(captioner, image, about):
    with pytest.raises(ValueError, match="about names the thing to describe"):
        caption(image, captioner, about=about)


@pytest.mark.parametrize("max_tokens", [0, 501])
def test_a_length_out_of_range_is_refused(captioner, image, max_tokens):
    with pytest.raises(ValueError, match=f"between 1 and 500; got {max_tokens}"):
        caption(image, captioner, max_tokens=max_tokens)


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        ("a photograph of a red ring", "a red ring"),
        ("A Photo of the dog", "the dog"),
        ("a black photograph of a dog", "a dog"),
        ("a picture of a photograph of a dog", "a photograph of a dog"),
        ("the red ring", "the red ring"),
        ("photograph of a dog", "a dog"),
        ("a close-up photo of a dog", "a dog"),
        ("a black and white picture of a dog", "a dog"),
        ("close-up of a dog", "a dog"),
        ("this is an image of a dog", "a dog"),
        ("a man with a photo of a dog", "a man with a photo of a dog"),
        ("a picture frame", "a picture frame"),
        ("a photographer of dogs", "a photographer of dogs"),
        ("", ""),
    ],
)
def test_the_opening_only_says_that_it_is_a_picture(text, rest):
    assert text[opening(text) :] == rest
