"""The pictures, regions and classes of an ``instances.json``, which phrases may be about."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nbhelpers.datasets.expressions import Picture, read_picture
from nbhelpers.datasets.records import AGAIN, Broken, Record, collecting, read_json
from nbhelpers.datasets.regions import Region, read_region
from nbhelpers.errors import quoted

KINDS = {"image": "images", "annotation": "annotations", "category": "categories"}


class Instances:
    """The entries of a file by kind and number; what they hold is checked when it is asked for.

    Attributes:
        file: Where they stand.
        entries: By kind, then by number, the entries that claim it: several where they differ.
        broken: The entries that have no number.
        pictures: The pictures that references meant, by image id.
        regions: The regions that they meant, by annotation id.
        categories: The classes of these, by annotation id.
    """

    def __init__(self, file: str, lists: Mapping[str, Any]) -> None:
        self.file, self.broken = file, list[Broken]()
        self.pictures, self.regions = dict[int, Picture](), dict[int, Region]()
        self.categories = dict[int, str]()
        self.entries: dict[str, dict[int, list[dict[str, Any]]]] = {kind: {} for kind in KINDS}
        for kind, plural in KINDS.items():
            for index, value in enumerate(lists[plural]):
                with collecting(self.broken):
                    number = Record.of(value, file, f"{kind} at index {index}").whole("id")
                    claims = self.entries[kind].setdefault(number, [])
                    if value not in claims:
                        claims.append(value)

    @classmethod
    def read(cls, path: Path) -> "Instances":
        """Reads the file.

        Raises:
            OSError: There is nothing to read.
            ValueError: It is no JSON, or lacks one of the lists.
        """
        whole = read_json(path)
        for plural in KINDS.values():
            if not isinstance(whole, dict) or not isinstance(whole.get(plural), list):
                raise ValueError(
                    f"{quoted(path)} has no list {plural!r}; wanted COCO's instances with "
                    f"{', '.join(KINDS.values())}; get the file again"
                )
        return cls(str(path), whole)

    def find(self, ref: Record) -> int:
        """Finds the annotation that a reference means, and keeps its picture, region and class.

        Raises:
            Broken: One of them can't be used, or they contradict each other.
        """
        number, image = ref.whole("ann_id"), ref.whole("image_id")
        annotation = self.asked("annotation", ref, "ann_id")
        if annotation.whole("image_id") != image:
            raise annotation.broken("image_id", f"{ref.name} says that it is in image {image}")
        category = annotation.whole("category_id")
        if ref.fields.get("category_id") is not None and ref.whole("category_id") != category:
            raise ref.broken("category_id", f"annotation {number} says {category}")
        if number not in self.regions:
            if image not in self.pictures:
                self.pictures[image] = read_picture(self.asked("image", ref, "image_id"))
            label = self.asked("category", annotation, "category_id").text("name")
            self.categories[number] = label
            self.regions[number] = read_region(annotation, self.pictures[image].size)
        return number

    def asked(self, kind: str, asker: Record, key: str) -> Record:
        """Returns the entry whose number is in another record's field; `Broken` without one."""
        number = asker.whole(key)
        if number not in self.entries[kind]:
            raise asker.broken(key, f"no {kind} of {quoted(self.file)} has this number")
        return self.entry(kind, number)

    def entry(self, kind: str, number: int) -> Record:
        """Returns the entry with a number that one has; `Broken` where several differ."""
        name, claims = f"{kind} {number}", self.entries[kind][number]
        if len(claims) > 1:
            several = f"several {KINDS[kind]} differ; {AGAIN}"
            raise Broken(self.file, name, "id", number, several)
        return Record(self.file, name, claims[0])
