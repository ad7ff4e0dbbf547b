"""A dataset through the method, resumable, and the tables that come of it."""

from nbhelpers.evaluation.evaluate import Evaluation, evaluate
from nbhelpers.evaluation.markdown import markdown
from nbhelpers.evaluation.report import write_report
from nbhelpers.evaluation.results import Results, load_results, side_by_side
from nbhelpers.evaluation.run import run
from nbhelpers.evaluation.store import Store

__all__ = [
    "Store",
    "run",
    "evaluate",
    "Evaluation",
    "write_report",
    "Results",
    "load_results",
    "markdown",
    "side_by_side",
]
