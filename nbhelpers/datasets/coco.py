"""COCO 2014 and 2017: pictures, the classes of their pixels, captions."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from nbhelpers.datasets.annotations import Instances
from nbhelpers.datasets.expressions import Picture, load_of_size, read_picture
from nbhelpers.datasets.pictures import inside
from nbhelpers.datasets.records import AGAIN, Broken, Record, collecting, read_json
from nbhelpers.datasets.regions import read_region
from nbhelpers.errors import Shown, quoted, refused

IGNORED = 255


@dataclass(frozen=True, repr=False)
class Coco:
    """One split of COCO. `coco` makes it; an image id that isn't in it raises `KeyError`.

    Attributes:
        split: Such as "val2017".
        image_ids: Ascending.
        categories: The classes' names, "background" first: COCO's 80 make 81. A pixel's value in
            `class_map` is an index here; the gaps in COCO's own numbers are closed.
        broken: The records that were left out, each with the reason.
        folder: Where the pictures lie.
        pictures: By image id.
        annotations: By image id.
        classes: The index in `categories` of each number that COCO uses.
        spoken: The captions by image id; None where the file isn't there.
    """

    split: str
    image_ids: tuple[int, ...]
    categories: tuple[str, ...]
    broken: tuple[Broken, ...]
    folder: Path
    pictures: Mapping[int, Picture]
    annotations: Mapping[int, tuple[Record, ...]]
    classes: Mapping[int, int]
    spoken: Mapping[int, tuple[str, ...]] | None

    def __repr__(self) -> str:
        return (
            f"<Coco: {self.split}, {len(self.image_ids):,} pictures, "
            f"{len(self.categories)} classes, {len(self.broken):,} records broken>"
        )

    def picture(self, image_id: int) -> Picture:
        """Returns a picture's name and size."""
        if image_id not in self.pictures:
            raise KeyError(f"{self.split} has no picture {image_id}")
        return self.pictures[image_id]

    def image(self, image_id: int) -> UInt8[np.ndarray, "h w 3"]:
        """Returns the picture's stored pixels: annotations are drawn on those, whatever EXIF says.

        Raises:
            OSError: It can't be read.
            ValueError: It is no picture, or isn't of the size that the annotations say.
        """
        picture = self.picture(image_id)
        return load_of_size(inside(self.folder, picture.file_name), picture.size)

    def class_map(self, image_id: int) -> UInt8[np.ndarray, "h w"]:
        """Returns the class of each pixel: an index into `categories`, or 255 to be ignored.

        Where things overlap, the smaller one counts, since it mostly stands in front. Pixels of a
        crowd (``iscrowd`` 1: many things in one rough region) that no single thing covers are 255:
        neither its class nor background would be fair.

        Raises:
            ValueError: One of its annotations can't be used, so that nobody knows its truth.
        """
        size = self.picture(image_id).size
        crowds = np.zeros(size, bool)
        things = []
        for annotation in self.annotations.get(image_id, ()):
            mask = read_region(annotation, size).mask()
            if annotation.flag("iscrowd"):
                crowds |= mask
                continue
            number = annotation.whole("category_id")
            if number not in self.classes:
                raise annotation.broken("category_id", "no category has this number")
            things.append((int(mask.sum()), annotation.whole("id"), number, mask))
        found = np.zeros(size, np.uint8)
        for _, _, number, mask in sorted(things, key=lambda thing: thing[:2], reverse=True):
            found[mask] = self.classes[number]
        found[crowds & (found == 0)] = IGNORED
        return found

    def captions(self, image_id: int) -> tuple[str, ...]:
        """Returns what people wrote about a picture, mostly five sentences.

        Raises:
            FileNotFoundError: The captions' file isn't there.
        """
        self.picture(image_id)
        if self.spoken is None:
            where = "python -m nbhelpers data check says where it is to be had"
            raise FileNotFoundError(
                f"captions_{self.split}.json is not beside the instances; {where}"
            )
        return self.spoken.get(image_id, ())


