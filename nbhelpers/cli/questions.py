"""``python -m nbhelpers questions``: what the paper leaves open, from what was evaluated."""

import argparse
import sys
from pathlib import Path

from nbhelpers.cli import say
from nbhelpers.cli.tables import add_folders, folders_of

FILES = ("questions.json", "questions.md")
DESCRIPTION = """\
Answer, from the runs in a folder, what the paper leaves open: which leak between
phrases costs what, by the order of the target's phrase, and by way of keys or of
values; EOS and padding apart; Eq. 4 as a weight from 0 to 1.6, with Compel's way
below 1; keys, values or both; A S or its transpose, and how often; which timesteps;
what kind of phrase; and the gain by how good the baseline is.
Written, as far as the runs were made: questions.json, questions.md."""
ENDING = """\
example
  python -m nbhelpers reproduce --parts leaks settings tables --work out/runs
  python -m nbhelpers questions out/runs --out out
"""


def describe(parser: argparse.ArgumentParser) -> None:
    """Adds the subcommand's arguments to its parser."""
    parser.description, parser.epilog = DESCRIPTION, ENDING
    add_folders(parser)


def run(options: argparse.Namespace) -> int:
    """Reads the runs and writes the answers."""
    folder, out = folders_of(options, FILES)
    return write(folder, out, options)


def write(folder: Path, out: Path, options: argparse.Namespace) -> int:
    """Makes the answers of a folder."""
    from nbhelpers.evaluation.questions import answers
    from nbhelpers.evaluation.results import save_tables

    paths = save_tables(out, "questions", "What the paper leaves open", answers(folder))
    if not options.quiet:
        for path in paths:
            say(str(path), sys.stdout)
    return 0
