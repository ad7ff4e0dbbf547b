"""A dataset through the method, resumable, and the tables that come of it."""

from nbhelpers.evaluation.evaluate import Evaluation, evaluate
from nbhelpers.evaluation.results import (
    Results,
    load_results,
    markdown,
    over_baselines,
    side_by_side,
)
from nbhelpers.evaluation.run import RunOptions, run, write_report
from nbhelpers.evaluation.runs import compare, load
from nbhelpers.evaluation.store import Store
from nbhelpers.evaluation.tables import show_ablation, show_weights

__all__ = [
    "Store",
    "run",
    "RunOptions",
    "evaluate",
    "Evaluation",
    "write_report",
    "load",
    "compare",
    "Results",
    "load_results",
    "markdown",
    "over_baselines",
    "side_by_side",
    "show_weights",
    "show_ablation",
]
