"""Bad annotations: each gets the error that it should get, and the rest goes on."""

import json
import math
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from referring_files import CROWD, SQUARE, fresh, reference, write_set

from nbhelpers.datasets import Broken, coco, referring
from nbhelpers.datasets.records import Record, Shown
from nbhelpers.datasets.regions import read_region

ROOT = Path(__file__).parents[1]


def safe(message, *words):
    """A message that can be shown: one printable line, not too long, with the words in it."""
    assert message.isprintable(), message
    assert len(message) < 900, message
    for word in words:
        assert word in message, message


# Whole files ------------------------------------------------------------------------------------

DEEP = b"[" * 100_000 + b"]" * 100_000
FILES = {
    "truncated": (b'[{"ref_id": 1,\n "ann_id"', "is not JSON: expecting ':' delimiter at line 2"),
    "cut in a text": (
        b'[{"sent": "the do',
        "unterminated string starting at at line 1, column 11",
    ),
    "empty": (b"", "is empty (0 bytes)"),
    "blank": (b" \n\t ", "is empty (4 bytes)"),
    "UTF-16": ("[]".encode("utf-16"), "is UTF-16 or binary, not JSON in UTF-8"),
    "UTF-16 without a mark": ("[1]".encode("utf-16-le"), "is UTF-16 or binary"),
    "Latin-1": (b'["caf\xe9"]', "is not UTF-8 (byte 5: e9 22 5d)"),
    "binary": (b"\x80\x02]q\x00.", "is not UTF-8 (byte 0: 80 02 5d 71)"),
    "too deep": (DEEP, "is nested too deeply"),
    "a number of 100,000 digits": (b"[" + b"9" * 100_000 + b"]", "(4300 digits)"),
    "a key twice": (b'[{"ref_id": 1, "ref_id": 2}]', "the key 'ref_id' stands twice"),
    "a web page": (b"<!DOCTYPE html><html>", "is not JSON: expecting value at line 1, column 1"),
    "two values": (b"[] []", "is not JSON: extra data at line 1, column 4"),
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("which", ["refs(unc).json", "instances.json"])
def test_files_that_are_no_json(tmp_path, name, which):
    content, words = FILES[name]
    refs, instances = fresh()
    spoilt = (content, instances) if which.startswith("refs") else (refs, content)
    with pytest.raises(ValueError, match="json") as caught:
        referring("refcoco", "val", write_set(tmp_path, *spoilt))
    safe(str(caught.value), which, words, "get the file again" if "UTF" not in words else "UTF-8")
    assert not isinstance(caught.value, Broken)


@pytest.mark.parametrize("value", [{}, "refs", 7, None, True])
def test_references_are_a_list(tmp_path, value):
    with pytest.raises(ValueError, match="wanted a list of references") as caught:
        referring("refcoco", "val", write_set(tmp_path, value, fresh()[1]))
    safe(str(caught.value), f"holds {Shown(value)}")


@pytest.mark.parametrize("key", ["images", "annotations", "categories"])
@pytest.mark.parametrize("value", [None, {}, "x"])
def test_instances_have_their_lists(tmp_path, key, value):
    refs, instances = fresh()
    for spoilt in ({**instances, key: value}, [instances]):
        with pytest.raises(ValueError, match="has no list") as caught:
            referring("refcoco", "val", write_set(tmp_path, refs, spoilt))
        safe(str(caught.value), "instances.json", key if spoilt != [instances] else "images")


def test_a_byte_order_mark_is_good(tmp_path):
    refs, instances = fresh()
    content = b"\xef\xbb\xbf" + json.dumps(refs).encode()
    assert (
        len(referring("refcoco", "val", write_set(tmp_path, content, instances)).expressions) == 3
    )


@pytest.mark.parametrize(
    ("name", "split", "by", "words"),
    [
        ("refcoco", "vall", None, "has no split 'vall'; it has train, val, testA, testB"),
        ("refcoco", "test", None, "refcoco (unc) has no split 'test'"),
        ("refcoco", "val\x1b[31m", None, r"has no split 'val\x1b[31m'"),
        ("refcoco", "val", "umd", "refcoco has no splits by 'umd'; it has unc, google"),
        ("refclef", "val", None, "there are stickers, refcoco, refcoco+"),
    ],
)
def test_splits_that_there_are_not(tmp_path, name, split, by, words):
    with pytest.raises(ValueError, match="has no|there is no") as caught:
        referring(name, split, write_set(tmp_path, *fresh()), by)
    safe(str(caught.value), words)


def test_an_empty_split_is_refused(tmp_path):
    root = write_set(tmp_path, *fresh())
    with pytest.raises(ValueError, match="has no expression of the split 'testA'"):
        referring("refcoco", "testA", root)
    with pytest.raises(ValueError, match="0 references, 0 broken"):
        referring("refcoco", "val", write_set(tmp_path, [], fresh()[1]))


# Records ----------------------------------------------------------------------------------------


def change(*keys, to):
    """A spoiler: sets or drops what stands at the keys of (references, instances)."""

    def spoil(parts):
        for key in keys[:-1]:
            parts = parts[key]
        if to is change:
            del parts[keys[-1]]
        else:
            parts[keys[-1]] = to

    return spoil


def ref(*keys, to):
    return change(0, 0, *keys, to=to)


def image(*keys, to):
    return change(1, "images", 0, *keys, to=to)


def annotation(*keys, to):
    return change(1, "annotations", 0, *keys, to=to)


def more(part, entry):
    """A spoiler: one more entry."""
    return lambda parts: (parts[0] if part == "refs" else parts[1][part]).append(entry)


WHOLE = "wanted a whole number from 0 to"
NAME = "wanted the plain name of a file in the dataset's folder"
# what is done: the record that is broken, its field, what the message says, expressions left
RECORDS = {
    "no object": (change(0, 0, to=[1]), "ref at index 0", "the record", "is [1]; wanted an", 1),
    "ref_id missing": (ref("ref_id", to=change), "ref at index 0", "ref_id", "is missing", 1),
    "ref_id a text": (ref("ref_id", to="1"), "ref at index 0", "ref_id", f"is '1'; {WHOLE}", 1),
    "ref_id true": (ref("ref_id", to=True), "ref at index 0", "ref_id", f"is True; {WHOLE}", 1),
    "ref_id negative": (ref("ref_id", to=-1), "ref at index 0", "ref_id", f"is -1; {WHOLE}", 1),
    "ref_id a half": (ref("ref_id", to=1.5), "ref at index 0", "ref_id", f"is 1.5; {WHOLE}", 1),
    "ref_id NaN": (ref("ref_id", to=math.nan), "ref at index 0", "ref_id", f"is nan; {WHOLE}", 1),
    "ref_id huge": (ref("ref_id", to=2**70), "ref at index 0", "ref_id", "is 118059162071741", 1),
    "ref_id a list": (ref("ref_id", to=[]), "ref at index 0", "ref_id", f"is []; {WHOLE}", 1),
    "refs that differ": (
        more("refs", reference(1, 80, 8, 1, ["x"])),
        "ref at index 2",
        "ref_id",
        "several records with this number differ",
        1,
    ),
    "sentences missing": (ref("sentences", to=change), "ref 1", "sentences", "is missing", 1),
    "sentences empty": (ref("sentences", to=[]), "ref 1", "sentences", "isn't empty", 1),
    "sentences no list": (ref("sentences", to={"a": 1}), "ref 1", "sentences", "wanted a list", 1),
    "sentence no object": (
        ref("sentences", 0, to="the dog"),
        "ref 1, sentence 0",
        "the record",
        "is 'the dog'; wanted an object",
        2,
    ),
    "sent missing": (
        ref("sentences", 0, "sent", to=change),
        "ref 1, sentence 0",
        "sent",
        "is missing; there are ['raw', 'sent_id', 'tokens']",
        2,
    ),
    "sent blank": (
        ref("sentences", 0, "sent", to=" \n"),
        "ref 1, sentence 0",
        "sent",
        r"is ' \n'; wanted a text that isn't blank",
        2,
    ),
    "sent a number": (ref("sentences", 0, "sent", to=7), "ref 1, sentence 0", "sent", "is 7;", 2),
    "sent half a character": (
        ref("sentences", 0, "sent", to="dog \ud83d"),
        "ref 1, sentence 0",
        "sent",
        r"is 'dog \ud83d'; wanted whole characters, it holds a lone surrogate",
        2,
    ),
    "sent 20 KB of accents": (
        ref("sentences", 0, "sent", to="e" + "\u0301" * 10_000),
        "ref 1, sentence 0",
        "sent",
        "wanted at most 10,000 characters, it has 10,001",
        2,
    ),
    "sent_id a text": (
        ref("sentences", 0, "sent_id", to="10"),
        "ref 1, sentence 0",
        "sent_id",
        f"is '10'; {WHOLE}",
        2,
    ),
    "sent_id twice": (
        ref("sentences", 0, "sent_id", to=11),
        "ref 1, sentence 1",
        "sent_id",
        "is 11; several sentences with this number differ",
        1,
    ),
    "split unknown": (
        ref("split", to="vall"),
        "ref 1",
        "split",
        "is 'vall'; the splits are train, val, testA, testB",
        1,
    ),
    "split a number": (ref("split", to=3), "ref 1", "split", "is 3; wanted a text", 1),
    "split missing": (ref("split", to=change), "ref 1", "split", "is missing", 1),
    "annotation missing": (
        ref("ann_id", to=71),
        "ref 1",
        "ann_id",
        "is 71; no annotation of",
        1,
    ),
    "annotation of another picture": (
        ref("image_id", to=8),
        "annotation 70",
        "image_id",
        "is 7; ref 1 says that it is in image 8",
        1,
    ),
    "another category": (
        ref("category_id", to=1),
        "ref 1",
        "category_id",
        "is 1; annotation 70 says 18",
        1,
    ),
    "annotation's number a text": (
        annotation("id", to="70"),
        "ref 1",
        "ann_id",
        "is 70; no annotation of",
        1,
    ),
    "annotation's number true": (
        annotation("id", to=True),
        "ref 1",
        "ann_id",
        "is 70; no annotation of",
        1,
    ),
    "annotation no object": (
        change(1, "annotations", 0, to=None),
        "ref 1",
        "ann_id",
        "is 70; no annotation of",
        1,
    ),
    "annotation without a picture": (
        annotation("image_id", to=change),
        "annotation 70",
        "image_id",
        "is missing",
        1,
    ),
    "annotations that differ": (
        more("annotations", {"id": 70, "image_id": 7, "category_id": 1, "segmentation": SQUARE}),
        "annotation 70",
        "id",
        "is 70; several annotations differ",
        1,
    ),
    "picture missing": (
        image("id", to=9),
        "ref 1",
        "image_id",
        "is 7; no image of",
        1,
    ),
    "pictures that differ": (
        more("images", {"id": 7, "file_name": "b.jpg", "height": 8, "width": 10}),
        "image 7",
        "id",
        "is 7; several images differ",
        1,
    ),
    "category missing": (
        annotation("category_id", to=2),
        "ref 1",
        "category_id",
        "is 18; annotation 70 says 2",
        1,
    ),
    "category without a name": (
        change(1, "categories", 1, "name", to=""),
        "category 18",
        "name",
        "is ''; wanted a text that isn't blank",
        1,
    ),
    "category unknown": (
        change(1, "categories", 1, "id", to=19),
        "annotation 70",
        "category_id",
        "is 18; no category of",
        1,
    ),
    "height 0": (image("height", to=0), "image 7", "height", "is 0; wanted a whole number", 1),
    "width negative": (image("width", to=-10), "image 7", "width", "from 1 to 100,000", 1),
    "width a million": (image("width", to=10**6), "image 7", "width", "from 1 to 100,000", 1),
    "height a float": (image("height", to=8.0), "image 7", "height", "is 8.0; wanted", 1),
    "height NaN": (image("height", to=math.nan), "image 7", "height", "is nan; wanted", 1),
    "width missing": (image("width", to=change), "image 7", "width", "is missing", 1),
    "name missing": (image("file_name", to=change), "image 7", "file_name", "is missing", 1),
    "name a number": (image("file_name", to=7), "image 7", "file_name", "is 7; wanted a text", 1),
    "name absolute": (image("file_name", to="/etc/passwd"), "image 7", "file_name", NAME, 1),
    "name leads out": (image("file_name", to="../../a.jpg"), "image 7", "file_name", NAME, 1),
    "name leads out elsewhere": (
        image("file_name", to="a\\..\\b"),
        "image 7",
        "file_name",
        NAME,
        1,
    ),
    "name of a drive": (image("file_name", to="C:a.jpg"), "image 7", "file_name", NAME, 1),
    "name with a zero byte": (image("file_name", to="a\0.jpg"), "image 7", "file_name", NAME, 1),
    "name with a newline": (
        image("file_name", to="a\n.jpg"),
        "image 7",
        "file_name",
        rf"is 'a\n.jpg'; {NAME}",
        1,
    ),
    "name of 300 bytes": (
        image("file_name", to="a" * 300),
        "image 7",
        "file_name",
        "wanted at most 250 characters, it has 300",
        1,
    ),
}


@pytest.mark.parametrize("name", RECORDS)
def test_broken_records_are_left_out_and_the_rest_goes_on(tmp_path, name):
    spoil, record, field, words, left = RECORDS[name]
    parts = fresh()
    spoil(parts)
    found = referring("refcoco", "val", write_set(tmp_path, *parts))
    assert len(found.expressions) == left
    assert len(found.broken) == 1
    error = found.broken[0]
    assert (error.record, error.field) == (record, field)
    safe(str(error), words, "get the file again, or leave the record out")
    assert len(error.value) < 200


def test_when_nothing_is_left_the_first_reason_is_told(tmp_path):
    refs, instances = fresh()
    for one in refs:
        one["sentences"] = []
    with pytest.raises(
        ValueError, match="2 references, 2 broken, the first: .*sentences"
    ) as caught:
        referring("refcoco", "val", write_set(tmp_path, refs, instances))
    safe(str(caught.value))


# Regions ----------------------------------------------------------------------------------------

NUMBER = "of a polygon is no coordinate in or near 8 x 10 pixels (h x w)"
REGIONS = {
    "missing": (change, "segmentation", "is missing"),
    "null": (None, "segmentation", "is None; wanted a list that isn't empty"),
    "a text": ("square", "segmentation", "is 'square'; wanted a list"),
    "no polygon": ([], "segmentation", "wanted a list that isn't empty"),
    "an empty polygon": ([[]], "segmentation", "3 corners or more, this 0 numbers"),
    "two corners": ([[1, 1, 5, 5]], "segmentation", "3 corners or more, this 4 numbers"),
    "an odd number": ([[1, 1, 6, 1, 6, 5, 1]], "segmentation", "this 7 numbers"),
    "a flat list": ([1, 1, 6, 1, 6, 5], "segmentation", "is 1; wanted a list of polygons"),
    "NaN": ([[1, 1, 6, math.nan, 6, 5]], "segmentation", f"is nan; number 3 {NUMBER}"),
    "infinity": ([[math.inf, 1, 6, 1, 6, 5]], "segmentation", f"is inf; number 0 {NUMBER}"),
    "minus infinity": (
        [[1, 1, 6, 1, 6, -math.inf]],
        "segmentation",
        f"is -inf; number 5 {NUMBER}",
    ),
    "1e9": ([[1, 1, 1e9, 1, 6, 5]], "segmentation", f"is 1000000000.0; number 2 {NUMBER}"),
    "10 ** 400": ([[1, 1, 6, 10**400, 6, 5]], "segmentation", f"number 3 {NUMBER}"),
    "a text in it": ([[1, 1, "6", 1, 6, 5]], "segmentation", f"is '6'; number 2 {NUMBER}"),
    "true in it": ([[1, True, 6, 1, 6, 5]], "segmentation", f"is True; number 1 {NUMBER}"),
    "a list in it": ([[1, [1], 6, 1, 6, 5]], "segmentation", f"is [1]; number 1 {NUMBER}"),
    "outside, right": ([[12, 1, 15, 1, 15, 5]], "segmentation", "lies wholly outside of 8 x 10"),
    "outside, above": ([[1, -4, 6, -4, 6, -1]], "segmentation", "lies wholly outside of 8 x 10"),
    "longer than any outline": (
        [[0, 0, 20, 16] * 40_000],
        "segmentation",
        "is 1,600,000 pixels long, wanted at most 1,048,576",
    ),
    "an empty object": ({}, "size", "is missing; there are []"),
    "no counts": ({"size": [8, 10]}, "counts", "is missing; there are ['size']"),
    "counts null": ({**CROWD, "counts": None}, "segmentation.counts", "wanted a list of run"),
    "10 ** 10 pixels": (
        {"size": [100_000, 100_000], "counts": [0, 10**10]},
        "segmentation.size",
        "is [100000, 100000]; the picture has [h, w] = [8, 10]",
    ),
    "2 ** 32 + 4 rows": ({**CROWD, "size": [2**32 + 4, 10]}, "segmentation.size", "[8, 10]"),
    "negative size": ({**CROWD, "size": [-8, -10]}, "segmentation.size", "is [-8, -10]; the"),
    "0 x 0": ({"size": [0, 0], "counts": []}, "segmentation.size", "is [0, 0]; the picture"),
    "width before height": ({**CROWD, "size": [10, 8]}, "segmentation.size", "is [10, 8]; the"),
    "size of floats": ({**CROWD, "size": [8.0, 10.0]}, "segmentation.size", "is [8.0, 10.0]; the"),
    "size a text": ({**CROWD, "size": "8x10"}, "segmentation.size", "is '8x10'; the picture"),
    "counts too long": ({**CROWD, "counts": [3, 5, 73]}, "segmentation.counts", "sum to 81 of 80"),
    "counts too short": ({**CROWD, "counts": [3, 5]}, "segmentation.counts", "sum to 8 of 80"),
    "counts empty": ({**CROWD, "counts": []}, "segmentation.counts", "sum to 0 of 80 pixels"),
    "counts negative": (
        {**CROWD, "counts": [90, -10]},
        "segmentation.counts",
        "run lengths are whole numbers of 0 or more",
    ),
    "counts of floats": ({**CROWD, "counts": [40.0, 40.0]}, "segmentation.counts", "are whole"),
    "counts with NaN": ({**CROWD, "counts": [math.nan]}, "segmentation.counts", "are whole"),
    "counts with true": ({**CROWD, "counts": [79, True]}, "segmentation.counts", "are whole"),
    "counts huge": ({**CROWD, "counts": [2**63, 5]}, "segmentation.counts", "of 80 pixels"),
    "text empty": ({**CROWD, "counts": ""}, "segmentation.counts", "characters from '0' to 'o'"),
    "text not ASCII": ({**CROWD, "counts": "é5"}, "segmentation.counts", "from '0' to 'o'"),
    "text out of range": ({**CROWD, "counts": "5~"}, "segmentation.counts", "from '0' to 'o'"),
    "text cut": ({**CROWD, "counts": "`2`"}, "segmentation.counts", "in the middle of a number"),
    "text negative": ({**CROWD, "counts": "O"}, "segmentation.counts", "a run length is negative"),
    "text of one huge number": (
        {**CROWD, "counts": "o" * 30 + "0"},
        "segmentation.counts",
        "a compressed run length has 31 characters",
    ),
    "text too short": ({**CROWD, "counts": "55"}, "segmentation.counts", "sum to 10 of 80"),
    "text too long": ({**CROWD, "counts": "`3`3"}, "segmentation.counts", "sum to 224 of 80"),
}


@pytest.mark.parametrize("name", REGIONS)
def test_broken_regions(tmp_path, name):
    value, field, words = REGIONS[name]
    parts = fresh()
    annotation("segmentation", to=value)(parts)
    found = referring("refcoco", "val", write_set(tmp_path, *parts))
    assert [e.text for e in found.expressions] == ["people"]
    (error,) = found.broken
    assert (error.record, error.field) == ("annotation 70", field)
    safe(str(error), words, "instances.json', annotation 70: ", "get the file again, or leave")


def test_what_would_end_the_process_without_the_checks():
    """pycocotools itself, in a child: the bad inputs above are no invention."""
    code = (
        "from pycocotools import mask; import sys; nan = float('nan');"
        "mask.decode(mask.frPyObjects([[1, 1, 6, nan, 6, 5, nan, nan]], 8, 10))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode != 0


def test_regions_near_the_edge_are_good():
    """COCO's own polygons touch the border, and leave it by fractions of a pixel."""
    for polygon, pixels in (
        ([0, 0, 10, 0, 10, 8, 0, 8], 80),
        ([-0.4, -0.4, 10.4, -0.4, 10.4, 8.4, -0.4, 8.4], 80),
        ([8, 6, 15, 6, 15, 12, 8, 12], 4),
    ):
        record = Record("f", "annotation 1", {"segmentation": [polygon]})
        assert read_region(record, (8, 10)).mask().sum() == pixels


def test_a_region_of_no_pixel_is_an_error_not_a_zero(tmp_path):
    refs, instances = fresh()
    instances["annotations"][1]["segmentation"] = {"size": [8, 10], "counts": [80]}
    found = referring("refcoco", "val", write_set(tmp_path, refs, instances))
    with pytest.raises(ValueError, match="annotation 80 .expression 20. marks no pixel"):
        found.mask(found.expressions[-1])
    twice = SQUARE * 2  # the usual loaders' sum is 2 everywhere
    instances["annotations"][0]["segmentation"] = twice
    found = referring("refcoco", "val", write_set(tmp_path, refs, instances))
    assert found.mask(found.expressions[0]).sum() == 20
    with pytest.raises(ValueError, match="merged by 'xor1'; leave it out, or use the other merge"):
        found.mask(found.expressions[0], "xor1")


# Pictures ---------------------------------------------------------------------------------------


@pytest.fixture
def one(tmp_path):
    """A set, and the path of its first picture."""
    found = referring("refcoco", "val", write_set(tmp_path, *fresh()))
    return found, tmp_path / "train2014" / "COCO_train2014_000000000007.jpg"


def bomb():
    """A PNG whose header promises 50,000 x 50,000 pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    crc = struct.pack(">I", zlib.crc32(header))
    data = b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))
    start = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + crc
    return start + struct.pack(">I", 0) + data


PICTURES = {
    "missing": (None, FileNotFoundError, "doesn't exist"),
    "zero bytes": (b"", ValueError, "is empty (0 bytes)"),
    "a web page": (b"<html>404", ValueError, "not a picture but a web page"),
    "a pickle": (b"\x80\x02]q\x00.", ValueError, "not a picture that can be read"),
    "a bomb": (bomb(), ValueError, "more than the 89,478,485 pixels"),
    "PostScript": (b"%!PS-Adobe-3.0 EPSF-3.0\n", ValueError, "PostScript, not pixels"),
    "cut short": ("cut", ValueError, "cut short or damaged"),
    "another size": ("wide", ValueError, "has 8 x 11 pixels (h x w), its annotations are for 8 x"),
    "turned": ("turned", ValueError, "has 10 x 8 pixels (h x w), its annotations are for 8 x 10"),
    "a folder": ("folder", IsADirectoryError, "is a folder"),
    "a pipe": ("pipe", ValueError, "is a pipe or a device"),
    "a link out": ("link", ValueError, "leads out of the folder"),
}


@pytest.mark.parametrize("name", PICTURES)
def test_bad_pictures(one, name, tmp_path):
    from PIL import Image

    found, path = one
    content, kind, words = PICTURES[name]
    good = path.read_bytes()
    path.unlink()
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content == "cut":
        path.write_bytes(good[:100])
    elif content in ("wide", "turned"):
        size = (11, 8) if content == "wide" else (8, 10)
        Image.new("RGB", size).save(path, format="PNG")
    elif content == "folder":
        path.mkdir()
    elif content == "pipe":
        os.mkfifo(path)
    elif content == "link":
        (tmp_path / "secret.png").write_bytes(good)
        path.symlink_to(tmp_path / "secret.png")
    with pytest.raises(kind) as caught:
        found.image(7)
    safe(str(caught.value), words, "" if name == "a link out" else "000007.jpg")
    assert found.image(8).shape == (8, 10, 3)


def test_a_dataset_changed_under_the_run_is_noticed(one):
    found, path = one
    before, annotations = found.sha256(), found.sha256(pictures=False)
    assert before == found.sha256() != annotations
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    changed = found.sha256()
    path.unlink()
    assert len({before, changed, found.sha256()}) == 3
    assert found.sha256(pictures=False) == annotations


def test_the_order_of_pictures_asked_for_is_checked(one):
    found, _ = one
    with pytest.raises(KeyError, match="no expression of refcoco val is about image 9"):
        found.image(9)


# COCO -------------------------------------------------------------------------------------------


def write_coco(root, instances, captions=None):
    (root / "annotations").mkdir(exist_ok=True)
    (root / "val2017").mkdir(exist_ok=True)
    for name, value in (("instances", instances), ("captions", captions)):
        if value is not None:
            path = root / "annotations" / f"{name}_val2017.json"
            path.write_text(json.dumps(value), encoding="utf-8")
    return root


def test_broken_annotations_of_coco_spoil_their_picture_alone(tmp_path):
    _, instances = fresh()
    instances["annotations"][0]["segmentation"] = [[1, 1, 6, math.nan, 6, 5]]
    found = coco(write_coco(tmp_path, instances), "val2017")
    with pytest.raises(Broken, match="annotation 70: segmentation is nan"):
        found.class_map(7)
    assert np.unique(found.class_map(8)).tolist() == [0, 255]


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (change("images", 0, "id", to="7"), "image at index 0: id is '7'"),
        (change("images", 0, to=[]), "image at index 0: the record is []"),
        (change("images", 0, "width", to=0), "image 7: width is 0"),
        (change("annotations", 0, "id", to=True), "annotation at index 0: id is True"),
        (change("annotations", 0, "image_id", to=9), "annotation 70: image_id is 9; no image"),
        (change("annotations", 0, "image_id", to="7"), "annotation 70: image_id is '7'; wanted"),
    ],
)
def test_broken_records_of_coco_are_told(tmp_path, spoil, words):
    _, instances = fresh()
    spoil(instances)
    found = coco(write_coco(tmp_path, instances), "val2017")
    safe(str(found.broken[0]), words, "get the file again")
    assert 8 in found.image_ids


def test_coco_that_cannot_be_used(tmp_path):
    _, instances = fresh()
    with pytest.raises(FileNotFoundError, match="instances_val2017.json' doesn't exist"):
        coco(tmp_path, "val2017")
    with pytest.raises(ValueError, match=r"called such as 'val2017'; got '\.\./val'"):
        coco(tmp_path, "../val")
    many = {**instances, "categories": [{"id": i, "name": "x"} for i in range(1, 256)]}
    with pytest.raises(ValueError, match="has 255 categories; wanted at most 254"):
        coco(write_coco(tmp_path, many), "val2017")
    instances["annotations"][0]["category_id"] = 3
    found = coco(write_coco(tmp_path, instances), "val2017")
    with pytest.raises(Broken, match="category_id is 3; no category has this number"):
        found.class_map(7)


def test_spoiled_files_end_no_loader():
    """A few seconds of it; ``python tests/fuzz_datasets.py --seconds 120`` for longer."""
    script = Path(__file__).with_name("fuzz_datasets.py")
    seconds = os.environ.get("NBHELPERS_FUZZ_SECONDS", "5")
    seed = "0" if os.environ.get("CI") else str(int.from_bytes(os.urandom(4), "big"))
    done = subprocess.run(
        [sys.executable, script, "--seconds", seconds, "--seed", seed],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"seed {seed}: {done.stderr[-2000:]}"
    assert done.stdout.count(" loaded, ") == 5
