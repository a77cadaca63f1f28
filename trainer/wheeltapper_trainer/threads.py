"""Work on threads of this process: kernels hold no GIL, and what runs at once shares one pack."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any, TypeVar

from wheeltapper_trainer.cluster import Done, Failed, Limits, Task

_AHEAD_PER_CPU = 2  # calls drawn and not yet answered, so that memory stays bounded

Result = TypeVar("Result")


def in_order(cpus: int, function: Callable[..., Result], calls: Iterable[tuple[Any, ...]]) -> Iterator[Result]:
    """`function(*call)` of every call, in order, on so many threads. `calls` is drawn from only a little ahead, so that
    what it reads stays bounded."""
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(cpus) as pool:
        for call in calls:
            waiting.append(pool.submit(function, *call))
            if len(waiting) >= cpus * _AHEAD_PER_CPU:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def run_here(cpus: int, function: Callable[..., Any], tasks: Sequence[Task], limits: Limits) -> Iterator[Done | Failed]:
    """What `Cluster.run` does, on threads: a task that raises falls apart or is tried again, and ends as Failed.

    A thread cannot be killed, so there is no deadline, and what takes the process down takes all.
    """
    pending = deque((task, 1) for task in tasks)
    flying: dict[Future[Any], tuple[Task, int]] = {}
    with ThreadPoolExecutor(cpus) as pool:
        while pending or flying:
            while pending and len(flying) < cpus:
                task, attempt = pending.popleft()
                flying[pool.submit(function, *task.arguments)] = (task, attempt)
            for future in wait(flying, return_when=FIRST_COMPLETED).done:
                task, attempt = flying.pop(future)
                error = future.exception()
                if error is None:
                    yield Done(task, future.result())
                elif not isinstance(error, Exception):
                    raise error
                elif task.alone:
                    pending.extend((single, 1) for single in task.alone)
                elif attempt < limits.attempts_max:
                    pending.append((task, attempt + 1))
                else:
                    yield Failed(task, f"{type(error).__name__}: {error}", attempt)
