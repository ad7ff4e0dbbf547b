"""`presence` against the two errors written out, and on pictures of which the truth is known."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

import nbhelpers as nb
from nbhelpers.family.diffusion_classifier import presence

STICKERS = nb.data_folder() / "stickers"


@pytest.fixture(scope="module")
def models():
    return nb.load_models("stickers")


@pytest.fixture(scope="module")
def scenes():
    """For forty pictures of val their path and the nouns in them, by number."""
    found = json.loads((STICKERS / "instances.json").read_text(encoding="utf-8"))
    names = {c["id"]: c["name"] for c in found["categories"]}
    nouns = {}
    for thing in found["annotations"]:
        nouns.setdefault(thing["image_id"], set()).add(names[thing["category_id"]])
    files = {image["id"]: image["file_name"] for image in found["images"]}
    first = sorted(files)[:40]
    return [(STICKERS / "images" / files[n], sorted(nouns[n])) for n in first], set(names.values())


def test_it_is_the_fall_of_the_error_written_out(models, scenes):
    path, nouns = scenes[0][0]
    found = presence(path, f"a {nouns[0]}", models, timesteps=(300,), samples=2, seed=5)

    latent = nb.encode_image(nb.load_image(path), models, seed=5)
    generator = torch.Generator().manual_seed(5)
    torch.randn(latent.shape, generator=generator)  # the draw of the posterior
    noise = torch.randn((2, *latent.shape[1:]), generator=generator)
    kept = models.scheduler.alphas_cumprod[300]
    noised = kept.sqrt() * latent + (1 - kept).sqrt() * noise
    errors = []
    for words in ("", f"a photograph of a {nouns[0]}"):
        ids = models.text.tokenizers[0](words, padding="max_length", return_tensors="pt").input_ids
        states = models.text.encoders[0](ids).last_hidden_state
        guess = models.unet(noised, torch.tensor(300), states.expand(2, -1, -1)).sample
        errors.append(((guess - noise) ** 2).mean().item())
    assert found == pytest.approx(1 - errors[1] / errors[0], abs=1e-4)


def test_a_model_that_predicts_velocity_says_the_same(models, scenes):
    path, nouns = scenes[0][1]

    class Velocity(torch.nn.Module):
        config = models.unet.config

        def forward(self, noised, timesteps, encoder_hidden_states):
            found = models.unet(noised, timesteps, encoder_hidden_states)
            kept = models.scheduler.alphas_cumprod[timesteps].view(-1, 1, 1, 1)
            velocity = (found.sample - (1 - kept).sqrt() * noised) / kept.sqrt()
            return type(found)(sample=velocity)

    scheduler = type(models.scheduler).from_config(
        models.scheduler.config, prediction_type="v_prediction"
    )
    other = replace(models, unet=Velocity(), scheduler=scheduler)
    asked = [f"the {nouns[0]}", "a zebra"]
    assert presence(path, asked, other) == pytest.approx(presence(path, asked, models), abs=1e-4)


def test_a_list_is_asked_as_each_alone(models, scenes):
    path, nouns = scenes[0][2]
    asked = [f"the {nouns[0]}", "a pizza"]
    assert presence(path, asked, models) == [presence(path, one, models) for one in asked]
    assert presence(path, [], models) == []


def test_what_is_there_lies_above_what_is_not(models, scenes):
    """Half of such pairs would come out right by chance; the peak of the map gets no more."""
    pictures, every = scenes
    there, absent = [], []
    for number, (path, nouns) in enumerate(pictures):
        others = sorted(every - set(nouns))
        asked = [f"a {nouns[number % len(nouns)]}", f"a {others[number % len(others)]}"]
        present, missing = presence(path, asked, models)
        there.append(present)
        absent.append(missing)
    assert (np.array(there)[:, None] > np.array(absent)).mean() > 0.7


def test_no_samples_are_refused(models, scenes):
    with pytest.raises(ValueError, match="one noise or more for each timestep; got samples=0"):
        presence(scenes[0][0][0], "a dog", models, samples=0)
