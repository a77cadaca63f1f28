"""One gateway's conversation with a scorer: open, send with credit, settle what is answered, reconnect and resume.

Three threads: ours supervises and decides when to connect again, a second reads responses, and gRPC's own pulls
requests; a stuck server can block the last two. All state is guarded by `changed`, which the gateway shares. Unsettled
blocks are sent again under their own numbers first; only then new ones are sealed.
"""

from __future__ import annotations

import random
import threading
from array import array
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc
from wheeltapper_command.errors import CommandError, Refused
from wheeltapper_proto import scoring_pb2 as contract

from wheeltapper_gateway.delivery import Counters, Delivery, Identity
from wheeltapper_gateway.settings import ASSETS_PER_OPEN, Clock, Settings
from wheeltapper_gateway.spool import Block, Kind, Name, Spool
from wheeltapper_gateway.wire import (
    METHOD,
    Columns,
    ProtocolError,
    Scores,
    decode_response,
    encode_events,
    encode_open,
    encode_readings,
)

_TICK_SECONDS = 0.25
# The caller's fault: asking again unchanged will not help, though a mended server may.
_REFUSALS = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.OUT_OF_RANGE,
}


@dataclass(slots=True)
class _Flight:
    block: Block
    sent_at: float = 0.0
    sent: bool = False
    answered: bool = False
    revisions: deque[Scores] = field(default_factory=deque)  # heard ahead of the answer that they belong to


