"""A program of its own: a pickle on standard input, JSON on standard output, nothing else.

`_pickles` starts it as a child process, so that a pickle that eats memory or time, or that ends
the interpreter, ends this one. It imports nothing but the standard library. A pickle is a program
for a small machine; the only ways out of it are names (globals), persistent ids and buffers, and
all are refused, so that what is left builds lists, dictionaries, texts and numbers.
"""

import io
import json
import os
import pickle
import sys
from typing import Any, NoReturn

DEPTH = 20  # RefCOCO's references are five deep
ITEMS = 20_000_000  # they hold about 3 million
CHARACTERS = 2**28


class Refused(Exception):
    """The error of a pickle that asks for or holds what is no plain data."""


class Closed(pickle.Unpickler):
    """An unpickler that knows no names."""

    def find_class(self, module: str, name: str) -> NoReturn:
        """Refuses a global, and with it every call."""
        raise Refused(
            f"it asks for {module[:40]}.{name[:40]}; a pickle of plain data asks for no name"
        )

    def persistent_load(self, pid: object) -> NoReturn:
        """Refuses an object that is kept outside of the pickle."""
        raise Refused("it asks for an object outside of itself (a persistent id)")


def plain(content: bytes) -> Any:
    """Returns what a pickle holds; byte strings of Python 2 are read as Latin-1.

    Raises:
        Refused: It asks for a name, an object from outside or a buffer, goes on after its end, is
            too deep or too large, or holds other things than lists, dictionaries, texts, numbers.
    """
    file = io.BytesIO(content)
    value = Closed(file, encoding="latin1").load()
    if file.tell() != len(content):
        raise Refused(f"{len(content) - file.tell()} bytes follow its end")
    check(value)
    return value


def check(value: object) -> None:
    """Refuses what JSON can't hold, or holds only by copying one part a billion times."""
    items = characters = 0
    level, depth = [value], 0
    while level:
        if depth > DEPTH:
            raise Refused(f"it is nested more than {DEPTH} deep")
        below: list[Any] = []
        for one in level:
            if isinstance(one, list | tuple):
                below += one
            elif isinstance(one, dict):
                if not all(isinstance(key, str) for key in one):
                    raise Refused("a key of a dictionary is no text")
                below += [*one, *one.values()]
            elif isinstance(one, str):
                characters += len(one)
            elif not isinstance(one, int | float | None):
                kind = type(one).__name__
                raise Refused(f"it holds {kind}, no list, dictionary, text or number")
            if items + len(below) > ITEMS or characters > CHARACTERS:
                raise Refused("it is too large when its shared parts are written out")
        items += len(below)
        level, depth = below, depth + 1


def limit(megabytes: int) -> None:
    """Takes no more memory than this, where the system knows such a limit."""
    try:
        import resource

        size = megabytes * 2**20
        resource.setrlimit(resource.RLIMIT_AS, (size, size))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (ImportError, ValueError, OSError):
        pass  # Windows has none and macOS keeps none: there the time limit alone holds


def main() -> int:
    """Reads, checks and writes; on any trouble writes one line that names it."""
    limit(int(sys.argv[1]))
    try:
        text = json.dumps(plain(sys.stdin.buffer.read()))
    except MemoryError:
        reason = "it takes too much memory"
    except Refused as refusal:
        reason = str(refusal)
    except Exception as error:  # noqa: BLE001 - broken pickles raise a dozen types
        reason = f"it is cut short or damaged ({type(error).__name__}: {error})"
    else:
        sys.stdout.write(text)
        return 0
    sys.stdout.write(json.dumps(reason[:1000]))
    return 1


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)  # a million nested lists need not be taken apart
