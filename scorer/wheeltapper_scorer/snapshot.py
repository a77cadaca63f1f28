"""The whole state of a scorer in one file, so that a start reads that and the end of the journal, not all of it.

The event loop copies a run of assets at a time and scores blocks in between; each run says up to which record of the
journal it holds. A replay gives a run only what came after (docs/journal-v1.md). Assets do not depend on each other, so
the whole is what an undisturbed scorer would hold.
"""

from __future__ import annotations

import contextlib
import json
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from wheeltapper import warmth
from wheeltapper.errors import CommandError, Refused
from wheeltapper.live import LiveFleet
from wheeltapper.warmth import ClassState

from wheeltapper_scorer import kept_answers
from wheeltapper_scorer.answer_memory import AnswerMemory
from wheeltapper_scorer.disk import Disk
from wheeltapper_scorer.records import Kind, Reader, Record, Writer
from wheeltapper_scorer.segments import snapshot_name

RUN_BYTES_MAX = 2 << 20  # copied in one go on the event loop: about a millisecond
_RUN = struct.Struct("<QQQ")  # begin, end, record of the journal up to which the rows hold
_NOTHING = -1


@dataclass(slots=True)
class Restored:
    """A fleet as a snapshot holds it; `since[class][row]` is the last record that a row has seen."""

    fleet: LiveFleet
    position: int  # of the journal, when the snapshot began
    points: list[list[Any]]
    streams: int  # the highest number that was given to one by then
    since: dict[str, NDArray[np.int64]] = field(default_factory=dict)


class SnapshotFile:
    """A snapshot being written; it is there once `finish` returns. Raises OSError."""

    def __init__(self, disk: Disk, number: int, head: dict[str, Any]) -> None:
        self._disk, self._name = disk, snapshot_name(number)
        self._temporary = self._name + ".tmp"
        self._writer = Writer(number)
        self._count, self._is_there = 0, False
        self._file = disk.create(self._temporary)
        try:
            self._file.append([self._writer.opening])
            self._append(Kind.HEAD, 0, json.dumps(head).encode())
        except OSError:
            self.close()
            raise

    def add_run(self, class_number: int, begin: int, end: int, position: int, state: bytes) -> None:
        self._append(Kind.ROWS, class_number, _RUN.pack(begin, end, position) + state)

    def add_answers(self, payload: bytes) -> None:
        """What one gateway was answered, taken after the last run: a replay answers what comes later in full."""
        self._append(Kind.ANSWERS, 0, payload)

    @property
    def size(self) -> int:
        """Bytes so far."""
        return self._writer.bytes

    def finish(self) -> None:
        self._append(Kind.END, 0, b"")
        self._file.sync()
        self._disk.rename(self._temporary, self._name)
        self._is_there = True

    def close(self) -> None:
        """Let go of the file. Nothing is left of a half-written one, which may be most of what a full disk holds."""
        with contextlib.suppress(OSError):
            self._file.close()
        with contextlib.suppress(OSError):
            if not self._is_there:
                self._disk.remove(self._temporary)

    def _append(self, kind: Kind, stream: int, payload: bytes) -> None:
        self._file.append(self._writer.encode(Record(self._count, kind, stream, 0, payload)))
        self._count += 1


def head_of(
    fleet: LiveFleet, classes: Sequence[ClassState], position: int, points: list[list[Any]], streams: int = 0
) -> dict[str, Any]:
    """What a snapshot begins with. streams: the highest number that was given to one."""
    return {
        "release": fleet.release,
        "pack": fleet.pack.sha256,
        "position": position,
        "streams": streams,
        "classes": [state.as_dict() for state in classes],
        "points": points,
    }


def read_snapshot(
    disk: Disk, number: int, fleet_of: Callable[[int, str], LiveFleet], answers: AnswerMemory
) -> Restored:
    """The state in a snapshot, in a fleet that `fleet_of(release, pack)` makes; what was answered goes to `answers`.

    Raises Refused where the file is damaged or does not fit the pack that serves.
    """
    records = Reader(disk.read(snapshot_name(number)), number)
    restored: Restored | None = None
    classes: list[ClassState] = []
    for record in records:
        if record.kind == Kind.HEAD:
            head = json.loads(bytes(record.payload))
            classes = [ClassState(**state) for state in head["classes"]]
            restored = _begun(head, classes, fleet_of(head["release"], head["pack"]))
        elif record.kind == Kind.ROWS and restored is not None:
            begin, end, position = _RUN.unpack_from(record.payload)
            state = classes[record.stream]
            warmth.restore(restored.fleet, state, begin, end, memoryview(record.payload)[_RUN.size :])
            restored.since[state.name][begin:end] = position
        elif record.kind == Kind.ANSWERS:
            kept_answers.unpack(memoryview(record.payload), answers)
        elif record.kind == Kind.END and restored is not None:
            if any((since == _NOTHING).any() for since in restored.since.values()):
                break
            return restored
    raise Refused(f"{snapshot_name(number)}: damaged or cut short after {records.valid:,} bytes")


def _begun(head: dict[str, Any], classes: Sequence[ClassState], fleet: LiveFleet) -> Restored:
    held = fleet.class_names()
    lost = [state.name for state in classes if state.assets and state.name not in held]
    if lost:
        raise CommandError(f"the snapshot holds assets of {lost}, which the pack that serves does not have")
    since = {state.name: np.full(len(state.assets), _NOTHING, np.int64) for state in classes if state.assets}
    for state in classes:
        if state.assets:
            fleet.open_assets(state.name, state.assets)
    return Restored(fleet, head["position"], head["points"], head.get("streams", 0), since)
