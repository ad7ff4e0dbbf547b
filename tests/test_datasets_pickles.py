"""Pickles from the web: good ones to the last character, bad ones to the word, none run."""

import json
import os
import pickle
import struct
from pathlib import Path

import pytest
from referring_files import fresh, write_set

from nbhelpers.datasets import referring
from nbhelpers.datasets._pickles import read_pickle

STICKERS = Path(__file__).parents[1] / "data" / "stickers"
TRACE = "touched"


def read(tmp_path, content, **limits):
    path = tmp_path / "refs(unc).p"
    path.write_bytes(content)
    return read_pickle(path, **limits)


def refused(tmp_path, content, *words, **limits):
    with pytest.raises(ValueError, match="pickle|bytes|took") as caught:
        read(tmp_path, content, **limits)
    message = str(caught.value)
    assert message.isprintable()
    assert len(message) < 500
    for word in ("refs(unc).p'", *words):
        assert word in message, message


def test_the_shipped_pickle_is_its_json():
    stored = json.loads((STICKERS / "refs(stickers).json").read_text(encoding="utf-8"))
    assert read_pickle(STICKERS / "refs(stickers).p") == stored


@pytest.mark.parametrize("protocol", range(6))
def test_every_protocol(tmp_path, protocol):
    value = [{"a": 1, "b": [1.5, None, True, "café ☕", "\ud83d"]}, [], {}, -(2**40), ("x", 1)]
    found = read(tmp_path, pickle.dumps(value, protocol))
    assert found == [*value[:-1], ["x", 1]]


def test_a_pickle_of_python_2(tmp_path):
    """Byte strings, one with an accent in Latin-1, and a long, as Python 2 wrote them."""
    content = b"(lp0\n(dp1\nS'sent'\np2\nS'caf\\xe9 dog'\np3\nsS'ref_id'\np4\nL7L\nsa."
    assert read(tmp_path, content) == [{"sent": "caf\xe9 dog", "ref_id": 7}]
    content = b"\x80\x02]q\x00}q\x01(U\x04sentq\x02U\x04caf\xe9q\x03ua."
    assert read(tmp_path, content) == [{"sent": "caf\xe9"}]


def test_the_same_set_from_a_pickle_and_from_json(tmp_path):
    refs, instances = fresh()
    root = write_set(tmp_path, refs, instances)
    plain = referring("refcoco", "val", root)
    (root / "refcoco" / "refs(unc).json").unlink()
    (root / "refcoco" / "refs(unc).p").write_bytes(pickle.dumps(refs, 2))
    pickled = referring("refcoco", "val", root)
    assert pickled.expressions == plain.expressions
    assert pickled.sha256() == plain.sha256()


# Ways to run something, or to get at something, each of them a whole pickle.
EXPLOITS = {
    "GLOBAL and REDUCE": (f"cos\nsystem\n(S'touch {TRACE}'\ntR.".encode(), "asks for os.system"),
    "INST": (f"(S'touch {TRACE}'\nios\nsystem\n.".encode(), "asks for os.system"),
    "OBJ": (f"(cos\nsystem\nS'touch {TRACE}'\no.".encode(), "asks for os.system"),
    "STACK_GLOBAL": (
        b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x0d" + f"touch {TRACE}".encode() + b"\x85R.",
        "asks for os.system",
    ),
    "a dotted global": (
        b"\x80\x04\x8c\x07logging\x8c\x09os.system\x93\x8c\x0dtouch touched\x85R.",
        "asks for logging.os.system",
    ),
    "a global of builtins": (b"cbuiltins\neval\n(S'1'\ntR.", "asks for builtins.eval"),
    "a global of Python 2": (b"c__builtin__\neval\n(S'1'\ntR.", "asks for"),
    "a global that is only named": (b"ccollections\nOrderedDict\n.", "collections.OrderedDict"),
    "NEWOBJ": (b"\x80\x02cbuiltins\nlist\n)\x81.", "asks for builtins.list"),
    "NEWOBJ_EX": (b"\x80\x04\x8c\x08builtins\x8c\x04list\x93)}\x92.", "asks for builtins.list"),
    "a persistent id": (b"Pobject\n.", "outside of itself"),
    "a binary persistent id": (b"\x80\x02X\x01\x00\x00\x00aQ.", "outside of itself"),
    "an extension code": (b"\x80\x02\x82\x01.", "is cut short or damaged (ValueError"),
    "REDUCE of a text": (b"S'os.system'\n(S'x'\ntR.", "is cut short or damaged (TypeError"),
    "BUILD on a dictionary": (
        b"\x80\x02}}X\x01\x00\x00\x00aK\x01sb.",
        "damaged (AttributeError",
    ),
    "BUILD on a list": (b"\x80\x02]}X\x03\x00\x00\x00popK\x01sb.", "damaged (AttributeError"),
    "a buffer": (b"\x80\x05\x97.", "is cut short or damaged (UnpicklingError"),
    "a set": (pickle.dumps([{1, 2}], 4), "holds set, no list, dictionary, text or number"),
    "bytes": (pickle.dumps([b"x"], 4), "holds bytes, no list, dictionary, text or number"),
    "a bytearray": (pickle.dumps(bytearray(b"x"), 5), "holds bytearray, no list"),
    "numbers as keys": (pickle.dumps({1: 2}, 2), "a key of a dictionary is no text"),
}


