"""Items through an evaluator into a store: what fails is noted, what is done stays done."""

import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

from nbhelpers.evaluation.parts import Record
from nbhelpers.evaluation.shards import cut
from nbhelpers.evaluation.store import Store

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


def run(
    store: Store,
    open_evaluator: Callable[[], Evaluate],
    *,
    shard: tuple[int, int] = (0, 1),
    batch: int = 1,
    seconds: float | None = None,
    retry_errors: bool = False,
    progress: bool = True,
    environment: Mapping[str, Any] | None = None,
) -> None:
    """Do what is still to be done of a store's items, in this process.

    It may be stopped or killed at any moment, and called again.

    Args:
        store: Where the items stand and the records go.
        open_evaluator: Loads what is heavy; called once, after everything else was looked at and
            only if there is something to do.
        shard: ``(i, n)``, to do only the i-th of n shares, from 0.
        batch: How many items the evaluator is given together; halved when memory runs out.
        seconds: The longest that one item may take; None for as long as it likes. What hangs
            outside of Python can't be stopped this way, and on Windows nothing can.
        retry_errors: Do again what ended in an error.
        progress: Whether to show a bar with rate and time left.
        environment: To be noted beside the records: what doesn't change them.

    Raises:
        OSError: Another process fills this share, or one of another number of shares; or the
            folder can't be written to.
        ValueError: The store is damaged.
        SystemExit: With code 143, when the process was told to end (SIGTERM).
    """
    i, n = shard
    about = {"engine": "local", "shard": f"{i}/{n}", "batch": batch, **(environment or {})}
    with store.share(shard), store.writer(**about) as writer, ends_on_sigterm():
        todo = todo_of(store, shard, retry_errors)
        if not todo:
            return
        evaluate = open_evaluator()
        with bar_of(store, shard, todo, progress) as bar:
            for record in work(evaluate, todo, batch=batch, seconds=seconds):
                writer.append(record)
                bar.update()


def todo_of(store: Store, shard: tuple[int, int], retry_errors: bool) -> list[Item]:
    """What is still to be done of a share."""
    pending = store.pending(retry_errors=retry_errors)
    return [item for item in cut(store.manifest["items"], shard) if item["id"] in pending]


def bar_of(store: Store, shard: tuple[int, int], todo: Sequence[Item], shown: bool) -> tqdm:
    """A bar over a share's items, which begins behind those that are done."""
    total = len(cut(store.manifest["items"], shard))
    start = total - len(todo)
    return tqdm(total=total, initial=start, unit="item", disable=not shown, mininterval=0.5)


def work(
    evaluate: Evaluate, items: Sequence[Item], *, batch: int = 1, seconds: float | None = None
) -> Iterator[Record]:
    """A record of every item, be it an error.

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
    """The record of an item that couldn't be done."""
    message = " ".join(str(error).split())[:300]
    return {"id": item["id"], "error": f"{type(error).__name__}: {message}"}


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on a GPU or off it."""
    text = str(error)
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError)
        and ("out of memory" in text or "can't allocate memory" in text)
    )


@contextmanager
def time_limit(seconds: float | None) -> Iterator[None]:
    """Raise in the block when it takes longer.

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
    """Let SIGTERM end the block as Ctrl-C does: files are closed, the bar is left tidy."""
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
