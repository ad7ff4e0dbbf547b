"""Kill an evaluation again and again, then let it finish: its report must be the unbroken one's.

    python tests/kill_evaluation.py --kills 100
    python tests/kill_evaluation.py --kills 10 --evaluator stickers
    python tests/kill_evaluation.py --kills 6 --engine ray

The evaluator is a fake one, so that most kills hit the store and not the model; or a real one on
the drawn pictures. Each kill is a ``kill -9``. Of the fake evaluator in one process, half of them
come at a random moment, half at a random call to the disk: before it, after it, or with half of
the bytes written. Of several processes, a worker is killed first and then who started it.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

from nbhelpers.evaluation import RunOptions, Store, run, write_report
from nbhelpers.evaluation.jobs import Job, variants_of
from nbhelpers.evaluation.workers import run_with_processes, run_with_ray

CALLS = ("write", "fsync", "replace", "open", "close")
ENGINES = {
    "local": run,
    "processes": partial(run_with_processes, workers=2),
    "ray": partial(run_with_ray, workers=2),
}


def fake_items(count):
    """Three expressions a picture."""
    return [{"id": f"{i // 3:04d}-{i % 3}", "image": i // 3} for i in range(count)]


def fake_record(item):
    """Counts as an evaluation would keep, the same each time for the same item."""
    rng = random.Random(item["id"])
    unions = [rng.randrange(1, 9000) for _ in range(101)]
    counts = {"plain": [[rng.randrange(u + 1) for u in unions], unions]}
    return {"id": item["id"], "counts": counts}


def open_fake(seconds):
    """An evaluator that takes so long for an item."""

    def evaluate(items):
        time.sleep(seconds * len(items))
        return [fake_record(item) for item in items]

    return evaluate


def fake_evaluator(seconds=0.0):
    """Opens one, in this process or in another."""
    return partial(open_fake, seconds)


def make_store(folder, count):
    return Store(folder, {"method": "fake", "seed": 0}, fake_items(count))


def die_at(step, manner):
    """Let the step-th call to the disk kill this process: before it, after it, or halfway."""
    left = [step]

    def hooked(name, call):
        def maybe(*args, **more):
            left[0] -= 1
            if left[0] == 0:
                if manner == "after":
                    call(*args, **more)
                elif manner == "half" and name == "write":
                    call(args[0], args[1][: len(args[1]) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*args, **more)

        return maybe

    for name in CALLS:
        setattr(os, name, hooked(name, getattr(os, name)))


def killed_run(folder, count, rng, seconds):
    """One run in a process of its own, killed somewhere; True if it had ended before."""
    at_call = rng.random() < 0.5
    step, manner = rng.randrange(1, 60), rng.choice(("before", "after", "half"))
    child = os.fork()
    if child == 0:
        try:
            if at_call:
                die_at(step, manner)
            run(
                make_store(folder, count),
                fake_evaluator(seconds),
                RunOptions(batch=2, progress=False),
            )
        finally:
            os._exit(0)
    if not at_call:
        time.sleep(rng.uniform(0, 0.1))
        os.kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1] == 0


def real_job(pictures):
    """A few pictures of the drawn world, by two methods."""
    return Job("stickers", "val", variants_of(["plain", "sealed"]), pictures=pictures)


def open_store(folder, evaluator, count):
    """The store of a run, and what opens its evaluator."""
    if evaluator == "fake":
        return make_store(folder, count), fake_evaluator(0.02)
    job = real_job(count)
    return Store(folder, job.settings(), job.items()), job.open


def alive(pid):
    """Whether a process still does anything; one that nobody has asked after yet does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def killed_processes(folder, options, count, rng, longest, first):
    """One run started as from a shell: a worker of it is killed, then the run; True if it ended.

    The first kill waits for a result, however long a busy machine takes; the others come at any
    moment. Who writes is in the parts' names, HOST-PID-UUID.
    """
    more = ["--evaluator", options.evaluator, "--engine", options.engine, "--items", str(count)]
    child = subprocess.Popen(
        [sys.executable, __file__, "--child", str(folder), *more], start_new_session=True
    )
    parts = Path(folder, "parts")
    before = set(parts.glob("*.jsonl"))
    wait = rng.uniform(0.2, 1) * (1 if first else longest)
    while first and child.poll() is None:
        if any(b'"id"' in path.read_bytes() for path in parts.glob("*.jsonl")):
            break
        time.sleep(0.1)
    with suppress(subprocess.TimeoutExpired):
        if code := child.wait(wait):
            sys.exit(f"the run failed by itself, with the code {code}")
        return True
    written = set(parts.glob("*.jsonl")) - before
    writers = {int(path.name.rsplit("-", 2)[1]) for path in written} - {child.pid}
    for pid in sorted(writers)[:1]:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            time.sleep(rng.uniform(0, 0.1) * longest)
    child.kill()
    child.wait()
    deadline = time.monotonic() + 30
    while any(map(alive, writers)):  # they must not outlive it
        if time.monotonic() > deadline:
            sys.exit(f"a worker outlived the run that started it: {writers}")
        time.sleep(0.1)
    return False


