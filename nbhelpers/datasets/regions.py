"""A region as COCO writes it, polygons or run lengths, checked and turned into pixels.

pycocotools' C code believes what it is given: NaN in a polygon or a size of 2**32 + 4 ends the
process, counts that are too short give whatever lay in memory, four numbers are taken for a box.
So nothing reaches it unchecked, and run lengths never do: NumPy lays them out.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Int64, UInt8

from nbhelpers.datasets.pictures import MAX_PIXELS
from nbhelpers.datasets.records import AGAIN, Broken, Record
from nbhelpers.errors import refused

Merge = Literal["union", "xor1"]
MAX_OUTLINE = 2**20  # pixels along a polygon; pycocotools holds about 100 bytes for each
MAX_DIGITS = 7  # characters of one compressed count: 35 bits, far more than any picture holds


@dataclass(frozen=True)
class Region:
    """Pixels of a picture, as polygons or as run lengths.

    Attributes:
        size: The picture's ``(h, w)``.
        polygons: Each one's x, y, x, y, ...; none where there are runs.
        runs: Lengths of runs down the columns, of zeros first; none where there are polygons.
    """

    size: tuple[int, int]
    polygons: tuple[tuple[float, ...], ...] = ()
    runs: tuple[int, ...] = ()

    def parts(self) -> UInt8[np.ndarray, "part h w"]:
        """Returns the pixels of each polygon, or of all runs, as 0 and 1."""
        if self.runs:
            return unroll(np.asarray(self.runs, np.int64), self.size)[None].astype(np.uint8)
        from pycocotools import mask

        outlines = mask.frPyObjects([list(polygon) for polygon in self.polygons], *self.size)
        return np.ascontiguousarray(mask.decode(outlines).transpose(2, 0, 1))

    def mask(self, merge: Merge = "union") -> Bool[np.ndarray, "h w"]:
        """Returns the pixels of the region.

        Args:
            merge: What holds where polygons overlap. "union", as pycocotools merges them: the
                pixel belongs to the region. "xor1", as the usual loaders of RefCOCO have it, who
                add the polygons up and keep what equals 1: it does not.

        Raises:
            ValueError: It is another word.
        """
        if merge not in ("union", "xor1"):
            raise refused("mask", "merge is 'union' or 'xor1'", merge=merge)
        covered = self.parts().sum(axis=0)
        return np.asarray(covered > 0 if merge == "union" else covered == 1)

    def record(self) -> list[Any]:
        """Returns what it is made of, for a checksum."""
        return [self.size, self.polygons, self.runs]


def read_region(record: Record, size: tuple[int, int], field: str = "segmentation") -> Region:
    """Returns the region in a field of an annotation of a picture, whose ``(h, w)`` is `size`.

    Raises:
        Broken: It is no region of such a picture; the message says why.
    """
    h, w = size
    if h * w > MAX_PIXELS:
        raise record.broken(field, f"the picture has {h} x {w} pixels, more than {MAX_PIXELS:,}")
    value = record.value(field)
    if isinstance(value, dict):
        return Region(size, runs=_runs(Record(record.file, record.name, value), size, field))
    polygons = record.several(field)
    return Region(size, polygons=tuple(_polygon(record, field, p, size) for p in polygons))


def _polygon(record: Record, field: str, value: Any, size: tuple[int, int]) -> tuple[float, ...]:
    """Returns the corners of one polygon of a picture."""
    h, w = size

    def wrong(wanted: str, shown: object = value) -> Broken:
        return Broken(record.file, record.name, field, shown, f"{wanted}; {AGAIN}")

    if not isinstance(value, list):
        raise wrong("wanted a list of polygons [[x, y, x, y, ...], ...]")
    if len(value) < 6 or len(value) % 2:
        raise wrong(f"a polygon has pairs x, y of 3 corners or more, this {len(value)} numbers")
    for index, number in enumerate(value):
        side = h if index % 2 else w
        # NaN compares as false, so it is caught here as well
        if type(number) not in (int, float) or not -side <= number <= 2 * side:
            near = f"in or near {h} x {w} pixels (h x w)"
            raise wrong(f"number {index} of a polygon is no coordinate {near}", number)
    corners = np.asarray(value, np.float64).reshape(-1, 2)
    low, high = corners.min(axis=0), corners.max(axis=0)
    if (high < 0).any() or (low > (w, h)).any():
        raise wrong(f"a polygon lies wholly outside of {h} x {w} pixels (h x w)")
    outline = np.abs(np.diff(corners, axis=0, append=corners[:1])).max(axis=1).sum()
    if outline > MAX_OUTLINE:
        raise wrong(f"a polygon is {outline:,.0f} pixels long, wanted at most {MAX_OUTLINE:,}")
    return tuple(map(float, value))


def _runs(record: Record, size: tuple[int, int], field: str) -> tuple[int, ...]:
    """Returns the run lengths of a picture's mask, compressed or not."""
    stated, counts = record.value("size"), record.value("counts")

    def wrong(part: str, value: object, wanted: object) -> Broken:
        return Broken(record.file, record.name, f"{field}.{part}", value, f"{wanted}; {AGAIN}")

    if stated != list(size) or any(type(side) is not int for side in stated):
        raise wrong("size", stated, f"the picture has [h, w] = {list(size)}")
    try:
        if isinstance(counts, str):
            counts = uncompressed(counts)
        elif not isinstance(counts, list):
            raise ValueError("wanted a list of run lengths, or their compressed text")
        elif any(type(count) is not int or count < 0 for count in counts):
            raise ValueError("run lengths are whole numbers of 0 or more")
        if sum(counts) != size[0] * size[1]:
            raise ValueError(f"runs sum to {sum(counts):,} of {size[0] * size[1]:,} pixels")
    except ValueError as error:
        raise wrong("counts", record.value("counts"), error) from None
    return tuple(counts)


