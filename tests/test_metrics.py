"""Metrics against pycocotools, against plain loops, and against themselves in another order."""

import math
from fractions import Fraction

import numpy as np
import pytest
from pycocotools import mask as cocomask

from nbhelpers import metrics

SHAPES = [
    (1, 1),
    (1, 40),
    (33, 1),
    (2, 3),
    (7, 5),
    (16, 16),
    (31, 17),
    (5, 64),
    (40, 40),
    (23, 29),
]


def pairs(count, seed=0):
    """Stacks of random masks and truths, empty and full ones among them."""
    rng = np.random.default_rng(seed)
    for shape in SHAPES:
        density = rng.choice([0, 0.02, 0.3, 0.5, 0.95, 1], size=(2, count, 1, 1))
        yield rng.random((2, count, *shape)) < density


def encoded(masks):
    return cocomask.encode(np.asfortranarray(masks.transpose(1, 2, 0).astype(np.uint8)))


def test_ten_thousand_pairs_as_pycocotools_has_them():
    seen = empty = 0
    for masks, truths in pairs(1000):
        intersection, union = metrics.intersection_union(masks, truths)
        found = metrics.ious(intersection, union)
        for index, (mine, true) in enumerate(zip(encoded(masks), encoded(truths), strict=True)):
            assert found[index] == cocomask.iou([mine], [true], [0])[0, 0]
            assert intersection[index] == cocomask.area(cocomask.merge([mine, true], 1))
            assert union[index] == cocomask.area(cocomask.merge([mine, true], 0))
            empty += union[index] == 0
            seen += 1
    assert seen == 10_000
    assert empty > 100


def test_iou_of_one_pair_is_the_quotient():
    for masks, truths in pairs(20, seed=1):
        for mask, truth in zip(masks, truths, strict=True):
            shared = sum(bool(m and t) for m, t in zip(mask.flat, truth.flat, strict=True))
            either = sum(bool(m or t) for m, t in zip(mask.flat, truth.flat, strict=True))
            assert metrics.iou(mask, truth) == (shared / either if either else 0.0)


@pytest.fixture
def counts():
    rng = np.random.default_rng(2)
    union = rng.integers(0, 300_000, 3000)
    return rng.integers(0, union + 1), union


def test_means_are_the_same_bytes_in_any_order(counts):
    intersection, union = counts
    rng = np.random.default_rng(3)
    means, sloppy = set(), set()
    for _ in range(50):
        order = rng.permutation(len(union))
        means.add(metrics.mean_iou(intersection[order], union[order]).hex())
        sloppy.add(float(np.cumsum(metrics.ious(intersection, union)[order])[-1]).hex())
    assert len(means) == 1
    assert len(sloppy) > 1  # plain sums differ here, so the test could fail


def test_mean_iou_is_correctly_rounded(counts):
    intersection, union = counts
    values = [
        Fraction(i / u) if u else Fraction(0) for i, u in zip(*map(list, counts), strict=True)
    ]
    assert metrics.mean_iou(intersection, union) == pytest.approx(
        float(sum(values) / len(values)), rel=1e-15
    )


def test_the_two_means_differ_as_they_should():
    """A large thing half found and a small one missed."""
    intersection, union = np.array([50, 0]), np.array([100, 1])
    assert metrics.mean_iou(intersection, union) == 0.25
    assert metrics.overall_iou(intersection, union) == 50 / 101
    assert metrics.overall_iou(np.array([0]), np.array([0])) == 0


def test_precision_counts_what_reaches_the_level():
    values = np.array([0.0, 0.5, 0.5999, 0.6, 0.9, 1.0])
    assert metrics.precision_at(values) == {
        0.5: 5 / 6,
        0.6: 0.5,
        0.7: 2 / 6,
        0.8: 2 / 6,
        0.9: 2 / 6,
    }
    with pytest.raises(ValueError, match="IoUs lie in"):
        metrics.precision_at(np.array([0.5, math.nan]))
    with pytest.raises(ValueError, match="at least one"):
        metrics.precision_at(np.array([]))


