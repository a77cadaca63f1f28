"""The two calls of `wheeltapper.v1.Scoring`: bytes in, a session's answers out.

A stream is read one block at a time and not before the last answer is written, so what a gateway sends too fast waits
in its own HTTP/2 window, not in this process. Everything runs on one event loop, the owner of the fleet.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeAlias, TypeVar, cast

import grpc
from wheeltapper.live import LiveFleet
from wheeltapper_proto import scoring_pb2

from wheeltapper_scorer import logs, silence, wire
from wheeltapper_scorer.access import Access, Caller
from wheeltapper_scorer.acknowledging import Acknowledging
from wheeltapper_scorer.clock import Clock
from wheeltapper_scorer.counters import Counters
from wheeltapper_scorer.faults import CallError, Reason
from wheeltapper_scorer.journal import Journal
from wheeltapper_scorer.metrics import Gauges
from wheeltapper_scorer.records import Kind
from wheeltapper_scorer.refusal import refuse
from wheeltapper_scorer.resume import ResumePoints, points_of
from wheeltapper_scorer.session import Answered, Session
from wheeltapper_scorer.settings import Settings
from wheeltapper_scorer.switch import Switch
from wheeltapper_scorer.turns import Turns

SERVICE = scoring_pb2.DESCRIPTOR.services_by_name["Scoring"].full_name
_RETRY_S = 1.0
_GREETING = 2  # messages of a new stream that go before those of others: its Open, and its first block

T = TypeVar("T")
Context: TypeAlias = "grpc.aio.ServicerContext[bytes, bytes]"


class Stream:
    """One open stream's way out: answers and the drain message never interleave."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._writing = asyncio.Lock()
        self.messages = 0  # heard

    async def write(self, message: bytes) -> None:
        async with self._writing:
            await self._context.write(message)


