"""The command line: finds the subcommand, and turns what went wrong into one line.

A subcommand is a line in `SUBCOMMANDS` and a module of its name here with two functions,
``describe(parser)`` and ``run(options)``. It is imported when it is asked for, and imports what
is heavy inside ``run``, after it has checked what it was given.
"""

import argparse
import importlib
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn, TextIO

from nbhelpers.versions import version_of

PROGRAM = "python -m nbhelpers"
# A result depends on their versions.
PACKAGES = ("nbhelpers", "torch", "diffusers", "transformers", "spacy", "numpy", "pillow")
LONGEST = 1500  # characters of an error; a shell's argument may have a hundred times as many
SUBCOMMANDS = {
    "segment": "find the pixels of a picture that a phrase means",
    "data": "say which data is there, what is wrong with it, where the rest is",
    "evaluate": "read a whole dataset, resumable, into a folder of results",
    "binding": "which way to generate gives each thing the color asked for",
    "tables": "the paper's tables and figures from what was evaluated",
    "questions": "what the paper leaves open, measured",
    "reproduce": "run all that tables and questions need, then make them",
}
ENDING = f"""
Each subcommand explains itself:

  {PROGRAM} segment --help

Bad input ends with exit code 2 and one line on standard error, Ctrl-C with 130.
To see where in the code an error arose, start with: python -X dev -m nbhelpers ...
"""


class Parser(argparse.ArgumentParser):
    """argparse, but its complaints end as every other error here does."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message}; see {self.prog} --help")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a subcommand.

    Args:
        arguments: Without the program's name; those of the process when None.

    Returns:
        The exit code: 0, or 2 for input that can't be used, 130 after Ctrl-C.
    """
    given = sys.argv[1:] if arguments is None else arguments
    return guarded("nbhelpers", lambda: dispatch(given))


def guarded(program: str, command: Callable[[], int]) -> int:
    """Runs a program's command, and turns what went wrong into one line and an exit code."""
    try:
        return command()
    except (ValueError, OSError, ImportError, MemoryError) as error:
        if sys.flags.dev_mode:
            raise
        message = " ".join(str(error).split()) or type(error).__name__
        message = message if len(message) <= LONGEST else f"{message[: LONGEST - 1]}…"
        say(f"{program}: error: {message}", sys.stderr)
        return 2
    except KeyboardInterrupt:
        say(f"{program}: stopped; nothing was left half-written", sys.stderr)
        return 130


def dispatch(arguments: Sequence[str]) -> int:
    """Parses the arguments with the subcommand's own parser and runs it."""
    if arguments and arguments[0] in SUBCOMMANDS:
        name = arguments[0]
        subcommand = importlib.import_module(f"nbhelpers.cli.{name}")
        parser = Parser(
            prog=f"{PROGRAM} {name}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        subcommand.describe(parser)
        code: int = subcommand.run(parser.parse_args(arguments[1:]))
        return code
    lines = "\n".join(f"  {name:10} {purpose}" for name, purpose in SUBCOMMANDS.items())
    parser = Parser(
        prog=PROGRAM,
        usage=f"{PROGRAM} SUBCOMMAND ...",
        description=f"Binding Words to Pixels, from a shell.\n\nsubcommands:\n{lines}",
        epilog=ENDING,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--version", action="version", version=f"nbhelpers {version_of('nbhelpers')}"
    )
    if not arguments:
        parser.print_help()
        return 0
    parser.parse_args(arguments if arguments[0].startswith("-") else [])
    raise ValueError(
        f"there is no subcommand {arguments[0]!r}; there are {', '.join(SUBCOMMANDS)}; "
        f"see {PROGRAM} --help"
    )


def say(text: str, stream: TextIO) -> None:
    """Prints a line of which no character commands the terminal or is beyond its encoding."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    encoding = stream.encoding or "utf-8"
    print(shown.encode(encoding, "backslashreplace").decode(encoding), file=stream, flush=True)
