"""Files that may hang for ever, a registry on a mounted bucket for one, are read where the end does not wait."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


async def aside(work: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
    """What `work` returns or raises. `asyncio.to_thread` but for the end: a loop that closes, or a process that exits,
    leaves a thread that hangs where it is."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def tell(outcome: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has closed meanwhile
            loop.call_soon_threadsafe(lambda: None if done.done() else outcome())

    def run() -> None:
        try:
            result = work(*arguments, **named)
        except BaseException as error:  # sys.exit() on this thread is not to end the loop that waits for it
            told = error if isinstance(error, Exception) else RuntimeError(repr(error))
            tell(lambda: done.set_exception(told))
        else:
            tell(lambda: done.set_result(result))

    threading.Thread(target=run, name="wheeltapper aside", daemon=True).start()
    return await done
