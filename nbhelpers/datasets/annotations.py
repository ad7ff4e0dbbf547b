"""The pictures, regions and classes of an ``instances.json``, which phrases may be about."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nbhelpers.datasets.expressions import Picture, read_picture
from nbhelpers.datasets.records import AGAIN, Broken, Record, read_json
from nbhelpers.datasets.regions import Region, read_region
from nbhelpers.errors import quoted


@dataclass
class Things:
    """The pictures, regions and classes that the expressions of a split mean.

    Attributes:
        pictures: By image id.
        regions: By annotation id.
        categories: The class of each annotation id.
        broken: The records that can't be used.
    """

    pictures: dict[int, Picture] = field(default_factory=dict)
    regions: dict[int, Region] = field(default_factory=dict)
    categories: dict[int, str] = field(default_factory=dict)
    broken: list[Broken] = field(default_factory=list)


@dataclass(frozen=True)
class Instances:
    """The entries of a file by number, None where several claim one number and differ.

    Attributes:
        file: Where they stand.
        images: By image id.
        annotations: By annotation id.
        categories: By category id.
        broken: Entries that have no number.
        rivals: The annotations that claim one number and differ, by that number.
    """

    file: str
    images: dict[int, Any]
    annotations: dict[int, Any]
    categories: dict[int, Any]
    broken: tuple[Broken, ...] = ()
    rivals: dict[int, list[dict[str, Any]]] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> "Instances":
        """Reads the file; what the entries hold is checked when they are asked for.

        Raises:
            OSError: There is nothing to read.
            ValueError: It is no JSON, or lacks one of the lists.
        """
        whole = read_json(path)
        kinds = {"images": "image", "annotations": "annotation", "categories": "category"}
        for kind in kinds:
            if not isinstance(whole, dict) or not isinstance(whole.get(kind), list):
                raise ValueError(
                    f"{quoted(path)} has no list {kind!r}; wanted COCO's instances with "
                    f"{', '.join(kinds)}; get the file again"
                )
        broken: list[Broken] = []
        for kind, one in kinds.items():
            for index, value in enumerate(whole[kind]):
                try:
                    Record.of(value, str(path), f"{one} at place {index}").whole("id")
                except Broken as error:
                    broken.append(error)
        images, annotations, categories = (by_number(whole[kind]) for kind in kinds)
        rivals: dict[int, list[dict[str, Any]]]
        rivals = {number: [] for number, value in annotations.items() if value is None}
        for value in whole["annotations"] if rivals else ():
            if isinstance(value, dict) and type(value.get("id")) is int and value["id"] in rivals:
                rivals[value["id"]].append(value)
        return cls(str(path), images, annotations, categories, tuple(broken), rivals)

    def thing(self, ref: Record, things: Things) -> int:
        """Returns the annotation that a reference means; `things` get its picture and region.

        Raises:
            Broken: One of them can't be used, or they contradict each other.
        """
        number, image = ref.whole("ann_id"), ref.whole("image_id")
        annotation = self.asked("annotation", self.annotations, ref, "ann_id")
        if annotation.whole("image_id") != image:
            raise annotation.broken("image_id", f"{ref.name} says that it is in image {image}")
        category = annotation.whole("category_id")
        if ref.fields.get("category_id") is not None and ref.whole("category_id") != category:
            raise ref.broken("category_id", f"annotation {number} says {category}")
        if number not in things.regions:
            if image not in things.pictures:
                picture = self.asked("image", self.images, ref, "image_id")
                things.pictures[image] = read_picture(picture)
            label = self.asked("category", self.categories, annotation, "category_id")
            things.categories[number] = label.text("name")
            things.regions[number] = read_region(annotation, things.pictures[image].size)
        return number

    def asked(self, kind: str, entries: dict[int, Any], asker: Record, key: str) -> Record:
        """Returns the entry whose number stands in a field of another record.

        Raises:
            Broken: There is none, or several that differ.
        """
        number = asker.whole(key)
        if number not in entries:
            raise asker.broken(key, f"no {kind} of {quoted(self.file)} has this number")
        return self.entry(kind, entries, number)

    def entry(self, kind: str, entries: dict[int, Any], number: int) -> Record:
        """Returns the entry with a number that one has; `Broken` where several differ."""
        name = f"{kind} {number}"
        if entries[number] is None:
            several = f"several {kind.replace('y', 'ie')}s differ; {AGAIN}"
            raise Broken(self.file, name, "id", number, several)
        return Record(self.file, name, entries[number])


def by_number(values: list[Any]) -> dict[int, Any]:
    """Returns entries by their id; None where several claim one and differ."""
    found: dict[int, Any] = {}
    for value in values:
        if isinstance(value, dict) and type(value.get("id")) is int:
            number = value["id"]
            found[number] = value if found.setdefault(number, value) == value else None
    return found
