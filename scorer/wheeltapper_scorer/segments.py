"""The journal's files: segments of records, numbered without gaps, the newest one open for appending.

Nothing here is asynchronous: one thread writes, and what it says is on disk is on disk.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence

from wheeltapper_scorer.disk import Disk, File
from wheeltapper_scorer.records import Reader, Record, Writer

_SEGMENT = re.compile(r"segment-(\d{12})\.journal")
_SNAPSHOT = re.compile(r"snapshot-(\d{12})\.state")
_HALF_WRITTEN = re.compile(r"snapshot-\d{12}\.state\.tmp")


class Segments:
    """The end of a journal. After an OSError give the open segment up, and `begin` another one."""

    def __init__(self, disk: Disk, first: int) -> None:
        """first: number of the segment that is begun first."""
        self._disk = disk
        self._next = first
        self._file: File | None = None
        self._writer = Writer(first)
        self._synced_bytes = 0

    @property
    def number(self) -> int:
        """Of the newest segment."""
        return self._next - 1

    @property
    def bytes(self) -> int:
        return self._writer.bytes

    def begin(self) -> None:
        """Close the open segment and begin the next one, which is on disk. Where that fails nothing is left of it, and
        its number is the next one's again: a disk that stays full fills up with nothing of ours."""
        self.sync()
        self.give_up()
        name, writer = segment_name(self._next), Writer(self._next)
        try:
            self._file = self._disk.create(name)
            self._file.append([writer.opening])
            self._file.sync()
        except OSError:
            self.give_up()
            with contextlib.suppress(OSError):
                self._disk.remove(name)
            raise
        self._next, self._writer, self._synced_bytes = self._next + 1, writer, writer.bytes

    def append(self, records: Sequence[Record]) -> None:
        """Hand records to the system: they survive this process, and a power cut after `sync`."""
        if self._file is None:
            raise OSError("the journal has no open segment")
        self._file.append([part for record in records for part in self._writer.encode(record)])

    def sync(self) -> None:
        if self._file is None or self._synced_bytes == self._writer.bytes:
            return
        try:
            self._file.sync()
        except OSError:
            # The system may take these bytes for written from now on: the next process would read and believe them.
            with contextlib.suppress(OSError):
                self._disk.truncate(segment_name(self.number), self._synced_bytes)
            raise
        self._synced_bytes = self._writer.bytes

    def give_up(self) -> None:
        """Write no more to the open segment, whose end may be torn; never sync again what a sync has failed for."""
        file, self._file = self._file, None
        if file is not None:
            with contextlib.suppress(OSError):
                file.close()


def segment_name(number: int) -> str:
    return f"segment-{number:012}.journal"


def snapshot_name(number: int) -> str:
    return f"snapshot-{number:012}.state"


def segments_of(disk: Disk) -> list[int]:
    """The numbers of the segments on disk, ascending."""
    return _numbers(disk, _SEGMENT)


def snapshots_of(disk: Disk) -> list[int]:
    """The numbers of the snapshots on disk, ascending: the segment that goes on from each."""
    return _numbers(disk, _SNAPSHOT)


def read_segment(disk: Disk, number: int) -> Reader:
    return Reader(disk.read(segment_name(number)), number)


def retain(disk: Disk, from_number: int) -> None:
    """Delete segments and snapshots before a number, and half-written snapshots."""
    for name in disk.names():
        found = _SEGMENT.fullmatch(name) or _SNAPSHOT.fullmatch(name)
        if (found and int(found[1]) < from_number) or _HALF_WRITTEN.fullmatch(name):
            disk.remove(name)


def _numbers(disk: Disk, pattern: re.Pattern[str]) -> list[int]:
    found = (pattern.fullmatch(name) for name in disk.names())
    return sorted(int(one[1]) for one in found if one)