class ScoringService:
    def __init__(
        self,
        fleet: LiveFleet,
        settings: Settings,
        counters: Counters,
        points: ResumePoints | None = None,
        journal: Journal | None = None,
        access: Access | None = None,
        switch: Switch | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._fleet = fleet
        self._settings = settings
        self._counters = counters
        self._points = points or points_of(settings)
        self._journal = journal
        self._access = access or Access()
        self._switch = switch or Switch()
        self._clock = clock or Clock()
        self._turns = Turns(settings.wait_s_max, settings.bytes_waiting_max, self._clock.seconds)
        self._calls = 0
        self._streams: set[Stream] = set()
        self._no_streams = asyncio.Event()
        self._no_streams.set()
        self._draining = False

    def gauges(self) -> Gauges:
        """How it stands now. Any thread may ask."""
        fleet, now_us = self._fleet, self._clock.now_us()
        silent = {name: silence.silent(fleet, name, now_us, self._settings) for name in fleet.class_names()}
        off = {name: self._switch.off(name, fleet.assets(name)) for name in silent}
        return Gauges(
            ready=not self._draining,
            journal_failing=self._journal is not None and self._journal.failed,
            release=fleet.release,
            streams=len(self._streams),
            blocks_waiting=self._turns.waiting,
            wait_seconds=self._turns.waited_s,
            assets={name: len(those) for name, those in silent.items()},
            silent={name: int(those.sum()) for name, those in silent.items()},
            blocked={name: int(those.sum()) for name, those in off.items()},
        )

    def handler(self) -> grpc.GenericRpcHandler:
        """Both calls as grpc wants them, without serializers: `wire` reads and writes the bytes."""
        return grpc.method_handlers_generic_handler(
            SERVICE,
            {
                "Score": grpc.unary_unary_rpc_method_handler(self._score),
                "StreamScores": grpc.stream_stream_rpc_method_handler(self._stream_scores),
            },
        )

    async def drain(self, reason: str, within_s: float) -> int:
        """Refuse new calls, ask every stream to half-close, and wait. How many streams were still there at the end."""
        self._draining = True
        farewell = wire.encode_drain(reason)
        tellers = [asyncio.ensure_future(stream.write(farewell)) for stream in self._streams]
        try:
            async with asyncio.timeout(within_s):
                await self._no_streams.wait()
        except TimeoutError:
            pass
        for teller in tellers:
            teller.cancel()
        await asyncio.gather(*tellers, return_exceptions=True)
        return len(self._streams)

    async def _score(self, raw: bytes, context: Context) -> bytes:
        self._counters.calls += 1
        return await self._guarded(self._call(raw, context), context)

    async def _stream_scores(self, _requests: object, context: Context) -> None:
        self._counters.streams += 1
        await self._guarded(self._converse(context), context)

    async def _guarded(self, work: Awaitable[T], context: Context) -> T:
        try:
            return await work
        except CallError as error:
            refusal = error
        except Exception:  # a fault of ours: the log gets the traceback, the caller a reason
            if context.done():
                raise  # the caller left while it was being answered
            self._counters.faults += 1
            logs.fault("a call failed")
            refusal = CallError(Reason.INTERNAL, "the scorer failed; its log says why")
        self._counters.count_refusal(refusal.reason)
        return await refuse(context, refusal)

    async def _call(self, raw: bytes, context: Context) -> bytes:
        """The journey of a call: who speaks, whether there is room, its turn, its answer."""
        self._turns.called()
        self._check_open()
        caller = self._access.caller(context.auth_context())
        if self._calls >= self._settings.calls_max:
            raise CallError(
                Reason.TOO_MANY_CALLS, f"this scorer answers {self._settings.calls_max:,} calls at once", _RETRY_S
            )
        self._turns.admit()
        self._calls += 1
        try:
            await self._turns.take(len(raw), is_call=True)
            self._check_in_time(context)
            return await self._answer(raw, caller)
        finally:
            self._calls -= 1

    async def _answer(self, raw: bytes, caller: Caller) -> bytes:
        request = wire.decode_unary(raw)
        caller.check_open(request.open)
        session = Session(self._fleet, self._settings, self._points, self._switch, is_call=True)
        durable = request.open.ack == scoring_pb2.ACK_LEVEL_DURABLE
        if self._journal is not None:
            await self._journal.room()
            if durable:
                self._journal.check()
        revisions: list[wire.Scores] = []
        began = self._clock.seconds()
        opened, now_us = session.open(request.open), self._clock.now_us()
        session.accept(request.readings)  # before the events are taken: a call that is refused has done nothing
        if request.events is not None:
            taken = session.take_events(request.events, now_us)
            self._count(taken)
            revisions += taken.revisions
        answered = session.score(request.readings, now_us)
        self._count(answered)
        revisions += answered.revisions
        self._worked(began)
        if self._journal is not None:
            self._journal.append(Kind.CALL, 0, raw, now_us)
            if durable:
                await self._journal.on_disk(request.open.gateway, request.open.epoch, request.readings.sequence)
        response = wire.encode_unary(opened, answered.scores, wire.joined(revisions) if revisions else None)
        if len(response) > self._settings.message_bytes_max:
            raise CallError(
                Reason.ANSWER_TOO_LARGE,
                f"the rows were taken, but their answer has {len(response):,} bytes, more than "
                f"{self._settings.message_bytes_max:,}; send fewer rows at once, or use StreamScores",
            )
        return response

    async def _converse(self, context: Context) -> None:
        """The journey of a stream: admit, open, then answer block by block until the gateway half-closes."""
        self._check_open()
        caller = self._access.caller(context.auth_context())
        if len(self._streams) >= self._settings.streams_max:
            raise CallError(
                Reason.TOO_MANY_STREAMS, f"this scorer serves at most {self._settings.streams_max:,} streams", _RETRY_S
            )
        self._turns.admit()
        stream = Stream(context)
        self._streams.add(stream)
        self._no_streams.clear()
        kept = Acknowledging(self._journal, stream.write) if self._journal is not None else None
        try:
            session = Session(self._fleet, self._settings, self._points, self._switch)
            raw = await self._first(context)
            while raw is not grpc.aio.EOF:
                await self._turns.take(len(cast(bytes, raw)), is_new=stream.messages < _GREETING)
                stream.messages += 1
                self._check_in_time(context)
                caller.check()
                await self._respond(caller, session, stream, cast(bytes, raw), kept)
                raw = await context.read()
            if kept is not None:
                await kept.finish()
        except asyncio.CancelledError:
            if kept is None or kept.refusal is None:
                raise
            cast("asyncio.Task[None]", asyncio.current_task()).uncancel()
            raise kept.refusal from None
        finally:
            if kept is not None:
                kept.close()
            self._streams.discard(stream)
            if not self._streams:
                self._no_streams.set()

    async def _first(self, context: Context) -> object:
        try:
            async with asyncio.timeout(self._settings.open_s):
                return await context.read()
        except TimeoutError:
            raise CallError(
                Reason.OPEN_TIMEOUT, f"expected Open within {self._settings.open_s:g} s; found silence"
            ) from None

    async def _respond(
        self, caller: Caller, session: Session, stream: Stream, raw: bytes, kept: Acknowledging | None
    ) -> None:
        request = wire.decode_stream(raw)
        if kept is not None:
            await kept.room()
        now_us = self._clock.now_us()
        if isinstance(request, scoring_pb2.Open):
            caller.check_open(request)
            began = self._clock.seconds()
            opened = session.open(request)
            self._worked(began)
            if kept is not None:
                kept.opened(request, opened, raw, now_us)
            logs.info("opened", gateway=request.gateway, asset_class=request.asset_class, assets=len(request.asset_ids))
            await stream.write(wire.encode_opened(opened))
            return
        began = self._clock.seconds()
        if isinstance(request, wire.Readings):
            answered = session.score(request, now_us)
        else:
            answered = session.take_events(request, now_us)
        self._worked(began)
        on_disk = kept.took(raw, answered, request.sequence) if kept is not None else None
        self._count(answered)
        if answered.reopened is not None:
            await stream.write(wire.encode_opened(answered.reopened))
        for message in answered.messages:
            await stream.write(message)
        session.answered(request.sequence)
        if kept is not None:
            kept.answered(request.sequence, on_disk)

    def _check_open(self) -> None:
        if self._draining:
            raise CallError(Reason.DRAINING, "this scorer is going away; another one serves", _RETRY_S)

    def _check_in_time(self, context: Context) -> None:
        """Nobody waits for an answer after the deadline: the kernel is spared it."""
        left_s = context.time_remaining()
        if left_s is not None and left_s <= 0:
            self._counters.expired += 1
            raise CallError(Reason.EXPIRED, "the deadline passed before the block had its turn")

    def _worked(self, began: float) -> None:
        """Work that held the event loop since `began` is done: the turns share it out."""
        seconds = self._clock.seconds() - began
        self._turns.done(seconds)
        self._counters.count_seconds(seconds)

    def _count(self, answered: Answered) -> None:
        self._counters.count_rows(answered.scores.status, answered.scores.health)
        self._counters.revisions += sum(len(block.handles) for block in answered.revisions)
