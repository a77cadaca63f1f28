"""What a scorer took, on disk before it is acknowledged: all blocks that came while one sync ran share the next one.
Blocks of gateways that have more in flight wait a little longer for company: a sync costs the same for one as for many.

The event loop appends records in the order in which it scored them; a thread of the journal's own writes and syncs. A
disk that fails ends what needs it, never the scoring: durable streams are refused until a new segment could be begun,
which is tried again and again.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass

from wheeltapper.live import LiveFleet

from wheeltapper_scorer import logs
from wheeltapper_scorer.copying import copied, on
from wheeltapper_scorer.counters import Counters
from wheeltapper_scorer.disk import Disk
from wheeltapper_scorer.faults import CallError, Reason
from wheeltapper_scorer.records import HEAD_BYTES, Kind, Record
from wheeltapper_scorer.recovery import Recovered
from wheeltapper_scorer.resume import ResumePoints
from wheeltapper_scorer.segments import Segments, retain
from wheeltapper_scorer.settings import Settings

_PAUSE_S = 0.000_5  # without a block for so long, a sync waits for no more
_STATE_PER_JOURNAL = 2  # bytes of a snapshot for one byte of journal, at most


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A block on its way to the disk, and who waits for it."""

    number: int
    gateway: str
    epoch: int
    sequence: int
    waiter: asyncio.Future[None]


