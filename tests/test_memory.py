"""Nothing on the whole way from picture to mask ever holds an attention matrix."""

import numpy as np
import pytest
from watching import Largest

import nbhelpers as nb
from nbhelpers.batches import segment_batch
from tests.bench import baselines

SIZE = (192, 192)  # pixels; the finest grid is 48 x 48
N, HEADS, TOKENS = 48 * 48, 4, 77


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)


@pytest.mark.parametrize("method", nb.SETTINGS)
def test_one_phrase(method, models, image):
    with Largest() as watched:
        found = nb.segment(image, "the red ring", models, method=method, size=SIZE)
    assert found.score.shape == (48, 48)
    assert watched.numbers < HEADS * N * TOKENS < N * N


def test_many_phrases_and_the_transpose(models, image):
    with Largest() as watched:
        segment_batch(
            [image], [["the red ring"]], models, size=SIZE, timesteps=(1, 2), transpose=True
        )
    assert watched.numbers < 2 * HEADS * N * TOKENS


def test_the_watch_sees_what_others_hold(models, image):
    """The same pass, with the probabilities formed as others form them."""
    with baselines.storing(models.unet, baselines.KEEPS["head means"]), Largest() as watched:
        prompt = nb.embed("a red ring", [], models.text)
        nb.denoise_once(image, prompt, models, size=SIZE)
    assert watched.numbers == HEADS * N * N
