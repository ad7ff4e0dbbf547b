"""The same run on several processes, GPUs or machines, by Ray's actors.

Ray hands out items at least once and keeps what it knows only while its driver lives; that every
item counts exactly once is the store's doing. So each actor writes its records straight into a
part of its own, and Ray carries nothing but ids. Older Rays ask nobody who they are: keep it, as
here, without a dashboard and on a network of your own.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from nbhelpers.evaluation.run import (
    Evaluate,
    Item,
    bar_of,
    ends_on_sigterm,
    failure,
    todo_of,
    work,
)
from nbhelpers.evaluation.store import Store

TRIES = 3  # of an item whose worker dies, and of Ray to start


class Worker:
    """One process with the models loaded; Ray starts it again if it dies."""

    def __init__(
        self,
        folder: str,
        open_evaluator: Callable[[], Evaluate],
        seconds: float | None,
        environment: Mapping[str, Any],
    ) -> None:
        self.writer = Store.of(Path(folder)).writer(**environment)
        self.evaluate = open_evaluator()
        self.seconds = seconds

    def do(self, items: list[Item]) -> int:
        """Write a record of each item; returns how many."""
        for record in work(self.evaluate, items, batch=len(items), seconds=self.seconds):
            self.writer.append(record)
        return len(items)


def run_with_ray(
    store: Store,
    open_evaluator: Callable[[], Evaluate],
    *,
    workers: int = 1,
    gpus: int = 0,
    shard: tuple[int, int] = (0, 1),
    batch: int = 1,
    seconds: float | None = None,
    retry_errors: bool = False,
    progress: bool = True,
    environment: Mapping[str, Any] | None = None,
) -> None:
    """Do what is still to be done of a store's items, in several processes.

    Joins the cluster that ``ray start`` made, where RAY_ADDRESS names one; else the processes
    run here and end with this one, however it ends. All machines must see the store's folder.

    Args:
        store: Where the items stand and the records go.
        open_evaluator: As for `run`; it is sent to every worker.
        workers: How many processes.
        gpus: How many GPUs each needs.
        shard: As for `run`.
        batch: Likewise; an item that kills its worker three times takes its batch with it, and
            the batch is then done one by one.
        seconds: Likewise.
        retry_errors: Likewise.
        progress: Likewise.
        environment: Likewise.

    Raises:
        ImportError: Ray isn't installed.
        OSError: As for `run`; or Ray didn't start.
    """
    try:
        import ray
        from ray.util import ActorPool
    except ImportError as error:
        raise ImportError("--engine ray needs Ray; install it with: pip install ray") from error

    i, n = shard
    about = {"engine": "ray", "shard": f"{i}/{n}", "batch": batch, **(environment or {})}
    with store.share(shard), store.writer(**about) as writer, ends_on_sigterm():
        todo = todo_of(store, shard, retry_errors)
        if not todo:
            return
        _start(ray)
        try:
            actor = ray.remote(Worker).options(
                num_cpus=1, num_gpus=gpus, max_restarts=-1, max_task_retries=TRIES - 1
            )
            folder = str(store.folder.absolute())
            pool = ActorPool(
                [actor.remote(folder, open_evaluator, seconds, about) for _ in range(workers)]
            )
            with bar_of(store, shard, todo, progress) as bar:
                for size in dict.fromkeys((batch, 1)):
                    some = todo_of(store, shard, retry_errors)
                    groups = [some[k : k + size] for k in range(0, len(some), size)]
                    for group in groups:
                        pool.submit(lambda a, value: a.do.remote(value), group)
                    while pool.has_next():
                        try:
                            bar.update(pool.get_next_unordered())
                        except ray.exceptions.RayActorError:
                            continue  # killed its worker too often; seen below, as it is missing
        finally:
            ray.shutdown()
        for item in todo_of(store, shard, retry_errors=False):
            writer.append(failure(item, RuntimeError(f"its worker died {TRIES} times")))


def _start(ray: Any) -> None:
    """Join or start Ray; on a busy machine its own agent is too slow for it now and then."""
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
