"""Items through an evaluator into a store, and the report of what came of them.

What fails is noted, and what is done stays done. The report is made of integers and exact sums,
so that its bytes are the same however the items were run.
"""

import hashlib
import math
import re
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

from nbhelpers.evaluation.journal import Record, canonical
from nbhelpers.evaluation.store import Store
from nbhelpers.files import write_whole

T = TypeVar("T")

Item = Mapping[str, Any]
"""What is to be done, as the manifest holds it: an ``id``, and what the evaluator needs."""

Evaluate = Callable[[Sequence[Item]], Sequence[Record]]
"""Makes a record of each item, in order; raises if it can't."""

# What one item may do wrong without stopping the others. What says that the code or the machine
# is broken (SyntaxError, ImportError, KeyboardInterrupt) isn't among them.
FAILURES = (
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    OSError,
    RuntimeError,
    MemoryError,
)


@dataclass(frozen=True)
class RunOptions:
    """How a run is done; its results don't depend on any of this.

    Attributes:
        shard: ``(i, n)``, to do only the i-th of n shares, from 0.
        batch: How many items the evaluator is given together; halved when memory runs out.
        seconds: The longest that one item may take; None for as long as it likes. What hangs
            outside of Python can't be stopped this way, and on Windows nothing can.
        retry_errors: Do again what ended in an error.
        progress: Whether to show a bar with rate and time left.
        environment: To be noted beside the records: versions, device.
    """

    shard: tuple[int, int] = (0, 1)
    batch: int = 1
    seconds: float | None = None
    retry_errors: bool = False
    progress: bool = True
    environment: Mapping[str, Any] = field(default_factory=dict)

    def about(self, engine: str) -> dict[str, Any]:
        """Returns what a writer notes of itself."""
        i, n = self.shard
        given = {"engine": engine, "shard": f"{i}/{n}", "batch": self.batch}
        return {**given, **self.environment}


def run(store: Store, open_evaluator: Callable[[], Evaluate], options: RunOptions) -> None:
    """Does what is still to be done of a store's items, in this process.

    It may be stopped or killed at any moment, and called again.

    Args:
        store: Where the items stand and the records go.
        open_evaluator: Loads what is heavy; called once, after everything else was checked and
            only if there is something to do.
        options: How.

    Raises:
        OSError: Another process fills this share, or one of another number of shares; or the
            folder can't be written to.
        ValueError: The store is damaged.
        SystemExit: With code 143, when the process was told to end (SIGTERM).
    """
    about = options.about("local")
    with store.share(options.shard), store.writer(**about) as writer, ends_on_sigterm():
        todo = todo_of(store, options)
        if not todo:
            return
        evaluate = open_evaluator()
        with bar_of(store, todo, options) as bar:
            for record in work(evaluate, todo, batch=options.batch, seconds=options.seconds):
                writer.append(record)
                bar.update()


class Worker:
    """One of several processes: with the models loaded, and a part of the store of its own."""

    def __init__(
        self, folder: str, open_evaluator: Callable[[], Evaluate], options: RunOptions, engine: str
    ) -> None:
        self.writer = Store.of(Path(folder)).writer(**options.about(engine))
        self.evaluate = open_evaluator()
        self.seconds = options.seconds

    def do(self, items: Sequence[Item], batch: int) -> int:
        """Writes a record of each item; returns how many."""
        for record in work(self.evaluate, items, batch=batch, seconds=self.seconds):
            self.writer.append(record)
        return len(items)


def shard_of(items: Sequence[T], shard: tuple[int, int]) -> Sequence[T]:
    """Returns the i-th of n shares, from 0: neighbors, in order, the sizes at most one apart.

    Neighbors stay together because they are of one picture, which is then encoded once.

    Example:
        >>> [shard_of("abcdefg", (i, 3)) for i in (0, 1, 2)]
        ['ab', 'cd', 'efg']
    """
    i, n = shard
    return items[len(items) * i // n : len(items) * (i + 1) // n]


def parse_shard(text: str) -> tuple[int, int]:
    """Reads ``"2/8"`` as the third of eight shares: they count from 0, as Slurm's arrays do.

    Raises:
        ValueError: It isn't of this form, or there is no such share.
    """
    found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text, re.ASCII)
    if not found or int(found[1]) >= int(found[2]):
        raise ValueError(f"wanted I/N with I from 0 to N - 1, as in 0/8; got {text[:40]!r}")
    return int(found[1]), int(found[2])


def todo_of(store: Store, options: RunOptions) -> list[Item]:
    """Returns what is still to be done of a share."""
    pending = store.pending(retry_errors=options.retry_errors)
    return [
        item for item in shard_of(store.manifest["items"], options.shard) if item["id"] in pending
    ]


def bar_of(store: Store, todo: Sequence[Item], options: RunOptions) -> tqdm:
    """Returns a bar over a share's items, which begins behind those that are done."""
    total = len(shard_of(store.manifest["items"], options.shard))
    start, hidden = total - len(todo), not options.progress
    return tqdm(total=total, initial=start, unit="item", disable=hidden, mininterval=0.5)


