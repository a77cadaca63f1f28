"""A scorer comes back: the newest snapshot that is whole, then what the journal holds after it.

A replay goes through the same `Session` as the stream did, with the clock of then, so that windows, alarms and events
are those of a scorer that was never disturbed.
"""

from __future__ import annotations

import dataclasses
import json
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from wheeltapper.device import fleet_on
from wheeltapper.errors import CommandError
from wheeltapper.live import LiveFleet
from wheeltapper.pack import Pack
from wheeltapper_proto import scoring_pb2

from wheeltapper_scorer import logs, opening, wire
from wheeltapper_scorer.disk import Disk
from wheeltapper_scorer.faults import CallError
from wheeltapper_scorer.records import Kind, Record
from wheeltapper_scorer.resume import ResumePoints, points_of
from wheeltapper_scorer.segments import read_segment, segment_name, segments_of, snapshot_name, snapshots_of
from wheeltapper_scorer.session import Session
from wheeltapper_scorer.settings import Settings
from wheeltapper_scorer.snapshot import Restored, read_snapshot

_NO_HANDLE = np.uint32(2**32 - 1)  # answered UNKNOWN_HANDLE, so the row changes nothing
_WARNINGS_MAX = 20  # lines in the log; all are counted
_NO_LIMIT = 2**40  # what was taken under another limit is still taken

# What words say that another hand wrote under a sound checksum.
_FOREIGN = (CallError, CommandError, ValueError, LookupError, TypeError, AttributeError, OverflowError, struct.error)

FindPack = Callable[[int, str], Pack | None]  # release and hex sha256 → the pack, None where it is gone


@dataclass(slots=True)
class Recovered:
    """What a scorer goes on with. Numbers of records, segments and streams begin after any that were ever given."""

    fleet: LiveFleet
    points: ResumePoints
    record: int = 0
    segment: int = 1
    snapshot: int = 0  # that it began with; 0: none was whole
    reached: int = 0  # the record up to which nothing is missing
    blocks: int = 0
    rows: int = 0
    unread_bytes: int = 0  # behind the valid beginning of a segment: a torn tail, or damage
    streams: int = 0  # the highest number of a stream
    files: list[str] = field(default_factory=list)  # that all this was read from; maybe none of it is on disk yet
    warnings: int = 0
    seconds: float = 0.0

    def report(self) -> dict[str, float]:
        """What a log tells of it."""
        names = ("blocks", "rows", "unread_bytes", "warnings", "seconds")
        return {name: round(getattr(self, name), 3) for name in names}


def recover(disk: Disk, pack: Pack, release: int, find: FindPack, settings: Settings) -> Recovered:
    """The fleet that a journal holds, serving `pack` at the end. Raises OSError where the disk cannot be read, and
    Refused where the pack lacks a class of which assets are held."""
    began = time.monotonic()
    replay = _Replay(disk, pack, release, find, settings)
    replay.run()
    found = replay.found
    if (found.fleet.pack.sha256, found.fleet.release) != (pack.sha256, release):
        found.fleet.swap(pack, release)
    found.seconds = time.monotonic() - began
    return found


