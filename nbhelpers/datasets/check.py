"""A report on a folder of data: what is there, whether it is as published, what is missing."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from nbhelpers.datasets.coco import coco
from nbhelpers.datasets.expressions import sha256
from nbhelpers.datasets.pictures import inside, open_regular
from nbhelpers.datasets.published import PICTURES, SOURCES, SPLITS, Source
from nbhelpers.datasets.records import Broken
from nbhelpers.datasets.refer import find_folder, find_pictures, read_split
from nbhelpers.errors import quoted
from nbhelpers.weights import EMBEDDED

State = Literal["good", "missing", "wrong"]
SUMS = "SHA256SUMS"


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    state: State
    what: str  # the part, such as "refcoco val (unc)"
    words: str  # what was found, or what to do
    counts: bool = True  # whether what is there can't be used without a missing part


def check(folder: Path, progress: Callable[[str], None] = lambda _: None) -> Iterator[Finding]:
    """Reports on a folder of data.

    Args:
        folder: Where ``refcoco``, ``refcoco+``, ``refcocog``, ``annotations``, ``train2014`` and
            the like lie; or one set's own folder.
        progress: Called with what is checked next.

    Yields:
        The findings, part by part: the referring sets with their splits and the pictures that
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
    """Compares each split of a referring set with the published counts; checks its pictures."""
    there = False
    for split, published in SPLITS[name, by].items():
        what = f"{name} {split} ({by})"
        try:
            home = find_folder(name, folder, by, split)
        except FileNotFoundError:
            continue
        there = True
        try:
            expressions, known, broken = read_split(name, split, home, by)
        except (OSError, ValueError) as error:
            yield Finding("wrong", what, str(error))
            continue
        found = {
            "references": len({e.ref_id for e in expressions}),
            "expressions": len(expressions),
        }
        counts = ", ".join(f"{number:,} {unit}" for unit, number in found.items())
        differing = [
            f"{number:,} {unit}"
            for unit, number in zip(found, published, strict=True)
            if number is not None and number != found[unit]
        ]
        if differing:
            yield Finding("wrong", what, f"{counts}; published: {' and '.join(differing)}")
        else:
            said = "as published" if published[0] is not None else "no published count"
            yield Finding("good", what, f"{counts}, {said}")
        yield from _broken(what, broken)
        needed = {e.image_id for e in expressions}
        yield _pictures(home, what, [known.pictures[image].file_name for image in needed])
    if not there and name != EMBEDDED and by in ("unc", "umd"):
        words = _where(SOURCES[name], f"refs({by}).p")
        yield Finding("missing", f"{name} ({by})", words, counts=False)


def _pictures(home: Path, what: str, names: list[str]) -> Finding:
    """Tells whether the pictures of a referring set's split are there."""
    what, where = f"{what} pictures", _where(SOURCES["train2014"], "the pictures")
    try:
        lie = find_pictures(home)
    except FileNotFoundError:
        return Finding("missing", what, where)
    if absent := _absent(lie, names):
        words = f"{len(absent):,} of {len(names):,} are not in {quoted(lie)}, such as {absent[0]}"
        return Finding("missing", what, f"{words}; {where}")
    return Finding("good", what, f"all {len(names):,} in {quoted(lie)}")


def _broken(what: str, broken: Sequence[Broken]) -> Iterator[Finding]:
    """Reports the records that can't be used, if there are any."""
    if broken:
        yield Finding("wrong", what, f"{len(broken):,} records broken, first: {broken[0]}")


def _absent(folder: Path, names: Iterable[str]) -> list[str]:
    """Returns the names under which the reader would find no picture, in order."""
    found = []
    for name in sorted(names):
        try:
            there = inside(folder, name).is_file()
        except ValueError:
            there = False
        found += [] if there else [name]
    return found


def _coco(folder: Path, split: str) -> Iterator[Finding]:
    """Checks a split of COCO: its instances and captions, and how many pictures there are."""
    notes, pictures = SOURCES[f"annotations{split[-4:]}"], _where(SOURCES[split], "the pictures")
    instances = f"annotations/instances_{split}.json"
    if not (folder / instances).exists():
        yield Finding("missing", f"coco {split}", _where(notes, instances), counts=False)
        return
    try:
        found = coco(folder, split)
    except (OSError, ValueError) as error:
        state: State = "missing" if isinstance(error, FileNotFoundError) else "wrong"
        yield Finding(state, f"coco {split}", f"{error}; {pictures}")
        return
    counts = f"{len(found.image_ids):,} pictures, {len(found.categories)} classes with background"
    right = len(found.image_ids) == PICTURES[split]
    said = "as published" if right else f"published: {PICTURES[split]:,} pictures"
    yield Finding("good" if right else "wrong", f"coco {split}", f"{counts}; {said}")
    yield from _broken(f"coco {split}", found.broken)
    names = {picture.file_name for picture in found.pictures.values()}
    if absent := _absent(found.folder, names):
        words = f"{len(absent):,} of {len(names):,} are missing, such as {absent[0]}"
        yield Finding("missing", f"coco {split} pictures", f"{words}; {pictures}")
    if found.spoken is None:
        words = _where(notes, f"annotations/captions_{split}.json")
        yield Finding("missing", f"coco {split} captions", words, counts=False)


def _sums(folder: Path) -> Iterator[Finding]:
    """Compares the files that a list of checksums names with it; no list, no verdict."""
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
        words = f"{quoted(name)} isn't the file that {SUMS} lists; get it again"
        try:
            if sha256(inside(folder, name)) == digest:
                good += 1
                continue
        except (OSError, ValueError) as error:
            words = str(error)
        yield Finding("wrong", "checksums", words)
    yield Finding("good", "checksums", f"{good:,} of {len(lines):,} files are as {SUMS} says")


def sums(folder: Path) -> str:
    """Lists the checksums of the annotation files in a folder, as ``sha256sum`` writes them.

    Pictures are left out: their bytes count in `Referring.sha256`.
    """
    ends = (".json", ".jsonl", ".p", ".zip")
    paths = sorted(p for p in folder.rglob("*") if p.suffix in ends and p.is_file())
    return "".join(f"{sha256(p)}  {p.relative_to(folder).as_posix()}\n" for p in paths)


def _where(source: Source, wanted: str) -> str:
    """Says what to fetch and from where; the official links come and go."""
    return (
        f"{source.archive} holds {wanted}, officially at {source.link} "
        f"(often down: then {source.copies})"
    )
