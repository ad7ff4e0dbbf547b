"""A set of pictures and of phrases that each mean one thing in one picture."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, UInt8

from nbhelpers.datasets.pictures import inside, load_image, open_regular
from nbhelpers.datasets.records import Broken, Record
from nbhelpers.datasets.regions import Merge, Region
from nbhelpers.errors import quoted


@dataclass(frozen=True)
class Expression:
    """A phrase that means one thing in a picture.

    Attributes:
        id: Its number, ``sent_id`` in the files.
        text: The phrase.
        ref_id: The reference it belongs to: one thing, several phrases.
        image_id: The picture.
        annotation_id: The thing, whose region is the truth.
        category: The thing's class, such as "person".
        split: Such as "val".
    """

    id: int
    text: str
    ref_id: int
    image_id: int
    annotation_id: int
    category: str
    split: str


@dataclass(frozen=True)
class Picture:
    """A picture's file and the ``(h, w)`` in pixels that the annotations are drawn for."""

    file_name: str
    size: tuple[int, int]


@dataclass(frozen=True, repr=False)
class Referring:
    """One split of a referring set. `referring` makes it; ids that it lacks raise `KeyError`.

    Attributes:
        name: "stickers", "refcoco", "refcoco+" or "refcocog".
        split: Such as "val".
        splits_by: Whose splits: "stickers", "unc", "google" or "umd".
        expressions: Sorted by id.
        broken: The records that were left out, each with the reason.
        folder: Where the pictures lie.
        pictures: By image id.
        regions: By annotation id.
    """

    name: str
    split: str
    splits_by: str
    expressions: tuple[Expression, ...]
    broken: tuple[Broken, ...]
    folder: Path
    pictures: Mapping[int, Picture]
    regions: Mapping[int, Region]

    def __repr__(self) -> str:
        return (
            f"<Referring: {self.name} {self.split} ({self.splits_by}), "
            f"{len(self.expressions):,} expressions, {len(self.broken):,} records broken>"
        )

    def picture_path(self, image_id: int) -> Path:
        """Returns where a picture lies, inside of the folder and nowhere else.

        Raises:
            ValueError: Its name leads out of the folder.
        """
        if image_id not in self.pictures:
            raise KeyError(f"no expression of {self.name} {self.split} is about image {image_id}")
        return inside(self.folder, self.pictures[image_id].file_name)

    def image(self, image_id: int) -> UInt8[np.ndarray, "h w 3"]:
        """Returns the picture's stored pixels: masks are drawn on those, whatever EXIF says.

        Raises:
            OSError: It can't be read.
            ValueError: Its name leads out of the folder, it is no picture, or it isn't of the
                size that the annotations say.
        """
        path = self.picture_path(image_id)
        return load_of_size(path, self.pictures[image_id].size)

    def mask(self, expression: Expression, merge: Merge = "union") -> Bool[np.ndarray, "h w"]:
        """Returns the true pixels of what an expression means.

        Args:
            expression: One of `expressions`.
            merge: "union", as pycocotools merges the polygons of one thing; or "xor1", as the
                usual loaders of RefCOCO do: pixels where two polygons overlap are background.

        Raises:
            ValueError: No pixel is left: an IoU with nothing would be a silent 0.
        """
        if expression.annotation_id not in self.regions:
            raise KeyError(f"{self.name} {self.split} has no expression {expression.id}")
        found = self.regions[expression.annotation_id].mask(merge)
        if not found.any():
            raise ValueError(
                f"annotation {expression.annotation_id} (expression {expression.id}) marks no "
                f"pixel when merged by {merge!r}; leave it out, or use the other merge"
            )
        return found

    def overlaps(self) -> tuple[int, ...]:
        """Returns the ref_ids whose polygons overlap: "union" and "xor1" give different masks."""
        refs = {e.ref_id: self.regions[e.annotation_id] for e in self.expressions}
        several = ((ref, region) for ref, region in refs.items() if len(region.polygons) > 1)
        return tuple(sorted(r for r, region in several if (region.parts().sum(axis=0) > 1).any()))

    def sha256(self, pictures: bool = True) -> str:
        """Returns a checksum of all that a result depends on, the same on every machine.

        That is the expressions, the regions, the sizes and the pictures; where the folder lies,
        and in which form the expressions came, doesn't count.

        Args:
            pictures: Whether the bytes of the pictures count. One that can't be read counts as
                such, so that the sum changes once it can be read.

        """
        total = hashlib.sha256(f"{self.name} {self.split} {self.splits_by}\n".encode())
        for e in self.expressions:
            line = [e.id, e.text, e.ref_id, e.image_id, e.annotation_id, e.category]
            line += self.regions[e.annotation_id].record()
            total.update(json.dumps(line).encode() + b"\n")
        for image_id in sorted({e.image_id for e in self.expressions}):
            digest = self._digest(image_id) if pictures else ""
            total.update(f"{image_id} {self.pictures[image_id].size} {digest}\n".encode())
        return total.hexdigest()

    def _digest(self, image_id: int) -> str:
        """Returns the checksum of a picture's file."""
        try:
            return sha256(self.picture_path(image_id))
        except (OSError, ValueError):
            return "unreadable"


def sha256(path: Path) -> str:
    """Returns the SHA-256 of a file, in hexadecimal digits."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def load_of_size(path: Path, size: tuple[int, int]) -> UInt8[np.ndarray, "h w 3"]:
    """Reads a picture's stored pixels, if their ``(h, w)`` is `size`; else raises `ValueError`."""
    image = load_image(path, rotate=False)
    if image.shape[:2] != size:
        raise ValueError(
            f"{quoted(path)} has {image.shape[0]} x {image.shape[1]} pixels (h x w), its "
            f"annotations are for {size[0]} x {size[1]}; get the picture that they belong to"
        )
    return image


def read_picture(record: Record) -> Picture:
    """Reads a picture of COCO's list; `Broken` where its name may leave the folder."""
    name = record.text("file_name", most=250)
    path = Path(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or not name.isprintable() or ":" in name:
        raise record.broken("file_name", "wanted the plain name of a file in the dataset's folder")
    return Picture(name, record.size())
