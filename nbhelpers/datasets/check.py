"""What of the data is in a folder, whether it is what was published, and where the rest is."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from nbhelpers.datasets.coco import coco
from nbhelpers.datasets.pictures import inside, open_regular, quoted
from nbhelpers.datasets.published import PICTURES, SOURCES, SPLITS, Source
from nbhelpers.datasets.refer import find_folder, find_pictures, read_split
from nbhelpers.weights import EMBEDDED

State = Literal["good", "missing", "wrong"]
SUMS = "SHA256SUMS"


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        state: "good", "missing" or "wrong".
        what: The part, such as "refcoco val (unc)".
        words: What was found, or what to do.
        counts: Whether what is there can't be used without a missing part.
    """

    state: State
    what: str
    words: str
    counts: bool = True


def check(folder: Path, progress: Callable[[str], None] = lambda _: None) -> Iterator[Finding]:
    """Look through a folder of data.

    Args:
        folder: Where ``refcoco``, ``refcoco+``, ``refcocog``, ``annotations``, ``train2014`` and
            the like lie; or one set's own folder.
        progress: Called with what is looked at next.

    Yields:
        What was found, part by part: the referring sets with their splits and the pictures that
        they need, COCO's splits, and the files against the checksums that the folder lists.

    Raises:
        OSError: There is no such folder.
    """
    if not folder.is_dir():
        raise NotADirectoryError(
            f"{quoted(folder)} is no folder; give the one that holds the data"
        )
    for name, by in SPLITS:
        progress(f"{name} ({by})")
        yield from _referring(folder, name, by)
    for split in PICTURES:
        progress(split)
        yield from _coco(folder, split)
    progress("checksums")
    yield from _sums(folder)


def _referring(folder: Path, name: str, by: str) -> Iterator[Finding]:
    """A referring set: each split against the published counts, and its pictures."""
    there = False
    for split, published in SPLITS[name, by].items():
        what = f"{name} {split} ({by})"
        try:
            home = find_folder(name, folder, by, split)
        except FileNotFoundError:
            continue
        there = True
        try:
            expressions, things = read_split(name, split, home, by)
        except (OSError, ValueError) as error:
            yield Finding("wrong", what, str(error))
            continue
        refs = len({e.ref_id for e in expressions})
        counts = f"{refs:,} references, {len(expressions):,} expressions"
        differing = [
            f"{number:,} {unit}"
            for number, unit, found in zip(
                published, ("references", "expressions"), (refs, len(expressions)), strict=True
            )
            if number is not None and number != found
        ]
        if differing:
            yield Finding("wrong", what, f"{counts}; published: {' and '.join(differing)}")
        else:
            known = "as published" if published[0] is not None else "no published count"
            yield Finding("good", what, f"{counts}, {known}")
        if things.broken:
            yield Finding(
                "wrong", what, f"{len(things.broken):,} records broken, first: {things.broken[0]}"
            )
        needed = {e.image_id for e in expressions}
        yield _pictures(home, what, [things.pictures[image].file_name for image in needed])
    if not there and name != EMBEDDED and by in ("unc", "umd"):
        words = _where(SOURCES[name], f"refs({by}).p")
        yield Finding("missing", f"{name} ({by})", words, counts=False)


def _pictures(home: Path, what: str, names: list[str]) -> Finding:
    """Whether the pictures of a split are there."""
    what = f"{what} pictures"
    try:
        place = find_pictures(home)
    except FileNotFoundError:
        return Finding("missing", what, _where(SOURCES["train2014"], "the pictures"))
    absent = _absent(place, names)
    if absent:
        words = (
            f"{len(absent):,} of {len(names):,} are not in {quoted(place)}, such as {absent[0]}"
        )
        return Finding("missing", what, f"{words}; {_where(SOURCES['train2014'], 'the pictures')}")
    return Finding("good", what, f"all {len(names):,} in {quoted(place)}")


def _absent(folder: Path, names: Iterable[str]) -> list[str]:
    """The names under which the reader would find no picture, in order."""
    found = []
    for name in sorted(names):
        try:
            there = inside(folder, name).is_file()
        except ValueError:
            there = False
        found += [] if there else [name]
    return found


def _coco(folder: Path, split: str) -> Iterator[Finding]:
    """A split of COCO: its instances and captions, and how many pictures there are."""
    notes = folder / "annotations"
    year = split[-4:]
    if not (notes / f"instances_{split}.json").exists():
        words = _where(SOURCES[f"annotations{year}"], f"annotations/instances_{split}.json")
        yield Finding("missing", f"coco {split}", words, counts=False)
        return
    try:
        found = coco(folder, split)
    except (OSError, ValueError) as error:
        state: State = "missing" if isinstance(error, FileNotFoundError) else "wrong"
        yield Finding(state, f"coco {split}", f"{error}; {_where(SOURCES[split], 'the pictures')}")
        return
    counts = f"{len(found.image_ids):,} pictures, {len(found.categories)} classes with background"
    right = len(found.image_ids) == PICTURES[split]
    said = "as published" if right else f"published: {PICTURES[split]:,} pictures"
    yield Finding("good" if right else "wrong", f"coco {split}", f"{counts}; {said}")
    if found.broken:
        words = f"{len(found.broken):,} records broken, first: {found.broken[0]}"
        yield Finding("wrong", f"coco {split}", words)
    names = {picture.file_name for picture in found.pictures.values()}
    absent = _absent(found.folder, names)
    if absent:
        words = f"{len(absent):,} of {len(names):,} are missing, such as {absent[0]}"
        where = _where(SOURCES[split], "the pictures")
        yield Finding("missing", f"coco {split} pictures", f"{words}; {where}")
    if found.spoken is None:
        words = _where(SOURCES[f"annotations{year}"], f"annotations/captions_{split}.json")
        yield Finding("missing", f"coco {split} captions", words, counts=False)


def _sums(folder: Path) -> Iterator[Finding]:
    """The files that a list of checksums names, against it; no list, no verdict."""
    path = folder / SUMS
    if not path.exists():
        words = (
            f"no {SUMS} in the folder, so no file was compared with a sum; the sets' makers "
            f"publish none. To notice later changes: python -m nbhelpers data check --write-sums"
        )
        yield Finding("missing", "checksums", words, counts=False)
        return
    with open_regular(path) as file:
        lines = file.read(2**26).decode("utf-8", "replace").splitlines()
    good = 0
    for line in lines:
        digest, _, name = line.partition("  ")
        try:
            same = sha256(inside(folder, name)) == digest
        except (OSError, ValueError) as error:
            yield Finding("wrong", "checksums", str(error))
            continue
        if same:
            good += 1
        else:
            words = f"{quoted(name)} isn't the file that {SUMS} lists; get it again"
            yield Finding("wrong", "checksums", words)
    yield Finding("good", "checksums", f"{good:,} of {len(lines):,} files are as {SUMS} says")


def sums(folder: Path) -> str:
    """A list of the checksums of the annotation files in a folder, as ``sha256sum`` writes it.

    Pictures are left out: their bytes count in `Referring.sha256`.
    """
    ends = (".json", ".jsonl", ".p", ".zip")
    paths = sorted(p for p in folder.rglob("*") if p.suffix in ends and p.is_file())
    return "".join(f"{sha256(p)}  {p.relative_to(folder).as_posix()}\n" for p in paths)


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _where(source: Source, wanted: str) -> str:
    """What to fetch and from where; the official links come and go."""
    return (
        f"{source.archive} holds {wanted}, officially at {source.link} "
        f"(often down: then {source.copies})"
    )
