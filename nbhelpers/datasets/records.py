"""Records from files that strangers wrote: each field is checked before it is used.

A file that can't be read as a whole ends the reading (ValueError). A record of it that can't be
used is a `Broken`, which is kept beside the good ones, so that what was left out is counted.
"""

import json
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nbhelpers.datasets.pictures import open_regular
from nbhelpers.errors import Shown, quoted

MAX_BYTES = 2**31  # four times the largest annotation file of COCO
MAX_TEXT = 10_000  # characters of an expression or a name
AGAIN = "get the file again, or leave the record out"
SURROGATE = re.compile("[\ud800-\udfff]")


class Broken(ValueError):
    """A record that can't be used: its file and name, the field, what that holds, what to do."""

    def __init__(self, file: str, record: str, field: str, value: object, wanted: str) -> None:
        super().__init__(file, record, field, Shown(value), wanted)
        self.file, self.record, self.field, self.value, self.wanted = self.args

    def __str__(self) -> str:
        where = f"{quoted(self.file)}, {self.record}"
        return f"{where}: {self.field} is {self.value}; {self.wanted}"


@contextmanager
def collecting(broken: list[Broken]) -> Iterator[None]:
    """Adds the `Broken` that ends the block, if one does, to those before it."""
    try:
        yield
    except Broken as error:
        broken.append(error)


@dataclass(frozen=True)
class Record:
    """One object of a file, whose fields are asked for by type.

    What reads a field raises `Broken` where the field is missing (but for `flag`) or holds
    anything else.
    """

    file: str  # where it stands
    name: str  # which one, such as "annotation 17"
    fields: dict[str, Any]

    @classmethod
    def of(cls, value: Any, file: str, name: str) -> "Record":
        """Returns the record that a value is; `Broken` where it is no object with keys."""
        if not isinstance(value, dict):
            raise Broken(file, name, "the record", value, f"wanted an object with keys; {AGAIN}")
        return cls(file, name, value)

    def broken(self, field: str, wanted: str) -> Broken:
        """Returns the error that says what a field should hold."""
        return Broken(self.file, self.name, field, self.fields.get(field), f"{wanted}; {AGAIN}")

    def value(self, field: str) -> Any:
        """Returns what a field holds, whatever it is."""
        if field not in self.fields:
            there = Shown(sorted(map(str, self.fields)))
            missing = Shown("missing", exactly=True)
            raise Broken(self.file, self.name, field, missing, f"there are {there}; {AGAIN}")
        return self.fields[field]

    def whole(self, field: str, low: int = 0, high: int = 2**53) -> int:
        """Returns a whole number from `low` to `high`; True and "7" are none."""
        value = self.value(field)
        if type(value) is not int or not low <= value <= high:
            raise self.broken(field, f"wanted a whole number from {low:,} to {high:,}")
        return value

    def flag(self, field: str) -> bool:
        """Returns a yes or no, written as 0, 1, true or false; no where it is null or absent."""
        value = self.fields.get(field)
        if value is None:
            return False
        if type(value) not in (int, bool) or value not in (0, 1):
            raise self.broken(field, "wanted 0, 1, true or false")
        return bool(value)

    def text(self, field: str, most: int = MAX_TEXT) -> str:
        """Returns a text that isn't blank, of at most `most` characters, none of them halved.

        Half a character (a lone surrogate) is taken by no file and no terminal.
        """
        value = self.value(field)
        if not isinstance(value, str) or not value.strip():
            raise self.broken(field, "wanted a text that isn't blank")
        if len(value) > most:
            raise self.broken(field, f"wanted at most {most:,} characters, it has {len(value):,}")
        if SURROGATE.search(value):
            raise self.broken(field, "wanted whole characters, it holds a lone surrogate")
        return value

    def several(self, field: str) -> list[Any]:
        """Returns a list that isn't empty."""
        value = self.value(field)
        if not isinstance(value, list) or not value:
            raise self.broken(field, "wanted a list that isn't empty")
        return value

    def size(self) -> tuple[int, int]:
        """Returns a picture's ``(h, w)``, each from 1 to 100,000 pixels."""
        return self.whole("height", 1, 100_000), self.whole("width", 1, 100_000)


def indexed(
    values: Iterable[Any], file: str, kind: str, broken: list[Broken], key: str = "id"
) -> dict[int, Record]:
    """Returns records by the number in their field `key`, in the file's order.

    A record that stands there twice alike counts once. `broken` gets those without a number, and
    one for each number that several claim though they differ: nobody can say which is meant.
    """
    found: dict[int, Record] = {}
    torn: dict[int, Record] = {}
    for index, value in enumerate(values):
        with collecting(broken):
            record = Record.of(value, file, f"{kind} at index {index}")
            number = record.whole(key)
            if number in found and found[number].fields != value:
                torn[number] = record
            found[number] = Record(file, f"{kind} {number}", value)
    for number, record in torn.items():
        del found[number]
        broken.append(record.broken(key, "several records with this number differ"))
    return found


def read_json(path: Path) -> Any:
    """Returns what a JSON file holds; raises `OSError` without one, else as `parse_json`."""
    with open_regular(path) as file:
        large = os.fstat(file.fileno()).st_size
        if large > MAX_BYTES:
            raise ValueError(f"{quoted(path)} has {large:,} bytes; wanted at most {MAX_BYTES:,}")
        return parse_json(file.read(), str(path))


def parse_json(content: bytes | str, file: str) -> Any:
    """Returns what a JSON text holds; bytes are UTF-8, with or without a byte order mark.

    NaN stays NaN: the field that holds it is refused by itself. `file` is its name for messages.

    Raises:
        ValueError: It isn't JSON; a key stands twice in one object; it is nested too deeply, or
            holds a number of thousands of digits. The message says what is wrong and where.
    """
    name, again = quoted(file), "get the file again"
    if isinstance(content, bytes):
        if not content.strip():
            raise ValueError(f"{name} is empty ({len(content)} bytes); {again}")
        if b"\0" in content[:4] or content[:2] in (b"\xff\xfe", b"\xfe\xff"):
            raise ValueError(f"{name} is UTF-16 or binary, not JSON in UTF-8; save it as UTF-8")
        try:
            content = content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            found = error.object[error.start :][:4].hex(" ")
            raise ValueError(
                f"{name} is not UTF-8 (byte {error.start}: {found}); save it as UTF-8, or {again}"
            ) from None
    try:
        return json.loads(content, object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        position = f"line {error.lineno}, column {error.colno}, of {len(content):,} characters"
        raise ValueError(
            f"{name} is not JSON: {error.msg.lower()} at {position}; it may be cut short: {again}"
        ) from None
    except RecursionError:
        raise ValueError(f"{name} is nested too deeply for an annotation file; {again}") from None
    except ValueError as error:  # a key that stands twice, a number of thousands of digits
        raise ValueError(f"{name} can't be used: {quoted(error, 160)[1:-1]}; {again}") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Makes an object whose keys each stand once: of two, another reader may take the other."""
    made = dict(pairs)
    if len(made) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {quoted(twice)} stands twice in one object")
    return made
