"""Results on disk: what a crash leaves, what damage does, who may write."""

import errno
import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from nbhelpers.evaluation.journal import canonical, decode, encode, read_part
from nbhelpers.evaluation.store import Store

SETTINGS = {"split": "val", "variants": {"paper": {"alpha": 0.9}}, "model": "stickers"}
ITEMS = [{"id": name} for name in "abc"]


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "run", SETTINGS, ITEMS)


def fill(store, *records):
    with store.writer(batch=1) as writer:
        for record in records:
            writer.append(record)
    return writer.path


A, B = {"id": "a", "counts": [[1, 2], [3, 4]]}, {"id": "b", "counts": [[5, 6], [7, 8]]}


def test_what_was_written_is_read(store):
    path = fill(store, A)
    fill(store, B)
    assert store.results() == {"a": A, "b": B}
    assert store.pending() == {"c"}
    header = next(read_part(path))
    assert header["environment"]["pid"] == os.getpid()
    assert header["environment"]["batch"] == 1
    assert Store.of(store.folder).results() == store.results()


def test_a_line_is_json_with_the_crc_of_its_record():
    """By the tables of another program: zlib's CRC-32 of "123456789" is cbf43926."""
    line = encode({"id": "é", "counts": [1]})
    crc, record = json.loads(line)
    assert record == {"id": "é", "counts": [1]}
    done = subprocess.run(["gzip", "-c"], input=canonical(record), capture_output=True, check=True)
    assert int.from_bytes(done.stdout[-8:-4], "little") == int(crc, 16)
    with pytest.raises(ValueError, match="not JSON compliant"):
        encode({"id": "a", "map": float("nan")})


def test_a_tail_torn_at_any_byte_costs_one_item(store):
    path = fill(store, A, B)
    whole = path.read_bytes()
    starts = [i + 1 for i, byte in enumerate(whole) if byte == ord("\n")]
    for length in range(len(whole) + 1):
        path.write_bytes(whole[:length])
        kept = sum(start <= length for start in starts) - 1
        assert store.results() == dict([("a", A), ("b", B)][: max(kept, 0)])
    path.write_bytes(whole + b"\0" * 100)  # blocks that a power failure never filled
    assert store.results() == {"a": A, "b": B}


def test_every_flipped_bit_is_noticed(store):
    path = fill(store, A, B)
    whole = path.read_bytes()
    for index in range(len(whole)):
        for bit in range(8):
            damaged = bytearray(whole)
            damaged[index] ^= 1 << bit
            path.write_bytes(damaged)
            if index == len(whole) - 1:  # no newline: the last line counts as torn
                assert store.results() == {"a": A}
                continue
            with pytest.raises(ValueError, match="line . of . *, is damaged"):
                store.results()


def test_duplicates_count_once_and_must_agree(store):
    fill(store, A, A)
    fill(store, A, B)
    assert store.results() == {"a": A, "b": B}
    fill(store, {**A, "counts": [[1, 2], [3, 5]]})
    with pytest.raises(ValueError, match="two writers disagree on the item 'a'"):
        store.results()


def test_a_result_stands_for_an_error_whichever_came_first(store):
    error = {"id": "a", "error": "ValueError: a map is the same everywhere"}
    worse = {"id": "a", "error": "OSError: gone"}
    fill(store, error, B)
    assert store.pending() == {"c"}
    assert store.pending(retry_errors=True) == {"a", "c"}
    fill(store, worse)
    assert store.results()["a"] == worse  # the lesser text, so that the order doesn't matter
    fill(store, A)
    fill(store, error)
    assert store.results()["a"] == A
    assert store.pending(retry_errors=True) == {"c"}


def test_a_stranger_is_refused(store):
    path = fill(store, A)
    other = Store(store.folder.parent / "other", {**SETTINGS, "split": "testA"}, ITEMS)
    os.rename(fill(other, B), path.with_name("other.jsonl"))
    with pytest.raises(ValueError, match=r"other.jsonl belongs to a run with other settings"):
        store.results()
    path.with_name("other.jsonl").unlink()
    fill(store, {"id": "z", "counts": []})
    with pytest.raises(ValueError, match="holds the item 'z', which the run has not"):
        store.results()


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"split": "testA"}, "split is val there and testA here"),
        ({"model": None}, "model is stickers there and None here"),
        (
            {"variants": {"paper": {"alpha": 0.7}}},
            "variants.paper.alpha is 0.9 there and 0.7 here",
        ),
        ({"code": "abc"}, "code is None there and abc here"),
    ],
)
def test_other_settings_are_refused_by_name(store, changed, named):
    fill(store, A)
    with pytest.raises(ValueError, match=named):
        Store(store.folder, {**SETTINGS, **changed}, ITEMS)
    assert Store(store.folder, SETTINGS, ITEMS).results() == {"a": A}


