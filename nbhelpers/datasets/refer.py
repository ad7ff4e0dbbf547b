"""The referring sets in the files that they come in, read into one form."""

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nbhelpers.datasets.expressions import Expression, Picture, Referring, read_picture
from nbhelpers.datasets.pictures import quoted
from nbhelpers.datasets.published import splits_of
from nbhelpers.datasets.records import AGAIN, Broken, Record, Shown, indexed, read_json
from nbhelpers.datasets.regions import Region, read_region
from nbhelpers.weights import data_folder

# Where the pictures may lie, beside or below the folder of the expressions.
PICTURES = (
    "images/mscoco/images/train2014",
    "images/mscoco/train2014",
    "images/train2014",
    "train2014",
    "images",
)


def referring(
    name: str, split: str, root: str | os.PathLike | None = None, by: str | None = None
) -> Referring:
    """Read one split of a referring set.

    In `root`, or in the folder of the set's name below it, are looked for, in this order:
    ``refs(BY).json`` with ``instances.json``; ``refs(BY).p``, the published pickle, with the same;
    ``SPLIT.jsonl``, the rows of a mirror on the Hugging Face Hub, one JSON object a line. The
    pictures are COCO's train2014, whole or in part, in ``train2014`` or ``images`` there.

    Args:
        name: "shapes", "refcoco", "refcoco+" or "refcocog".
        split: Such as "val", "testA", "test".
        root: The folder; for "shapes" the project's own when None.
        by: Whose splits: "unc" (the default) or "google" for RefCOCO, "umd" (the default) or
            "google" for RefCOCOg.

    Returns:
        The split, with what can't be used in `broken`.

    Raises:
        OSError: A file or the pictures' folder isn't there, or can't be read.
        ValueError: There is no such set or split; a file is damaged as a whole; the split is
            empty, or one that mixes two.
    """
    by, splits = splits_of(name, by)
    if split not in splits:
        raise ValueError(f"{name} ({by}) has no split {Shown(split)}; it has {', '.join(splits)}")
    folder = find_folder(name, root, by, split)
    expressions, things = read_split(name, split, folder, by)
    pictures = find_pictures(folder)
    return Referring(
        name,
        split,
        by,
        expressions,
        tuple(things.broken),
        pictures,
        things.pictures,
        things.regions,
    )


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


def find_folder(name: str, root: str | os.PathLike | None, by: str, split: str) -> Path:
    """The folder that holds a set's expressions in any of the forms.

    Raises:
        FileNotFoundError: None does; says which names were looked for.
    """
    if root is None and name != "shapes":
        raise ValueError(f"{name} doesn't come with the package; give the folder that holds it")
    base = data_folder() / "shapes" if root is None else Path(root)
    names = (f"refs({by}).json", f"refs({by}).p", f"{split}.jsonl")
    for folder in (base / name, base):
        if any((folder / one).is_file() for one in names):
            return folder
    raise FileNotFoundError(
        f"{name} is not in {quoted(base)}: none of {', '.join(names)} is there or in its folder "
        f"{name!r}; python -m nbhelpers data check says where it is to be had"
    )


def find_pictures(folder: Path) -> Path:
    """The folder of the pictures that belongs to a folder of expressions.

    Raises:
        FileNotFoundError: There is none.
    """
    for base in (folder, folder.parent):
        for place in PICTURES:
            if (base / place).is_dir():
                return base / place
    raise FileNotFoundError(
        f"the pictures are not beside {quoted(folder)}; put COCO's train2014 there, into one of "
        + ", ".join(PICTURES)
    )


def read_split(
    name: str, split: str, folder: Path, by: str
) -> tuple[tuple[Expression, ...], Things]:
    """The expressions of a split, and what they are about; pictures are not looked for.

    Raises:
        OSError, ValueError: As `referring`.
    """
    refs, file = _refs(folder, by)
    splits = splits_of(name, by)[1]
    things = Things()
    instances = Instances.read(folder / "instances.json")
    found: dict[int, Expression] = {}
    torn: set[int] = set()
    mine = [ref for ref in refs if not isinstance(ref, dict) or _may_be(ref, split, splits)]
    for ref in indexed(mine, file, "ref", things.broken, key="ref_id").values():
        try:
            if ref.text("split") not in splits:
                raise ref.broken("split", f"the splits are {', '.join(splits)}")
            annotation = instances.thing(ref, things)
            sentences = ref.several("sentences")
        except Broken as error:
            things.broken.append(error)
            continue
        for place, sentence in enumerate(sentences):
            try:
                said = Record.of(sentence, file, f"{ref.name}, sentence {place}")
                expression = Expression(
                    id=said.whole("sent_id"),
                    text=said.text("sent"),
                    ref_id=ref.whole("ref_id"),
                    image_id=ref.whole("image_id"),
                    annotation_id=annotation,
                    category=things.categories[annotation],
                    split=split,
                )
                if found.setdefault(expression.id, expression) != expression:
                    torn.add(expression.id)
                    raise said.broken("sent_id", "several sentences with this number differ")
            except Broken as error:
                things.broken.append(error)
    kept = tuple(found[number] for number in sorted(found.keys() - torn))
    if not kept:
        raise ValueError(
            f"{quoted(file)} has no expression of the split {split!r} that can be used "
            f"({len(refs):,} references, {len(things.broken):,} broken"
            + (f", the first: {things.broken[0]}" if things.broken else "")
            + f"); choose another split, or {AGAIN.partition(',')[0]}"
        )
    return kept, things


def _may_be(ref: dict[str, Any], split: str, splits: Iterable[str]) -> bool:
    """Whether a reference is of the split, or says of itself none that there is."""
    said = ref.get("split")
    return said == split or not (isinstance(said, str) and said in splits)


def _refs(folder: Path, by: str) -> tuple[list[Any], str]:
    """The references as their file lists them, and the file's name."""
    path = folder / f"refs({by}).json"
    refs = read_json(path)
    if not isinstance(refs, list):
        raise ValueError(
            f"{quoted(path)} holds {Shown(refs)}; wanted a list of references; get the file again"
        )
    return refs, str(path)


@dataclass(frozen=True)
class Instances:
    """The lists of an ``instances.json``, each entry by its number."""

    file: str
    images: dict[int, Any]
    annotations: dict[int, Any]
    categories: dict[int, Any]

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
        return cls(str(path), *(_by_number(whole[kind]) for kind in kinds))

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
        if "category_id" in ref.fields and ref.whole("category_id") != category:
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


def _by_number(values: list[Any]) -> dict[int, Any]:
    """Entries by id; None where several claim one id and differ."""
    found: dict[int, Any] = {}
    for value in values:
        if isinstance(value, dict) and type(value.get("id")) is int:
            number = value["id"]
            found[number] = value if found.setdefault(number, value) == value else None
    return found
