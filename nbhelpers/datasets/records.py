"""Records from files that strangers wrote: each field is looked at before it is believed.

A file that can't be read as a whole ends the reading (ValueError). A record of it that can't be
used is a `Broken`, which is kept beside the good ones, so that the rest goes on and the count of
what was left out can be told.
"""

import json
import os
import re
import reprlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nbhelpers.datasets.pictures import open_regular, quoted

MAX_BYTES = 2**31  # four times the largest annotation file of COCO
MAX_TEXT = 10_000  # characters of an expression or a name
AGAIN = "get the file again, or leave the record out"
SURROGATE = re.compile("[\ud800-\udfff]")


class Broken(ValueError):
    """A record that can't be used: its file, its name, the field, what it holds, what to do.

    Args:
        file: Where the record stands.
        record: Which one, such as "annotation 17".
        field: The key in it.
        value: What the key holds.
        wanted: What it should hold, and what to do.
    """

    def __init__(self, file: str, record: str, field: str, value: object, wanted: str) -> None:
        super().__init__(file, record, field, Shown(value), wanted)
        self.file, self.record, self.field, self.value, self.wanted = self.args

    def __str__(self) -> str:
        place = f"{quoted(self.file)}, {self.record}"
        return f"{place}: {self.field} is {self.value}; {self.wanted}"


class Shown(str):
    """A value as a message shows it: escaped, at most 80 characters of it, however deep it is.

    Example:
        >>> Shown("dog" * 40) == quoted("dog" * 40)
        True
        >>> Shown([1, [2.5, None]])
        '[1, [2.5, None]]'
    """

    def __new__(cls, value: object, *, exactly: bool = False) -> "Shown":
        """Make the text of a value; or take a text of our own exactly as it is."""
        if isinstance(value, Shown):
            return value
        if exactly:
            return super().__new__(cls, value)
        if isinstance(value, str):
            return super().__new__(cls, quoted(value))
        short = reprlib.Repr()
        short.maxstring = short.maxother = 80
        return super().__new__(cls, quoted(short.repr(value))[1:-1])

    def __getnewargs_ex__(self) -> tuple[tuple[str], dict[str, bool]]:
        """What makes it again in another process: its text, which is not to be quoted twice."""
        return (str(self),), {"exactly": True}


@dataclass(frozen=True)
class Record:
    """One object of a file, whose fields are asked for by type.

    Attributes:
        file: Where it stands.
        name: Which one, such as "annotation 17".
        fields: What it holds.
    """

    file: str
    name: str
    fields: dict[str, Any]

    @classmethod
    def of(cls, value: Any, file: str, name: str) -> "Record":
        """The record that a value is.

        Raises:
            Broken: It is no object of keys and values.
        """
        if not isinstance(value, dict):
            raise Broken(file, name, "the record", value, f"wanted an object with keys; {AGAIN}")
        return cls(file, name, value)

    def broken(self, field: str, wanted: str) -> Broken:
        """The error that says what a field should hold."""
        return Broken(self.file, self.name, field, self.fields.get(field), f"{wanted}; {AGAIN}")

    def value(self, field: str) -> Any:
        """What a field holds.

        Raises:
            Broken: It isn't there.
        """
        if field not in self.fields:
            there = Shown(sorted(map(str, self.fields)))
            missing = Shown("missing", exactly=True)
            raise Broken(self.file, self.name, field, missing, f"there are {there}; {AGAIN}")
        return self.fields[field]

    def whole(self, field: str, low: int = 0, high: int = 2**53) -> int:
        """A whole number.

        Raises:
            Broken: It is none (True and "7" aren't), or below `low`, or above `high`.
        """
        value = self.value(field)
        if type(value) is not int or not low <= value <= high:
            raise self.broken(field, f"wanted a whole number from {low:,} to {high:,}")
        return value

    def flag(self, field: str) -> bool:
        """A yes or no, written as 0, 1, true or false; no where the field is null or absent.

        Raises:
            Broken: It is anything else, be it "0" or 2.
        """
        value = self.fields.get(field)
        if value is None:
            return False
        if type(value) not in (int, bool) or value not in (0, 1):
            raise self.broken(field, "wanted 0, 1, true or false")
        return bool(value)

    def text(self, field: str, most: int = MAX_TEXT) -> str:
        """A text with something in it.

        Raises:
            Broken: It is none, blank, longer than `most` characters, or holds half a character
                (a lone surrogate), which no file and no terminal takes.
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
        """A list with something in it.

        Raises:
            Broken: It is none, or empty.
        """
        value = self.value(field)
        if not isinstance(value, list) or not value:
            raise self.broken(field, "wanted a list that isn't empty")
        return value

    def size(self) -> tuple[int, int]:
        """The picture's ``(h, w)``.

        Raises:
            Broken: A side isn't a whole number from 1 to 100,000.
        """
        return self.whole("height", 1, 100_000), self.whole("width", 1, 100_000)


def indexed(
    values: Iterable[Any], file: str, kind: str, broken: list[Broken], key: str = "id"
) -> dict[int, Record]:
    """Records by their number.

    Args:
        values: What the file lists.
        file: Its name.
        kind: What a record is called in messages.
        broken: Gets those that have no number, and one for each number that several claim
            though they differ: nobody can say which of them is meant.
        key: The field that holds the number.

    Returns:
        The others, in the file's order; one that stands there twice alike counts once.
    """
    found: dict[int, Record] = {}
    torn: dict[int, Record] = {}
    for place, value in enumerate(values):
        try:
            record = Record.of(value, file, f"{kind} at place {place}")
            number = record.whole(key)
        except Broken as error:
            broken.append(error)
            continue
        known = found.get(number)
        if known is not None and known.fields != value:
            torn[number] = record
        found[number] = Record(file, f"{kind} {number}", value)
    for number, record in torn.items():
        del found[number]
        broken.append(record.broken(key, "several records with this number differ"))
    return found


def read_json(path: Path) -> Any:
    """What a JSON file holds.

    Raises:
        OSError: Nothing to read there.
        ValueError: It isn't JSON in UTF-8, says what is wrong and where.
    """
    with open_regular(path) as file:
        large = os.fstat(file.fileno()).st_size
        if large > MAX_BYTES:
            raise ValueError(f"{quoted(path)} has {large:,} bytes; wanted at most {MAX_BYTES:,}")
        return parse_json(file.read(), str(path))


def parse_json(content: bytes | str, file: str) -> Any:
    """What a JSON text holds. NaN stays NaN: the field that holds it is refused by itself.

    Args:
        content: The text, in UTF-8 if it is bytes, with or without a byte order mark.
        file: Its name, for messages.

    Raises:
        ValueError: It isn't JSON; a key stands twice in one object; it is nested too deeply, or
            holds a number of thousands of digits.
    """
    name = quoted(file)
    again = "get the file again"
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
        place = f"line {error.lineno}, column {error.colno}, of {len(content):,} characters"
        raise ValueError(
            f"{name} is not JSON: {error.msg.lower()} at {place}; it may be cut short: {again}"
        ) from None
    except RecursionError:
        raise ValueError(f"{name} is nested too deeply for an annotation file; {again}") from None
    except ValueError as error:  # a key that stands twice, a number of thousands of digits
        raise ValueError(f"{name} can't be used: {quoted(error, 160)[1:-1]}; {again}") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of which each key stands once: of two, another reader may take the other."""
    made = dict(pairs)
    if len(made) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {quoted(twice)} stands twice in one object")
    return made