def test_other_items_are_refused(store):
    with pytest.raises(ValueError, match="items is {'id': 'c'} there and {'id': 'd'} here"):
        Store(store.folder, SETTINGS, [*ITEMS[:2], {"id": "d"}])
    with pytest.raises(ValueError, match="items is {'id': 'c'} there and None here"):
        Store(store.folder, SETTINGS, ITEMS[:2])
    with pytest.raises(ValueError, match="the same id"):
        Store(store.folder.parent / "twice", SETTINGS, [*ITEMS, {"id": "a"}])


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"settings": {}}', b"\xff\xfe"])
def test_a_damaged_manifest_is_refused(store, content):
    (store.folder / "manifest.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"manifest.json is (damaged|no manifest)"):
        Store(store.folder, SETTINGS, ITEMS)


def test_a_folder_without_results_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"holds no results .* evaluate --out"):
        Store.of(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_second_on_a_lock_is_refused_at_once(store):
    code = f"""
import sys
from pathlib import Path
from nbhelpers.evaluation.store import Store
store = Store.of(Path({str(store.folder)!r}))
with store.lock("shard-1-of-1"):
    print("held", flush=True)
    sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as first:
        assert first.stdout.readline() == "held\n"
        with (
            pytest.raises(BlockingIOError, match=f"is being filled by process {first.pid} on"),
            store.lock("shard-1-of-1"),
        ):
            pass
        with store.lock("shard-1-of-2"):
            pass
        first.send_signal(signal.SIGKILL)
    with store.lock("shard-1-of-1"), pytest.raises(BlockingIOError), store.lock("shard-1-of-1"):
        pass


def test_a_full_disk_stops_and_leaves_whole_lines(store):
    """A limit on file sizes fails as a full disk does, in the middle of a write."""
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    writer = store.writer()
    writer.append(A)
    size = writer.path.stat().st_size
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10, limits[1]))
        with pytest.raises(OSError, match="free some space; the same command goes on"):
            writer.append(B)
        with pytest.raises(OSError, match="results can't be written"):
            Store(store.folder.parent / "new", SETTINGS, [{"id": "x" * size * 2}])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert writer.path.stat().st_size == size
    writer.append(B)
    writer.close()
    assert store.results() == {"a": A, "b": B}
    assert list((store.folder.parent / "new").glob("*.json")) == []


def test_a_write_that_the_system_cuts_short_is_continued(store, monkeypatch):
    write = os.write
    monkeypatch.setattr(os, "write", lambda file, data: write(file, data[:7]))
    fill(store, A)
    monkeypatch.undo()
    assert store.results() == {"a": A}


def test_every_record_is_on_the_disk_before_the_next(store, monkeypatch):
    synced, fsync = [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: synced.append(os.fstat(file)) or fsync(file))
    with store.writer() as writer:
        for record in (A, B):
            synced.clear()
            writer.append(record)
            assert [stat.st_size for stat in synced] == [writer.path.stat().st_size]


def test_an_unwritable_folder_is_refused(store, tmp_path, monkeypatch):
    def refuse(*args, **more):
        raise PermissionError(errno.EACCES, "Permission denied")

    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(OSError, match="can't be written .*; choose another folder with --out"):
        Store(file / "run", SETTINGS, ITEMS)
    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(PermissionError, match="Permission denied; choose another"):
        store.writer()
    with pytest.raises(PermissionError, match="Permission denied; choose another"), store.lock():
        pass


def test_damage_of_any_kind_is_no_record():
    line = encode(A)[:-1]
    assert decode(line) == A
    for damaged in (b"", b"[]", line[:-1], line[1:], line + b"]", line.replace(b'["', b'[ "')):
        assert decode(damaged) is None


def test_kills_lose_nothing():
    script = Path(__file__).with_name("kill_evaluation.py")
    done = subprocess.run(
        [sys.executable, str(script), "--kills", "12", "--seed", "1"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(script.parents[1])},
    )
    assert done.returncode == 0, done.stderr
    assert "every item counts once and the report's" in done.stdout


def test_odd_surroundings_do_not_matter(tmp_path):
    """No HOME, another locale, files for the owner alone, a path that needs quoting."""
    folder = tmp_path / "a b" / 'results 🙂 "x"'
    script = Path(__file__).with_name("kill_evaluation.py")
    done = subprocess.run(
        [sys.executable, str(script), "--child", str(folder), "--items", "4"],
        capture_output=True,
        text=True,
        env={"PATH": os.environ["PATH"], "LC_ALL": "C", "PYTHONPATH": str(script.parents[1])},
        umask=0o077,
    )
    assert done.returncode == 0, done.stderr
    assert len(Store.of(folder).results()) == 4
    assert {path.stat().st_mode & 0o077 for path in folder.rglob("*")} == {0}