class Link:
    """Runs in the background from `start` to `stop`. Public attributes are read under `changed`."""

    def __init__(
        self,
        identity: Identity,
        settings: Settings,
        spool: Spool,
        changed: threading.Condition,
        connect: Callable[[], grpc.Channel],
        deliver: Callable[[Delivery], None],
        clock: Clock,
        jitter: random.Random,
    ) -> None:
        self._identity, self._settings, self._spool = identity, settings, spool
        self._changed, self._connect, self._deliver = changed, connect, deliver
        self._clock, self._jitter = clock, jitter
        self._thread = threading.Thread(target=self._run, name=f"wheeltapper {identity.gateway}", daemon=True)
        self._flights = {block.sequence: _Flight(block, sent=True) for block in spool.sealed()}
        self._call: Any = None
        self._stopping = False
        self._begin()
        self.counters = Counters()
        self.failure: CommandError | None = None  # why the latest conversation ended, if it ended badly
        self.refused = False  # the server said that the fault is ours
        self.opened: contract.Opened | None = None
        self._columns = Columns()

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout: float) -> None:
        """End the conversation and the thread. Unsettled blocks stay in the spool."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
            idle = not self._flights
        if not idle:
            self.hang_up()
        self._thread.join(timeout)
        if self._thread.is_alive():
            self.hang_up()
            self._thread.join()

    def hang_up(self) -> None:
        """Cut the connection at once; the link goes on with the next one unless it is stopped."""
        call = self._call
        if call is not None:
            call.cancel()

    @property
    def unsettled_rows(self) -> int:
        """Rows accepted and not yet settled."""
        return self._spool.waiting_rows + sum(len(flight.block) for flight in self._flights.values())

    def _begin(self) -> None:
        """A conversation starts with nothing said."""
        self._over = self._draining = False
        self._handles: list[int] = []
        self._ids: dict[int, str] = {}
        self._asked: deque[Sequence[str]] = deque()  # the asset ids of each Open not yet answered
        self._asked_assets = self._asked_codes = 0
        self._heard_at = self._clock.monotonic()
        self._resend = deque(sorted(self._flights))
        self._revised_rows = 0  # that wait for the answer of their block
        for flight in self._flights.values():
            flight.revisions.clear()
        self._opened_here = self._progress = False
        self._cause: CommandError | None = None  # why this conversation ended

    def _run(self) -> None:
        failures = conversations = 0
        while True:
            with self._changed:
                if self._stopping:
                    return
                self._begin()
                self.counters.reconnects += conversations > 0
            conversations += 1
            began = self._clock.monotonic()
            self._converse()
            with self._changed:
                lasted = self._clock.monotonic() - began > self._settings.backoff_seconds_max
                # Opening alone is no progress: a block that breaks every conversation must not be sent in a hot loop.
                failures = 0 if self._progress or self._draining or lasted else failures + 1
                if self._cause is not None and not self._stopping:
                    self.failure = self._cause
                self._changed.notify_all()
                self._pause(failures)

    def _pause(self, failures: int) -> None:
        """Full jitter, so that a thousand gateways do not come back in the same second."""
        limit = min(self._settings.backoff_seconds * 2.0 ** min(failures, 32), self._settings.backoff_seconds_max)
        until = self._clock.monotonic() + self._jitter.uniform(0.0, limit)
        while not self._stopping and (left := until - self._clock.monotonic()) > 0:
            self._clock.wait(self._changed, left)

    def _converse(self) -> None:
        channel = self._connect()
        call = self._call = channel.stream_stream(METHOD)(self._requests())
        reader = threading.Thread(target=self._read, args=(call,), name=f"{self._thread.name} reader", daemon=True)
        reader.start()
        try:
            with self._changed:
                while not self._over:
                    self._clock.wait(self._changed, _TICK_SECONDS)
                    if self._is_silent():
                        self._cause = self._cause or CommandError("the scorer has been silent with blocks in flight")
                        break
        finally:
            call.cancel()
            reader.join()
            self._call = None
            channel.close()

    def _is_silent(self) -> bool:
        waiting = self._asked or any(flight.sent_at and not flight.answered for flight in self._flights.values())
        return bool(waiting) and self._clock.monotonic() - self._heard_at > self._settings.answer_timeout_seconds

    def _read(self, call: Any) -> None:
        """Responses until the conversation is over: the reader's thread."""
        cause: CommandError | None = None
        try:
            for data in call:
                self._take(data)
        except grpc.RpcError as error:
            cause = self._explain(error)
        except CommandError as error:  # a protocol error, or a spool that cannot be written: try again later
            cause = error
        finally:
            with self._changed:
                self._cause = self._cause or cause
                self._over = True
                self._changed.notify_all()

    def _explain(self, error: grpc.RpcError) -> CommandError:
        code, details = error.code(), error.details()
        self.refused = code in _REFUSALS
        if self.refused:
            return Refused(f"the scorer refused: {details} ({code.name})", "mend the request or the scorer's release")
        return CommandError(
            f"no connection to the scorer: {details} ({code.name})", "the gateway tries again by itself"
        )

    # Requests: gRPC's thread.

    def _requests(self) -> Iterator[bytes]:
        try:
            while (request := self._next()) is not None:
                yield request
        except CommandError as error:  # raised here it would be lost in gRPC's thread
            with self._changed:
                self._cause = self._cause or error
            self.hang_up()

    def _next(self) -> bytes | None:
        """The next message once there is one, or None to half-close."""
        with self._changed:
            while not (self._over or self._draining):
                request = None if self._asked else self._open_request()
                if request is None and not (self._asked or self._draining):
                    request = self._block_request()
                if request is not None:
                    return request
                if self._stopping and not self._flights:
                    return None
                self._clock.wait(self._changed, self._patience())
            return None

    def _patience(self) -> float:
        """How long to wait before looking again although nothing was notified."""
        linger = self._settings.batch_seconds
        return min(linger / 4, _TICK_SECONDS) if linger and self._spool.waiting_rows else _TICK_SECONDS

    def _open_request(self) -> bytes | None:
        """An Open for the names that the server has not been told yet, or None."""
        assets, codes = self._spool.names(Name.ASSET), self._spool.names(Name.CODE)
        fresh = assets[self._asked_assets : self._asked_assets + ASSETS_PER_OPEN]
        if self._opened_here and len(codes) > self._asked_codes:
            self._draining = True  # a later Open may add assets only: new event codes need a new stream
            return None
        if self._opened_here and not fresh:
            return None
        self._asked.append(fresh)
        self._asked_assets += len(fresh)
        self._asked_codes = len(codes)
        self._heard_at = self._clock.monotonic()
        who = self._identity
        unknown = [float("nan")] * len(who.attributes)
        return encode_open(
            who.gateway,
            self._spool.epoch,
            who.asset_class,
            who.sensors,
            fresh,
            codes,
            self._settings.durable,
            self._settings.want_features,
            who.attributes,
            [value for asset in fresh for value in who.attributes_of.get(asset, unknown)],
            self._settings.reasons,
            self._settings.reasons_always,
        )

    def _block_request(self) -> bytes | None:
        """An unsettled block again, or the next new one while there is credit."""
        now_us, settings = self._clock.time_us(), self._settings
        live_us = int(settings.live_seconds * 1e6)
        while self._resend and self._resend[0] not in self._flights:  # settled by what Opened said
            self._resend.popleft()
        if self._resend:
            flight = self._flights[self._resend.popleft()]
        elif len(self._flights) < settings.in_flight_blocks_max:
            block = self._spool.seal(now_us, settings.batch_rows, live_us, int(settings.batch_seconds * 1e6))
            if block is None:
                return None
            flight = self._flights[block.sequence] = _Flight(block)
        else:
            return None
        block = flight.block
        if flight.sent:
            self.counters.resent_rows += len(block)
        else:
            self.counters.sent_rows += len(block)
        if not any(other.sent_at and not other.answered for other in self._flights.values()):
            self._heard_at = self._clock.monotonic()  # silence counts from the first block of a burst
        flight.sent, flight.sent_at = True, self._clock.monotonic()
        handles = array("I", map(self._handles.__getitem__, block.assets))
        settled = next(iter(self._flights)) - 1  # they are in the order of their numbers
        if block.kind is Kind.EVENTS:
            return encode_events(block.sequence, handles, block.times, block.cells, settled)
        historical = block.historical or now_us - block.accepted_us > live_us
        return encode_readings(block.sequence, handles, block.times, block.cells, historical, settled)

    # Responses: our thread.

    def _take(self, data: bytes) -> None:
        with self._changed:
            self._heard_at = self._clock.monotonic()
            body, message = decode_response(data, self._columns)
            if isinstance(message, contract.Opened):
                self._take_opened(message)
            elif isinstance(message, Scores):
                if not self._opened_here:
                    raise ProtocolError("expected Opened first, found a score block")
                self._take_scores(message, revision=body == "revisions")
            elif isinstance(message, contract.Ack):
                self._settle([n for n, flight in self._flights.items() if n <= message.sequence and flight.answered])
            else:
                self._draining = True
            self._changed.notify_all()

    def _take_opened(self, opened: contract.Opened) -> None:
        outputs, named = tuple(opened.outputs), tuple(opened.features)
        self._columns = Columns(outputs, named if self._settings.want_features else (), named)
        if self._opened_here and list(opened.handles) == self._handles:  # a new release answers other columns
            self.opened = opened
            return
        asked = self._asked.popleft() if self._asked else []
        if len(opened.handles) != len(asked):
            raise ProtocolError(f"expected {len(asked)} handles, found {len(opened.handles)}")
        if opened.rows_max and opened.rows_max < self._settings.batch_rows:
            self.refused = True
            raise Refused(
                f"the scorer takes blocks of at most {opened.rows_max} rows, batch_rows is {self._settings.batch_rows}",
                f"set batch_rows to {opened.rows_max} or less",
            )
        self._handles.extend(opened.handles)
        self._ids.update(zip(opened.handles, asked, strict=True))
        self.opened, self._opened_here, self.refused, self.failure = opened, True, False, None
        # Safe at the server and answered here: nothing is left to ask. The unanswered are asked again.
        self._settle([n for n, flight in self._flights.items() if n <= opened.resume_sequence and flight.answered])

    def _take_scores(self, scores: Scores, revision: bool) -> None:
        flight = self._flights.get(scores.sequence)
        if flight is None:
            return  # settled before the connection broke
        if revision:
            if scores and not flight.answered:
                self._hold(flight, scores)
            return
        if not flight.answered:
            self._tell(scores, flight)
        # Only now: a program that is killed before it was told asks again.
        flight.answered = True
        if not self._settings.durable:
            self._settle([scores.sequence])

    def _hold(self, flight: _Flight, revised: Scores) -> None:
        """Keep revisions until they are told with the answer: if that is lost, all of it comes again. A scorer that
        revises without end is not kept without end."""
        flight.revisions.append(revised)
        self._revised_rows += len(revised)
        while self._revised_rows > self._settings.answers_rows_max and flight.revisions:
            lost = len(flight.revisions.popleft())
            self._revised_rows -= lost
            self.counters.dropped_answers += lost

    def _tell(self, scores: Scores, flight: _Flight) -> None:
        """Hand over what was answered for the first time: the revisions, then the block's own scores."""
        if len(scores) != len(flight.block):
            raise ProtocolError(
                f"expected {len(flight.block)} rows in the answer to block {scores.sequence}, found {len(scores)}"
            )
        for revised in flight.revisions:
            self._revised_rows -= len(revised)
            self.counters.revised_rows += len(revised)
            names = [self._ids.get(handle, "") for handle in revised.handles]
            self._deliver(Delivery(revised, names, self._columns, revision=True, latency_seconds=0.0))
        flight.revisions.clear()
        self.counters.answered_rows += len(scores)
        if flight.block.kind is Kind.EVENTS:
            self.counters.refused_events += len(scores) - scores.status.count(contract.ROW_STATUS_TAKEN)
            return
        latency = self._clock.monotonic() - flight.sent_at
        ids = self._spool.names(Name.ASSET)
        assets = [ids[number] for number in flight.block.assets]
        self._deliver(Delivery(scores, assets, self._columns, revision=False, latency_seconds=latency))

    def _settle(self, sequences: list[int]) -> None:
        if sequences:
            self._progress = True
            self._spool.settle(sequences)  # first: a spool that fails here keeps the block, and it is asked again
            for sequence in sequences:
                del self._flights[sequence]
