"""The same run on several processes of this machine, or on several machines by Ray's actors.

Each process loads the models, takes a few neighboring items whenever it is free, and writes its
records straight into a part of its own. When this process dies, however it dies, so do they.

Ray hands out items at least once and keeps what it knows only while its driver lives; that every
item counts exactly once is the store's doing. So Ray carries nothing but ids. Older Rays ask
nobody who they are: keep it, as here, without a dashboard and on a network of your own.
"""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import replace
from functools import cache, partial
from multiprocessing import active_children, get_context, parent_process
from typing import Any

from nbhelpers.evaluation.run import (
    Evaluate,
    Item,
    RunOptions,
    Worker,
    bar_of,
    ends_on_sigterm,
    failure,
    run,
    todo_of,
)
from nbhelpers.evaluation.store import Store

NEIGHBORS = 8  # items that are handed out together: most are of the same picture
TRIES = 3  # of an item whose worker dies, and of Ray to start


def run_locally(
    store: Store, open_evaluator: Callable[[], Evaluate], options: RunOptions, *, workers: int
) -> None:
    """Does what is still to be done of a store's items on this machine.

    Args:
        store: As for `run`, and so are open_evaluator and options.
        workers: How many processes; 1 is this one itself.
    """
    if workers > 1:
        run_with_processes(store, open_evaluator, options, workers=workers)
    else:
        run(store, open_evaluator, options)


def run_with_processes(
    store: Store, open_evaluator: Callable[[], Evaluate], options: RunOptions, *, workers: int
) -> None:
    """Does what is still to be done of a store's items, in several processes.

    Args:
        store: Where the items stand and the records go.
        open_evaluator: As for `run`; it is sent to every process.
        options: As for `run`.
        workers: How many processes.

    Raises:
        OSError: As for `run`; or a process died: what it had written is kept.
        SystemExit: With code 143, when this process was told to end (SIGTERM).
    """
    with store.share(options.shard), ends_on_sigterm():
        todo = todo_of(store, options)
        if not todo:
            return
        size = options.batch * max(1, NEIGHBORS // options.batch)
        groups = [todo[k : k + size] for k in range(0, len(todo), size)]
        make = partial(Worker, str(store.folder), open_evaluator, options, f"{workers} processes")
        pool = ProcessPoolExecutor(
            min(workers, len(groups)),
            mp_context=get_context("spawn"),  # a fork of a process with threads may hang
            initializer=_begin,
            initargs=(make,),
        )
        with _ended(pool), bar_of(store, todo, options) as bar:
            given = [pool.submit(_do, group, options.batch) for group in groups]
            try:
                for done in as_completed(given):
                    bar.update(done.result())
            except BrokenProcessPool as error:
                raise OSError(
                    "a process of the evaluation died, perhaps for lack of memory; what was "
                    "written is kept and the same command goes on, if need be with fewer --workers"
                ) from error


@contextmanager
def _ended(pool: ProcessPoolExecutor) -> Iterator[None]:
    """Lets the pool's processes end with the block, in the middle of an item where it failed."""
    others = set(active_children())
    try:
        yield
        pool.shutdown()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in set(active_children()) - others:
            process.kill()


# In a process of the pool alone: what makes its worker, which is for its first task to do, since
# an error of a task is told whole. An executor hands its tasks nothing that the process was given.
_given: list[Callable[[], Worker]] = []


def _begin(make: Callable[[], Worker]) -> None:
    """Makes a process ready: it leaves Ctrl-C to its parent and ends with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; who started us answers
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _given.append(make)


@cache
def _worker() -> Worker:
    """Returns the worker of this process, made once."""
    return _given[0]()


def _do(items: list[Item], batch: int) -> int:
    """Returns a task: write a record of each item."""
    return _worker().do(items, batch)


def _end_with_parent() -> None:
    """Ends this process as soon as the one that started it has ended, even by kill -9."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def run_with_ray(
    store: Store,
    open_evaluator: Callable[[], Evaluate],
    options: RunOptions,
    *,
    workers: int = 1,
    gpus: int = 0,
) -> None:
    """Does what is still to be done of a store's items, in several processes.

    Joins the cluster that ``ray start`` made, where RAY_ADDRESS names one; else the processes
    run here and end with this one, however it ends. All machines must see the store's folder.

    Args:
        store: Where the items stand and the records go.
        open_evaluator: As for `run`; it is sent to every worker.
        options: As for `run`; an item that kills its worker three times takes its batch with it,
            and the batch is then done one by one.
        workers: How many processes; Ray starts one again that died.
        gpus: How many GPUs each needs.

    Raises:
        ImportError: Ray isn't installed.
        OSError: As for `run`; or Ray didn't start.
    """
    try:
        import ray
        from ray.util import ActorPool
    except ImportError as error:
        raise ImportError("--engine ray needs Ray; install it with: pip install ray") from error

    about = options.about("ray")
    with store.share(options.shard), store.writer(**about) as writer, ends_on_sigterm():
        todo = todo_of(store, options)
        if not todo:
            return
        _start_ray(ray)
        try:
            actor = ray.remote(Worker).options(
                num_cpus=1, num_gpus=gpus, max_restarts=-1, max_task_retries=TRIES - 1
            )
            given = (str(store.folder.absolute()), open_evaluator, options, "ray")
            pool = ActorPool([actor.remote(*given) for _ in range(workers)])
            with bar_of(store, todo, options) as bar:
                for size in dict.fromkeys((options.batch, 1)):
                    some = todo_of(store, options)
                    groups = [some[k : k + size] for k in range(0, len(some), size)]
                    for group in groups:
                        pool.submit(lambda a, value: a.do.remote(value, len(value)), group)
                    while pool.has_next():
                        try:
                            bar.update(pool.get_next_unordered())
                        except ray.exceptions.RayActorError:
                            continue  # killed its worker too often; seen below, as it is missing
        finally:
            ray.shutdown()
        for item in todo_of(store, replace(options, retry_errors=False)):
            writer.append(failure(item, RuntimeError(f"its worker died {TRIES} times")))


def _start_ray(ray: Any) -> None:
    """Joins or starts Ray; on a busy machine its own agent is too slow for it now and then."""
    for tries_left in reversed(range(TRIES)):
        try:
            ray.init(include_dashboard=False, log_to_driver=False, ignore_reinit_error=True)
            return
        except Exception as error:
            ray.shutdown()
            if not tries_left:
                raise OSError(
                    f"Ray did not start: {error}; the same command tries again, and --workers "
                    "without --engine ray needs no Ray on a single machine"
                ) from error
