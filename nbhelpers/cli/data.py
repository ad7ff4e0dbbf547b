"""``python -m nbhelpers data check``: which data is there, what is wrong, where is the rest."""

import argparse
import sys
from pathlib import Path

from nbhelpers.cli import say
from nbhelpers.datasets import quoted
from nbhelpers.files import check_writable, write_together

DESCRIPTION = """\
Look through a folder of data: which of the referring sets and of COCO's splits are
there, whether every record can be read and every picture that they need is there,
and where the missing parts are to be had. Nothing is downloaded.

Compared with what was published are how many references and expressions a referring
split has, as far as its makers say, and how many pictures a split of COCO has: right
counts don't prove that a file is the published one. The makers publish no checksums;
files are compared with those of a SHA256SUMS that lies in the folder, if one does.

The folder holds, as far as there:

  refcoco/, refcoco+/, refcocog/   refs(unc).p, refs(umd).p or refs(google).p with
                                   instances.json; or SPLIT.jsonl, a mirror's rows
  train2014/ or images/            the pictures of the referring sets
  annotations/                     instances_SPLIT.json, captions_SPLIT.json of COCO
  val2014/, val2017/, ...          the pictures of COCO's splits
  SHA256SUMS                       optional: checksums, as --write-sums or sha256sum make
"""
ENDING = """\
exit codes:
  0   at least one set is there, and nothing missing or wrong was found
  3   nothing is there, or a part of what is there is missing or wrong; the lines
      say which, and what to do
  2   the folder can't be looked through

example:
  python -m nbhelpers data check data/stickers
"""
MARKS = {"good": "ok     ", "missing": "missing", "wrong": "WRONG  "}


def describe(parser: argparse.ArgumentParser) -> None:
    """Adds the subcommand's arguments to its parser."""
    parser.description, parser.epilog = DESCRIPTION, ENDING
    parser.add_argument("action", choices=["check"], help="what to do with the data")
    parser.add_argument("folder", metavar="DIR", help="the folder that holds the data")
    parser.add_argument(
        "--write-sums",
        action="store_true",
        help="write SHA256SUMS into the folder first, from the files as they are now",
    )
    parser.add_argument("--quiet", action="store_true", help="print what is wrong, nothing else")


def run(options: argparse.Namespace) -> int:
    """Checks what is in the folder and tells of it."""
    if not options.folder or "\0" in options.folder:
        raise ValueError(f"{quoted(options.folder)} can't be a folder's name; give DIR a folder")
    from nbhelpers.datasets.check import SUMS, check, sums

    folder = Path(options.folder)
    if options.write_sums and folder.is_dir():
        check_writable(folder, [SUMS])
        write_together(folder, {SUMS: sums(folder).encode("utf-8")})

    def tell(part: str) -> None:
        if not options.quiet:
            say(f"looking at {part}", sys.stderr)

    good = bad = 0
    for finding in check(folder, tell):
        amiss = finding.state == "wrong" or (finding.state == "missing" and finding.counts)
        good += finding.state == "good"
        bad += amiss
        if amiss or not options.quiet:
            say(f"{MARKS[finding.state]}  {finding.what}: {finding.words}", sys.stdout)
    if not options.quiet:
        say(f"{good} parts are right, {bad} missing or wrong", sys.stdout)
    return 0 if good and not bad else 3
