"""Rows of the mirrors on the Hugging Face Hub, as JSON lines, in the form of the original files.

Two mirrors are known. The rows of ``jxu124/refcoco``, ``refcocoplus`` and ``refcocog`` hold the
original records, the annotation and the picture's entry as JSON inside of a text, and a box from
corner to corner. Those of ``lmms-lab/RefCOCO``, ``RefCOCOplus`` and ``RefCOCOg`` hold the
expressions as `answer`, one list of numbers as the region and no size of the picture, which is
read from the picture.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nbhelpers.datasets.annotations import Instances
from nbhelpers.datasets.pictures import identify, inside, open_regular
from nbhelpers.datasets.published import COCO_CLASSES, MERGED, SPLITS
from nbhelpers.datasets.records import AGAIN, Broken, Record, collecting, parse_json
from nbhelpers.errors import quoted

MAX_LINE = 2**24  # bytes of a row
UNKNOWN = 0  # the class of a row that says none; COCO's begin with 1
NAME = re.compile(r"(COCO_train2014_(\d{12}))(?:_\d+)?\.jpg")


def read_mirror(
    path: Path, name: str, split: str, by: str, pictures: Path | None
) -> tuple[list[Any], Instances, list[Broken]]:
    """Returns the references of a mirror's split, what they may be about, and the broken rows.

    The file has one JSON object a line; rows that don't say how large their picture is need the
    folder of the pictures.

    Raises:
        OSError: There is nothing to read.
        ValueError: There are more rows than the split has references: it mixes two.
    """
    refs: list[Any] = []
    annotations: list[Any] = []
    images: list[Any] = []
    broken: list[Broken] = []
    said = rows = 0
    for rows, row in enumerate(_rows(path), start=1):
        with collecting(broken):
            if isinstance(row, Broken):
                raise row
            if "raw_anns" in row.fields:
                parts = _whole_row(row)
            else:
                parts = _short_row(row, rows, said, split, pictures)
                said += len(parts[0]["sentences"])
            for found, part in zip((refs, annotations, images), parts, strict=True):
                found.append(part)
    _refuse_mixed(path, rows, name, split, by)
    labels = {**COCO_CLASSES, UNKNOWN: "unknown"}
    categories = [{"id": number, "name": label} for number, label in labels.items()]
    lists = {"images": images, "annotations": annotations, "categories": categories}
    return refs, Instances(str(path), lists), broken


def _refuse_mixed(path: Path, rows: int, name: str, split: str, by: str) -> None:
    """Refuses a split that is larger than the one that it is named after."""
    refs, _ = SPLITS[name, by][split]
    if refs is None or rows <= refs:
        return
    reason = "it may mix the splits of two makers"
    if rows == MERGED.get(name):
        reason = f"it mixes {by}'s {refs:,} references and the 5,000 of Google's val, unmarked"
    raise ValueError(
        f"{quoted(path)} has {rows:,} rows, but {name}'s {split} by {by} has {refs:,} references: "
        f"{reason}, and no figure on it can be compared; use refs({by}).p, or another mirror"
    )


def _rows(path: Path) -> Iterator[Record | Broken]:
    """Yields the rows of a file; a line that is no JSON object is broken by itself."""
    with open_regular(path) as file:
        for number, line in enumerate(iter(lambda: file.readline(MAX_LINE), b""), start=1):
            name = f"line {number}"
            if len(line) == MAX_LINE:
                raise ValueError(f"{quoted(path)}, {name} has more than {MAX_LINE:,} bytes")
            try:
                yield Record.of(parse_json(line, str(path)), str(path), name)
            except Broken as error:
                yield error
            except ValueError as error:
                yield Broken(str(path), name, "the row", line.decode("latin1"), f"{error}")


def _whole_row(row: Record) -> tuple[Any, Any, Any]:
    """Returns the reference, annotation and picture of a row that holds the original records."""
    annotation = Record.of(_inner(row, "raw_anns"), row.file, f"{row.name}, raw_anns")
    image = Record.of(_inner(row, "raw_image_info"), row.file, f"{row.name}, raw_image_info")
    if "bbox" in row.fields and "bbox" in annotation.fields:
        try:
            x, y, w, h = annotation.several("bbox")
            pairs = zip([x, y, x + w, y + h], row.several("bbox"), strict=True)
            same = all(abs(one - other) <= 1 for one, other in pairs)
        except (TypeError, ValueError):
            same = False
        if not same:
            raise row.broken("bbox", "wanted [left, top, right, bottom] of the box in raw_anns")
    return row.fields, annotation.fields, image.fields


def _inner(row: Record, key: str) -> Any:
    """Returns what a field holds that is JSON inside of a text."""
    text = row.text(key, most=MAX_LINE)
    try:
        return parse_json(text, f"{row.file}, {row.name}, {key}")
    except ValueError:
        raise row.broken(key, "wanted JSON in a text") from None


def _short_row(
    row: Record, number: int, said: int, split: str, pictures: Path | None
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Makes the same of a row that has no numbers: they are counted here, in the file's order."""
    name = NAME.fullmatch(row.text("file_name"))
    if name is None:
        raise row.broken("file_name", "wanted COCO_train2014_ and twelve digits")
    if pictures is None:
        raise row.broken("file_name", "its size is not in the row, and no pictures are there")
    file, image = f"{name[1]}.jpg", int(name[2])
    try:
        with open_regular(inside(pictures, file)) as opened:
            width, height = identify(opened, file).size
    except (OSError, ValueError) as error:
        raise Broken(row.file, row.name, "file_name", file, f"{error}; {AGAIN}") from None
    texts = row.several("answer")
    sentences = [{"sent_id": said + index, "sent": text} for index, text in enumerate(texts)]
    ref = {"ref_id": number, "ann_id": number, "image_id": image, "split": split}
    region = {"category_id": UNKNOWN, "segmentation": [row.value("segmentation")]}
    annotation = {"id": number, "image_id": image, **region}
    picture = {"id": image, "file_name": file, "height": height, "width": width}
    return {**ref, "sentences": sentences}, annotation, picture
