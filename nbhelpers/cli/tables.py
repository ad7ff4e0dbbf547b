"""``python -m nbhelpers tables``: the paper's tables and figures from what was evaluated."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nbhelpers.cli import say
from nbhelpers.datasets import quoted
from nbhelpers.files import check_writable, write_whole
from nbhelpers.weights import EMBEDDED

FILES = ("tables.json", "tables.md", "figure-7.png")
FAMILY = ("family.json", "family.md")
DESCRIPTION = """\
Make the paper's tables from the runs in a folder: thresholds are chosen on val and
used on the test splits, the best one on the test itself (an oracle's) stands beside
it, gains have intervals over pictures, and the paper's own numbers a column of their
own. Written, as far as their rows were read:

  tables.json      Tables 1 to 4, and what Figures 7 and 8 show, for programs
  tables.md        the same for readers
  figure-7.png     mIoU over the weight of the noun, here and in the paper
  figure-8-*.png   maps of the ablation, of pictures that a rule chooses

A folder with runs of the family's systems (evaluate --method maskclip) gets one table of
all of them instead: family.json and family.md."""
ENDING = """\
examples
  python -m nbhelpers evaluate --split val --out out/runs/val
  python -m nbhelpers evaluate --split testA --out out/runs/testA
  python -m nbhelpers tables out/runs
all runs that the tables need, and the tables, by one command
  python -m nbhelpers reproduce
"""


def describe(parser: argparse.ArgumentParser) -> None:
    """Adds the subcommand's arguments to its parser."""
    parser.description, parser.epilog = DESCRIPTION, ENDING
    add_folders(parser)
    add = parser.add_argument
    add("--no-maps", action="store_true", help="leave out figure 8, which needs the model")
    add("--root", metavar="DIR", help="where the dataset lies, for figure 8")
    add("--splits-by", metavar="WHO", help="whose splits, for figure 8 (default: the usual)")
    add("--model", metavar="NAME", help="for figure 8 (default: as the runs name it)")
    add("--revision", metavar="COMMIT", help="as in segment, for figure 8")
    add("--parser", metavar="NAME", help="as in segment, for figure 8")
    add("--device", metavar="NAME", default="cpu", help="for figure 8 (default: cpu)")


def add_folders(parser: argparse.ArgumentParser) -> None:
    """Adds where the runs are and where the tables go."""
    add = parser.add_argument
    add("folder", metavar="DIR", help="holds the runs, one of val and others, side by side")
    add("--out", metavar="DIR", help="the folder of what is written (default: DIR)")
    add("--quiet", action="store_true", help="print nothing")


def run(options: argparse.Namespace) -> int:
    """Reads the runs, writes the tables and draws the figures."""
    from nbhelpers.evaluation.runs import find_runs
    from nbhelpers.family.evaluation.tables import PROTOCOLS

    folder, out = folders_of(options, [*FILES, *FAMILY])
    if any(find_runs(folder, prompts, systems=True) for prompts in PROTOCOLS):
        return write_family(folder, out, options)
    return write(folder, out, options)


def folders_of(options: argparse.Namespace, files: Sequence[str]) -> tuple[Path, Path]:
    """Returns the folder of the runs, and the one to write to, which is checked first."""
    folder, out = Path(options.folder), Path(options.out or options.folder)
    if "\0" in f"{folder}{out}" or not folder.is_dir():
        raise ValueError(f"{quoted(options.folder)} is no folder; give one that holds runs")
    check_writable(out, files)
    return folder, out


def write(folder: Path, out: Path, options: argparse.Namespace) -> int:
    """Makes the tables and figures of a folder."""
    from nbhelpers.evaluation.results import save_tables
    from nbhelpers.evaluation.tables import paper_tables

    tables = paper_tables(folder)
    paths = save_tables(out, "tables", "The paper's tables", tables)
    for name, drawing in drawings(tables, options).items():
        paths.append(write_whole(out / f"{name}.png", drawing.png))
    if not options.quiet:
        for path in paths:
            say(str(path), sys.stdout)
    return 0


def write_family(folder: Path, out: Path, options: argparse.Namespace) -> int:
    """Makes the table of all systems, with what each costs where that was measured."""
    from nbhelpers.evaluation.results import save_tables
    from nbhelpers.family.evaluation.costs import read_costs
    from nbhelpers.family.evaluation.tables import family_table, read_left_out

    tables = family_table(folder, read_costs(folder), read_left_out(folder))
    for path in save_tables(out, "family", "The family", tables):
        if not options.quiet:
            say(str(path), sys.stdout)
    return 0


def drawings(tables: Sequence[Mapping[str, Any]], options: argparse.Namespace) -> dict[str, Any]:
    """Draws Figure 7 of the first test split with a Table 3, Figure 8 of the first with one."""
    from nbhelpers.evaluation.tables import show_ablation, show_weights

    firsts = {table["name"]: table for table in reversed(tables)}
    found = {}
    rows = firsts.get("table-3", {"rows": ()})["rows"]
    if any(row["gain"] for row in rows) and any(row["alpha"] == 1 for row in rows):
        found["figure-7"] = show_weights(firsts["table-3"])
    if "figure-8" in firsts and not options.no_maps:
        table = firsts["figure-8"]
        benchmark, models = loaded(table, options)
        for row in table["rows"]:
            name = f"figure-8-{row['label'].replace(' ', '-')}"
            found[name] = show_ablation([row], benchmark, models)
    return found


def loaded(table: Mapping[str, Any], options: argparse.Namespace) -> tuple[Any, Any]:
    """Returns the split and the models that a table's runs were of."""
    from nbhelpers.datasets import referring
    from nbhelpers.models import load_models

    name = options.model or table["model"]
    if not options.model and name != EMBEDDED and "/" not in name:
        raise ValueError(
            f"figure 8 needs the model, which the runs call {quoted(name)}; give its folder with "
            "--model, or leave the figure out with --no-maps"
        )
    benchmark = referring(table["dataset"], table["split"], options.root, options.splits_by)
    revision = options.revision or (None if options.model else table["revision"])
    models = load_models(name, device=options.device, revision=revision, parser=options.parser)
    return benchmark, models
