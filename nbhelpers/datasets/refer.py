"""The referring sets in the files that they come in, read into one form."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from nbhelpers.datasets._mirrors import read_mirror
from nbhelpers.datasets._pickles import read_pickle
from nbhelpers.datasets.annotations import Instances
from nbhelpers.datasets.expressions import Expression, Referring
from nbhelpers.datasets.published import splits_of
from nbhelpers.datasets.records import AGAIN, Broken, Record, collecting, indexed, read_json
from nbhelpers.errors import Shown, quoted
from nbhelpers.weights import EMBEDDED, data_folder

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
    """Reads one split of a referring set; what can't be used of it is in `Referring.broken`.

    The folder of the set's name, which is `root` or in it, holds ``refs(BY).json`` and
    ``instances.json``; or ``refs(BY).p``, the published pickle, and the same; or ``SPLIT.jsonl``,
    the rows of a mirror on the Hugging Face Hub, one JSON object a line. The first found counts.
    The pictures are COCO's train2014, whole or in part, in ``train2014`` or ``images`` there.

    Args:
        name: "stickers", "refcoco", "refcoco+" or "refcocog".
        split: Such as "val", "testA", "test".
        root: The folder; for the stickers the project's own when None.
        by: Whose splits: "unc" (the default) or "google" for RefCOCO, "umd" (the default) or
            "google" for RefCOCOg.

    Raises:
        OSError: A file or the pictures' folder isn't there, or can't be read.
        ValueError: There is no such set or split; a file is damaged as a whole; the split is
            empty, or one that mixes two.
    """
    by, splits = splits_of(name, by)
    if split not in splits:
        said = f"{name} ({by}) has no split {Shown(split)}; it has {', '.join(splits)}"
        raise ValueError(f"referring({Shown(name)}, {Shown(split)}): {said}")
    folder = find_folder(name, root, by, split)
    expressions, known, broken = read_split(name, split, folder, by)
    lie = find_pictures(folder)
    return Referring(
        name, split, by, expressions, tuple(broken), lie, known.pictures, known.regions
    )


def find_folder(name: str, root: str | os.PathLike | None, by: str, split: str) -> Path:
    """Finds the folder that holds a set's expressions in any form; else `FileNotFoundError`."""
    if root is None and name != EMBEDDED:
        raise ValueError(f"{name} doesn't come with the package; give the folder that holds it")
    base = data_folder() / name if root is None else Path(root)
    names = [f"refs({by}).json", f"refs({by}).p", f"{split}.jsonl"]
    folders = [base / name]
    if name in (EMBEDDED, base.resolve().name):  # refs(unc).p alone may be RefCOCO's or RefCOCO+'s
        folders.append(base)
    for folder in folders:
        if any((folder / one).is_file() for one in names):
            return folder
    raise FileNotFoundError(
        f"{name} is not in {quoted(base)}: none of {', '.join(names)} is in a folder {name!r} "
        "there; python -m nbhelpers data check says where it is to be had"
    )


def find_pictures(folder: Path) -> Path:
    """Finds the pictures' folder of a folder of expressions; else raises `FileNotFoundError`."""
    for path in [base / name for base in (folder, folder.parent) for name in PICTURES]:
        if path.is_dir():
            return path
    raise FileNotFoundError(
        f"the pictures are not beside {quoted(folder)}; put COCO's train2014 there, into one of "
        + ", ".join(PICTURES)
    )


def read_split(
    name: str, split: str, folder: Path, by: str
) -> tuple[tuple[Expression, ...], Instances, list[Broken]]:
    """Reads the expressions of a split, what they are about, and the records that can't be used.

    The pictures needn't be there. It raises what `referring` raises.
    """
    splits = splits_of(name, by)[1]
    refs, file, instances, broken = read_refs(name, split, folder, by)
    found: dict[int, Expression] = {}
    torn: set[int] = set()
    mine = [ref for ref in refs if not isinstance(ref, dict) or _may_be(ref, split, splits)]
    for ref in indexed(mine, file, "ref", broken, key="ref_id").values():
        with collecting(broken):
            if ref.text("split") not in splits:
                raise ref.broken("split", f"the splits are {', '.join(splits)}")
            annotation = instances.find(ref)
            for index, sentence in enumerate(ref.several("sentences")):
                with collecting(broken):
                    said = Record.of(sentence, file, f"{ref.name}, sentence {index}")
                    expression = Expression(
                        id=said.whole("sent_id"),
                        text=said.text("sent"),
                        ref_id=ref.whole("ref_id"),
                        image_id=ref.whole("image_id"),
                        annotation_id=annotation,
                        category=instances.categories[annotation],
                        split=split,
                    )
                    if found.setdefault(expression.id, expression) != expression:
                        torn.add(expression.id)
                        raise said.broken("sent_id", "several sentences with this number differ")
    kept = tuple(found[number] for number in sorted(found.keys() - torn))
    if not kept:
        raise ValueError(
            f"{quoted(file)} has no expression of the split {split!r} that can be used "
            f"({len(refs):,} references, {len(broken):,} broken"
            + (f", the first: {broken[0]}" if broken else "")
            + f"); choose another split, or {AGAIN.partition(',')[0]}"
        )
    return kept, instances, broken


def _may_be(ref: dict[str, Any], split: str, splits: Iterable[str]) -> bool:
    """Tells whether a reference is of the split, or says of itself none that there is."""
    said = ref.get("split")
    return said == split or not (isinstance(said, str) and said in splits)


def read_refs(
    name: str, split: str, folder: Path, by: str
) -> tuple[list[Any], str, Instances, list[Broken]]:
    """Reads the references as their file lists them, the file's name, what they may be about.

    A mirror has a file for each split; the last are those of its rows that can't be used.
    """
    for suffix, read in (("json", read_json), ("p", read_pickle)):
        path = folder / f"refs({by}).{suffix}"
        if path.exists():
            refs = read(path)
            if not isinstance(refs, list):
                raise ValueError(
                    f"{quoted(path)} holds {Shown(refs)}; wanted a list of references; "
                    "get the file again"
                )
            return refs, str(path), Instances.read(folder / "instances.json"), []
    path = folder / f"{split}.jsonl"
    try:
        pictures = find_pictures(folder)
    except FileNotFoundError:
        pictures = None
    refs, instances, broken = read_mirror(path, name, split, by, pictures)
    return refs, str(path), instances, broken