def unbroken(folder, evaluator, count):
    """One run in this process, never killed."""
    store, opener = open_store(folder, evaluator, count)
    run(store, fake_evaluator() if evaluator == "fake" else opener, RunOptions(progress=False))
    write_report(store)
    return store


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--items", type=int, help="expressions of the fake, pictures of stickers")
    parser.add_argument("--evaluator", choices=("fake", "stickers"), default="fake")
    parser.add_argument("--engine", choices=ENGINES, default="local")
    parser.add_argument("--longest", type=float, help="seconds until a kill, at most")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    forked = (options.evaluator, options.engine) == ("fake", "local")
    each = 30 if forked else 1000 if options.engine == "ray" else 300
    each = 8 if options.evaluator == "stickers" else each
    count = options.items or each * options.kills
    if options.child:
        store, opener = open_store(Path(options.child), options.evaluator, count)
        # Products of another size round otherwise: a model's counts are the same bytes one by one.
        batch = 2 if options.evaluator == "fake" else 1
        ENGINES[options.engine](store, opener, RunOptions(batch=batch, progress=False))
        return
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        started = time.monotonic()
        whole = unbroken(Path(folder, "whole"), options.evaluator, count)
        start = 25.0 if options.engine == "ray" else 10.0  # Ray itself takes ten seconds
        # On average the kills then take six tenths of the whole, so that it doesn't end before.
        whole_time = time.monotonic() - started
        longest = options.longest or max(start, whole_time / options.kills)
        known = whole.results()
        broken, kills, kept = Path(folder, "broken"), 0, 0
        store, opener = open_store(broken, options.evaluator, count)
        while kills < options.kills:
            if forked:
                ended = killed_run(broken, count, rng, 0.002)
            else:
                ended = killed_processes(broken, options, count, rng, longest, not kills)
            if ended:
                sys.exit(f"the run ended after {kills} kills; give it more --items")
            kills += 1
            found = store.results()
            assert len(found) >= kept, f"kill {kills} lost {kept - len(found)} results"
            assert all(record == known[name] for name, record in found.items())
            kept = len(found)
        if not kept:
            sys.exit("every kill came before the first result; give more --kills")
        parts = len(list((broken / "parts").iterdir()))
        ENGINES[options.engine](store, opener, RunOptions(progress=False))
        write_report(store)
        lines = [line for path in (broken / "parts").iterdir() for line in path.open("rb")]
        done = sum(line.endswith(b"\n") and b'"id"' in line for line in lines)
        total = len(store.ids)
        # Several processes may be given the same item once more when one of them dies.
        assert done == total if options.engine == "local" else done >= total, f"{done} of {total}"
        reports = [(folder / "report.json").read_bytes() for folder in (whole.folder, broken)]
        assert reports[0] == reports[1], "the reports differ"
    print(
        f"{kills} kills ({options.evaluator} evaluator, {options.engine} engine) left {parts} "
        f"parts with {kept} of {total} results; finished, every item counts once and the "
        f"report's {len(reports[0])} bytes are the unbroken run's"
    )


if __name__ == "__main__":
    main()
