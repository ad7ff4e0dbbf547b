"""``python -m nbhelpers binding``: which system gives each thing the color asked for."""

import argparse
import sys
from pathlib import Path

from nbhelpers.cli import PACKAGES, say
from nbhelpers.cli.evaluate import whole
from nbhelpers.cli.reproduce import default_out
from nbhelpers.cli.segment import number, seed
from nbhelpers.datasets import quoted
from nbhelpers.files import check_writable
from nbhelpers.versions import versions

DESCRIPTION = """\
Generate pictures of two things in two colors by each system, and let three judges
say whether each thing has its color: CLIP on crops, BLIP's caption, and a count
of pixels in each thing's mask. What a system leaves open, such as a step's size,
is chosen on other prompts first. Stop it, kill it, pull the plug: the same command goes on.

Written: binding.json, the settings and for each system and judge the share of
pictures with both colors right, its gain over the plain prompt, and intervals."""
ENDING = """\
examples
  python -m nbhelpers binding
  python -m nbhelpers binding --systems plain sealed --prompts 20 --seeds 0 --out out
"""


def describe(parser: argparse.ArgumentParser) -> None:
    """Adds the subcommand's arguments to its parser."""
    from nbhelpers.family.evaluation.binding import SYSTEMS

    parser.description, parser.epilog = DESCRIPTION, ENDING
    add = parser.add_argument
    add("--systems", choices=SYSTEMS, nargs="+", default=list(SYSTEMS), help="default: all")
    add("--seeds", metavar="N", type=seed, nargs="+", default=[0, 1], help="default: 0 1")
    add("--prompts", metavar="N", type=whole, help="of each split (default: all)")
    add("--steps", metavar="N", type=whole, default=20, help="of denoising (default: 20)")
    add("--guidance", metavar="G", type=number(1, 100), default=4.0, help="default: 4")
    add("--model", metavar="NAME", default="stickers", help="as in segment (default: stickers)")
    add("--device", metavar="NAME", default="cpu", help="cpu, cuda, cuda:1 (default: cpu)")
    add("--batch", metavar="N", type=whole, default=10, help="pictures at once (default: 10)")
    add("--workers", metavar="N", type=whole, default=1, help="processes (default: 1)")
    add("--work", metavar="DIR", default="build/binding", help="the runs (default: build/binding)")
    add(
        "--out",
        metavar="DIR",
        help="the result (default: a checkout's data/results; out for an installed one)",
    )
    add("--retry-errors", action="store_true", help="do again what ended in an error")
    add("--quiet", action="store_true", help="show no bar and no result")


def run(options: argparse.Namespace) -> int:
    """Chooses on val, runs test and writes the result."""
    from nbhelpers.evaluation.run import RunOptions
    from nbhelpers.family.evaluation.binding import FILE, SYSTEMS, BindingJob, measure_binding

    out = Path(options.out) if options.out else default_out()
    check_writable(out, [FILE])
    names = dict.fromkeys(["plain", *options.systems])
    test = BindingJob(
        split="test",
        choices={name: range(len(SYSTEMS[name].choices)) for name in names},
        seeds=options.seeds,
        prompts=options.prompts,
        steps=options.steps,
        guidance=options.guidance,
        model=options.model,
        device=options.device,
    )
    how = RunOptions(
        batch=options.batch,
        retry_errors=options.retry_errors,
        progress=not options.quiet,
        environment={"versions": versions(PACKAGES), "device": options.device},
    )
    record = measure_binding(
        Path(options.work),
        out,
        test,
        how,
        val_prompts=options.prompts,
        workers=options.workers,
    )
    if not options.quiet:
        for row in record["rows"]:
            low, high = row["interval"]
            figures = f"{row['share']:6.1%} [{low:.1%}, {high:.1%}]"
            say(f"{row['title']:32} {row['judge']:7} {figures}", sys.stdout)
        say(quoted(out / FILE), sys.stdout)
    return 0
