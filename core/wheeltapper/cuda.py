"""The block path on a GPU: `scoring.score_block` itself, one thread for the rows of one asset. The one door to CUDA.

Numba compiles the functions that the CPU runs once more for the device, from the same text. Nothing is computed a
second way, so nothing can differ but rounding, and that is held: products are not contracted into sums (`_strict`), and
what came out of the compiler is looked at before the first answer is given (`check_arithmetic`).

Under Numba's simulator (NUMBA_ENABLE_CUDASIM=1) the same launches run on the CPU, array for array.
"""

# Numba types neither its decorators nor what only a device knows.
# mypy: disable-error-code="no-untyped-call,untyped-decorator,attr-defined"
from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np
import numpy.typing as npt
from numba import config, cuda

from wheeltapper import scoring
from wheeltapper.errors import Refused
from wheeltapper.scoring import Assets, Columns, Heads, Work
from wheeltapper.windows import Plan, Windows

SIMULATED = bool(cast(Any, config).ENABLE_CUDASIM)
_THREADS = 64  # of a thread block: an asset's thread holds many registers, so more would not fit side by side
# What the compiler must not have made of plain arithmetic: contraction, flushed subnormals, approximate division.
_LOOSE = re.compile(
    r"\b(?:fma\.\w+(?:\.ftz)?\.f|(?:mul|add|sub)\.f|\w+(?:\.\w+)*\.ftz\.|div\.(?:approx|full)|sqrt\.approx)"
)

Nested = TypeVar("Nested", bound=tuple[Any, ...])


class Block(NamedTuple):
    """Rows of a block sorted by asset and time, as the device takes them: asset t owns rows begin[t]:begin[t + 1]."""

    begin: Any  # int64 [T + 1]
    order: Any  # int64 [n] 0, 1, 2 …: rows are sorted already
    rows: Any  # int64 [n]
    times: Any  # int64 [n] µs
    values: Any  # float32 [n, sensors]; of events uint64 [n], the bits of the features that count them


class Counts(NamedTuple):
    """Revisions that each asset wrote; in a tuple, as every array that a launch takes."""

    count: Any  # int64 [T]


class Statuses(NamedTuple):
    """How each event was taken."""

    status: Any  # uint8 [n]


def require_device() -> None:
    """Raise Refused where no GPU can be used."""
    if SIMULATED or cuda.is_available():
        return
    raise Refused(
        "device cuda: expected an NVIDIA GPU with its driver, and the extra wheeltapper[cuda], found none",
        "install both, or take --device cpu, which gives the same answers",
    )


def resident(arrays: Nested) -> Nested:
    """The same tuple with its arrays in the memory of the device."""
    return type(arrays)(*(_there(one) for one in arrays))


def _there(one: Any) -> Any:
    if isinstance(one, tuple):
        return resident(one)
    if not isinstance(one, np.ndarray):
        return one
    if SIMULATED:
        return one.copy() if one.flags.writeable else one
    return cuda.to_device(one)


def empty(shape: tuple[int, ...], dtype: npt.DTypeLike) -> Any:
    """An array of the device, not filled."""
    return np.empty(shape, dtype) if SIMULATED else cuda.device_array(shape, dtype)


