"""What a phrase may be about: the pictures, regions and classes of an ``instances.json``."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nbhelpers.datasets.expressions import Picture, read_picture
from nbhelpers.datasets.pictures import quoted
from nbhelpers.datasets.records import AGAIN, Broken, Record, read_json
from nbhelpers.datasets.regions import Region, read_region


@dataclass
class Things:
    """What the expressions of a split are about, as far as it can be used.

    Attributes:
        pictures: By image id.
        regions: By annotation id.
        categories: The class of each annotation.
        broken: What can't be used.
    """

    pictures: dict[int, Picture] = field(default_factory=dict)
    regions: dict[int, Region] = field(default_factory=dict)
    categories: dict[int, str] = field(default_factory=dict)
    broken: list[Broken] = field(default_factory=list)


@dataclass(frozen=True)
class Instances:
    """What expressions may be about: entries as their file lists them, by number.

    Attributes:
        file: Where they stand.
        images: None where several claim one number and differ.
        annotations: The same.
        categories: The same.
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
        """Read the file; what the entries hold is looked at when they are asked for.

        Raises:
            OSError, ValueError: It can't be read, or lacks one of the lists.
        """
        whole = read_json(path)
        kinds = ("images", "annotations", "categories")
        for kind in kinds:
            if not isinstance(whole, dict) or not isinstance(whole.get(kind), list):
                raise ValueError(
                    f"{quoted(path)} has no list {kind!r}; wanted COCO's instances with "
                    f"{', '.join(kinds)}; get the file again"
                )
        broken: list[Broken] = []
        for kind, one in zip(kinds, ("image", "annotation", "category"), strict=True):
            for place, value in enumerate(whole[kind]):
                try:
                    Record.of(value, str(path), f"{one} at place {place}").whole("id")
                except Broken as error:
                    broken.append(error)
        images, annotations, categories = (by_number(whole[kind]) for kind in kinds)
        rivals: dict[int, list[dict[str, Any]]] = {
            n: [] for n, v in annotations.items() if v is None
        }
        for value in whole["annotations"] if rivals else ():
            if isinstance(value, dict) and type(value.get("id")) is int and value["id"] in rivals:
                rivals[value["id"]].append(value)
        return cls(str(path), images, annotations, categories, tuple(broken), rivals)

    def thing(self, ref: Record, things: Things) -> int:
        """The annotation that a reference means, with its picture, region and class.

        Raises:
            Broken: One of them can't be used, or they contradict each other.
        """
        number, image = ref.whole("ann_id"), ref.whole("image_id")
        annotation = self.entry("annotation", self.annotations, number, ref, "ann_id")
        if annotation.whole("image_id") != image:
            raise annotation.broken("image_id", f"{ref.name} says that it is in image {image}")
        category = annotation.whole("category_id")
        if ref.fields.get("category_id") is not None and ref.whole("category_id") != category:
            raise ref.broken("category_id", f"annotation {number} says {category}")
        if number not in things.regions:
            if image not in things.pictures:
                picture = self.entry("image", self.images, image, ref, "image_id")
                things.pictures[image] = read_picture(picture)
            size = things.pictures[image].size
            label = self.entry("category", self.categories, category, annotation, "category_id")
            things.categories[number] = label.text("name")
            things.regions[number] = read_region(annotation, size)
        return number

    def entry(
        self, kind: str, entries: dict[int, Any], number: int, asker: Record, key: str
    ) -> Record:
        """The entry with a number.

        Raises:
            Broken: There is none, or several that differ.
        """
        if number not in entries:
            raise asker.broken(key, f"no {kind} of {quoted(self.file)} has this number")
        if entries[number] is None:
            raise Broken(
                self.file, f"{kind} {number}", "id", number, f"several {kind}s differ; {AGAIN}"
            )
        return Record(self.file, f"{kind} {number}", entries[number])


def by_number(values: list[Any]) -> dict[int, Any]:
    """Entries by their id; None where several claim one and differ."""
    found: dict[int, Any] = {}
    for value in values:
        if isinstance(value, dict) and type(value.get("id")) is int:
            number = value["id"]
            found[number] = value if found.setdefault(number, value) == value else None
    return found
