"""``python -m nbhelpers evaluate``: a dataset through the method, into a folder that resumes."""

import argparse
import sys
from pathlib import Path
from typing import Any

from nbhelpers.cli import PACKAGES, say
from nbhelpers.cli.segment import METHODS, number, seed
from nbhelpers.datasets import quoted
from nbhelpers.datasets.published import SPLITS
from nbhelpers.family import SYSTEMS
from nbhelpers.versions import versions
from nbhelpers.weights import EMBEDDED, refuse_replaced

REFERRING = tuple(dict.fromkeys(name for name, _ in SPLITS))
DESCRIPTION = """\
Read every expression of a dataset and keep, in the --out folder, the pixels that
each map shares with the truth and those that either has, at 101 thresholds.

Results reach the disk one by one. Stop it, kill it, pull the plug: the same
command goes on, nothing is lost and nothing done twice. A folder that was made
with other settings is refused; --batch, --shard and --engine may change.

Written into the folder: manifest.json (what is run), parts/ (the results) and,
when every item is there, report.json."""
ENDING = """\
exit codes
  0    every item has a result, or, with --shard, this share's items have
  2    bad input, a full disk, or another process on this folder
  3    finished, but some items ended in an error; --retry-errors does them again
  130  Ctrl-C     143  SIGTERM: the same command goes on

examples
  python -m nbhelpers evaluate --dataset stickers --split val --out out/val
  python -m nbhelpers evaluate --dataset stickers --split val --method plain paper \\
      --alpha 0.5 0.9 --seeds 0 1 --pictures 20 --out out/alphas
  python -m nbhelpers evaluate --dataset stickers --model stickers --method maskclip \\
      --prompts classes --out out/maskclip
  python -m nbhelpers evaluate --dataset refcoco --root DIR --split testA \\
      --model stable-diffusion-v1-5/stable-diffusion-v1-5 --device cuda --out out/testA

one share of eight, as in a Slurm array of tasks 0-7, all into one folder
  ... --shard $SLURM_ARRAY_TASK_ID/8 --out DIR
both cores of this machine
  ... --workers 2 --out DIR
several GPUs of one or many machines (pip install ray; private networks only: older
Rays ask nobody who they are)
  ... --engine ray --workers 4 --device cuda --out DIR
"""


def describe(parser: argparse.ArgumentParser) -> None:
    """Adds the subcommand's arguments to its parser."""
    parser.description, parser.epilog = DESCRIPTION, ENDING
    add = parser.add_argument
    add(
        "--dataset",
        type=dataset,
        choices=(*REFERRING, "coco"),
        default=EMBEDDED,
        help=f"default: {EMBEDDED}",
    )
    add("--split", metavar="NAME", default="val", help="such as val, testA (default: val)")
    add(
        "--method",
        metavar="NAME",
        choices=(*METHODS, *SYSTEMS),
        nargs="+",
        default=["plain", "paper", "sealed"],
        help=f"one or several of {', '.join(METHODS)}; or one system of {', '.join(SYSTEMS)} "
        "(default: plain paper sealed)",
    )
    add(
        "--prompts",
        choices=("phrase", "classes"),
        help="every expression, or the classes of each picture, pooled as COCO-Object does "
        "(default: phrase; classes of coco, and for a system that takes nothing else)",
    )
    add(
        "--alpha",
        metavar="W",
        type=number(0, 2),
        nargs="+",
        default=[],
        help="every method with each of these weights of the noun, instead of its own",
    )
    add(
        "--seeds",
        metavar="N",
        type=seed,
        nargs="+",
        default=[],
        help="every method with the noise of each of these seeds (default: 0)",
    )
    add("--pictures", metavar="N", type=whole, help="only the first so many pictures")
    add("--out", metavar="DIR", required=True, help="the folder of the results")
    add_model(parser)
    add_manner(parser)


def add_model(parser: argparse.ArgumentParser) -> None:
    """Adds what the numbers depend on besides the method."""
    add = parser.add_argument
    add("--root", metavar="DIR", help="where the dataset lies (default: the project's own)")
    add("--splits-by", metavar="WHO", help="whose splits: unc, umd, google (default: the usual)")
    add("--model", metavar="NAME", default=EMBEDDED, help=f"as in segment (default: {EMBEDDED})")
    add("--revision", metavar="COMMIT", help="as in segment")
    add("--parser", metavar="NAME", help="as in segment")
    add("--device", metavar="NAME", default="cpu", help="cpu, cuda, cuda:1 (default: cpu)")


