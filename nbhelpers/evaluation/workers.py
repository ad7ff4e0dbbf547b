"""The same run on several processes of this machine, with nothing but Python.

Each process loads the models, takes a few neighboring items whenever it is free, and writes its
records straight into a part of its own. When this process dies, however it dies, so do they.
"""

import os
import signal
import threading
from collections.abc import Callable, Mapping
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from nbhelpers.evaluation.run import Evaluate, bar_of, ends_on_sigterm, todo_of, work
from nbhelpers.evaluation.store import Store

NEIGHBORS = 8  # items that are handed out together: most are of the same picture


def run_with_processes(
    store: Store,
    open_evaluator: Callable[[], Evaluate],
    *,
    workers: int,
    shard: tuple[int, int] = (0, 1),
    batch: int = 1,
    seconds: float | None = None,
    retry_errors: bool = False,
    progress: bool = True,
    environment: Mapping[str, Any] | None = None,
) -> None:
    """Do what is still to be done of a store's items, in several processes.

    Args:
        store: Where the items stand and the records go.
        open_evaluator: As for `run`; it is sent to every process.
        workers: How many processes.
        shard: As for `run`.
        batch: Likewise.
        seconds: Likewise.
        retry_errors: Likewise.
        progress: Likewise.
        environment: Likewise.

    Raises:
        OSError: As for `run`; or a process died: what it had written is kept.
        SystemExit: With code 143, when this process was told to end (SIGTERM).
    """
    i, n = shard
    about = {"engine": f"{workers} processes", "shard": f"{i}/{n}", "batch": batch}
    with store.share(shard), ends_on_sigterm():
        todo = todo_of(store, shard, retry_errors)
        names = [item["id"] for item in todo]
        size = batch * max(1, NEIGHBORS // batch)
        groups = [names[k : k + size] for k in range(0, len(names), size)]
        if not todo:
            return
        context = get_context("spawn")  # a fork of a process with threads may hang
        ours, processes = [], []
        try:
            for _ in range(min(workers, len(groups))):
                here, there = context.Pipe()
                more = (batch, seconds, {**about, **(environment or {})})
                given = (str(store.folder), open_evaluator, there, *more)
                process = context.Process(target=serve, args=given, daemon=True)
                process.start()
                there.close()
                ours.append(here)
                processes.append(process)
            with bar_of(store, shard, todo, progress) as bar:
                hand_out(groups, ours, bar.update)
            for process in processes:
                process.join()
        finally:
            for process in processes:
                process.kill()


def hand_out(groups: list[list[str]], pipes: list[Any], tell: Callable[[int], Any]) -> None:
    """Give every process a group whenever it asks for one, until all are done.

    A process asks by sending how many items it has just done; it ends when it is sent None.

    Raises:
        OSError: A process died; or whatever error one sent.
    """
    waiting, left = list(pipes), groups[::-1]
    while waiting:
        ready: list[Any] = wait(waiting)
        for pipe in ready:
            group = left[-1] if left else None
            try:
                said = pipe.recv()
                if not isinstance(said, Exception):
                    pipe.send(group)
            except (EOFError, ConnectionError) as error:
                raise OSError(
                    "a process of the evaluation died, perhaps for lack of memory; what was "
                    "written is kept and the same command goes on, if need be with fewer --workers"
                ) from error
            if isinstance(said, Exception):
                raise said
            tell(said)
            if group is None:
                waiting.remove(pipe)
            else:
                left.pop()


def serve(
    folder: str,
    open_evaluator: Callable[[], Evaluate],
    pipe: Any,
    batch: int,
    seconds: float | None,
    environment: Mapping[str, Any],
) -> None:
    """The work of one process: ask, do, ask again; what stops it is sent to who started it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the first of us answers
    threading.Thread(target=end_with_parent, daemon=True).start()
    try:
        store = Store.of(Path(folder))
        items = {item["id"]: item for item in store.manifest["items"]}
        with store.writer(**environment) as writer:
            evaluate, done = open_evaluator(), 0
            while True:
                pipe.send(done)
                group = pipe.recv()
                if group is None:
                    return
                some = [items[name] for name in group]
                for record in work(evaluate, some, batch=batch, seconds=seconds):
                    writer.append(record)
                done = len(group)
    except (OSError, ValueError, ImportError, MemoryError) as error:
        pipe.send(error)


def end_with_parent() -> None:
    """End this process as soon as the one that started it has ended, even by kill -9."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
