"""Files that only grow, of lines that know when they were damaged.

A line is a JSON array ``["crc", record]``, whose CRC-32 is that of the record's own text.
"""

import errno
import json
import os
import zlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from nbhelpers.files import sync_folder

Record = Mapping[str, Any]
"""What is kept of an item: its ``id``, and either its counts or an ``error``."""


class Writer:
    """One part of a store: records go in one by one, each on the disk before the call returns."""

    def __init__(self, path: Path, header: Record) -> None:
        self.path = path
        self._end = 0
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND
        flags |= getattr(os, "O_BINARY", 0)  # else Windows writes two bytes for a line's end
        try:
            self._file = os.open(path, flags, 0o666)
        except OSError as error:
            raise unwritable(path.parent.parent, error) from error
        try:
            self.append(header)
            sync_folder(path.parent)
        except OSError:
            self.close()
            raise

    def append(self, record: Record) -> None:
        """Adds a record.

        Raises:
            OSError: The disk is full or went away; the part then ends with the record before.
        """
        line = encode(record)
        try:
            rest = line
            while rest:
                rest = rest[os.write(self._file, rest) :]
            os.fsync(self._file)
        except OSError as error:
            with suppress(OSError):
                os.ftruncate(self._file, self._end)
            raise unwritable(self.path.parent.parent, error) from error
        self._end += len(line)

    def close(self) -> None:
        """Ends the part; nothing is lost without it."""
        if self._file >= 0:
            os.close(self._file)
        self._file = -1

    def __enter__(self) -> "Writer":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()


def canonical(value: Any) -> bytes:
    """Returns a value as JSON with one spelling: keys sorted, no spaces, ASCII alone.

    Raises:
        ValueError: It holds NaN or infinity, which JSON has no word for.

    Example:
        >>> canonical({"b": (1, 2), "a": "é"})
        b'{"a":"\\\\u00e9","b":[1,2]}'
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return text.encode("ascii")


def encode(record: Record) -> bytes:
    """Returns a record as a line that knows when it was damaged."""
    text = canonical(record)
    return b'["%08x",%s]\n' % (zlib.crc32(text), text)


def decode(line: bytes) -> Record | None:
    """Returns the record of a line without its newline; None for a damaged one."""
    text = line[12:-1]
    whole = line[:2] == b'["' and line[10:12] == b'",' and line[-1:] == b"]"
    if not whole or line[2:10] != b"%08x" % zlib.crc32(text):
        return None
    record: Record = json.loads(text)
    return record


def read_part(path: Path) -> Iterator[Record]:
    """Yields the records of a part, header first; a last line that was torn is left out.

    Raises:
        ValueError: A line that was written whole is damaged.
    """
    *lines, _torn = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines, 1):
        record = decode(line)
        if record is None:
            raise ValueError(
                f"{path}, line {number} of {len(lines)}, is damaged (its checksum is wrong); "
                "move the file away and start again: its results are then made anew"
            )
        yield record


def unwritable(folder: Path, error: OSError) -> OSError:
    """Returns what to tell a person whose disk is full, read-only or gone."""
    if error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT):
        advice = "free some space; the same command goes on from there"
    else:
        advice = "choose another folder with --out"
    reason = error.strerror or str(error)
    return type(error)(f"results can't be written to {folder}: {reason}; {advice}")