def add_manner(parser: argparse.ArgumentParser) -> None:
    """Adds how it is run, which the numbers don't depend on."""
    add = parser.add_argument
    add("--batch", metavar="N", type=whole, default=1, help="prompts a pass (default: 1)")
    add("--shard", metavar="I/N", type=share, default=(0, 1), help="only the I-th of N, from 0")
    add("--engine", choices=("local", "ray"), default="local", help="default: local")
    add(
        "--workers",
        metavar="N",
        type=whole,
        default=1,
        help="processes, each with the models and one thread on a CPU (default: 1)",
    )
    add(
        "--seconds",
        metavar="S",
        type=number(0.001, 1e6),
        default=600.0,
        help="the longest that one item may take before it counts as an error (default: 600; "
        "no limit on Windows)",
    )
    add("--retry-errors", action="store_true", help="do again what ended in an error")
    add("--quiet", action="store_true", help="show no bar and no result")


def run(options: argparse.Namespace) -> int:
    """Checks everything that was given, then loads the models and goes through the items."""
    from nbhelpers.evaluation.jobs import Job, variants_of

    systems = [SYSTEMS[name] for name in options.method if name in SYSTEMS]
    if systems and (len(options.method) > 1 or options.alpha or options.seeds):
        raise ValueError(
            "a run is of one system of the family, without --alpha and --seeds; got --method "
            f"{' '.join(options.method)}"
        )
    takes = systems[0].takes if systems else ("phrase", "classes")
    usual: Any = "classes" if options.dataset == "coco" or "phrase" not in takes else "phrase"
    job = Job(
        dataset=options.dataset,
        split=options.split,
        variants={} if systems else variants_of(options.method, options.alpha, options.seeds),
        system=systems[0].name if systems else None,
        pictures=options.pictures,
        prompts=options.prompts or usual,
        **model_of(options),
    )
    return finish(job, Path(options.out), options)


def finish(job: Any, folder: Path, options: argparse.Namespace) -> int:
    """Runs a job in a folder as the options say, reports on it if it is complete, and tells."""
    from nbhelpers.evaluation import RunOptions, Store, write_report
    from nbhelpers.evaluation.workers import run_locally, run_with_ray

    store = Store(folder, job.settings(), job.items())
    how = RunOptions(
        shard=options.shard,
        batch=options.batch,
        seconds=options.seconds,
        retry_errors=options.retry_errors,
        progress=not options.quiet,
        environment={"versions": versions(PACKAGES), "device": options.device},
    )
    if options.engine == "ray":
        run_with_ray(store, job.open, how, workers=options.workers, gpus=gpus(options))
    else:
        run_locally(store, job.open, how, workers=options.workers)
    if job.broken:
        what = f"{len(job.broken):,} broken records of {job.dataset} {job.split} were left out"
        say(f"nbhelpers: {what}, the first: {job.broken[0]}", sys.stderr)
    left = len(store.pending())
    if left:
        if not options.quiet:
            say(f"{left} of {len(store.ids)} items are left to the other shares", sys.stdout)
        return 0
    report = write_report(store)
    errors = report["errors"]
    if not options.quiet:
        done = f"{report['items'] - len(errors)} of {report['items']} items have results"
        say(f"{done}; {quoted(folder / 'report.json')}", sys.stdout)
    if errors:
        name, text = next(iter(errors.items()))
        what = f"{len(errors)} items ended in an error and are left out, such as {name}: {text}"
        say(f"nbhelpers: {what}", sys.stderr)
        return 3
    return 0


def model_of(options: argparse.Namespace) -> dict[str, Any]:
    """Returns dataset and model as a job wants them."""
    names = ("root", "model", "revision", "parser", "device")
    return {"by": options.splits_by, **{name: getattr(options, name) for name in names}}


def gpus(options: argparse.Namespace) -> int:
    """Returns how many GPUs a worker of Ray's needs."""
    return 1 if options.device.startswith("cuda") else 0


def dataset(text: str) -> str:
    """Returns a dataset's name, unless an earlier version had it; `choices` say what there is."""
    try:
        refuse_replaced(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return text


def whole(text: str) -> int:
    """Returns a count of at least 1."""
    if not (text.isascii() and text.isdigit()) or int(text[:12]) < 1:
        raise argparse.ArgumentTypeError(f"wanted a whole number of 1 or more; got {quoted(text)}")
    return int(text[:12])


def share(text: str) -> tuple[int, int]:
    """Returns a share such as 0/8."""
    from nbhelpers.evaluation.run import parse_shard

    try:
        return parse_shard(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
