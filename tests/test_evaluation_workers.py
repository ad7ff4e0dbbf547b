"""The same run on several processes: the same bytes, and nothing lost when one of them dies."""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from kill_evaluation import alive, fake_evaluator, fake_record, make_store

from nbhelpers.evaluation import RunOptions, run, workers, write_report
from nbhelpers.evaluation import workers as evaluation_workers
from nbhelpers.evaluation.run import shard_of
from nbhelpers.evaluation.workers import run_locally, run_with_processes, run_with_ray

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The report of one unbroken run of forty items."""
    store = make_store(tmp_path_factory.mktemp("whole"), 40)
    run(store, fake_evaluator(), RunOptions(progress=False))
    write_report(store)
    return (store.folder / "report.json").read_bytes()


def finished(store):
    write_report(store)
    return (store.folder / "report.json").read_bytes()


def open_together(folder):
    """An evaluator that begins when two processes have one: neither does all the work."""
    evaluate = fake_evaluator()()

    def together(items):
        Path(folder, f"{os.getpid()}.mark").touch()
        while len(list(Path(folder).glob("*.mark"))) < 2:
            time.sleep(0.01)
        return evaluate(items)

    return together


@pytest.mark.timeout(120)
def test_two_processes_make_the_same_report(tmp_path, whole):
    store = make_store(tmp_path, 40)
    # A third is there already.
    run(store, fake_evaluator(), RunOptions(shard=(0, 3), progress=False))
    together = partial(open_together, tmp_path)
    run_with_processes(store, together, RunOptions(batch=3, progress=False), workers=2)
    assert finished(store) == whole
    parts = [path.read_bytes().count(b'"id"') for path in (tmp_path / "parts").iterdir()]
    assert sum(parts) == 40 and len(parts) == 3 and min(parts) > 0
    # Nothing left: nothing is opened.
    run_with_processes(store, None, RunOptions(progress=False), workers=2)


@pytest.mark.parametrize(("workers", "wanted"), [(1, ["here"]), (3, [3])])
def test_one_worker_is_this_process_itself(monkeypatch, workers, wanted):
    asked = []
    monkeypatch.setattr(evaluation_workers, "run", lambda *given: asked.append("here"))
    monkeypatch.setattr(
        evaluation_workers,
        "run_with_processes",
        lambda *given, workers: asked.append(workers),
    )
    run_locally(None, None, RunOptions(), workers=workers)
    assert asked == wanted


def open_dying(folder, when):
    """An evaluator whose process dies once: while it is opened, or in the middle."""
    evaluate, mark = fake_evaluator()(), Path(folder, "died")

    def die():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)

    def dying(items):
        if items[0]["id"] >= "0005" and not mark.exists():
            die()
        return evaluate(items)

    if when == "opened" and not mark.exists():
        die()
    return dying


@pytest.mark.parametrize(("when", "least"), [("opened", 0), ("in the middle", 1)])
def test_a_worker_that_dies_is_told_and_costs_nothing(tmp_path, whole, when, least):
    store = make_store(tmp_path / "run", 40)
    opener = partial(open_dying, tmp_path, when)
    with pytest.raises(OSError, match="a process of the evaluation died.* the same command goes"):
        run_with_processes(store, opener, RunOptions(progress=False), workers=1)
    assert least <= len(store.results()) < 40
    run_with_processes(store, opener, RunOptions(progress=False), workers=2)
    assert finished(store) == whole


def open_broken():
    raise ImportError("no module named diffusers")


def test_what_stops_a_worker_stops_the_run(tmp_path):
    with pytest.raises(ImportError, match="diffusers"):
        run_with_processes(
            make_store(tmp_path, 4), open_broken, RunOptions(progress=False), workers=2
        )


def test_workers_end_with_who_started_them(tmp_path):
    """Killed with -9, it can tell them nothing."""
    store = make_store(tmp_path, 4000)
    more = ["--engine", "processes", "--items", "4000"]
    child = subprocess.Popen(
        [sys.executable, HERE / "kill_evaluation.py", "--child", tmp_path, *more]
    )
    try:
        deadline = time.monotonic() + 120
        while len(store.results()) < 4 or len(list((tmp_path / "parts").iterdir())) < 2:
            assert time.monotonic() < deadline and child.poll() is None
            time.sleep(0.2)
    finally:
        child.kill()
        child.wait()
    pids = [int(path.name.rsplit("-", 2)[1]) for path in (tmp_path / "parts").iterdir()]
    assert len(pids) == 2 and child.pid not in pids
    while any(map(alive, pids)):
        assert time.monotonic() < deadline, "a worker outlived it"
        time.sleep(0.1)
    with store.lock("shard-0-of-1"):
        pass  # free for the next


@pytest.mark.skipif(sys.platform != "linux", reason="Ray's wheels are for Linux")
def test_ray_makes_the_same_report_though_worker_and_driver_are_killed():
    pytest.importorskip("ray", reason="the extra 'ray' is not installed")
    done = subprocess.run(
        [
            *(sys.executable, HERE / "kill_evaluation.py", "--kills", "1", "--engine", "ray"),
            *("--items", "1000"),
        ],
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    assert "the unbroken run's" in done.stdout


class SlowRay:
    """In place of Ray: starts at the try that is said."""

    def __init__(self, starts_at):
        self.tries, self.ended, self.starts_at = 0, 0, starts_at

    def init(self, **settings):
        self.tries += 1
        if self.tries < self.starts_at:
            raise RuntimeError("its agent is late")

    def shutdown(self):
        self.ended += 1


def test_ray_is_started_again_where_it_was_too_slow():
    slow = SlowRay(starts_at=3)
    workers._start_ray(slow)
    assert (slow.tries, slow.ended) == (3, 2)
    with pytest.raises(OSError, match="Ray did not start: its agent is late; the same command"):
        workers._start_ray(SlowRay(starts_at=4))


@pytest.mark.skipif(sys.platform != "linux", reason="Ray's wheels are for Linux")
def test_an_item_that_kills_its_worker_is_an_error(tmp_path, monkeypatch):
    pytest.importorskip("ray", reason="the extra 'ray' is not installed")
    monkeypatch.setenv("PYTHONPATH", str(HERE))  # the workers import this module's neighbor

    def opener():
        evaluate = fake_evaluator()()

        def poisoned(items):
            if any(item["id"] == "0001-1" for item in items):
                os.kill(os.getpid(), signal.SIGKILL)
            return evaluate(items)

        return poisoned

    store = make_store(tmp_path, 9)
    run_with_ray(store, opener, RunOptions(batch=2, progress=False), workers=1)
    report = write_report(store)
    assert report["errors"] == {"0001-1": "RuntimeError: its worker died 3 times"}
    good = {name: record for name, record in store.results().items() if name != "0001-1"}
    assert all(record == fake_record({"id": name}) for name, record in good.items())
    assert len(good) == 8


def test_a_share_alone_is_done_and_only_by_one(tmp_path):
    store = make_store(tmp_path, 40)
    with store.lock("shard-1-of-3"), pytest.raises(BlockingIOError, match="being filled by"):
        run_with_processes(
            store, fake_evaluator(), RunOptions(shard=(1, 3), progress=False), workers=1
        )
    with store.lock("shard-0-of-2"), pytest.raises(BlockingIOError, match="in 2 shares"):
        run_with_processes(
            store, fake_evaluator(), RunOptions(shard=(1, 3), progress=False), workers=1
        )
    run_with_processes(
        store, fake_evaluator(), RunOptions(shard=(1, 3), progress=False), workers=2
    )
    wanted = [item["id"] for item in shard_of(store.manifest["items"], (1, 3))]
    assert sorted(store.results()) == wanted


def open_hanging():
    def hanging(items):
        if items[0]["id"] == "0000-1":
            time.sleep(100)
        return [fake_record(item) for item in items]

    return hanging


def test_what_hangs_is_an_error_and_is_done_again(tmp_path):
    store = make_store(tmp_path, 4)
    run_with_processes(store, open_hanging, RunOptions(seconds=0.3, progress=False), workers=1)
    assert [n for n, r in store.results().items() if "error" in r] == ["0000-1"]
    run_with_processes(
        store, fake_evaluator(), RunOptions(retry_errors=True, progress=False), workers=1
    )
    assert not any("error" in record for record in store.results().values())


SLEEPING = """
import sys
from pathlib import Path
from kill_evaluation import fake_evaluator, make_store
from nbhelpers.evaluation.run import RunOptions
from nbhelpers.evaluation.workers import run_with_processes
store = make_store(Path(sys.argv[1]), 40)
run_with_processes(store, fake_evaluator(600), RunOptions(progress=False), workers=2)
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, -9), (signal.SIGTERM, 143)])
def test_workers_end_in_the_middle_of_an_item(tmp_path, number, code):
    make_store(tmp_path, 40)
    env = {**os.environ, "PYTHONPATH": f"{HERE}{os.pathsep}{HERE.parent}"}
    child = subprocess.Popen([sys.executable, "-c", SLEEPING, str(tmp_path)], env=env)
    deadline = time.monotonic() + 120
    parts = []
    try:
        while len(parts) < 2:
            assert time.monotonic() < deadline and child.poll() is None
            time.sleep(0.2)
            parts = list((tmp_path / "parts").iterdir())
        time.sleep(1)  # both are asleep over their first item
        child.send_signal(number)
        assert child.wait(60) == code
    finally:
        child.kill()
        child.wait()
    pids = [int(path.name.rsplit("-", 2)[1]) for path in parts]
    while any(map(alive, pids)):
        assert time.monotonic() < deadline, "a worker outlived it"
        time.sleep(0.1)
