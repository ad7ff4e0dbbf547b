"""The checks of the lab on evaluation: two means, an honest threshold, an interval."""

from collections.abc import Callable

import numpy as np

from nbhelpers.metrics import mean_iou, overall_iou, paired_bootstrap
from nblabs.checking import Round, rounds


def check_two_means(
    two_means: Callable[[np.ndarray, np.ndarray], tuple[float, float]], *, seed: int | None = None
) -> None:
    """Checks ``two_means(intersection, union)``: mIoU and oIoU of some expressions.

    Args:
        two_means: Takes the intersection and the union in pixels of each expression, two integer
            arrays; returns mIoU and oIoU. An empty union has an IoU of 0.
        seed: Of the first inputs; fresh ones each time when None.

    Raises:
        Wrong: It differs from `mean_iou` and `overall_iou`.
    """
    for trial in rounds(two_means, seed):
        rng = np.random.default_rng(trial.seed)
        union = rng.integers(20, 4000, 12)
        shared = (union * rng.random(12)).astype(np.int64)
        trial.compare(
            tuple(trial.ask(shared, union)),
            (mean_iou(shared, union), overall_iou(shared, union)),
            {
                "mIoU first, then oIoU": (overall_iou(shared, union), mean_iou(shared, union)),
                "weighted by area, the mean of IoUs is oIoU again; weigh each expression alike": (
                    (overall_iou(shared, union),) * 2
                ),
                "oIoU divides sums of pixels; you took the mean of IoUs twice": (
                    (mean_iou(shared, union),) * 2
                ),
                "shares, not percent": (
                    100 * mean_iou(shared, union),
                    100 * overall_iou(shared, union),
                ),
            },
            "the mean of shared / union; the sum of shared over the sum of union",
        )
        shared[3] = union[3] = 0
        with np.errstate(all="ignore"):
            answer = trial.ask(shared, union)
        trial.compare(
            tuple(answer),
            (mean_iou(shared, union), overall_iou(shared, union)),
            hint="an expression whose union is empty has an IoU of 0, and counts in the mean",
        )


def check_report(
    report: Callable[[np.ndarray, np.ndarray], float], *, seed: int | None = None
) -> None:
    """Checks ``report(val, test)``: the mIoU of test at the threshold that is best on val.

    Args:
        report: Takes the IoUs ``(item, threshold)`` of two splits; returns one mIoU.
        seed: Of the first inputs; fresh ones each time when None.

    Raises:
        Wrong: The threshold was chosen in another way.
    """
    for trial in rounds(report, seed):
        rng = np.random.default_rng(trial.seed)
        val, test = rng.random((30, 9)), rng.random((20, 9))
        val[:, 3] += 0.6  # best on val
        val[:, 0] *= 0.3  # worst on it
        test[:, 6] += 0.6  # best on test
        val, test = np.clip(val, 0, 1), np.clip(test, 0, 1)
        chosen = int(val.mean(axis=0).argmax())
        trial.compare(
            trial.ask(val, test),
            test.mean(axis=0)[chosen],
            {
                "an oracle: you chose the threshold on the test split": test.mean(axis=0).max(),
                "an oracle of each item: one threshold serves all": test.max(axis=1).mean(),
                "choose on val, but report test": val.mean(axis=0).max(),
                "the mean over items is axis 0; you mixed up items and thresholds": (
                    test.mean(axis=1)[val.mean(axis=1).argmax() % len(test)]
                ),
                "the best threshold, not the mean of all": test.mean(),
                "the index of the largest mean, not of the single largest value": (
                    test.mean(axis=0)[np.unravel_index(val.argmax(), val.shape)[1]]
                ),
                "the best mean, not the worst": test.mean(axis=0)[val.mean(axis=0).argmin()],
            },
            "val.mean(axis=0).argmax() is the index of the threshold",
        )


def check_interval(
    interval: Callable[[np.ndarray, np.ndarray, np.ndarray, int], tuple[float, float]],
    *,
    seed: int | None = None,
) -> None:
    """Checks ``interval(a, b, pictures, seed)``: how far a gain can be trusted.

    Args:
        interval: Takes the IoUs of two methods, the picture of each expression, and a seed;
            returns the ends of the 95% interval of the mean of a - b over at least 1,000
            resamples of the pictures.
        seed: Of the first inputs; fresh ones each time when None.

    Raises:
        Wrong: It is much wider or narrower than that of `paired_bootstrap`, or lies elsewhere.
    """
    for trial in rounds(interval, seed, count=4):
        a, b, pictures = _clustered(trial)
        right = paired_bootstrap(a, b, pictures, resamples=8000, seed=trial.seed)
        singles = paired_bootstrap(a, b, np.arange(len(a)), resamples=4000)
        answer = trial.ask(a, b, pictures, trial.seed)
        try:
            low, high = (float(x) for x in answer)
        except (TypeError, ValueError):
            trial.refuse(f"it gave {str(answer)[:60]!r}", "return the interval's two ends")
        width, wanted = high - low, right.high - right.low
        told = (
            f"it gave [{low:.3f}, {high:.3f}], wanted is about [{right.low:.3f}, {right.high:.3f}]"
        )
        middle = abs((low + high) / 2 - (right.low + right.high) / 2)
        if not (np.isfinite(width) and width > 0):
            trial.refuse(told, "the lower end comes first, and the interval isn't empty")
        if abs(right.mean + (low + high) / 2) < 0.15 * wanted < abs(right.mean):
            trial.refuse(told, "a - b, not b - a")
        if width < 0.5 * (wanted + singles.high - singles.low):
            trial.refuse(
                told,
                "too narrow: draw pictures, not expressions; those of one picture succeed and "
                "fail together",
            )
        if width < 0.87 * wanted:  # between 0.05 and 0.95, by 1,000 draws, it is 0.84 +- 0.025
            trial.refuse(told, "a little narrow: the quantiles are 0.025 and 0.975")
        if width > 1.5 * wanted:
            trial.refuse(told, "too wide: draw the pictures once, for both methods alike")
        if width > 1.14 * wanted or middle > 0.15 * wanted:
            trial.refuse(told, "as many pictures as there are, with replacement; then quantiles")


def _clustered(trial: Round) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns IoUs that pictures share: of both methods, and of their difference."""
    rng = np.random.default_rng(trial.seed)
    pictures = np.repeat(np.arange(60), 6)
    level = rng.uniform(0.1, 0.9, 60)[pictures]  # an easy picture is easy for both
    gain = rng.normal(rng.uniform(0.04, 0.16), 0.08, 60)[pictures]  # another interval each time
    b = np.clip(level + rng.normal(0, 0.01, len(level)), 0, 1)
    a = np.clip(level + gain + rng.normal(0, 0.01, len(level)), 0, 1)
    return a, b, pictures
