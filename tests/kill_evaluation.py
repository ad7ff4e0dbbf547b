"""Kill an evaluation again and again, then let it finish: its report must be the unbroken one's.

    python tests/kill_evaluation.py --kills 100 --seed 0

The evaluator is a fake one, so that most kills hit the store and not the model. Each kill is a
``kill -9`` of a process of its own, half of them at a random moment, half at a random call to the
disk: before it, after it, or with half of the bytes written.
"""

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

from nbhelpers.evaluation import Store, run, write_report

CALLS = ("write", "fsync", "replace", "open", "close")


def fake_items(count):
    """Three expressions a picture."""
    return [{"id": f"{i // 3:04d}-{i % 3}", "image": i // 3} for i in range(count)]


def fake_record(item):
    """Counts as an evaluation would keep, the same each time for the same item."""
    rng = random.Random(item["id"])
    unions = [rng.randrange(1, 9000) for _ in range(101)]
    counts = {"plain": [[rng.randrange(u + 1) for u in unions], unions]}
    return {"id": item["id"], "counts": counts}


def fake_evaluator(seconds=0.0):
    """Opens an evaluator that takes so long for an item."""

    def evaluate(items):
        time.sleep(seconds * len(items))
        return [fake_record(item) for item in items]

    return lambda: evaluate


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
            run(make_store(folder, count), fake_evaluator(seconds), batch=2, progress=False)
        finally:
            os._exit(0)
    if not at_call:
        time.sleep(rng.uniform(0, 0.1))
        os.kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1] == 0


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--items", type=int)
    options = parser.parse_args()
    count = options.items or 30 * options.kills
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as place:
        whole = make_store(Path(place, "whole"), count)
        run(whole, fake_evaluator(), progress=False)
        write_report(whole)
        broken, kills, kept = Path(place, "broken"), 0, 0
        while kills < options.kills:
            if killed_run(broken, count, rng, 0.002):
                sys.exit(f"the run ended after {kills} kills; give it more --items")
            kills += 1
            known = make_store(broken, count).results()
            assert len(known) >= kept, f"kill {kills} lost {kept - len(known)} results"
            assert all(record == fake_record(record) for record in known.values())
            kept = len(known)
        store = make_store(broken, count)
        parts = len(list((broken / "parts").iterdir()))
        run(store, fake_evaluator(), progress=False)
        write_report(store)
        lines = [line for path in (broken / "parts").iterdir() for line in path.open("rb")]
        done = sum(line.endswith(b"\n") and b'"id"' in line for line in lines)
        assert done == count, f"{done} records of {count} items"
        reports = [
            (Path(place, name) / "report.json").read_bytes() for name in ("whole", "broken")
        ]
        assert reports[0] == reports[1], "the reports differ"
    print(
        f"{kills} kills left {parts} parts with {kept} of {count} results; finished, every item "
        f"is there once and the report's {len(reports[0])} bytes are the unbroken run's"
    )


if __name__ == "__main__":
    main()