def test_masks_that_cannot_be_compared():
    ones = np.ones((2, 3), bool)
    with pytest.raises(ValueError, match=r"one shape .mask, h, w.; got bool .1, 2, 3. and bool"):
        metrics.iou(ones, ones.T)
    with pytest.raises(ValueError, match="got uint8"):
        metrics.iou(ones.astype(np.uint8) * 255, ones)
    for intersection, union in (([2], [1]), ([-1], [1]), ([1], [1, 2])):
        with pytest.raises(ValueError, match="an intersection lies between 0 and its union"):
            metrics.mean_iou(np.array(intersection), np.array(union))
    nothing = np.zeros(0, int)
    with pytest.raises(ValueError, match="nothing to take the mean of"):
        metrics.mean_iou(nothing, nothing)
    with pytest.raises(ValueError, match="no mask to take the IoU of"):
        metrics.overall_iou(nothing, nothing)


def test_classes_are_pooled_as_a_loop_over_pixels_has_them():
    rng = np.random.default_rng(4)
    shared, either = np.zeros(6, np.int64), np.zeros(6, np.int64)
    loop = {label: [0, 0] for label in range(6)}
    for _ in range(5):
        found = rng.integers(0, 5, (9, 7)).astype(np.uint8)
        truth = rng.choice([0, 1, 2, 3, 255], (9, 7)).astype(np.uint8)
        more = metrics.class_intersection_union(found, truth, 6)
        shared, either = shared + more[0], either + more[1]
        for mine, true in zip(found.flat, truth.flat, strict=True):
            for label in range(6):
                if true != 255:
                    loop[label][0] += bool(mine == label and true == label)
                    loop[label][1] += bool(mine == label or true == label)
    assert [[*pair] for pair in zip(shared, either, strict=True)] == [*loop.values()]
    assert either[5] == 0  # nowhere true, nowhere found
    assert either[4] > shared[4] == 0  # found, never true: that counts


def test_classes_that_there_are_not():
    zeros = np.zeros((2, 2), np.uint8)
    with pytest.raises(ValueError, match="classes are 0 to 2, background 0; a pixel has 3"):
        metrics.class_intersection_union(zeros + 3, zeros, 3)
    with pytest.raises(ValueError, match="one shape"):
        metrics.class_intersection_union(zeros, zeros[:1], 3)
    shared, either = metrics.class_intersection_union(zeros + 3, zeros + 255, 3)
    assert not shared.any()
    assert not either.any()


# Intervals ---------------------------------------------------------------------------------------


@pytest.fixture
def methods():
    """Two methods on 300 pictures of one to five expressions; expressions of a picture agree."""
    rng = np.random.default_rng(6)
    groups = np.repeat(np.arange(300) * 7, rng.integers(1, 6, 300))
    hard = dict.fromkeys(groups.tolist())
    hard.update({g: rng.normal(0.04, 0.1) for g in hard})
    base = rng.random(len(groups)) * 0.5 + 0.25
    gain = np.array([hard[g] for g in groups.tolist()]) + rng.normal(0, 0.02, len(groups))
    return np.clip(base + gain, 0, 1), base, groups


def test_the_interval_surrounds_the_difference_and_has_its_width(methods):
    a, b, groups = methods
    found = metrics.paired_bootstrap(a, b, groups, resamples=2000)
    assert found.mean == math.fsum((*a, *-b)) / len(a)
    assert found.low < found.mean < found.high
    assert found.pictures == 300
    # the standard error of a ratio over pictures, from the deltas of its sums (Cochran, ch. 6)
    names = np.unique(groups)
    sums = np.array([(a - b)[groups == g].sum() for g in names])
    sizes = np.array([(groups == g).sum() for g in names])
    error = np.sqrt(((sums - found.mean * sizes) ** 2).sum()) / sizes.sum()
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.1)
    naive = 2 * 1.96 * (a - b).std() / math.sqrt(len(a))
    assert found.high - found.low > 1.4 * naive  # expressions alone would claim too much


def test_the_interval_is_the_same_bytes_in_any_order(methods):
    order = np.random.default_rng(7).permutation(len(methods[0]))
    found = metrics.paired_bootstrap(*methods, resamples=300)
    again = metrics.paired_bootstrap(*(part[order] for part in methods), resamples=300)
    assert found == again
    assert found != metrics.paired_bootstrap(*methods, resamples=300, seed=1)


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(8)
    hits = 0
    for trial in range(150):
        groups = np.repeat(np.arange(60), 3)
        a = np.repeat(rng.normal(0.1, 0.1, 60), 3) + rng.normal(0, 0.02, 180)
        found = metrics.paired_bootstrap(a.clip(-1, 1), 0 * a, groups, resamples=300, seed=trial)
        hits += found.low <= 0.1 <= found.high
    assert 130 <= hits <= 149


