"""Records behind one another in a file: how the journal and the snapshots lie on disk (docs/journal-v1.md).

Each record's checksum goes on from that of the record before it, so a record that is torn, altered, missing or in
another place ends what can be read: the valid beginning of a file is the file.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

MAGIC = b"WTAPJRN1"
_OPENING = struct.Struct("<8sQI")  # magic, number of the file, checksum of both
_HEAD = struct.Struct("<IQBIq")  # payload bytes, number, kind, stream, clock µs
_CHECK = struct.Struct("<I")
OPENING_BYTES = _OPENING.size
HEAD_BYTES = _HEAD.size + _CHECK.size


class Kind(IntEnum):
    """What a payload is. Numbers are for ever."""

    RELEASE = 1  # JSON: the release and pack that answer from here on
    OPEN = 2  # a StreamRequest with an Open, as it came
    REOPEN = 3  # the same again at the start of a segment: it names the stream's assets and changes nothing
    BLOCK = 4  # a StreamRequest with readings or events, as it came
    CALL = 5  # a ScoreRequest, as it came
    CLOSE = 6  # the stream has ended
    AGAIN = 7  # a StreamRequest that came before and was answered from memory, with the clock of then
    BASIS = 8  # JSON, first in a segment: the record that it goes on from, null where only a snapshot can say
    HEAD = 16  # of a snapshot, JSON: what it holds
    ROWS = 17  # of a snapshot: the state of a run of assets
    END = 18  # of a snapshot: it is whole
    ANSWERS = 19  # of a snapshot: what one gateway was answered lately


@dataclass(frozen=True, slots=True)
class Record:
    number: int
    kind: int
    stream: int
    clock_us: int  # the scorer's clock when it was taken
    payload: memoryview | bytes


class Writer:
    """The checksums of one file, in order."""

    def __init__(self, file_number: int) -> None:
        self.opening, self._check = _opening(file_number)
        self.bytes = len(self.opening)

    def encode(self, record: Record) -> list[bytes]:
        """The record as bytes to append."""
        head = _HEAD.pack(len(record.payload), record.number, record.kind, record.stream, record.clock_us)
        self._check = zlib.crc32(record.payload, zlib.crc32(head, self._check))
        self.bytes += HEAD_BYTES + len(record.payload)
        return [_CHECK.pack(self._check) + head, bytes(record.payload)]


class Reader:
    """The records of a file, as far as they are whole. `valid` is where that ends; it grows while one iterates."""

    def __init__(self, data: memoryview, file_number: int) -> None:
        self.data = data
        opening, self._check = _opening(file_number)
        self.valid = len(opening) if bytes(data[: len(opening)]) == opening else 0

    def __iter__(self) -> Iterator[Record]:
        data, before = self.data, -1
        while self.valid and self.valid + HEAD_BYTES <= len(data):
            at = self.valid + _CHECK.size
            size, number, kind, stream, clock_us = _HEAD.unpack_from(data, at)
            end = self.valid + HEAD_BYTES + size
            if end > len(data):
                return
            payload = data[end - size : end]
            check = zlib.crc32(payload, zlib.crc32(data[at : at + _HEAD.size], self._check))
            if check != _CHECK.unpack_from(data, self.valid)[0] or (before >= 0 and number != before + 1):
                return
            self._check, self.valid, before = check, end, number
            yield Record(number, kind, stream, clock_us, payload)


def _opening(file_number: int) -> tuple[bytes, int]:
    begin = MAGIC + file_number.to_bytes(8, "little")
    check = zlib.crc32(begin)
    return _OPENING.pack(MAGIC, file_number, check), check