def staged(shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """An array of this machine that the device copies from and to by itself: its pages stay where they are."""
    return np.empty(shape, dtype) if SIMULATED or not all(shape) else cuda.pinned_array(shape, dtype)


def stream() -> Any:
    """A queue of copies and launches; two of them work side by side."""
    return cuda.stream()


def send(here: npt.NDArray[Any], there: Any, queue: Any = 0) -> None:
    """Copy an array to the first rows of one of the device; on a queue, `here` must stay as it is until it is done."""
    if not here.size:
        return
    if SIMULATED:
        there[: len(here)] = here
    else:
        there[: len(here)].copy_to_device(here, stream=queue)


def fetch(there: Any, here: npt.NDArray[Any], queue: Any = 0) -> None:
    """Fill an array with the first rows of one of the device."""
    if not here.size:
        return
    if SIMULATED:
        here[...] = there[: len(here)]
    else:
        there[: len(here)].copy_to_host(here, stream=queue)


def finish(queue: Any) -> None:
    """Wait until a queue has done all that it was given."""
    queue.synchronize()


def score(
    plan: Plan, windows: Windows, heads: Heads, assets: Assets, work: Work, block: Block, count: int, now_us: int,
    historical: bool, repeated: bool, out: Columns, revised: Columns, revisions: Any, queue: Any,
) -> None:  # fmt: skip
    """Answer the rows of `count` assets into `out`; those of asset t revise rows begin[t] + t · lateness and on of
    `revised`, revisions[t] of them. Returns at once where `queue` is a stream."""
    where = -(-count // _THREADS), _THREADS, queue
    _score[where](
        plan, windows, heads, assets, work, block, count, now_us, historical, repeated, out, revised, revisions
    )
    check_arithmetic(_score)


def take_events(
    plan: Plan, windows: Windows, heads: Heads, assets: Assets, work: Work, block: Block, count: int, now_us: int,
    repeated: bool, status: Any, revised: Columns, revisions: Any,
) -> None:  # fmt: skip
    """Remember events of `count` assets; asset t revises rows t · (lateness + 1) and on of `revised`."""
    where = -(-count // _THREADS), _THREADS
    _take_events[where](plan, windows, heads, assets, work, block, count, now_us, repeated, status, revised, revisions)
    check_arithmetic(_take_events)


def loose_arithmetic(assembly: Iterable[str]) -> set[str]:
    """Instructions of PTX that round otherwise than the CPU does."""
    return {found.group() for text in assembly for found in _LOOSE.finditer(text)}


_checked: set[str] = set()


def check_arithmetic(kernel: Any) -> None:
    """Raise Refused where the device would round otherwise than the CPU: no answer is better than another one."""
    if SIMULATED or kernel.__name__ in _checked:
        return
    found = loose_arithmetic(kernel.inspect_asm().values())
    if found:
        raise Refused(
            f"device cuda: expected plain IEEE arithmetic from this numba-cuda, found {sorted(found)}",
            "take --device cpu, and report the versions of numba-cuda and CUDA",
        )
    _checked.add(kernel.__name__)


def _strict() -> None:
    """Have NVVM contract nothing: Numba has no option for it, and contraction is NVVM's default."""
    from numba.cuda.cudadrv import nvvm  # noqa: PLC0415  the simulator has none of its functions

    compile_ir = nvvm.compile_ir
    nvvm.compile_ir = lambda code, **options: compile_ir(code, **{**options, "fma": False})


def _share_cache() -> None:
    """numba-cuda has settings of its own: its cache must stand in `kernel.cache_folder`, too, or it would go on serving
    what a called function was before an update."""
    with contextlib.suppress(ImportError):  # Numba's built-in CUDA target reads Numba's settings
        from numba.cuda.core import config as settings  # noqa: PLC0415

        settings.CACHE_DIR = config.CACHE_DIR


if not SIMULATED:
    _strict()
    _share_cache()


@cuda.jit(cache=True, fastmath=False)
def _score(
    plan: Any, windows: Any, heads: Any, assets: Any, work: Any, block: Any, count: int, now_us: int,
    historical: bool, repeated: bool, out: Any, revised: Any, revisions: Any,
) -> None:  # fmt: skip
    t = cuda.grid(1)
    if t >= count:
        return
    begin, end = block.begin[t], block.begin[t + 1]
    first, last = begin + t * plan.lateness, end + (t + 1) * plan.lateness
    mine = Work(work.scratch[t], work.row[t], work.features[t], work.wide[t], work.residuals[t])
    room = Columns(
        revised.rows[first:last], revised.times[first:last], revised.status[first:last], revised.values[first:last],
        revised.levels[first:last], revised.alarms[first:last], revised.health[first:last],
        revised.features[first:last],
    )  # fmt: skip
    _, written = scoring.score_block(
        plan, windows, heads, assets, mine, block.order[begin:end], 0, block.rows, block.times, block.values,
        now_us, historical, repeated, out, room,
    )  # fmt: skip
    revisions.count[t] = written


@cuda.jit(cache=True, fastmath=False)
def _take_events(
    plan: Any, windows: Any, heads: Any, assets: Any, work: Any, block: Any, count: int, now_us: int,
    repeated: bool, status: Any, revised: Any, revisions: Any,
) -> None:  # fmt: skip
    t = cuda.grid(1)
    if t >= count:
        return
    begin, end = block.begin[t], block.begin[t + 1]
    first, last = t * (plan.lateness + 1), (t + 1) * (plan.lateness + 1)
    mine = Work(work.scratch[t], work.row[t], work.features[t], work.wide[t], work.residuals[t])
    room = Columns(
        revised.rows[first:last], revised.times[first:last], revised.status[first:last], revised.values[first:last],
        revised.levels[first:last], revised.alarms[first:last], revised.health[first:last],
        revised.features[first:last],
    )  # fmt: skip
    _, written = scoring.take_events(
        plan, windows, heads, assets, mine, block.order[begin:end], 0, block.rows, block.times, block.values,
        now_us, repeated, status.status, room,
    )  # fmt: skip
    revisions.count[t] = written