def test_the_interval_of_the_overall_iou(counts):
    intersection, union = counts
    worse = intersection // 2
    groups = np.arange(len(union)) // 3
    found = metrics.paired_bootstrap_overall(
        (intersection, union), (worse, union), groups, resamples=500
    )
    assert found.mean == intersection.sum() / union.sum() - worse.sum() / union.sum()
    assert found.low < found.mean < found.high
    drawn = []  # the same by a loop over pictures
    rows = np.arange(len(union)).reshape(1000, 3)
    rng = np.random.default_rng(0)
    for _ in range(300):
        chosen = rows[rng.integers(0, 1000, 1000)].ravel()
        total = union[chosen].sum()
        drawn.append(intersection[chosen].sum() / total - worse[chosen].sum() / total)
    width = np.quantile(drawn, 0.975) - np.quantile(drawn, 0.025)
    assert found.high - found.low == pytest.approx(width, rel=0.2)


def test_the_interval_of_pooled_classes_is_a_loop():
    """Of three classes, one of which is in one picture alone, so that some draws lack it."""
    rng = np.random.default_rng(10)
    union = rng.integers(1, 400, (5, 3))
    union[1:, 2] = 0
    mine, theirs = (rng.integers(0, union + 1) for _ in range(2))

    def loop_miou(shared, chosen):
        values = []
        for c in range(3):
            pooled = sum(union[i, c] for i in chosen)
            if pooled:
                values.append(sum(shared[i, c] for i in chosen) / pooled)
        return sum(values) / len(values)

    rng = np.random.default_rng(0)
    drawn = [rng.integers(5, size=5).tolist() for _ in range(200)]
    assert any(0 not in chosen for chosen in drawn)
    gains = [loop_miou(mine, chosen) - loop_miou(theirs, chosen) for chosen in drawn]
    found = metrics.paired_bootstrap_classes((mine, union), (theirs, union), resamples=200)
    whole = loop_miou(mine, range(5)) - loop_miou(theirs, range(5))
    assert found.mean == pytest.approx(whole, abs=1e-12)
    low, high = np.quantile(gains, (0.025, 0.975))
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-12)
    assert (found.pictures, found.resamples) == (5, 200)


def test_intervals_that_cannot_be():
    ones = np.ones(3)
    with pytest.raises(ValueError, match="one value an expression"):
        metrics.paired_bootstrap(ones, ones[:2], [1, 2, 3])
    with pytest.raises(ValueError, match="one value an expression"):
        metrics.paired_bootstrap(ones[:0], ones[:0], [])
    with pytest.raises(ValueError, match="values lie in"):
        metrics.paired_bootstrap(ones * math.nan, ones, [1, 2, 3])
    with pytest.raises(ValueError, match="level lies in"):
        metrics.paired_bootstrap(ones, ones, [1, 2, 3], level=1)
    counts = np.ones((3, 2), int)
    with pytest.raises(ValueError, match="counts a picture and class, at least one; got"):
        metrics.paired_bootstrap_classes((counts, counts), (counts, counts[:2]))
    with pytest.raises(ValueError, match="at least one"):
        metrics.paired_bootstrap_classes(*[(counts[:0], counts[:0])] * 2)
    alone = metrics.paired_bootstrap(ones, 0 * ones, [5, 5, 5], resamples=10)
    assert (alone.mean, alone.low, alone.high) == (1, 1, 1)


def test_the_level_is_the_share_inside(methods):
    whole, half = (
        metrics.paired_bootstrap(*methods, resamples=2000, level=x) for x in (0.95, 0.5)
    )
    ratio = (whole.high - whole.low) / (half.high - half.low)
    assert ratio == pytest.approx(1.96 / 0.6745, rel=0.1)
    assert (whole.level, half.level) == (0.95, 0.5)


def test_many_pictures_are_drawn_as_few_are():
    n = 2**17  # so that eight are drawn at a time
    a = np.random.default_rng(9).random(n)
    found = metrics.paired_bootstrap(a, 0 * a, np.arange(n), resamples=20)
    rng = np.random.default_rng(0)
    means = [a[rng.integers(n, size=n)].mean() for _ in range(20)]
    low, high = np.quantile(means, (0.025, 0.975))
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-9)


def test_the_overall_interval_has_a_seed(counts):
    intersection, union = counts
    groups = np.arange(len(union)) // 3
    pairs = (intersection, union), (intersection // 2, union)
    one, two = (
        metrics.paired_bootstrap_overall(*pairs, groups, resamples=300, seed=s) for s in (0, 1)
    )
    assert one.mean == two.mean and one.low != two.low
