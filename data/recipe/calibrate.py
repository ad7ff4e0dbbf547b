"""`python -m recipe calibrate`: each method's own gathering, chosen on val."""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nbhelpers.cli import PACKAGES, say
from nbhelpers.cli.evaluate import REFERRING, add_model, model_of, whole
from nbhelpers.cli.segment import METHODS
from nbhelpers.datasets import quoted
from nbhelpers.files import check_writable, write_whole
from nbhelpers.versions import versions

WORK = Path(__file__).resolve().parents[2] / "build" / "calibration"
LINE = 240  # characters; what is longer is spread over lines
DESCRIPTION = """\
Choose on val, for each method by itself, from which attention its maps are made: the
timesteps, which layers, the weights of the resolutions, whether each is stretched to
[0, 1], what the softmax runs over, and the threshold. The best by mIoU is taken; of
gatherings within one standard error of it, the simplest. All maps of a phrase come
from one pass of the UNet a method.

Written into the model's folder, or into --out: nbhelpers.json, which load_models
reads. It holds the ten best of each method and by how much they are behind, with
intervals over pictures, so that a choice inside the noise shows.

Stop it or kill it: the same command goes on from the --work folder."""
ENDING = """\
exit codes: 0, 2 for bad input, 3 if some phrases ended in an error and were left out

examples
  python -m recipe calibrate --model stickers --dataset stickers
  python -m recipe calibrate --limit 20 --methods plain sealed --out out
  python -m recipe calibrate --dataset refcoco --root DIR --limit 300 --device cuda \\
      --model stable-diffusion-v1-5/stable-diffusion-v1-5 --out out
"""


def describe(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    parser.description, parser.epilog = DESCRIPTION, ENDING
    add = parser.add_argument
    add("--dataset", choices=REFERRING, default="stickers", help="default: stickers")
    add("--methods", choices=METHODS, nargs="+", default=list(METHODS), help="default: all")
    add("--limit", metavar="N", type=whole, help="only the first so many pictures of val")
    add(
        "--phrases",
        metavar="N",
        type=whole,
        default=1,
        help="at most so many of each picture, drawn from all of its phrases (default: 1)",
    )
    add(
        "--work",
        metavar="DIR",
        type=Path,
        default=WORK,
        help="what was counted so far (default: build/calibration)",
    )
    add("--out", metavar="DIR", help="for nbhelpers.json (default: the model's own folder)")
    add_model(parser)
    parser.set_defaults(model="stickers")
    add("--workers", metavar="N", type=whole, default=1, help="processes (default: 1)")
    add("--quiet", action="store_true", help="show no bar and no table")


def run(options: argparse.Namespace) -> int:
    """Check everything that was given, search, write the file and show the tables."""
    from nbhelpers.calibration import FILE, read_calibration
    from nbhelpers.evaluation.jobs import Job, variants_of
    from nbhelpers.evaluation.run import RunOptions
    from nbhelpers.evaluation.store import Store
    from nbhelpers.evaluation.workers import run_locally
    from nbhelpers.weights import locate
    from recipe.calibration import Search, calibrate

    source, commit = locate(options.model, options.revision, "model")
    if commit and not options.out:
        raise ValueError(
            f"{options.model} lies in the Hub's cache, where no calibration is kept; give --out "
            "DIR, and put the file that is written there into a folder of the model of your own"
        )
    out = Path(options.out or source)
    check_writable(out, [FILE])
    before = read_calibration(out)
    methods = [name for name in METHODS if name in options.methods]
    job = Job(
        options.dataset, "val", variants_of(methods), pictures=options.limit, **model_of(options)
    )
    search = Search(job, options.phrases)
    try:
        store = Store(options.work, search.settings(), search.items())
    except ValueError as error:
        raise ValueError(str(error).replace("--out", "--work")) from error
    about = {"versions": versions(PACKAGES), "device": options.device}
    how = RunOptions(progress=not options.quiet, environment=about)
    run_locally(store, search.open, how, workers=options.workers)
    found = calibrate(store, before)
    path = write_whole(out / FILE, f"{spread(found.record())}\n".encode("ascii"))
    last = found.chosen[-1]
    for name, rows in {} if options.quiet else last["best"].items():
        say("", sys.stdout)
        for line in table(name, rows):
            say(line, sys.stdout)
    if not options.quiet:
        say("", sys.stdout)
        say(
            f"{last['gatherings']} gatherings, {last['phrases']} phrases; {quoted(path)}",
            sys.stdout,
        )
    if last["errors"]:
        what = f"{last['errors']} phrases ended in an error and were left out; see {options.work}"
        say(f"recipe: {what}", sys.stderr)
        return 3
    return 0


def table(name: str, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the best gatherings of a method, as lines."""
    from nbhelpers.display import tabulate

    cells = []
    for row in rows:
        weights = row["weights"] or {"": "equal"}
        mean, low, high = (100 * value for value in row["behind"])
        cells.append(
            [
                " ".join(map(str, row["timesteps"])),
                ", ".join(f"{f}: {w}" if f else str(w) for f, w in weights.items()),
                *(row[name] for name in ("layers", "normalize", "softmax_over")),
                f"{row['threshold']:.2f}",
                f"{100 * row['miou']:.1f}",
                f"{mean:.1f} [{low:.1f}, {high:.1f}]",
                "chosen" if row["chosen"] else "tied" if row["tied"] else "",
            ]
        )
    columns = ["timesteps", "weights", "layers", "normalize", "softmax", "threshold", "mIoU"]
    shown = tabulate([*columns, "behind", ""], cells, caption=f"{name}, percent")
    return repr(shown).splitlines()


def spread(value: Any, indent: int = 0) -> str:
    """Return JSON in which what fits on a line stands on one."""
    text = json.dumps(value)
    if len(text) + indent <= LINE or not isinstance(value, dict | list):
        return text
    pad = " " * (indent + 1)
    if isinstance(value, dict):
        parts = [f"{json.dumps(key)}: {spread(one, indent + 1)}" for key, one in value.items()]
    else:
        parts = [spread(one, indent + 1) for one in value]
    start, end = "{}" if isinstance(value, dict) else "[]"
    return start + ",".join(f"\n{pad}{part}" for part in parts) + f"\n{' ' * indent}{end}"
