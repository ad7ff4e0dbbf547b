"""A folder of results that no crash can lose, double or change unseen.

::

    manifest.json          what is run: the settings and the items, written once
    parts/HOST-PID-*.jsonl one file for each writer, only ever appended to
    locks/*.lock           held by the process that fills a shard
    report.json            written when every item is there

Every line of a part is a JSON array ``["crc", record]``, whose CRC-32 is that of the record's own
text, and is on the disk (fsync) before the next item begins. A process that is killed while it
writes leaves a torn last line, which reading cuts off: that item is done again. A process that
starts again writes a part of its own, so no line is ever written behind a torn one. An item that
two writers did counts once, and is an error if they disagree.
"""

import hashlib
import json
import os
import socket
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import zip_longest
from pathlib import Path
from typing import Any

from nbhelpers.evaluation.journal import Record, Writer, canonical, read_part, unwritable
from nbhelpers.files import write_whole

BEYOND = 2**30  # a byte that no lock's file has; on Windows a locked one can't be read


class Store:
    """The results of one run in one folder.

    Args:
        folder: Made where it is missing.
        settings: All that the results depend on, as plain JSON. What must not matter (batch,
            shards, engine, host) goes into a writer's environment instead.
        items: What is to be done, in order, each with an ``id`` of its own.

    Raises:
        ValueError: The folder holds another run; the first field that differs is named.
        OSError: The folder can't be written to.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any], items: Sequence[Any]) -> None:
        self.folder = Path(folder)
        self.manifest = json.loads(canonical({"settings": settings, "items": list(items)}))
        self.ids = [str(item["id"]) for item in self.manifest["items"]]
        if len(set(self.ids)) != len(self.ids):
            raise ValueError("two items have the same id; results are kept by id")
        self.fingerprint = hashlib.sha256(canonical(self.manifest)).hexdigest()
        path = self.folder / "manifest.json"
        try:
            for name in ("parts", "locks"):
                (self.folder / name).mkdir(parents=True, exist_ok=True)
            if not path.exists():
                write_whole(path, canonical(self.manifest) + b"\n")
        except OSError as error:
            raise unwritable(self.folder, error) from error
        _compare(read_manifest(self.folder), self.manifest, self.folder)

    @classmethod
    def of(cls, folder: Path) -> "Store":
        """Returns the run that a folder holds.

        Raises:
            ValueError: It holds none, or a damaged one.
        """
        manifest = read_manifest(Path(folder))
        return cls(folder, manifest["settings"], manifest["items"])

    def results(self) -> dict[str, Record]:
        """Returns what is known of each item, by id.

        A result outweighs an error of the same item.

        Raises:
            ValueError: A line is damaged, a part belongs to another run, names an item that isn't
                in the manifest, or two writers disagree on an item.
        """
        known = set(self.ids)
        found: dict[str, Record] = {}
        for path in sorted((self.folder / "parts").glob("*.jsonl")):
            lines = list(read_part(path))
            if lines and lines[0].get("fingerprint") != self.fingerprint:
                raise ValueError(
                    f"{path} belongs to a run with other settings than manifest.json beside it; "
                    "move it away"
                )
            for record in lines[1:]:
                name = record["id"]
                if name not in known:
                    raise ValueError(f"{path} holds the item {name!r}, which the run has not")
                found[name] = _merge(found[name], record, path) if name in found else record
        return found

    def pending(self, *, retry_errors: bool = False) -> set[str]:
        """Returns the ids of the items that are still to be done, with errors too if wished."""
        done = self.results()
        kept = {name for name, r in done.items() if not (retry_errors and "error" in r)}
        return set(self.ids) - kept

    def writer(self, **environment: Any) -> "Writer":
        """Returns a new part to append to; `environment` is noted in its first line.

        Raises:
            OSError: The folder can't be written to.
        """
        host = "".join(c if c.isalnum() else "-" for c in socket.gethostname())[:40]
        name = f"{host}-{os.getpid()}-{uuid.uuid4().hex}.jsonl"
        about = {"host": host, "pid": os.getpid(), **environment}
        header = {"fingerprint": self.fingerprint, "environment": about}
        return Writer(self.folder / "parts" / name, header)

    @contextmanager
    def share(self, shard: tuple[int, int]) -> Iterator[None]:
        """Holds the lock of the i-th of n shares while the block runs, as `lock`.

        Shares of the same n are filled side by side; those of another n hold the same items.

        Raises:
            BlockingIOError: Another process fills this share, or one of another n.
        """
        i, n = shard
        with self.lock(f"shard-{i}-of-{n}"):
            for path in sorted((self.folder / "locks").glob("shard-*-of-*.lock")):
                count = path.stem.rpartition("-")[2]
                if count != str(n) and (owner := self._owner(path)):
                    raise BlockingIOError(
                        f"{self.folder} is being filled by {owner} in {count} shares "
                        f"({path.stem}), which hold the same items as {i}/{n}; wait until it "
                        f"ends, take another of its shares with --shard I/{count}, or choose "
                        "another folder with --out"
                    )
            yield

    def _owner(self, path: Path) -> str:
        """Returns who holds a lock; nothing where nobody does."""
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise unwritable(self.folder, error) from error
        try:
            return "" if _take(descriptor, shared=True) else _named(descriptor)
        finally:
            os.close(descriptor)

    @contextmanager
    def lock(self, name: str = "run") -> Iterator[None]:
        """Holds a lock of the folder while the block runs; never waits for it.

        The system lets go of it when the process ends, however it ends.

        Raises:
            BlockingIOError: Another process holds it; the message says which.
        """
        path = self.folder / "locks" / f"{name}.lock"
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise unwritable(self.folder, error) from error
        try:
            if not _take(descriptor):
                raise BlockingIOError(
                    f"{self.folder} is being filled by {_named(descriptor)} ({name}); "
                    "wait until it ends, or choose another folder with --out"
                )
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode())
            yield
        finally:
            os.close(descriptor)


def _named(descriptor: int) -> str:
    """Returns who wrote itself into a lock's file."""
    return os.read(descriptor, 200).decode("utf-8", "replace").strip() or "another process"