def work(
    evaluate: Evaluate, items: Sequence[Item], *, batch: int = 1, seconds: float | None = None
) -> Iterator[Record]:
    """Yields a record of every item, be it an error.

    A batch that fails is done again item by item, so that one bad item costs no other; one that
    ran out of memory, and all that follow, in halves.

    Args:
        evaluate: As above.
        items: In order.
        batch: How many to give together at most.
        seconds: The longest that one item may take.

    Yields:
        Records in the items' order.
    """
    queue = deque(items)
    alone = 0  # how many of the next are to be done one by one
    while queue:
        group = [queue.popleft() for _ in range(min(1 if alone else batch, len(queue)))]
        alone = max(0, alone - 1)
        try:
            with time_limit(seconds and seconds * len(group)):
                records = list(evaluate(group))
            if [record["id"] for record in records] != [item["id"] for item in group]:
                raise ValueError("the evaluator gave records of other items than it was given")
        except FAILURES as error:
            if len(group) == 1:
                yield failure(group[0], error)
                continue
            queue.extendleft(reversed(group))
            if out_of_memory(error):
                batch = len(group) // 2
            else:
                alone = len(group)
        else:
            yield from records


def failure(item: Item, error: BaseException) -> Record:
    """Returns the record of an item that couldn't be done."""
    message = " ".join(str(error).split())[:300]
    return {"id": item["id"], "error": f"{type(error).__name__}: {message}"}


def out_of_memory(error: BaseException) -> bool:
    """Tells whether an error says that memory ran out, on a GPU or off it."""
    text = str(error)
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError)
        and ("out of memory" in text or "can't allocate memory" in text)
    )


@contextmanager
def time_limit(seconds: float | None) -> Iterator[None]:
    """Raises in the block when it takes longer.

    Only the main thread can be interrupted, and only by a system that has such a timer: on
    Windows there is no limit.

    Raises:
        TimeoutError: The time is over.
    """
    is_main = threading.current_thread() is threading.main_thread()
    if not seconds or not is_main or not hasattr(signal, "setitimer"):
        yield
        return

    def ring(number: int, frame: object) -> None:
        raise TimeoutError(f"it took longer than {seconds:g} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def ends_on_sigterm() -> Iterator[None]:
    """Lets SIGTERM end the block as Ctrl-C does: files are closed, the bar is left tidy."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def complete_records(store: Store) -> list[Record]:
    """Returns the record of every item of a run, in the items' order.

    Raises:
        ValueError: Items are missing, or the store is damaged.
    """
    results = store.results()
    missing = [name for name in store.ids if name not in results]
    if missing:
        raise ValueError(
            f"{store.folder} is not complete: {len(missing)} of {len(store.ids)} items are "
            f"missing ({', '.join(missing[:3])}, ...); run the same command again"
        )
    return [results[name] for name in store.ids]


def make_report(store: Store) -> dict[str, Any]:
    """Returns what came of a run of which every item has a record.

    Returns:
        The settings; how many items, and which ended in an error; the SHA-256 of all records in
        the items' order; and for every variant, at each threshold, the sums of the intersections
        and unions in pixels (their ratio is oIoU) and the mean over items of their IoU. Sums of
        floats are exact (`math.fsum`) and taken in the items' order, so that the bytes depend on
        the records alone.

    Raises:
        ValueError: Items are missing, or the store is damaged.
    """
    records = complete_records(store)
    good = [record for record in records if "error" not in record]
    digest = hashlib.sha256()
    for record in records:
        digest.update(canonical(record) + b"\n")
    return {
        "settings": store.manifest["settings"],
        "fingerprint": store.fingerprint,
        "items": len(records),
        "errors": {r["id"]: r["error"] for r in records if "error" in r},
        "records": digest.hexdigest(),
        "variants": summarize(good),
    }


def write_report(store: Store) -> dict[str, Any]:
    """Makes a run's report and writes it as ``report.json`` beside the parts.

    Raises:
        OSError: The folder can't be written to.
        ValueError: Items are missing, or the store is damaged.
    """
    report = make_report(store)
    write_whole(store.folder / "report.json", canonical(report) + b"\n")
    return report


def summarize(records: Sequence[Record]) -> dict[str, Any]:
    """Sums up every variant at each threshold, and every class where classes were read.

    Example:
        >>> summarize([{"counts": {"plain": [[1], [2]]}}, {"counts": {"plain": [[3], [4]]}}])
        {'plain': {'intersection': [4], 'union': [6], 'miou': [0.625]}}
    """
    found: dict[str, Any] = {}
    for variant in sorted(records[0]["counts"]) if records else ():
        pairs = [record["counts"][variant] for record in records]
        if not isinstance(pairs[0], Mapping):
            found[variant] = _totals(pairs)
            continue
        classes = sorted({name for pair in pairs for name in pair}, key=int)
        found[variant] = {
            name: _totals([pair[name] for pair in pairs if name in pair]) for name in classes
        }
    return found


def _totals(pairs: Sequence[Sequence[Sequence[int]]]) -> dict[str, list[Any]]:
    """Returns the totals of one variant's intersections and unions."""
    columns = [
        list(zip(*both, strict=True))
        for both in zip(
            zip(*(shared for shared, _ in pairs), strict=True),
            zip(*(either for _, either in pairs), strict=True),
            strict=True,
        )
    ]
    return {
        "intersection": [sum(i for i, _ in column) for column in columns],
        "union": [sum(u for _, u in column) for column in columns],
        "miou": [
            math.fsum(i / u if u else 0.0 for i, u in column) / len(column) for column in columns
        ],
    }
