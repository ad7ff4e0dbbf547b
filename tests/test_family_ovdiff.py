"""OVDiff: prototypes of generated pictures, and what is nearest to them."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import nbhelpers as nb
from nbhelpers.evaluation.classes import Drawn, count_classes
from nbhelpers.family import SYSTEMS
from nbhelpers.family.ovdiff import (
    BACKGROUND,
    FOREGROUND,
    Prototypes,
    centers,
    make_prototypes,
    maps,
    pixel_features,
)
from nbhelpers.family.sampling import decode, sample, sample_support

PROMPTS = ("a photograph of a cat", "a drawing of a cat", "a picture of a cat")


def features_of(image, models):
    """The keys of the self-attention on the way up, gathered anew: a row a cell, finest grid."""
    caught = {}

    def keep(name):
        return lambda module, args, output: caught.setdefault(name, output[0].float())

    hooks = [
        module.register_forward_hook(keep(name))
        for name, module in models.unet.named_modules()
        if name.startswith("up_blocks") and name.endswith("attn1.to_k")
    ]
    nb.denoise_once(image, nb.embed("", (), models.text), models, timestep=200)
    for hook in hooks:
        hook.remove()
    side = max(int(len(keys) ** 0.5) for keys in caught.values())
    rows = []
    for keys in caught.values():
        own = int(len(keys) ** 0.5)
        unit = (keys / keys.norm(dim=1, keepdim=True)).T.reshape(1, -1, own, own)
        rows.append(F.interpolate(unit, (side, side), mode="bilinear")[0])
    joined = torch.cat(rows).flatten(1).T
    return joined / joined.norm(dim=1, keepdim=True)


def test_features_are_the_keys_on_the_way_up(models, image):
    found = pixel_features(image, models)
    wanted = features_of(image, models)
    assert found.shape[1:] == (24, 24)
    assert torch.allclose(found.flatten(1).T, wanted, atol=1e-5)


def test_prototypes_come_from_generated_pictures_alone(models):
    latents = sample(PROMPTS, models, seeds=[5, 6, 7], steps=2)
    means, everything, around = [], [], []
    for image in decode(latents, models):
        mask = nb.segment(image, "cat", models, method="diffsegmenter").map
        small = mask.reshape(24, 4, 24, 4).mean(axis=(1, 3)).flatten()
        features = features_of(image, models)
        own = features[torch.from_numpy(small >= FOREGROUND)]
        around.append(features[torch.from_numpy(small <= BACKGROUND)])
        if len(own):
            means.append(own.mean(dim=0))
            everything.append(own)
    everything, around = torch.cat(everything), torch.cat(around)
    middles = torch.stack([*means, everything.mean(dim=0)])
    wanted = F.normalize(torch.cat([middles, centers(everything, 4)]), dim=1)
    found = make_prototypes("cat", models, pictures=3, seed=5, steps=2)
    assert torch.allclose(found.foreground, wanted, atol=1e-4)
    wanted = F.normalize(centers(around, 4), dim=1)
    assert torch.allclose(found.background, wanted, atol=1e-4)
    other = make_prototypes("cat", models, pictures=3, seed=8, steps=2)
    assert (found.background - other.background).abs().max() > 1e-3  # other pictures, others


def test_support_is_sampled_with_a_seed_each(models):
    four = sample_support("cat", models, pictures=4, seed=5, steps=1)
    two = sample_support("cat", models, pictures=1, seed=8, steps=1)
    assert len(four) == 4 and four[0][0].shape == (96, 96, 3) == (*four[0][1].shape, 3)
    assert not np.array_equal(four[0][0], four[1][0])
    # The fourth is of the first template again, from its own seed; batches round in other ways.
    difference = np.abs(four[3][0].astype(int) - two[0][0].astype(int))
    assert difference.max() <= 1


def test_a_pixel_scores_against_the_background(models, image):
    features = pixel_features(image, models).flatten(1).T
    one, two, three = (features[i][None] for i in (0, 300, 500))
    known = {"cat": Prototypes(one, three), "dog": Prototypes(torch.cat([two, one]), three)}
    found = maps(image, ["cat", "dog"], models, prototypes=known)
    assert found.shape == (2, 40, 56) and found.min() >= 0 and found.max() <= 1
    cat = (1 + features @ one[0] - features @ three[0]) / 2
    wanted = F.interpolate(cat.reshape(1, 1, 24, 24), (40, 56), mode="bilinear")[0, 0].numpy()
    assert np.abs(found[0] - wanted).max() < 1e-5
    assert (found[1] >= found[0] - 1e-6).all() and (found[1] > found[0] + 0.01).any()
    # A class's background counts against the other class too.
    known["dog"] = Prototypes(two, one)
    assert maps(image, ["cat", "dog"], models, prototypes=known)[0].max() <= 0.5 + 1e-6


def test_centers_are_those_of_the_clusters():
    rng = np.random.default_rng(0)
    middles = np.array([[0.0, 0], [9, 0], [0, 9]])
    points = torch.tensor(np.concatenate([m + rng.normal(size=(20, 2)) * 0.1 for m in middles]))
    found = centers(points, 3)
    wanted = points.reshape(3, 20, 2).mean(dim=1)
    assert torch.allclose(found[torch.cdist(wanted, found).argmin(dim=1)], wanted)
    assert len(centers(points[:2], 4)) == 2


def test_a_class_without_prototypes_is_refused(models, image):
    known = {"cat": Prototypes(torch.zeros(1, 1), torch.zeros(1, 1))}
    with pytest.raises(ValueError, match="names with prototypes, such as cat.*make_prototypes"):
        maps(image, ["cat", "dog"], models, prototypes=known)
    with pytest.raises(ValueError, match="0 pictures of 'cat' show no foreground"):
        make_prototypes("cat", models, pictures=0)


needs_world = pytest.mark.skipif(
    not (nb.data_folder() / "stickers" / "stable-diffusion").is_dir(),
    reason="needs the models of data/stickers; train them",
)


@needs_world
def test_more_pictures_do_not_hurt_on_val():
    models = nb.load_models("stickers")
    scenes = Drawn(nb.referring("stickers", "val"))
    names = ("bus", "clock")
    numbers = [scenes.categories.index(name) for name in names]
    shown = [i for i in scenes.image_ids if set(numbers) & {*np.unique(scenes.class_map(i))}]
    scored = []
    for count in (1, 6):
        known = {n: make_prototypes(n, models, pictures=count, steps=10) for n in names}
        totals = np.zeros((2, len(names) + 1, 101))
        for i in shown[:12]:
            truth = sum((k + 1) * (scenes.class_map(i) == c) for k, c in enumerate(numbers))
            found = maps(scenes.image(i), names, models, prototypes=known)
            stacked = [torch.from_numpy(values) for values in found]
            counts = count_classes(stacked, (1, 2), truth.astype(np.uint8), 3)
            for c, (shared, either) in counts.items():
                totals[:, int(c)] += shared, either
        scored.append((totals[0] / np.maximum(totals[1], 1)).mean(axis=0).max())
    assert scored[1] > scored[0] - 0.02, scored


@pytest.mark.skipif(
    not SYSTEMS["ovdiff"].weights.is_file(),
    reason="needs the prototypes; make them: python -m recipe family --systems ovdiff",
)
@needs_world
def test_the_shipped_prototypes_know_every_class():
    models = nb.load_models("stickers")
    data = nb.referring("stickers", "val")
    names = sorted({e.category for e in data.expressions})
    found = maps(data.image(data.expressions[0].image_id), names, models)
    assert found.shape == (30, 80, 80) and np.ptp(found, axis=(1, 2)).min() > 0.01