def read_manifest(folder: Path) -> dict[str, Any]:
    """Returns what a folder's run is.

    Raises:
        ValueError: The folder holds no run, or its manifest is damaged.
    """
    path = folder / "manifest.json"
    try:
        manifest: dict[str, Any] = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise ValueError(
            f"{folder} holds no results (no manifest.json); make some with: "
            "python -m nbhelpers evaluate --out DIR"
        ) from error
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}); choose another folder") from error
    if not isinstance(manifest, dict) or manifest.keys() != {"settings", "items"}:
        raise ValueError(f"{path} is no manifest of a run; choose another folder")
    return manifest


def _merge(first: Record, second: Record, path: Path) -> Record:
    """Returns the one that counts of two records of an item, whatever their order."""
    if "error" in first and "error" in second:
        return min(first, second, key=canonical)
    if "error" in first or "error" in second:
        return second if "error" in first else first
    if first != second:
        raise ValueError(
            f"two writers disagree on the item {first['id']!r} (the second is {path}); were they "
            "run on machines that compute differently? Move one of the files away"
        )
    return first


def _compare(there: Any, wanted: Any, folder: Path, field: str = "") -> None:
    """Refuses a folder that was made with other settings, naming the first that differs.

    Settings come before items, which differ because of them.
    """
    if there == wanted:
        return
    if isinstance(there, dict) and isinstance(wanted, dict):
        for key in sorted({*there, *wanted}, key=lambda key: (key == "items", key)):
            _compare(there.get(key), wanted.get(key), folder, f"{field}.{key}")
        return
    name = field.removeprefix(".settings").removeprefix(".")
    if name == "items":
        there, wanted = next(p for p in zip_longest(there, wanted) if p[0] != p[1])
    raise ValueError(
        f"{folder} holds a run with other settings: {name} is {str(there)[:80]} there and "
        f"{str(wanted)[:80]} here; choose another folder with --out, or give the same settings"
    )


def _take(descriptor: int, *, shared: bool = False) -> bool:
    """Locks an open file without waiting; closing it lets go, and so does the process's end.

    Args:
        descriptor: Of the file, opened for reading and writing, or for reading where `shared`.
        shared: Whether others may hold a shared lock at the same time. Windows has none, so there
            the lock is the caller's alone.

    Returns:
        Whether it was taken; False where another process holds it.

    Raises:
        OSError: The file system has no locks.
    """
    try:
        import fcntl
    except ImportError:
        return _take_on_windows(descriptor)
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _take_on_windows(descriptor: int) -> bool:
    """Returns the lock of one byte behind the file's end, which leaves what is in it readable."""
    import msvcrt

    before = os.lseek(descriptor, 0, os.SEEK_CUR)
    os.lseek(descriptor, BEYOND, os.SEEK_SET)
    try:
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined, unused-ignore]
    except PermissionError:
        return False
    finally:
        os.lseek(descriptor, before, os.SEEK_SET)
    return True
