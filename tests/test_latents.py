"""A picture as a latent, as diffusers makes it, and what is no picture."""

import inspect

import numpy as np
import pytest
import torch
from PIL import Image

from nbhelpers.latents import encode_image


@pytest.mark.parametrize("size", [None, (64, 40)])
def test_the_latent_is_a_seeded_sample_of_the_posterior(models_15, image, size):
    h, w = size or models_15.size
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None] / 127.5 - 1
    pixels = torch.nn.functional.interpolate(pixels, (h, w), mode="bilinear", antialias=True)
    posterior = models_15.vae.encode(pixels).latent_dist
    wanted = posterior.sample(torch.Generator().manual_seed(7)) * 0.18215
    latent = encode_image(image, models_15, seed=7, size=size)
    assert latent.shape == (1, 4, h // 8, w // 8)
    assert (latent - wanted).abs().max() < 1e-3 < wanted.abs().max() / 8
    assert torch.equal(encode_image(image, models_15, seed=7, size=size), latent)
    assert not torch.allclose(encode_image(image, models_15, seed=8, size=size), latent)


def test_a_picture_of_the_right_size_stays_as_it_is(models_15, image):
    seen = {}
    handle = models_15.vae.encoder.register_forward_pre_hook(
        lambda module, args: seen.update(pixels=args[0])
    )
    encode_image(np.ascontiguousarray(image), models_15, size=(40, 56))
    handle.remove()
    back = ((seen["pixels"][0] + 1) * 127.5).permute(1, 2, 0)
    assert torch.equal(back.round().byte(), torch.from_numpy(image))
    assert seen["pixels"].min() >= -1
    assert seen["pixels"].max() <= 1


def test_resizing_is_bilinear_and_keeps_rows_and_columns_apart(models_15):
    image = np.zeros((30, 80, 3), dtype=np.uint8)
    image[:10] = 255  # the upper third
    seen = {}
    handle = models_15.vae.encoder.register_forward_pre_hook(
        lambda module, args: seen.update(pixels=args[0])
    )
    encode_image(image, models_15, size=(48, 24))
    handle.remove()
    found = ((seen["pixels"][0, 0] + 1) * 127.5).numpy()
    pillow = np.asarray(Image.fromarray(image[..., 0]).resize((24, 48), Image.BILINEAR))
    assert np.abs(found - pillow).max() <= 2
    assert found[:14].min() > 250
    assert found[18:].max() < 5


@pytest.mark.parametrize(
    ("size", "nearest"),
    [
        ((100, 64), r"\(96, 64\)"),
        ((63, 65), r"\(64, 64\)"),
        ((0, 64), r"\(8, 64\)"),
        ((-8, 8), r"\(8, 8\)"),
    ],
)
def test_a_size_that_cannot_be_halved_is_refused(models_15, image, size, nearest):
    with pytest.raises(ValueError, match=rf"multiples of 8 pixels; got .* nearest is {nearest}"):
        encode_image(image, models_15, size=size)


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (np.zeros((4, 4, 3), dtype=np.float32), r"got float32 \(4, 4, 3\)"),
        (np.zeros((4, 4), dtype=np.uint8), r"got uint8 \(4, 4\)"),
        (np.zeros((4, 4, 4), dtype=np.uint8), r"got uint8 \(4, 4, 4\).*on white"),
        (np.zeros((0, 4, 3), dtype=np.uint8), r"got uint8 \(0, 4, 3\)"),
        (np.zeros((3, 4, 5), dtype=np.uint8), r"\(3, 4, 5\): channels come last"),
        (None, "a Pillow one or a path; got NoneType"),
        (torch.zeros((4, 4, 3)), "a Pillow one or a path; got Tensor"),
    ],
)
def test_what_is_no_picture_is_refused(models_15, picture, message):
    # Unchecked, as a caller without the shape checks would reach it.
    with pytest.raises(ValueError, match=message):
        inspect.unwrap(encode_image)(picture, models_15)


def test_a_model_with_a_shifted_latent(models_15, image, monkeypatch):
    plain = encode_image(image, models_15)
    monkeypatch.setattr(
        models_15.vae, "_internal_dict", {**models_15.vae.config, "shift_factor": 0.5}
    )
    monkeypatch.setattr(
        type(models_15.vae), "config", property(lambda vae: Config(vae._internal_dict))
    )
    shifted = encode_image(image, models_15)
    assert torch.allclose(shifted, plain - 0.5 * 0.18215, atol=1e-5)


class Config(dict):
    """A dictionary whose entries are attributes too."""

    __getattr__ = dict.__getitem__