class _Replay:
    def __init__(self, disk: Disk, pack: Pack, release: int, find: FindPack, settings: Settings) -> None:
        self._disk, self._pack, self._release, self._find = disk, pack, release, find
        self._settings = dataclasses.replace(
            settings,
            rows_max=2**32 - 1,
            assets_max=_NO_LIMIT,
            message_bytes_max=_NO_LIMIT,
            bytes_waiting_max=_NO_LIMIT,
        )
        self._sessions: dict[int, tuple[Session, scoring_pb2.Open]] = {}
        self._position = -1
        self._is_behind_gap = False
        self._since: dict[str, NDArray[np.int64]] = {}
        self.found = Recovered(self._fleet(release, pack.sha256), points_of(settings))

    def run(self) -> None:
        segments = segments_of(self._disk)
        snapshots = snapshots_of(self._disk)
        first = self._restore(snapshots, segments)
        segments = [one for one in segments if one >= first]
        for place, number in enumerate(segments):
            self._replay_segment(number, is_first=place == 0)
        self.found.segment = max([0, *segments, *snapshots]) + 1

    def _fleet(self, release: int, sha256: str) -> LiveFleet:
        """An empty fleet of that pack, or of the one that will serve where it is gone."""
        pack = self._pack if sha256 == self._pack.sha256 else self._find(release, sha256)
        if pack is None:
            self._warn(f"release {release} is gone: alarms are rebuilt with release {self._release}")
            pack, release = self._pack, self._release
        return fleet_on(self._settings.device, pack, release, self._settings.capacity_max, self._settings.threads)

    def _restore(self, snapshots: list[int], segments: list[int]) -> int:
        """Take the newest snapshot that is whole; the first segment to replay."""
        for number in reversed(snapshots):
            points = points_of(self._settings)
            try:
                self._take(read_snapshot(self._disk, number, self._fleet, points.answers), points)
            except _FOREIGN as error:
                self._warn(f"snapshot {number} is of no use: {error}")
                continue
            self.found.files.append(snapshot_name(number))
            self.found.snapshot = number
            return number
        if segments and segments[0] != 1:
            self._warn(f"no snapshot is left: windows begin with segment {segments[0]}")
        return 0

    def _take(self, restored: Restored, points: ResumePoints) -> None:
        self.found.points = points
        self.found.fleet, self._position, self._since = restored.fleet, restored.position, restored.since
        self.found.points.restore(restored.points)
        newest = max((int(since.max(initial=0)) for since in self._since.values()), default=0)
        self.found.record = max(self.found.record, restored.position, newest)
        self.found.reached = max(self.found.reached, restored.position)
        self.found.streams = max(self.found.streams, restored.streams)

    def _replay_segment(self, number: int, is_first: bool) -> None:
        records = read_segment(self._disk, number)
        self.found.files.append(segment_name(number))
        for record in records:
            self.found.record = max(self.found.record, record.number)
            self.found.streams = max(self.found.streams, record.stream)
            try:
                if record.kind == Kind.BASIS:
                    self._is_behind_gap = self._lacks(json.loads(bytes(record.payload))["record"], record, is_first)
                    self._sessions.clear()  # what is still open follows
                self._replay(record)
            except _FOREIGN as error:
                self._warn(f"record {record.number} could not be replayed: {error}")
            if not self._is_behind_gap:
                self.found.reached = max(self.found.reached, record.number)
        if self._is_behind_gap:
            self._warn(f"segment {number} is behind a gap that no snapshot bridges: only what is durable comes back")
        unread = len(records.data) - records.valid
        if unread:
            self.found.unread_bytes += unread
            self._warn(f"segment {number} ends after {records.valid:,} bytes; {unread:,} behind it are torn or damaged")

    def _lacks(self, after: int | None, begin: Record, is_first: bool) -> bool:
        """Whether something is missing between what was replayed and a segment that goes on from record `after`."""
        if begin.number <= self._position:
            return False  # the snapshot holds what came before
        if is_first and self._position < 0:
            return after is None  # else nothing better is left
        return after != self.found.reached

    def _replay(self, record: Record) -> None:
        payload = bytes(record.payload)
        if record.kind == Kind.RELEASE:
            self._change_release(record.number, **json.loads(payload))
        elif record.kind in (Kind.OPEN, Kind.REOPEN):
            self._open(record, payload)
        elif record.kind in (Kind.BLOCK, Kind.AGAIN):
            if record.stream not in self._sessions:
                raise CommandError(f"nothing is known of stream {record.stream}")
            session, told = self._sessions[record.stream]
            request = wire.decode_stream(payload)
            if not isinstance(request, scoring_pb2.Open):
                self._block(session, told, request, record)
        elif record.kind == Kind.CALL:
            call = wire.decode_unary(payload)
            session = Session(self.found.fleet, self._settings, self.found.points, is_call=True)
            session.open(call.open)
            for block in (call.events, call.readings):
                if block is not None:
                    self._block(session, call.open, block, record)
        elif record.kind == Kind.CLOSE:
            self._sessions.pop(record.stream, None)

    def _change_release(self, number: int, release: int, pack: str) -> None:
        fleet = self.found.fleet
        if number <= self._position or pack == fleet.pack.sha256:
            return
        found = self._pack if pack == self._pack.sha256 else self._find(release, pack)
        if found is None:
            self._warn(f"release {release} is gone: alarms are rebuilt without it")
        else:
            fleet.swap(found, release)

    def _open(self, record: Record, payload: bytes) -> None:
        request = wire.decode_stream(payload)
        if not isinstance(request, scoring_pb2.Open):
            return
        if record.kind == Kind.REOPEN:  # a later one may have said otherwise of its attributes
            del request.attributes[:], request.attribute_values[:]
        known = self._sessions.get(record.stream)
        if known is None or (record.kind == Kind.OPEN and self._is_another(known[1], request)):
            known = Session(self.found.fleet, self._settings, self.found.points), request
        session, told = known
        session.open(request)
        self._sessions[record.stream] = session, told

    def _is_another(self, told: scoring_pb2.Open, request: scoring_pb2.Open) -> bool:
        """Whether an Open is not of the stream that is known under its number: that one's end is missing, and a journal
        of before the basis gave its number again."""
        try:
            speaker = opening.speaker(told, self.found.fleet.class_names(), self._settings)
            opening.check_again(speaker, request)
        except CallError:
            return True
        return False

    def _block(
        self, session: Session, told: scoring_pb2.Open, block: wire.Readings | wire.Events, record: Record
    ) -> None:
        if self._is_behind_gap and told.ack != scoring_pb2.ACK_LEVEL_DURABLE:
            return  # its windows would be as they never were; without it they are as they were once
        since, is_whole = self._since.get(told.asset_class), True
        if since is not None:
            rows = session.rows_of(block.handles)
            inside = (rows >= 0) & (rows < len(since))
            seen = inside & (since[np.where(inside, rows, 0)] >= record.number)
            if seen.any():
                is_whole = False  # an answer about these rows is in the snapshot, or was heard
                block = block._replace(handles=np.where(seen, _NO_HANDLE, block.handles))
        # The memory may be ahead of the windows here; only what was answered from it then changed nothing.
        recall = record.kind == Kind.AGAIN
        if isinstance(block, wire.Readings):
            session.score(block, record.clock_us, recall, is_whole)
        else:
            session.take_events(block, record.clock_us, recall, is_whole)
        self.found.points.durable(told.gateway, told.epoch, block.sequence)
        self.found.blocks += 1
        self.found.rows += len(block.handles)

    def _warn(self, text: str) -> None:
        self.found.warnings += 1
        if self.found.warnings <= _WARNINGS_MAX:
            logs.warning("recovery", reason=text)