class Journal:
    """Belongs to the event loop. `start` before the first `append`; `close` writes and syncs what is left."""

    def __init__(
        self,
        disk: Disk,
        recovered: Recovered,
        settings: Settings,
        counters: Counters,
        threads: Executor | None = None,
    ) -> None:
        """threads: where files are written, by default one thread for the journal and one for snapshots."""
        self._disk, self._settings, self._counters = disk, settings, counters
        self._fleet: LiveFleet = recovered.fleet
        self._points: ResumePoints = recovered.points
        self._segments = Segments(disk, recovered.segment)
        self._writer = threads or ThreadPoolExecutor(1, "wheeltapper journal")
        self._copier = threads or ThreadPoolExecutor(1, "wheeltapper snapshot")
        self._read = recovered.files  # this life goes on from them …
        self._reached = recovered.reached  # … up to this record
        self._fallback = recovered.snapshot  # the newest snapshot that is known to be whole; 0: none
        self._segment = recovered.segment  # all segments before it are on disk, and their blocks acknowledged
        self._last = recovered.record  # number of the newest record
        self._stream = recovered.streams
        self._streams: dict[int, list[bytes]] = {}  # each open stream's Opens, to be repeated in a new segment
        self._release: tuple[int, str] | None = None  # as the journal says
        self._pending: list[Record] = []
        self._pending_bytes = 0
        self._wanted = self._synced = recovered.record  # records that somebody waits for, and that are on disk
        self._urgent = False  # some gateway may have sent all that it may, and stand still
        self._since_snapshot_bytes = self._snapshot_bytes = 0  # of journal, and of the newest snapshot
        self._waiting: deque[_Waiting] = deque()
        self._work, self._room, self._snapshot_due = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._room.set()
        self._failed: OSError | None = None
        self._unsafe: OSError | None = None  # what was read at the start is not on disk, and no snapshot holds it yet
        self._gaps = self._bridged = 0  # how often it failed, and for how many of these a snapshot has made up
        self._closing = self._is_hurried = False
        self._tasks: list[asyncio.Task[None]] = []
        if recovered.blocks:
            self._snapshot_due.set()

    async def start(self) -> None:
        """Make safe what was read, and begin the first segment. Where either cannot be, the journal begins as one that
        failed; what was read and is not safe is so with the first snapshot, and until then no stream is durable."""
        is_safe = False
        try:
            await on(self._writer, self._sync_what_was_read)
            is_safe = True
            await on(self._writer, self._segments.begin)
        except OSError as error:
            self._unsafe = None if is_safe else error
            self._fail(error)
        else:
            self._begin_records(Kind.REOPEN, self._reached)
        self._tasks.append(asyncio.create_task(self._write()))

    def _sync_what_was_read(self) -> None:
        """A killed process may have left it to the system, and resume points are told of it."""
        for name in self._read:
            self._disk.sync(name)

    async def close(self, snapshot_s: float = 60.0) -> None:
        """Write and sync what is left, and end. A disk that has failed is tried once more: with a snapshot, which may
        take so many seconds, nothing is lost after all. Afterwards nothing can be appended."""
        self._closing = True
        self._work.set()
        hurry = asyncio.get_running_loop().call_later(snapshot_s, self._hurry)
        await asyncio.gather(*self._tasks, return_exceptions=True)
        hurry.cancel()
        if self.has_gap:
            logs.warning("journal ends with a gap", lost="what was answered and not durable since the disk failed")
        await on(self._writer, self._segments.give_up)
        self._writer.shutdown()
        self._copier.shutdown()

    def _hurry(self) -> None:
        self._is_hurried = True
        self._work.set()

    @property
    def failed(self) -> bool:
        """Whether durable streams are refused."""
        return self._failed is not None or self._unsafe is not None

    @property
    def has_gap(self) -> bool:
        """Whether something that was scored while the disk failed is neither in the journal nor yet in a snapshot."""
        return self._bridged != self._gaps

    def check(self) -> None:
        """Raises CallError JOURNAL_FAILED while nothing can be made durable."""
        error = self._failed or self._unsafe
        if error is not None:
            raise self._refusal(error)

    def _refusal(self, error: OSError) -> CallError:
        return CallError(
            Reason.JOURNAL_FAILED,
            f"the journal's disk failed ({error.strerror or error}): blocks are scored, none is durable",
            self._settings.journal_retry_s,
        )

    async def room(self) -> None:
        """Wait while more bytes are on their way to the disk than allowed."""
        await self._room.wait()

    def open_stream(self) -> int:
        """A number for a stream that will be journaled."""
        self._stream += 1
        self._streams[self._stream] = []
        return self._stream

    def opened(self, stream: int, raw: bytes, now_us: int) -> None:
        """A stream has opened, or has added assets."""
        self._streams[stream].append(raw)
        self.append(Kind.OPEN, stream, raw, now_us)

    def close_stream(self, stream: int) -> None:
        if self._streams.pop(stream, None):
            self.append(Kind.CLOSE, stream, b"", 0)

    def append(self, kind: Kind, stream: int, raw: bytes, now_us: int) -> None:
        """Keep what was just done to the fleet. While the disk fails nothing is kept, and counted."""
        if self._failed is not None:
            self._counters.journal_skipped += 1
            return
        self._tell_release()
        self._add(kind, stream, raw, now_us)
        if self._pending_bytes > self._settings.pending_bytes_max:
            self._room.clear()
        self._work.set()

    def on_disk(self, gateway: str, epoch: int, sequence: int, urgent: bool = True) -> asyncio.Future[None]:
        """Done once everything appended so far is on disk, of which that block was the last; CallError JOURNAL_FAILED
        where it does not get there. urgent: whoever sent it may be waiting for nothing else."""
        self.check()
        self._urgent |= urgent
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._wanted = self._last
        self._waiting.append(_Waiting(self._last, gateway, epoch, sequence, waiter))
        return waiter

    async def _all_on_disk(self) -> None:
        """Wait until everything appended so far is on disk. Raises CallError JOURNAL_FAILED."""
        if self._failed is not None:
            raise self._refusal(self._failed)
        if self._last > self._synced:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._wanted = self._last
            self._waiting.append(_Waiting(self._last, "", 0, 0, waiter))
            self._work.set()
            await waiter

    def _add(self, kind: Kind, stream: int, raw: bytes, now_us: int) -> int:
        self._last += 1
        self._pending.append(Record(self._last, kind, stream, now_us, raw))
        self._pending_bytes += HEAD_BYTES + len(raw)
        return self._last

    def _tell_release(self) -> None:
        now = self._fleet.release, self._fleet.pack.sha256
        if now != self._release:
            self._release = now
            self._add(Kind.RELEASE, 0, json.dumps({"release": now[0], "pack": now[1]}).encode(), 0)

    def _begin_records(self, kind: Kind, after: int | None) -> None:
        """What a segment must begin with so that it can be read without the ones before. after: the record that it goes
        on from; None where only a snapshot can say."""
        self._add(Kind.BASIS, 0, json.dumps({"record": after}).encode(), 0)
        self._release = None
        self._tell_release()
        for stream, opens in self._streams.items():
            for raw in opens:
                self._add(kind, stream, raw, 0)

    async def _write(self) -> None:
        """Group commit, for ever: what came meanwhile goes to disk together."""
        snapshots = asyncio.create_task(self._keep_snapshots())
        while True:
            await self._work.wait()
            self._work.clear()
            if self._failed is not None:
                await self._try_again()
                if self._closing and self._failed is not None:
                    break
                continue
            await self._gather()
            records, self._pending, written_bytes = self._pending, [], self._pending_bytes
            self._pending_bytes, self._urgent = 0, False
            may_bridge = self.has_gap and not snapshots.done() and not self._is_hurried
            ending = self._closing and not records and not may_bridge
            sync = self._wanted > self._synced or ending
            if not records and not sync:
                continue
            written = records[-1].number if records else self._wanted
            is_full = self._segments.bytes + written_bytes > self._settings.segment_bytes_max
            if is_full:
                self._begin_records(Kind.REOPEN, self._last)
            try:
                await on(self._writer, self._put, records, sync, is_full)
            except OSError as error:
                self._fail(error)
                if self._closing:
                    break
                continue
            if sync or is_full:
                self._advance(written)
            self._since_snapshot_bytes += written_bytes
            if is_full:
                self._segment = self._segments.number
                if self._since_snapshot_bytes * _STATE_PER_JOURNAL >= self._snapshot_bytes:
                    self._snapshot_due.set()
            self._room.set()
            if ending:
                break
            if self._closing or self._pending:
                self._work.set()
        self._closing = True
        snapshots.cancel()
        await asyncio.gather(snapshots, return_exceptions=True)

    async def _gather(self) -> None:
        """Let more blocks come while they do and nobody stands still."""
        until = asyncio.get_running_loop().time() + self._settings.gather_s
        while not (self._urgent or self._closing) and self._room.is_set() and asyncio.get_running_loop().time() < until:
            before = self._last
            await asyncio.sleep(_PAUSE_S)
            if self._last == before:
                return

    def _put(self, records: list[Record], sync: bool, is_full: bool) -> None:
        """On the journal's thread."""
        if records:
            self._segments.append(records)
        if sync:
            self._segments.sync()
        if is_full:
            self._segments.begin()

    def _advance(self, number: int) -> None:
        self._synced = max(self._synced, number)
        while self._waiting and self._waiting[0].number <= self._synced:
            one = self._waiting.popleft()
            # Here and not where the Ack is sent: a snapshot of this moment must know what its segment does not repeat.
            if one.gateway:
                self._points.durable(one.gateway, one.epoch, one.sequence)
            if not one.waiter.done():
                one.waiter.set_result(None)

    def _fail(self, error: OSError) -> None:
        """Whoever waits is refused; what was on its way is forgotten, as it would be by a crash."""
        self._failed = error
        self._gaps += 1
        self._counters.journal_failures += 1
        logs.warning("journal failed", reason=str(error))
        self._segments.give_up()
        self._counters.journal_skipped += len(self._pending)
        self._pending, self._pending_bytes = [], 0
        self._room.set()
        while self._waiting:
            waiter = self._waiting.popleft().waiter
            if not waiter.done():
                waiter.set_exception(self._refusal(error))
        if not self._closing:
            asyncio.get_running_loop().call_later(self._settings.journal_retry_s, self._work.set)

    async def _try_again(self) -> None:
        """A new segment, behind whatever the failed one holds: a sync that failed is never asked again."""
        try:
            await on(self._writer, self._segments.begin)
        except OSError as error:
            self._failed = error
            if not self._closing:
                asyncio.get_running_loop().call_later(self._settings.journal_retry_s, self._work.set)
            return
        self._failed, self._segment = None, self._segments.number
        self._wanted = self._synced = self._last
        self._begin_records(Kind.OPEN, None)  # with attributes: their first Open may not have been kept
        self._snapshot_due.set()
        self._work.set()
        logs.info("journal works again", segment=self._segment)

    async def _keep_snapshots(self) -> None:
        while True:
            await self._snapshot_due.wait()
            self._snapshot_due.clear()
            if self._failed is not None:
                continue  # a journal that works again asks for one, which then goes on in its new segment
            try:
                await self._take_snapshot()
            except Exception as error:  # without snapshots the journal grows for ever: whatever it is, try again
                is_known = isinstance(error, OSError | CallError)
                logs.warning("snapshot failed", reason=str(error) if is_known else repr(error))
                if self._closing:
                    break
                await asyncio.sleep(self._settings.journal_retry_s)
                self._snapshot_due.set()
            finally:
                self._work.set()  # a journal that closes may be waiting for it

    async def _take_snapshot(self) -> None:
        """And let go of what the journal needs no more."""
        self._since_snapshot_bytes = 0
        number, gaps, began = self._segment, self._gaps, asyncio.get_running_loop().time()

        async def is_kept() -> bool:
            await self._all_on_disk()
            return self._gaps == gaps  # a failure forgets records

        what = self._fleet, self._points, self._stream
        size = await copied(self._disk, self._copier, number, *what, lambda: self._last, is_kept)
        if size is None:
            self._snapshot_due.set()
            return
        self._snapshot_bytes, self._bridged, self._unsafe = size, gaps, None
        await on(self._copier, retain, self._disk, self._fallback)
        self._fallback = number
        self._counters.snapshots += 1
        took_s = round(asyncio.get_running_loop().time() - began, 3)
        assets = sum(len(self._fleet.assets(name)) for name in self._fleet.class_names())
        logs.info("snapshot", segment=number, assets=assets, seconds=took_s)
