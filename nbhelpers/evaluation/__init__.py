"""A dataset through the method, resumable, and the tables that come of it."""

from nbhelpers.evaluation.results import Results, load_results, markdown, side_by_side
from nbhelpers.evaluation.run import RunOptions, run, write_report
from nbhelpers.evaluation.store import Store

__all__ = [
    "Store",
    "run",
    "RunOptions",
    "write_report",
    "Results",
    "load_results",
    "markdown",
    "side_by_side",
]