def uncompressed(text: str) -> tuple[int, ...]:
    """Returns the run lengths in COCO's compressed text, of zeros first.

    Six bits a character from "0" on: five of the number, lowest first, and one that says whether
    it goes on; the last one's highest bit is the sign. From the fourth on, a run is written as
    the difference to the last but one.

    Raises:
        ValueError: It is no such text as ``pycocotools.mask.encode`` gives.

    Example:
        >>> uncompressed("0211")
        (0, 2, 1, 3)
    """
    code = np.frombuffer(text.encode("ascii", "replace"), np.uint8).astype(np.int64) - 48
    if not text.isascii() or not len(code) or code.min() < 0 or code.max() > 63:
        raise ValueError("compressed run lengths are characters from '0' to 'o'")
    last = np.flatnonzero(~code & 32)
    if not len(last) or last[-1] != len(code) - 1:
        raise ValueError("compressed run lengths end in the middle of a number")
    first = np.concatenate([[0], last[:-1] + 1])
    digits = last - first + 1
    if digits.max() > MAX_DIGITS:
        raise ValueError(f"a compressed run length has {digits.max()} characters")
    shift = 5 * (np.arange(len(code)) - np.repeat(first, digits))
    numbers = np.add.reduceat((code & 31) << shift, first)
    numbers -= np.where(code[last] & 16, 1 << (5 * digits), 0)
    numbers[1::2] = np.cumsum(numbers[1::2])
    numbers[2::2] = np.cumsum(numbers[2::2])
    if numbers.min() < 0:
        raise ValueError("a run length is negative")
    return tuple(numbers.tolist())


def unroll(runs: Int64[np.ndarray, " run"], size: tuple[int, int]) -> Bool[np.ndarray, "h w"]:
    """Lays runs, which sum to the pixels of a size ``(h, w)``, down its columns: zeros, ones, ...

    Example:
        >>> unroll(np.array([0, 2, 1, 1, 2]), (2, 3)).astype(int)
        array([[1, 0, 0],
               [1, 1, 0]])
    """
    values = np.arange(len(runs)) % 2 == 1
    return np.repeat(values, runs).reshape(size, order="F")
