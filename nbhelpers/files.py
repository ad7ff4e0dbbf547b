"""Files on disk that are whole or absent, also when the power fails."""

import errno
import os
import stat
import tempfile
import uuid
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from nbhelpers.errors import quoted


def check_writable(folder: Path, names: Iterable[str]) -> None:
    """Refuses a folder that couldn't take the results, before any work is done; writes nothing.

    Args:
        folder: Where the results shall lie; it needn't exist yet.
        names: The names of the files.

    Raises:
        OSError: The folder can't be made or written to, or a result's name is taken by a folder.
    """
    there = folder.absolute()
    try:
        while not os.path.lexists(there) and there != there.parent:
            there = there.parent
        if not there.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, f"{quoted(there)} is not a folder")
        with tempfile.TemporaryFile(dir=there):
            pass  # what access rights, read-only disks and full ones all answer to
        for name in names:
            with suppress(FileNotFoundError):
                if stat.S_ISDIR(os.stat(folder / name).st_mode):
                    raise IsADirectoryError(errno.EISDIR, f"{quoted(name)} in it is a folder")
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise type(error)(
            f"the results can't go to {quoted(folder)}: {reason[0].lower()}{reason[1:]}; "
            "choose another with --out"
        ) from error


def write_together(folder: Path, contents: Mapping[str, bytes]) -> list[Path]:
    """Writes files under other names, renames them once all are on disk, and returns the paths.

    Args:
        folder: Made where it is missing.
        contents: The files' bytes by name; the last is renamed last.

    Raises:
        OSError: The disk is full or went away; no new file is left then.
    """
    folder.mkdir(parents=True, exist_ok=True)
    parts = {folder / f".{name}.{uuid.uuid4().hex[:8]}.part": name for name in contents}
    try:
        for part, name in parts.items():
            with open(part, "xb") as file:
                file.write(contents[name])
                file.flush()
                os.fsync(file.fileno())
        for part, name in parts.items():
            os.replace(part, folder / name)
    finally:
        for part in parts:
            part.unlink(missing_ok=True)
    sync_folder(folder)
    return [folder / name for name in contents]


def write_whole(path: Path, content: bytes) -> Path:
    """Writes one file whole or, with an `OSError`, not at all: what was there before still is."""
    return write_together(path.parent, {path.name: content})[0]


def sync_folder(folder: Path) -> None:
    """Puts the names in a folder, too, on the disk; Windows does it by itself."""
    if os.name != "nt":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
