"""ReCo: archives of training pictures, and what they have in common."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from recipe.family_reco import make
from recipe.pictures import Pictures

import nbhelpers as nb
from nbhelpers.family import maskclip
from nbhelpers.family.dense import text_features, to_input
from nbhelpers.family.reco import cosegment, maps, patch_features, retrieve
from tests.tiny_clip import make_clip


@pytest.fixture(scope="module")
def with_clip(models, text):
    return replace(models, sources={**models.sources, "clip": make_clip(text.tokenizers[0])})


@pytest.fixture(scope="module")
def training():
    """Twelve pictures of coarse random blocks, which are told by no caption."""
    blocks = np.random.default_rng(0).integers(0, 256, (12, 4, 4, 3), dtype=np.uint8)
    return Pictures(blocks.repeat(8, axis=1).repeat(8, axis=2), blocks, {})


def unit(x, axis=-1):
    return x / np.linalg.norm(x, axis=axis, keepdims=True)


def states_of(pictures, clip):
    """The states before the last layer, as unit vectors: picture, patch, width."""
    tower = clip.model.vision_model
    found = []
    tower.encoder.layers[-1].register_forward_pre_hook(
        lambda module, args: found.append(args[0].double().numpy())
    )
    tower(pixel_values=to_input(pictures, clip))
    tower.encoder.layers[-1]._forward_pre_hooks.clear()
    return unit(found[0][:, 1:])


def reference_of(archive, context):
    """Co-segmentation from its definition: picture, patch, width."""
    seeds = []
    for i, picture in enumerate(archive):
        support = []
        for patch in picture:
            own = [(other @ patch).max() for j, other in enumerate(archive) if j != i]
            support.append(np.mean(own) - np.mean([(other @ patch).max() for other in context]))
        seeds.append(picture[int(np.argmax(support))])
    return unit(np.mean(seeds, axis=0))


def test_the_archive_comes_from_training_pictures_alone(with_clip, training):
    names, clip = ["cat", "red moon"], with_clip.clip
    found = make(names, with_clip, training, archive=3, searched=10, seed=4)
    states = states_of(list(training.pictures), clip)
    pooled = clip.model.get_image_features(to_input(list(training.pictures), clip)).pooler_output
    cosines = text_features(names, clip).double().numpy() @ unit(pooled.double().numpy()).T
    context = torch.randperm(10, generator=torch.Generator().manual_seed(4))[:3].numpy()
    for name, scores in zip(names, cosines, strict=True):
        nearest = np.argsort(-scores[:10])[:3]
        wanted = reference_of(states[nearest], states[context])
        assert np.abs(found[name].numpy() - wanted).max() < 1e-4
    other = replace(training, pictures=training.pictures[::-1])
    assert (
        make(names, with_clip, other, archive=3, searched=10)["cat"] - found["cat"]
    ).abs().max() > 0.01


def test_retrieval_takes_the_nearest(with_clip, training):
    texts = text_features(["cat", "dog"], with_clip.clip)
    pictures = list(training.pictures)
    found = retrieve(texts, pictures, with_clip.clip, 12)
    assert [sorted(row) for row in found] == [list(range(12))] * 2
    assert retrieve(texts, pictures, with_clip.clip, 2) == [row[:2] for row in found]


def planted(seed, width=24):
    """Archive and context: all share a ground, the archive's pictures a thing as well."""
    rng = np.random.default_rng(seed)
    thing, ground = unit(rng.normal(size=(2, width)))
    archive = unit(rng.normal(size=(6, 9, width)))
    context = unit(rng.normal(size=(5, 9, width)))
    archive[:, 7], context[:, 3] = ground, ground
    for number, picture in enumerate(archive):
        picture[number % 5] = unit(thing + 0.05 * rng.normal(size=width))
    return thing, ground, archive, context


def as_maps(features):
    return torch.tensor(features).float().transpose(1, 2).unflatten(2, (3, 3))


def test_what_the_archive_alone_shares_is_found():
    thing, ground, archive, context = planted(0)
    found = cosegment(as_maps(archive), as_maps(context)).numpy()
    assert found @ thing > 0.98
    assert np.abs(found - reference_of(archive, context)).max() < 1e-5
    # Where the context lacks the ground, it is what the pictures share most exactly.
    context[:, 3] = context[:, 4]
    assert cosegment(as_maps(archive), as_maps(context)).numpy() @ ground > 0.98


def test_the_map_is_the_product_of_both(with_clip, image):
    clip = with_clip.clip
    states = states_of([image], clip)[0]
    known = {"cat": torch.tensor(states[0]).float() * 3, "dog": torch.tensor(states[9]).float()}
    found = maps(image, ["cat", "dog"], with_clip, references=known)
    assert found.shape == (2, 40, 56)
    cosines = np.stack([states @ states[0], states @ states[9]]).reshape(2, 1, 4, 4)
    large = torch.nn.functional.interpolate(
        torch.tensor(cosines), (40, 56), mode="bilinear"
    ).numpy()[:, 0]
    large = (large - large.min()) / (large.max() - large.min())
    prior = maskclip.maps(image, ["cat", "dog"], with_clip)
    assert np.abs(found - large * prior).max() < 1e-4


def test_too_small_an_archive_is_refused(with_clip, image):
    features = patch_features([image, image], with_clip.clip)
    with pytest.raises(ValueError, match="an archive has at least two pictures.*got 1 and 2"):
        cosegment(features[:1], features)
    with pytest.raises(ValueError, match="got 2 and 0"):
        cosegment(features, features[:0])
    with pytest.raises(ValueError, match="names with references, such as cat"):
        maps(image, ["dog"], with_clip, references={"cat": features[0, :, 0, 0]})


def test_the_shipped_references_know_every_class():
    if not (nb.data_folder() / "stickers" / "stable-diffusion").is_dir():
        pytest.skip("needs the models of data/stickers; train them")
    models = nb.load_models("stickers")
    data = nb.referring("stickers", "val")
    names = sorted({e.category for e in data.expressions})
    found = maps(data.image(data.expressions[0].image_id), names, models)
    assert found.shape == (30, 80, 80) and np.ptp(found, axis=(1, 2)).min() > 0.01
