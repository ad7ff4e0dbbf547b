"""Items through an evaluator: what fails, what stops, what goes on, and the same bytes at last."""

import hashlib
import json
import os
import random
import signal
import time
from fractions import Fraction

import pytest
from kill_evaluation import fake_evaluator, fake_items, fake_record

from nbhelpers.evaluation import RunOptions, Store, run, write_report
from nbhelpers.evaluation.run import cut, parse_shard, time_limit, work

SETTINGS = {"method": "fake"}


def store_in(folder, count=20):
    return Store(folder, SETTINGS, fake_items(count))


def report_of(folder):
    return (folder / "report.json").read_bytes()


@pytest.fixture
def whole(tmp_path):
    """The report of one unbroken run of twenty items."""
    store = store_in(tmp_path / "whole")
    run(store, fake_evaluator(), RunOptions(progress=False))
    write_report(store)
    return report_of(store.folder)


def test_the_report_is_the_sums_of_the_records(whole):
    """From the definitions, in exact fractions."""
    report = json.loads(whole)
    records = [fake_record(item) for item in fake_items(20)]
    assert (report["items"], report["errors"]) == (20, {})
    text = "".join(json.dumps(r, sort_keys=True, separators=(",", ":")) + "\n" for r in records)
    assert report["records"] == hashlib.sha256(text.encode()).hexdigest()
    found = report["variants"]["plain"]
    for t in (0, 50, 100):
        pairs = [(r["counts"]["plain"][0][t], r["counts"]["plain"][1][t]) for r in records]
        assert found["intersection"][t] == sum(i for i, _ in pairs)
        assert found["union"][t] == sum(u for _, u in pairs)
        assert found["miou"][t] == pytest.approx(
            float(sum(Fraction(i, u) for i, u in pairs) / 20), rel=1e-15
        )


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_shards_in_any_order_make_the_same_report(tmp_path, whole, count):
    store = store_in(tmp_path / "shards")
    shards = [(i, count) for i in range(count)]
    random.Random(count).shuffle(shards)
    for number, shard in enumerate(shards):
        with pytest.raises(ValueError, match="is not complete"):
            write_report(store)
        run(store, fake_evaluator(), RunOptions(shard=shard, batch=1 + number, progress=False))
    write_report(store)
    assert report_of(store.folder) == whole
    assert len(list((store.folder / "parts").iterdir())) == count


@pytest.mark.parametrize("count", [1, 2, 3, 7, 20, 31])
def test_shards_hold_every_item_once(count):
    shares = [cut(range(20), (i, count)) for i in range(count)]
    assert [item for share in shares for item in share] == list(range(20))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize("text", ["2/2", "3/2", "0/0", "1", "a/b", "1/2/3", "-1/2", "¹/2", ""])
def test_a_share_that_there_is_not(text):
    with pytest.raises(ValueError, match="I from 0 to N - 1"):
        parse_shard(text)


def test_a_bad_item_costs_no_other(tmp_path):
    def evaluate(items):
        for item in items:
            if item["id"] in ("0001-0", "0004-2"):
                raise ValueError("a map is\nthe same everywhere " + "x" * 999)
        return [fake_record(item) for item in items]

    store = store_in(tmp_path)
    run(store, lambda: evaluate, RunOptions(batch=8, progress=False))
    report = write_report(store)
    assert list(report["errors"]) == ["0001-0", "0004-2"]
    text = report["errors"]["0001-0"]
    assert text.startswith("ValueError: a map is the same everywhere xxx")
    assert len(text) < 320
    assert report["variants"]["plain"]["union"][0] == sum(
        fake_record(item)["counts"]["plain"][1][0]
        for item in fake_items(20)
        if item["id"] not in report["errors"]
    )
    asked = []
    run(store, lambda: asked.append, RunOptions(progress=False))
    assert asked == []  # errors are results
    run(store, fake_evaluator(), RunOptions(retry_errors=True, progress=False))
    assert write_report(store)["errors"] == {}


def test_a_retried_report_is_the_unbroken_one(tmp_path, whole):
    def refuse(items):
        raise OSError("the disk of the pictures is gone")

    store = store_in(tmp_path / "late")
    run(store, lambda: refuse, RunOptions(batch=3, progress=False))
    assert len(write_report(store)["errors"]) == 20
    run(store, fake_evaluator(), RunOptions(retry_errors=True, batch=3, progress=False))
    write_report(store)
    assert report_of(store.folder) == whole


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate"),
    ],
)
def test_out_of_memory_halves_the_batch(error):
    sizes = []

    def evaluate(items):
        sizes.append(len(items))
        if len(items) > 3:
            raise error
        return [fake_record(item) for item in items]

    items = fake_items(20)
    assert list(work(evaluate, items, batch=16)) == [fake_record(item) for item in items]
    assert sizes == [16, 8, 4, *[2] * 10]


def test_one_item_that_needs_too_much_memory_is_an_error():
    def evaluate(items):
        raise MemoryError

    (record,) = work(evaluate, fake_items(1), batch=4)
    assert record == {"id": "0000-0", "error": "MemoryError: "}


