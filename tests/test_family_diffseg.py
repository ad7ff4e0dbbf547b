"""DiffSeg: how maps are gathered, compared and merged into segments."""

import numpy as np
import pytest
import torch

import nbhelpers as nb
from nbhelpers.family.diffseg import anchor_cells, divergence, find_segments, gather, maps, merge
from nbhelpers.masks import to_pixels
from nbhelpers.segment import make_prompt

GRID = (8, 12)


def make_layer(query, grid, key=None, name="up_blocks.0"):
    """A layer of one head whose logits are ``query . key``."""
    query = torch.as_tensor(query, dtype=torch.float32)[None, None]
    key = query if key is None else torch.as_tensor(key, dtype=torch.float32)[None, None]
    return nb.Layer(name, "self", "up", query, key, grid, 1, 1.0)


def of_regions(regions, noise=0.0, seed=0):
    """A layer in which every cell attends to its own region, evenly but for noise."""
    marks = np.eye(regions.max() + 1)[regions.flatten()] * 4
    rng = np.random.default_rng(seed)
    return make_layer(marks + noise * rng.normal(size=marks.shape), regions.shape)


def halves():
    regions = np.zeros(GRID, int)
    regions[:, 5:] = 1
    return regions


def thirds():
    regions = halves()
    regions[4:, :5] = 2
    return regions


def same_partition(a, b):
    """Whether two label maps group the pixels alike, whatever the numbers."""
    pairs = set(zip(a.flatten().tolist(), b.flatten().tolist(), strict=True))
    return len(pairs) == len(set(a.flatten())) == len(set(b.flatten()))


def test_two_flat_regions_stay_two():
    found = find_segments([of_regions(halves())], GRID)
    assert same_partition(found, halves())
    one = find_segments([of_regions(np.zeros(GRID, int))], GRID)
    assert (one == 0).all()


@pytest.mark.parametrize("noise", [0.0, 0.2])
def test_the_number_of_anchors_is_irrelevant_beyond_a_point(noise):
    layer = of_regions(thirds(), noise)
    for anchors in (2, 3, 4, 8, 16):
        assert same_partition(find_segments([layer], GRID, anchors=anchors), thirds()), anchors
    assert (find_segments([layer], GRID, anchors=1) == 0).all()  # one anchor sees one region


def test_divergence_is_symmetric_and_that_of_the_definition():
    rng = np.random.default_rng(0)
    a, b = (rng.dirichlet(np.full(30, 0.5), size=n) + 1e-6 for n in (3, 4))
    a, b = a / a.sum(axis=1, keepdims=True), b / b.sum(axis=1, keepdims=True)
    wanted = np.zeros((3, 4))
    for i, j in np.ndindex(3, 4):
        forward, back = a[i] * np.log(a[i] / b[j]), b[j] * np.log(b[j] / a[i])
        wanted[i, j] = (forward.sum() + back.sum()) / 2
    first, second = torch.tensor(a).float(), torch.tensor(b).float()
    assert np.abs(divergence(first, second).numpy() - wanted).max() < 1e-4 < wanted.min() / 8
    assert torch.allclose(divergence(first, second), divergence(second, first).T, atol=1e-5)
    assert divergence(first, first).diagonal().abs().max() < 1e-6


def test_merging_does_not_depend_on_the_order_of_the_anchors():
    attention = gather([of_regions(thirds(), 0.3)], GRID)
    anchors = anchor_cells(GRID, 5)
    there = merge(attention, anchors, 0.9, 3)
    back = merge(attention, anchors.flip(0), 0.9, 3)
    assert len(there) == len(back) == 3
    order = divergence(there, back).argmin(dim=1)
    assert sorted(order.tolist()) == [0, 1, 2]
    assert torch.allclose(there, back[order], atol=1e-6)
    assert torch.allclose(there.sum(dim=1), torch.ones(3), atol=1e-5)


def test_a_lower_threshold_splits_more():
    layer = of_regions(halves(), 0.3)
    counts = [
        len(np.unique(find_segments([layer], GRID, threshold=t))) for t in (0.001, 0.1, 0.9, 20.0)
    ]
    assert counts[0] > counts[1] >= counts[2] == 2 > counts[3] == 1, counts


def test_layers_are_gathered_by_their_resolution():
    rng = np.random.default_rng(1)
    fine = make_layer(rng.normal(size=(96, 3)), GRID)
    coarse = make_layer(rng.normal(size=(24, 3)), (4, 6))

    def softmax(x):
        e = np.exp(x - x.max(axis=1, keepdims=True))
        return e / e.sum(axis=1, keepdims=True)

    query = coarse.query[0, 0].double().numpy()
    small = softmax(query @ query.T)
    wanted = np.zeros((96, 96))
    for y, x in np.ndindex(GRID):
        row = torch.tensor(small[(y // 2) * 6 + x // 2].reshape(1, 1, 4, 6))
        large = torch.nn.functional.interpolate(row, GRID, mode="bilinear").flatten().numpy()
        wanted[y * 12 + x] = large / large.sum()
    query = fine.query[0, 0].double().numpy()
    wanted = (8 * softmax(query @ query.T) + 4 * wanted) / 12
    found = gather([coarse, fine], GRID).numpy()
    assert np.abs(found - wanted).max() < 1e-5 < wanted.max() / 8
    assert np.abs(found.sum(axis=1) - 1).max() < 1e-5


def test_a_segment_scores_its_mean(models, image):
    texts = ["a red ring", "the cat"]
    found = maps(image, texts, models, threshold=0.05)
    assert found.shape == (2, 40, 56) and found.min() >= 0 and found.max() <= 1
    # Read again, apart: the same segments, the same score maps.
    settings = nb.settings.resolve(models, "plain", timesteps=(300,))
    latent = nb.encode_image(image, models)
    empty = nb.embed("", (), models.text)
    prompts = [make_prompt(text, models, settings) for text in texts]
    with nb.record_attention(models.unet) as attention:
        nb.denoise_once(None, empty, models, timestep=300, latent=latent)
    labels = find_segments(attention.self_layers, (40, 56), threshold=0.05)
    assert labels.max() > 0
    for prompt, mine in zip(prompts, found, strict=True):
        with nb.record_attention(models.unet) as attention:
            nb.denoise_once(None, prompt, models, timestep=300, latent=latent)
        weights = models.calibration.weights
        score = nb.score_maps(attention.cross_layers, prompt.spans, weights=weights)
        pixels = to_pixels(score, (40, 56))[0]
        for number in range(labels.max() + 1):
            assert np.abs(mine[labels == number] - pixels[labels == number].mean()).max() < 1e-3


def test_a_text_without_a_noun_is_refused(models, image):
    with pytest.raises(ValueError, match="no noun chunk"):
        maps(image, ["very old"], models)
