"""The two calls of `wheeltapper.v1.Scoring`: bytes in, a session's answers out.

A stream is read one block at a time and not before the last answer is written, so what a gateway sends too fast waits
in its own HTTP/2 window, not in this process. Everything runs on one event loop, the owner of the fleet.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from typing import TypeAlias, TypeVar, cast

import grpc
from wheeltapper.live import LiveFleet
from wheeltapper_proto import scoring_pb2

from wheeltapper_scorer import logs, wire
from wheeltapper_scorer.counters import Counters
from wheeltapper_scorer.faults import CallError, Reason
from wheeltapper_scorer.refusal import refuse
from wheeltapper_scorer.resume import ResumePoints
from wheeltapper_scorer.session import Answered, Session
from wheeltapper_scorer.settings import Settings

SERVICE = scoring_pb2.DESCRIPTOR.services_by_name["Scoring"].full_name
_RETRY_S = 1.0

T = TypeVar("T")
Context: TypeAlias = "grpc.aio.ServicerContext[bytes, bytes]"


class Stream:
    """One open stream's way out: answers and the drain message never interleave."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._writing = asyncio.Lock()

    async def write(self, message: bytes) -> None:
        async with self._writing:
            await self._context.write(message)


class ScoringService:
    def __init__(self, fleet: LiveFleet, settings: Settings, counters: Counters) -> None:
        self._fleet = fleet
        self._settings = settings
        self._counters = counters
        self._points = ResumePoints(settings.gateways_max)
        self._streams: set[Stream] = set()
        self._no_streams = asyncio.Event()
        self._no_streams.set()
        self._draining = False

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
        return await self._guarded(self._answer(raw), context)

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
        self._counters.refused += 1
        return await refuse(context, refusal)

    async def _answer(self, raw: bytes) -> bytes:
        self._check_open()
        request = wire.decode_unary(raw)
        session = Session(self._fleet, self._settings, self._points)
        opened = session.open(request.open)
        revisions: list[wire.Scores] = []
        if request.events is not None:
            taken = session.take_events(request.events, _now_us())
            self._count(taken)
            revisions += taken.revisions
        answered = session.score(request.readings, _now_us())
        self._count(answered)
        revisions += answered.revisions
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
        if len(self._streams) >= self._settings.streams_max:
            raise CallError(
                Reason.TOO_MANY_STREAMS, f"this scorer serves at most {self._settings.streams_max:,} streams", _RETRY_S
            )
        stream = Stream(context)
        self._streams.add(stream)
        self._no_streams.clear()
        try:
            session = Session(self._fleet, self._settings, self._points)
            raw = await self._first(context)
            while raw is not grpc.aio.EOF:
                await self._respond(session, stream, wire.decode_stream(cast(bytes, raw)))
                raw = await context.read()
        finally:
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
        self, session: Session, stream: Stream, request: scoring_pb2.Open | wire.Readings | wire.Events
    ) -> None:
        if isinstance(request, scoring_pb2.Open):
            opened = session.open(request)
            logs.info("opened", gateway=request.gateway, asset_class=request.asset_class, assets=len(request.asset_ids))
            await stream.write(wire.encode_opened(opened))
            return
        if isinstance(request, wire.Readings):
            answered = session.score(request, _now_us())
        else:
            answered = session.take_events(request, _now_us())
        self._count(answered)
        messages = [wire.encode_opened(answered.reopened)] if answered.reopened is not None else []
        messages += [wire.encode_revisions(block) for block in answered.revisions]
        messages.append(wire.encode_scores(answered.scores))
        for message in messages:
            await stream.write(message)
        session.answered(request.sequence)

    def _check_open(self) -> None:
        if self._draining:
            raise CallError(Reason.DRAINING, "this scorer is going away; another one serves", _RETRY_S)

    def _count(self, answered: Answered) -> None:
        self._counters.count_rows(answered.scores.status)
        self._counters.revisions += sum(len(block.handles) for block in answered.revisions)


def _now_us() -> int:
    return time.time_ns() // 1_000
