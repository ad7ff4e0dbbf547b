"""Files are written whole or not at all, several of them together."""

import errno
import os
from pathlib import Path

import pytest

from nbhelpers import files


def names():
    """What lies below the folder that the test works in."""
    return sorted(str(path) for path in Path().rglob("*") if path.is_file())


@pytest.mark.parametrize("stage", ["fsync", "replace"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failed_write_leaves_the_old_files(tmp_path, monkeypatch, stage, error):
    monkeypatch.chdir(tmp_path)
    files.write_together(Path("out"), {"a": b"old", "b": b"old"})
    calls, real = [], getattr(os, stage)

    def fail(*arguments):
        calls.append(arguments)
        if stage == "replace" or len(calls) == 2:
            raise error
        return real(*arguments)

    monkeypatch.setattr(files.os, stage, fail)
    with pytest.raises(type(error)):
        files.write_together(Path("out"), {"a": b"new", "b": b"new"})
    assert names() == ["out/a", "out/b"]
    assert {Path(name).read_bytes() for name in names()} == {b"old"}


def test_nothing_is_renamed_before_all_is_written(tmp_path, monkeypatch):
    events = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)

        def watched(*arguments, name=name, real=real):
            events.append(name)
            return real(*arguments)

        monkeypatch.setattr(files.os, name, watched)
    paths = files.write_together(tmp_path / "a" / "b", {"x": b"1", "y": b"22"})
    assert events == ["fsync", "fsync", "replace", "replace", "fsync"]
    assert [path.read_bytes() for path in paths] == [b"1", b"22"]
    mode = paths[0].stat().st_mode & 0o777
    mask = os.umask(0)
    os.umask(mask)
    assert mode == 0o666 & ~mask  # as any program's files, not a temporary file's 0600


def test_checking_a_folder_writes_nothing(tmp_path):
    files.check_writable(tmp_path / "new" / "deep", ["x"])
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_whole_or_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "report.json"
    files.write_whole(path, b"first")

    def full(file):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        files.write_whole(path, b"second")
    assert path.read_bytes() == b"first"
    assert os.listdir(tmp_path) == ["report.json"]
