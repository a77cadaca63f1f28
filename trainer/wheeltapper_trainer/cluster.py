"""Ray behind four words: start, run, Done, Failed. The only module that imports ray.

Tasks carry their work as plain arguments and leave their results in files of the run folder, so nothing large crosses
this border. A task that raises, hangs, runs out of memory or takes its worker down with it falls apart into the tasks
that `Task.alone` names, each of which has a bounded number of attempts; what still fails is given back as `Failed`
with its reason, and everything else goes on.
"""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from wheeltapper.errors import CommandError, UsageError

_STORE_BYTES = 128 * 2**20  # summaries only; Ray's default is a third of the machine
_POLL_S = 0.2  # how often deadlines are looked at
_WORKER_START_S_MAX = 180.0  # a new worker's start and imports, on a machine that is busy
_COUNT_S = 5.0  # how often the cores of a cluster of several machines are counted again: machines come and go
_STOP_S_MAX = 60.0
_AHEAD = 1  # tasks sent for each running one: at most so many others take their time before it begins
_STARTS_MAX = 3  # Ray gives its own processes 30 s, which a busy machine may not have
# What Ray starts beside every cluster of its own, and nobody here asks: its dashboard, which `init` waits for, its
# autoscaler, and the carrier of workers' output to the driver. Three Python processes that compete with the workers.
_SERVICES = ("start_api_server", "start_monitor", "start_log_monitor")

# One thread per library in every worker: the cores are shared out by tasks, not fought over by them.
_WORKER_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "NUMBA_NUM_THREADS": "1",
    "ARROW_DEFAULT_MEMORY_POOL": "system",
}
# Ray reads these when it is imported and when its own processes start.
_RAY_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # under `uv run` Ray would upload the working folder to its workers
    "RAY_task_oom_retries": "0",  # the attempts are counted here
}


@dataclass(frozen=True, slots=True)
class Task:
    """One call of a stage function. `alone` is what it is retried as when it fails as a whole; empty: as itself."""

    name: str
    arguments: tuple[Any, ...]
    alone: tuple[Task, ...] = ()


@dataclass(frozen=True, slots=True)
class Done:
    task: Task
    result: Any


@dataclass(frozen=True, slots=True)
class Failed:
    """A task given up: its last reason, and how often it was tried."""

    task: Task
    reason: str
    attempts: int


@dataclass(frozen=True, slots=True)
class Limits:
    """What bounds a run: seconds one task may take, and attempts of a task that cannot fall apart any further."""

    task_seconds_max: float = 900.0
    attempts_max: int = 2

    def __post_init__(self) -> None:
        if self.task_seconds_max <= 0 or self.attempts_max < 1:
            raise UsageError(f"a task needs time and at least one attempt, found {self}")


