"""``python -m nbhelpers reproduce``: from the weights to the tables and the answers."""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nbhelpers.cli import questions, say, tables
from nbhelpers.cli.evaluate import (
    REFERRING,
    add_manner,
    add_model,
    dataset,
    finish,
    model_of,
    whole,
)
from nbhelpers.datasets import quoted
from nbhelpers.files import check_writable
from nbhelpers.weights import EMBEDDED, data_folder

PARTS = ("tables", "classes", "leaks", "settings", "family")
DESCRIPTION = """\
Evaluate all that the paper's tables and the questions it leaves open need, then make
them: `tables` and `questions` tell what is written. Stop it, kill it, pull the plug:
the same command goes on.

parts
  tables     Tables 2, 3 and 4: every phrase; the named methods from two seeds
  classes    Table 1: the classes of each picture (of stickers; for COCO see evaluate)
  leaks      the three leaks: one thing a picture, its phrase in every order, 38 variants
  settings   weight, keys and values, completion, timesteps: one phrase a picture
  family     Table 1, measured: all systems (of the sticker world and its model); one
             whose weights aren't trained is left out, and the table says so"""
ENDING = """\
examples
  python -m nbhelpers reproduce --workers 2
  python -m nbhelpers reproduce --parts tables classes --workers 2 --out out
  python -m nbhelpers reproduce --dataset refcoco --root DIR --pictures 1500 \\
      --model stable-diffusion-v1-5/stable-diffusion-v1-5 --device cuda --batch 8 \\
      --work out/runs --out out
a model of another seed
  python -m nbhelpers reproduce --model FOLDER --parser stickers --work build/seed-1 \\
      --out data/results/seed-1
"""


def describe(parser: argparse.ArgumentParser) -> None:
    """Adds the subcommand's arguments to its parser."""
    parser.description, parser.epilog = DESCRIPTION, ENDING
    add = parser.add_argument
    add(
        "--dataset", type=dataset, choices=REFERRING, default=EMBEDDED, help=f"default: {EMBEDDED}"
    )
    add("--parts", choices=PARTS, nargs="+", default=list(PARTS), help="default: all")
    add("--pictures", metavar="N", type=whole, help="of each split (default: each part's own)")
    add("--work", metavar="DIR", default="build/results", help="the runs (default: build/results)")
    add(
        "--out",
        metavar="DIR",
        help="tables and figures (default: a checkout's data/results; out for an installed one)",
    )
    add_model(parser)
    add_manner(parser)


def run(options: argparse.Namespace) -> int:
    """Runs part by part; writes tables and answers as soon as what they need is there."""
    from nbhelpers.evaluation.jobs import Job
    from nbhelpers.evaluation.questions import OF_QUESTIONS, OF_TABLES, make_jobs
    from nbhelpers.family.evaluation.costs import measure_costs
    from nbhelpers.family.evaluation.tables import (
        family_jobs,
        find_left_out,
        job_of_each,
        write_left_out,
    )

    work = Path(options.work)
    out = Path(options.out) if options.out else default_out()
    check_writable(out, [*tables.FILES, *questions.FILES, *tables.FAMILY])
    options.no_maps = False
    base = Job(options.dataset, "val", {}, **model_of(options))
    errors = False
    for group, make in ((OF_TABLES, tables.write), (OF_QUESTIONS, questions.write)):
        wanted = [part for part in group if part in options.parts]
        code, complete = fill(make_jobs(base, wanted, options.pictures), work, options)
        errors = errors or code == 3
        if wanted and complete:
            make(work, out, options)
    jobs = family_jobs(base, options.pictures) if "family" in options.parts else {}
    if "family" in options.parts and not jobs:
        reason = f"the part family is of stickers and its model, not of {base.dataset} and "
        reason += f"{base.model!r}: the systems' weights belong to them"
        if options.parts == ["family"]:
            raise ValueError(f"{reason}; give another of --parts")
        if not options.quiet:
            say(f"{reason}; it is left out", sys.stderr)
    if jobs:
        left_out = find_left_out(options.device)
        jobs = family_jobs(base, options.pictures, without=left_out)
        write_left_out(work / "family", left_out)
        if not options.quiet:
            for name, reason in left_out.items():
                say(f"{name}: {reason}", sys.stderr)
    code, complete = fill(jobs, work / "family", options)
    if jobs and complete:
        measure_costs(job_of_each(jobs), work / "family")
        tables.write_family(work / "family", out, options)
    return 3 if errors or code == 3 else 0


def fill(jobs: Mapping[str, Any], work: Path, options: argparse.Namespace) -> tuple[int, bool]:
    """Runs jobs, each in a folder of its name.

    Returns:
        3 where an item of one ended in an error, else 0; and whether every item of all is done.
    """
    errors, complete = False, True
    for name, job in jobs.items():
        if not options.quiet:
            say(f"{name}: {quoted(work / name)}", sys.stderr)
        errors = finish(job, work / name, options) == 3 or errors
        complete = (work / name / "report.json").exists() and complete
    if not complete and not options.quiet:
        say("tables are made when the other shares are done", sys.stdout)
    return 3 if errors else 0, complete


def default_out() -> Path:
    """Returns the results recorded in a checkout; an installed package keeps its own unchanged."""
    recorded = data_folder() / "results"
    package = Path(__file__).resolve().parents[1]
    return Path("out") if recorded.resolve().is_relative_to(package) else recorded
