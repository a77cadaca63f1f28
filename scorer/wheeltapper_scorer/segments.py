"""The journal's files: segments of records, numbered without gaps, the newest one open for appending.

Nothing here is asynchronous: one thread writes, and what it says is on disk is on disk.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from wheeltapper_scorer.disk import Disk, File
from wheeltapper_scorer.records import Reader, Record, Writer

_SEGMENT = re.compile(r"segment-(\d{12})\.journal")
_SNAPSHOT = re.compile(r"snapshot-(\d{12})\.state")


class Segments:
    """The end of a journal. After an OSError the open segment is given up: `begin` another one."""

    def __init__(self, disk: Disk, number: int) -> None:
        self._disk = disk
        self.number = number  # of the open segment, or the one to be begun next
        self._file: File | None = None
        self._writer = Writer(number)
        self._unsynced = False

    @property
    def bytes(self) -> int:
        return self._writer.bytes

    def begin(self, number: int) -> None:
        """Close the open segment and begin one of that number."""
        if self._file is not None:
            self.sync()
            self.give_up()
        self.number, self._writer = number, Writer(number)
        self._file = self._disk.create(segment_name(number))
        self._file.append([self._writer.opening])
        self._unsynced = True

    def append(self, records: Sequence[Record]) -> None:
        """Hand records to the system: they survive this process, and a power cut after `sync`."""
        if self._file is None:
            raise OSError("the journal has no open segment")
        self._unsynced = True
        self._file.append([part for record in records for part in self._writer.encode(record)])

    def sync(self) -> None:
        if self._file is not None and self._unsynced:
            self._file.sync()
            self._unsynced = False

    def give_up(self) -> None:
        """Write no more to the open segment, whose end may be torn; never sync again what a sync has failed for."""
        file, self._file = self._file, None
        if file is not None:
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
        if (found and int(found[1]) < from_number) or name.endswith(".tmp"):
            disk.remove(name)


def _numbers(disk: Disk, pattern: re.Pattern[str]) -> list[int]:
    found = (pattern.fullmatch(name) for name in disk.names())
    return sorted(int(one[1]) for one in found if one)
