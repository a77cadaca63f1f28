"""A snapshot is copied on the event loop, a run of assets at a time, while blocks are scored in between, and written on
a thread of its own (docs/journal-v1.md)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from typing import Any, TypeVar

from wheeltapper import warmth
from wheeltapper.live import LiveFleet

from wheeltapper_scorer import kept_answers
from wheeltapper_scorer.disk import Disk
from wheeltapper_scorer.resume import ResumePoints
from wheeltapper_scorer.snapshot import RUN_BYTES_MAX, SnapshotFile, head_of

T = TypeVar("T")


async def copied(
    disk: Disk,
    writer: Executor,
    number: int,
    fleet: LiveFleet,
    points: ResumePoints,
    streams: int,
    newest: Callable[[], int],
    is_kept: Callable[[], Awaitable[bool]],
) -> int | None:
    """Bytes of the snapshot of that number, which is on disk; None where it was given up and another one must begin.

    streams: the highest number that was given to one. newest: the newest record of the journal. is_kept: whether the
    journal holds all that was appended since this began; it may wait until that is on disk. Raises OSError, and what
    `is_kept` raises.
    """
    pack, classes = fleet.pack.sha256, warmth.describe(fleet)
    runs = [(k, state, *run) for k, state in enumerate(classes) for run in warmth.runs(fleet, state, RUN_BYTES_MAX)]
    head = head_of(fleet, classes, newest(), points.state(), streams)
    file = await on(writer, SnapshotFile, disk, number, head)
    try:
        for class_number, state, begin, end in runs:
            if fleet.pack.sha256 != pack:
                return None  # another layout, maybe, or without this class
            rows = warmth.save_rows(fleet, state.name, begin, end)
            await on(writer, file.add_run, class_number, begin, end, newest(), rows)
        for answers in points.answers.state():
            await on(writer, _add_answers, file, *answers)
        if not await is_kept():  # an answer must not outlive the record that moved the windows
            return None
        await on(writer, file.finish)
        return file.size
    finally:
        await on(writer, file.close)


def _add_answers(file: SnapshotFile, *answers: Any) -> None:
    file.add_answers(kept_answers.pack(*answers))


async def on(threads: Executor, work: Callable[..., T], *arguments: Any) -> T:
    """What the work gives, done on another thread."""
    return await asyncio.get_running_loop().run_in_executor(threads, work, *arguments)