def test_a_hanging_item_is_an_error():
    def evaluate(items):
        if items[0]["id"] == "0000-1":
            time.sleep(60)
        return [fake_record(item) for item in items]

    started = time.monotonic()
    records = list(work(evaluate, fake_items(3), seconds=0.2))
    assert [("error" in record) for record in records] == [False, True, False]
    assert records[1]["error"] == "TimeoutError: it took longer than 0.2 s"
    assert time.monotonic() - started < 30


def test_the_limit_ends_with_its_block():
    with time_limit(0.05):
        pass
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    time.sleep(0.1)


def test_records_of_other_items_are_refused():
    def evaluate(items):
        return [fake_record(item) for item in fake_items(2)]

    records = list(work(evaluate, fake_items(4), batch=2))
    assert [("error" in record) for record in records] == [False, False, True, True]
    assert "records of other items" in records[2]["error"]


@pytest.fixture
def heeds_ctrl_c():
    """A shell starts what is in the background with Ctrl-C ignored, and Python then ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    ("number", "raised"), [(signal.SIGTERM, SystemExit), (signal.SIGINT, KeyboardInterrupt)]
)
def test_a_signal_leaves_what_can_be_resumed(tmp_path, whole, heeds_ctrl_c, number, raised):
    handlers = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)

    def evaluate(items):
        if items[0]["id"] == "0003-0":
            os.kill(os.getpid(), number)
            time.sleep(5)
        return [fake_record(item) for item in items]

    store = store_in(tmp_path / "stopped")
    with pytest.raises(raised) as caught:
        run(store, lambda: evaluate, RunOptions(progress=False))
    if raised is SystemExit:
        assert caught.value.code == 143
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == handlers
    assert len(store.results()) == 9
    run(store, fake_evaluator(), RunOptions(progress=False))
    write_report(store)
    assert report_of(store.folder) == whole


def test_nothing_is_loaded_where_nothing_is_to_be_done(tmp_path):
    store = store_in(tmp_path)
    run(store, fake_evaluator(), RunOptions(progress=False))

    def never():
        raise AssertionError("the models were loaded")

    run(store, never, RunOptions(progress=False))
    with store.lock("shard-0-of-1"), pytest.raises(BlockingIOError, match="being filled by"):
        run(store, never, RunOptions(progress=False))


@pytest.mark.parametrize(
    ("held", "wanted"), [((0, 2), (0, 1)), ((0, 1), (1, 2)), ((0, 2), (0, 3))]
)
def test_shares_of_another_number_are_refused_while_one_is_filled(tmp_path, held, wanted):
    store = store_in(tmp_path)

    def open_while_the_other_runs():
        words = (
            rf"by process {os.getpid()} on .* in {held[1]} shares .shard-0-of-{held[1]}., which"
        )
        with pytest.raises(BlockingIOError, match=f"{words} .* --shard I/{held[1]}, or"):
            run(Store.of(tmp_path), fake_evaluator(), RunOptions(shard=wanted, progress=False))
        return fake_evaluator()()

    run(store, open_while_the_other_runs, RunOptions(shard=held, progress=False))
    done = len(cut(store.ids, held))
    assert len(store.results()) == done
    # The lock's file alone is no lock.
    run(store, fake_evaluator(), RunOptions(shard=wanted, progress=False))
    assert len(store.results()) >= len(cut(store.ids, wanted))


def test_shares_of_one_number_are_filled_side_by_side(tmp_path, whole):
    store = store_in(tmp_path / "shares")

    def open_after_the_other():
        run(Store.of(store.folder), fake_evaluator(), RunOptions(shard=(1, 2), progress=False))
        return fake_evaluator()()

    run(store, open_after_the_other, RunOptions(shard=(0, 2), progress=False))
    write_report(store)
    assert report_of(store.folder) == whole


def test_what_is_broken_in_the_code_stops_the_run(tmp_path):
    def evaluate(items):
        raise ImportError("no module named diffusers")

    with pytest.raises(ImportError):
        run(store_in(tmp_path), lambda: evaluate, RunOptions(progress=False))


def test_the_bar_counts_what_was_there(tmp_path, capsys):
    store = store_in(tmp_path)
    run(store, fake_evaluator(), RunOptions(shard=(0, 2), progress=False))
    run(store, fake_evaluator(), RunOptions(progress=True))
    assert " 10/20 " in capsys.readouterr().err


def test_the_environment_is_noted_and_does_not_matter(tmp_path, whole):
    store = store_in(tmp_path / "noted")
    run(
        store, fake_evaluator(), RunOptions(batch=5, environment={"device": "cpu"}, progress=False)
    )
    (part,) = (store.folder / "parts").iterdir()
    about = json.loads(part.read_text().splitlines()[0])[1]["environment"]
    assert (
        about.items() >= {"engine": "local", "batch": 5, "shard": "0/1", "device": "cpu"}.items()
    )
    write_report(store)
    assert report_of(store.folder) == whole