class Cluster:
    """A Ray cluster of this machine's cores, or the one at `address`; a context manager that leaves nothing running.

    Entering returns at once: Ray starts in a thread of its own, because its start takes seconds the caller can use.
    That thread lives as long as the cluster, since Ray ties its processes' lives to the thread that began them.

    preload: modules that this machine's workers import while they start, before there is work.
    """

    def __init__(self, cpus: int, address: str = "", preload: Sequence[str] = ()) -> None:
        if cpus < 1:
            raise UsageError(f"training needs at least one CPU, found {cpus}")
        self._cpus, self._address, self._preload = cpus, address, list(preload)
        self._ready, self._stop = threading.Event(), threading.Event()
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._live, args=(1, time.monotonic()), name="ray", daemon=True)
        self.start_seconds = 0.0

    def __enter__(self) -> Cluster:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(_STOP_S_MAX)

    def wait_ready(self) -> int:
        """Wait until tasks can run; returns how many run at once. CommandError where Ray does not start."""
        self._ready.wait()
        if self._error is not None:
            where = f"at {self._address}" if self._address else "on this machine"
            raise CommandError(
                f"Ray did not start {where}: {self._error}", "see /tmp/ray/session_latest/logs"
            ) from self._error
        return self._cpus

    def run(
        self, function: Callable[..., Any], tasks: Sequence[Task], limits: Limits | None = None
    ) -> Iterator[Done | Failed]:
        """Run `function(*task.arguments)` for every task, in the order given, and yield each as it ends.

        As many tasks run as there are CPUs, and as many wait with Ray, so that no worker waits for the caller to take
        a result. A deadline counts from when the task began, not from when it was sent or its worker started: otherwise
        one that hangs costs its successors their time.
        """
        import ray  # noqa: PLC0415  read only once its environment is set

        limits = limits or Limits()
        slots = self.wait_ready()
        options: dict[str, Any] = {"max_retries": 0, "num_cpus": 1}
        if self._address:
            options["runtime_env"] = {"env_vars": _WORKER_ENVIRONMENT}
        remote = ray.remote(**options)(_announced(function)).options(name=function.__name__)
        counted, sent = time.monotonic(), 0
        waiting = deque((task, 1) for task in tasks)
        flying: dict[Any, tuple[Task, int, _Flight]] = {}
        marks = tempfile.TemporaryDirectory(prefix="wheeltapper-tasks-")
        try:
            while waiting or flying:
                if self._address and time.monotonic() > counted + _COUNT_S:
                    slots, counted = _cores(ray), time.monotonic()
                while waiting and len(flying) < slots * (1 + _AHEAD):
                    task, attempt = waiting.popleft()
                    sent += 1
                    flight = _Flight(Path(marks.name, str(sent)), time.monotonic())
                    flying[remote.remote(str(flight.mark), *task.arguments)] = (task, attempt, flight)
                ended, _ = ray.wait(list(flying), num_returns=1, timeout=_POLL_S)
                late = [ref for ref, (_, _, flight) in flying.items() if flight.late(limits.task_seconds_max)]
                for ref in dict.fromkeys([*ended, *late]):
                    task, attempt, flight = flying.pop(ref)
                    flight.mark.unlink(missing_ok=True)
                    if ref in ended:
                        reason, result = _outcome(ray, ref)
                    else:
                        ray.cancel(ref, force=True)
                        reason, result = f"no answer within {limits.task_seconds_max:g} s", None
                    if not reason:
                        yield Done(task, result)
                    elif task.alone:
                        waiting.extend((single, 1) for single in task.alone)
                    elif attempt < limits.attempts_max:
                        waiting.append((task, attempt + 1))
                    else:
                        yield Failed(task, reason, attempt)
        finally:
            for ref in flying:
                ray.cancel(ref, force=True)
            marks.cleanup()

    def _live(self, attempt: int, began: float) -> None:
        """The life of Ray: start, wait for the stop, shut down. A start that fails is tried again by another thread."""
        try:
            with _environment({**_RAY_ENVIRONMENT, **_WORKER_ENVIRONMENT}):
                # Ray's HTTP client wants a proxy library that nothing here needs, and says so to people.
                warnings.filterwarnings("ignore", message="SOCKS support in urllib3")
                import ray  # noqa: PLC0415
                from ray._private import ray_constants  # noqa: PLC0415

                # Somebody else may have imported Ray before the environment was set.
                ray_constants.RAY_ENABLE_UV_RUN_RUNTIME_ENV = False
                quiet: dict[str, Any] = {
                    "include_dashboard": False,
                    "log_to_driver": False,
                    "logging_level": logging.ERROR,
                }
                if self._address:
                    ray.init(address=self._address, **quiet)
                    self._cpus = _cores(ray)
                else:
                    with _without_services():
                        ray.init(
                            address="local",
                            num_cpus=self._cpus,
                            object_store_memory=_STORE_BYTES,
                            _system_config={"preload_python_modules": self._preload},
                            **quiet,
                        )
                _keep_stdout_clean()
        except Exception as error:  # whatever Ray raises is told to the caller, in whose thread it can be handled
            if not self._address and attempt < _STARTS_MAX and not self._stop.is_set():
                # With this thread end the processes of the start that failed.
                arguments = (attempt + 1, began)
                self._thread = threading.Thread(target=self._live, args=arguments, name="ray", daemon=True)
                self._thread.start()
                return
            self._error = error
        self.start_seconds = time.monotonic() - began
        self._ready.set()
        self._stop.wait()
        if self._error is None:
            ray.shutdown()


@dataclass(frozen=True, slots=True)
class _Flight:
    """A task on its way: its worker touches `mark` when it begins (one on another machine cannot); `sent` monotonic."""

    mark: Path
    sent: float

    def late(self, seconds_max: float) -> bool:
        gone = time.monotonic() - self.sent
        if gone <= seconds_max:
            return False
        try:
            return time.time() - self.mark.stat().st_mtime > seconds_max
        except OSError:  # not begun, or begun where this folder is not
            return gone > seconds_max * (1 + _AHEAD) + _WORKER_START_S_MAX


def _announced(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` behind one more argument, the mark that it begins with."""

    def announced(mark: str, *arguments: Any) -> Any:
        with contextlib.suppress(OSError):  # the folder of marks is on the driver's machine
            Path(mark).touch()
        return function(*arguments)

    return announced


def _outcome(ray: Any, ref: Any) -> tuple[str, Any]:
    """("", result) of a task that returned, (reason, None) of one that did not."""
    try:
        return "", ray.get(ref)
    except ray.exceptions.RayTaskError as error:
        cause = error.cause if isinstance(error.cause, BaseException) else error
        return f"{type(cause).__name__}: {cause}", None
    except ray.exceptions.OutOfMemoryError:
        return "out of memory: stopped before it took the machine with it", None
    except ray.exceptions.WorkerCrashedError:
        return "its worker process died (a crash, or killed from outside)", None
    except ray.exceptions.RayError as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0]}", None


def _cores(ray: Any) -> int:
    """The cores of all machines that are there now."""
    return max(1, int(ray.cluster_resources().get("CPU", 1)))


@contextlib.contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    """Set environment variables for the processes started inside; what the user has set himself stays."""
    added = {name: value for name, value in variables.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


@contextlib.contextmanager
def _without_services() -> Iterator[None]:
    """Let Ray start without `_SERVICES`; a Ray that names them otherwise starts with them."""
    from ray._private.node import Node  # noqa: PLC0415

    known = {name: getattr(Node, name) for name in _SERVICES if hasattr(Node, name)}
    for name in known:
        setattr(Node, name, lambda *_, **__: None)
    try:
        yield
    finally:
        for name, start in known.items():
            setattr(Node, name, start)


def _keep_stdout_clean() -> None:
    """Stop Ray from printing cluster errors on stdout, where `-o json` has its one object; they reach us as reasons."""
    import ray._private.worker  # noqa: PLC0415

    ray._private.worker._worker_logs_enabled = False