def coco(root: str | os.PathLike, split: str) -> Coco:
    """Reads one split of COCO; what can't be used of it is listed in `Coco.broken`.

    Args:
        root: The folder that has ``instances_SPLIT.json``, and ``captions_SPLIT.json`` if captions
            are wanted, in ``annotations``, and the pictures in ``SPLIT``, ``images/SPLIT`` or
            ``images``.
        split: Such as "val2014" or "val2017".

    Raises:
        OSError: The instances or the pictures' folder isn't there.
        ValueError: A file is damaged as a whole, or has more than 254 classes.
    """
    if not re.fullmatch(r"[A-Za-z0-9]{1,40}", split):
        raise refused("coco", "a split of COCO is called such as 'val2017'", split=split)
    base = Path(root)
    path = base / "annotations" / f"instances_{split}.json"
    instances = Instances.read(path)
    broken = list(instances.broken)
    pictures: dict[int, Picture] = {}
    for number in instances.entries["image"]:
        with collecting(broken):
            pictures[number] = read_picture(instances.entry("image", number))
    names = _names(instances, broken)
    classes = {number: index for index, number in enumerate(names, start=1)}
    captions = path.with_name(f"captions_{split}.json")
    folders = [base / split, base / "images" / split, base / "images"]
    folder = next((path for path in folders if path.is_dir()), None)
    if folder is None:
        raise FileNotFoundError(
            f"the pictures of {split} are in none of {', '.join(map(quoted, folders))}; "
            "python -m nbhelpers data check says where they are to be had"
        )
    annotations = _annotations(instances, pictures, broken)
    spoken = _captions(captions, pictures, broken) if captions.exists() else None
    ids, labels = tuple(sorted(pictures)), ("background", *names.values())
    return Coco(split, ids, labels, tuple(broken), folder, pictures, annotations, classes, spoken)


def _names(instances: Instances, broken: list[Broken]) -> dict[int, str]:
    """Reads the classes' names that can be used, by ascending number."""
    numbers = sorted(instances.entries["category"])
    if len(numbers) >= IGNORED:
        raise ValueError(
            f"{quoted(instances.file)} has {len(numbers)} categories; wanted at most {IGNORED - 1}"
        )
    names = {}
    for number in numbers:
        with collecting(broken):
            names[number] = instances.entry("category", number).text("name")
    return names


def _annotations(
    instances: Instances, pictures: dict[int, Picture], broken: list[Broken]
) -> dict[int, tuple[Record, ...]]:
    """Sorts the annotations by picture; what they hold is checked when it is asked for.

    Of several that claim one number and differ, nobody knows which is the truth: the pictures
    that they name are taken out of `pictures`.
    """
    found: dict[int, list[Record]] = {}
    entries = instances.entries["annotation"]
    for number in [number for number, claims in entries.items() if len(claims) > 1]:
        claims = entries.pop(number)
        images = sorted({c["image_id"] for c in claims if type(c.get("image_id")) is int})
        wanted = f"several annotations differ, so images {Shown(images)} have no truth; {AGAIN}"
        broken.append(Broken(instances.file, f"annotation {number}", "id", number, wanted))
        for image in images:
            pictures.pop(image, None)
    for number in entries:
        record = instances.entry("annotation", number)
        with collecting(broken):
            image = record.whole("image_id")
            if image not in instances.entries["image"]:
                raise record.broken("image_id", "no image of the file has this number")
            if image in pictures:
                found.setdefault(image, []).append(record)
    return {image: tuple(records) for image, records in found.items()}


def _captions(
    path: Path, pictures: Mapping[int, Picture], broken: list[Broken]
) -> dict[int, tuple[str, ...]]:
    """Reads the captions of each picture, in the order of their numbers."""
    whole: Any = read_json(path)
    if not isinstance(whole, dict) or not isinstance(whole.get("annotations"), list):
        raise ValueError(f"{quoted(path)} has no list 'annotations'; get the file again")
    found: dict[int, list[tuple[int, str]]] = {image: [] for image in pictures}
    for index, value in enumerate(whole["annotations"]):
        with collecting(broken):
            record = Record.of(value, str(path), f"caption at index {index}")
            image = record.whole("image_id")
            if image in found:
                found[image].append((record.whole("id"), record.text("caption")))
    return {image: tuple(text for _, text in sorted(said)) for image, said in found.items()}