@pytest.mark.parametrize("name", EXPLOITS)
def test_exploits(tmp_path, name, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content, words = EXPLOITS[name]
    refused(tmp_path, content, words, "don't use it")
    assert not Path(TRACE).exists()


def test_the_exploits_are_real(tmp_path, monkeypatch):
    """What the closed door keeps out walks through an open one."""
    monkeypatch.chdir(tmp_path)
    for name in ("GLOBAL and REDUCE", "INST", "OBJ", "STACK_GLOBAL", "a dotted global"):
        pickle.loads(EXPLOITS[name][0])
        assert Path(TRACE).exists(), name
        os.unlink(TRACE)


def nested(depth):
    return b"\x80\x02" + b"]" * depth + b"a" * (depth - 1) + b"."


def shared(doublings):
    """Lists that each hold the one before twice: 2 ** doublings items from a few bytes."""
    content = b"\x80\x02]q\x00"
    for i in range(doublings):
        content += b"](h" + bytes([i]) + b"h" + bytes([i]) + b"eq" + bytes([i + 1])
    return content + b"."


def shared_text():
    """A text of a million characters, ten thousand times in one list."""
    content = b"\x80\x02](" + b"X" + struct.pack("<I", 10**6) + b"x" * 10**6 + b"q\x00"
    return content + b"h\x00" * 10_000 + b"e."


DAMAGED = {
    "empty": (b"", "is no pickle but empty"),
    "a web page": (b"\n<!DOCTYPE html><html>", "is no pickle but a web page"),
    "a pointer": (b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS"),
    "a zip archive": (b"PK\x03\x04....", "a zip archive; unpack it first"),
    "words": (b"not found", "is cut short or damaged"),
    "zeros": (bytes(100), "is cut short or damaged"),
    "truncated": (pickle.dumps(fresh()[0], 2)[:-20], "is cut short or damaged"),
    "without an end": (pickle.dumps([1], 2)[:-1], "is cut short or damaged"),
    "an empty stack": (b"\x80\x02.", "is cut short or damaged (UnpicklingError"),
    "junk after the end": (pickle.dumps([1], 2) + b"junk", "4 bytes follow its end"),
    "two pickles": (pickle.dumps([1], 2) * 2, "bytes follow its end"),
    "nested lists": (nested(10**6), "is nested more than 20 deep"),
    "a text of 2 ** 31 bytes": (b"\x80\x02X\xff\xff\xff\x7fabc.", "is cut short or damaged"),
    "a text of 2 ** 62 bytes": (
        b"\x80\x04\x8d" + struct.pack("<Q", 2**62) + b"abc.",
        "is cut short or damaged (UnpicklingError",
    ),
    "a frame of 2 ** 62 bytes": (
        b"\x80\x04\x95" + struct.pack("<Q", 2**62) + b"K\x01.",
        "is cut short or damaged",
    ),
    "a memo of 2 ** 31 entries": (b"\x80\x02]r\xff\xff\xff\x7f.", "it takes too much memory"),
    "an unknown memo": (b"\x80\x02h\x07.", "is cut short or damaged (UnpicklingError"),
    "an unknown opcode": (b"\x80\x02\xff.", "is cut short or damaged (UnpicklingError"),
    "an unknown protocol": (b"\x80\x63].", "is cut short or damaged (ValueError"),
    "a number of 100,000 digits": (b"L" + b"9" * 100_000 + b"L\n.", "damaged (ValueError"),
    "a number of 100,000 bytes": (
        b"\x80\x02\x8b" + struct.pack("<i", 10**5) + b"\x7f" * 10**5 + b".",
        "damaged (ValueError",
    ),
    "lists that share": (shared(60), "nested more than 20 deep"),
    "lists that share, less deep": (
        b"\x80\x02]q\x00(" + b"K\x01" * 10**6 + b"e" + b"](" + b"h\x00" * 10**3 + b"e.",
        "too large when its shared parts are written out",
    ),
    "a text that is shared": (shared_text(), "too large when its shared parts are written out"),
    "a list in itself": (b"\x80\x02]q\x00h\x00a.", "is nested more than 20 deep"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_pickles(tmp_path, name):
    content, words = DAMAGED[name]
    refused(tmp_path, content, words, "get")


def test_memory_is_limited(tmp_path):
    """300 MB by size alone, and a hundred thousand lists where there is room, and where not."""
    size = 300 * 2**20
    path = tmp_path / "refs(unc).p"
    with path.open("wb") as file:
        file.write(b"\x80\x02X" + struct.pack("<I", size))
        file.truncate(size + 7)  # a hole: takes no disk
        file.seek(0, 2)
        file.write(b".")
    with pytest.raises(ValueError, match="has 314,572,808 bytes; wanted at most 268,435,456"):
        read_pickle(path)
    content = pickle.dumps([[i] for i in range(100_000)], 2)
    assert len(read(tmp_path, content)) == 100_000
    refused(tmp_path, content, "it takes too much memory", megabytes=24)


def test_time_is_limited(tmp_path):
    refused(tmp_path, pickle.dumps([1]), "took more than 0.001 s to read", seconds=0.001)


def test_a_reader_that_dies_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.executable", "/bin/false")
    refused(tmp_path, pickle.dumps([1]), "its reader ended by itself (exit code 1)")
