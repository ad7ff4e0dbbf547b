"""The same run on several processes, GPUs or machines, by Ray's actors.

Ray hands out items at least once and keeps what it knows only while its driver lives; that every
item counts exactly once is the store's doing. So each actor writes its records straight into a
part of its own, and Ray carries nothing but ids. Older Rays ask nobody who they are: keep it, as
here, without a dashboard and on a network of your own.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from nbhelpers.evaluation.run import (
    Evaluate,
    RunOptions,
    Worker,
    bar_of,
    ends_on_sigterm,
    failure,
    todo_of,
)
from nbhelpers.evaluation.store import Store

TRIES = 3  # of an item whose worker dies, and of Ray to start


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
        _start(ray)
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


def _start(ray: Any) -> None:
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
