"""Pickles from the web, never opened in this process.

RefCOCO is published as pickles of Python 2, and a pickle may run anything. These need no name at
all, so every name is refused (`_unpickling`), and because a pickle can still eat all memory or
never end, a child process with limits opens it and hands its content over as JSON.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from nbhelpers.datasets.pictures import BLANK, open_regular, stranger
from nbhelpers.datasets.records import parse_json
from nbhelpers.errors import quoted

MAX_BYTES = 2**28  # RefCOCO's have below 2**25
MEGABYTES = 2048
SECONDS = 120.0


def read_pickle(path: Path, *, megabytes: int = MEGABYTES, seconds: float = SECONDS) -> Any:
    """Returns what a pickle of plain data holds: lists, dictionaries, texts, numbers.

    Texts of Python 2 are read as Latin-1, tuples as lists. Reading may take so many seconds and,
    but on Windows and macOS, megabytes of memory.

    Raises:
        OSError: There is nothing to read.
        ValueError: It asks for a name of Python's or an object from outside, holds other things,
            is damaged, or too large, or takes too long; the message says which.
    """
    name = quoted(path)
    program = str(Path(__file__).with_name("_unpickling.py"))
    with open_regular(path) as file:
        start = file.read(64)
        if other := stranger(start) if start.strip(BLANK) else "empty":
            raise ValueError(f"{name} is no pickle but {other}; get the file again")
        size = os.fstat(file.fileno()).st_size
        if size > MAX_BYTES:
            raise ValueError(f"{name} has {size:,} bytes; wanted at most {MAX_BYTES:,}")
        os.lseek(file.fileno(), 0, os.SEEK_SET)  # the child reads past this file's buffer
        try:
            done = subprocess.run(
                [sys.executable, "-I", "-S", program, str(megabytes)],
                stdin=file.fileno(),
                capture_output=True,
                timeout=seconds,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise ValueError(
                f"{name} took more than {seconds:g} s to read; don't use it, get the file again"
            ) from None
    if done.returncode == 0:
        return parse_json(done.stdout, str(path))
    try:
        reason = quoted(json.loads(done.stdout), 240)[1:-1]
    except ValueError:
        reason = f"its reader ended by itself (exit code {done.returncode})"
    raise ValueError(f"{name} is not a pickle to be used: {reason}; don't use it, get it again")
