"""One conversation with a scorer: open, send with credit, hand over what is answered.

gRPC's thread pulls requests, and the reader's takes responses. Each serves the conversation that it was made for and
no other: what ends one is said in its own object, and a thread that hears of it late takes nothing of the next.

Unsettled blocks are sent again under their own numbers first; only then new ones are sealed. Where a scorer takes fewer
rows than a block has, those before it are settled, and then it and what follows is cut and goes on in a new epoch.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import grpc
from wheeltapper_command.errors import CommandError, Refused
from wheeltapper_proto import scoring_pb2 as contract

from wheeltapper_gateway.delivery import Delivery, Identity
from wheeltapper_gateway.ledger import Flight, Ledger
from wheeltapper_gateway.naming import Naming
from wheeltapper_gateway.settings import ASSETS_PER_OPEN, Clock, Settings, Steady
from wheeltapper_gateway.spool import Kind
from wheeltapper_gateway.wire import (
    Columns,
    ProtocolError,
    Scores,
    decode_response,
    encode_events,
    encode_open,
    encode_readings,
)

TICK_SECONDS = 0.25  # how long to wait before looking again although nothing was notified
_AGAIN = "the gateway tries again by itself"
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


def as_failure(what: str, error: BaseException) -> CommandError:
    """Whatever was raised as what `failure` shows; the traceback stays with it."""
    if isinstance(error, CommandError):
        return error
    failure = CommandError(f"{what} raised {error!r}", _AGAIN)
    failure.__cause__ = error
    return failure


class Conversation:
    """Begins with nothing said. Public attributes are read under `changed`, and none goes back to what it was."""

    def __init__(
        self,
        ledger: Ledger,
        identity: Identity,
        settings: Settings,
        changed: threading.Condition,
        deliver: Callable[[Delivery], None],
        clock: Clock,
        steady: Steady,
    ) -> None:
        self._ledger, self._identity, self._settings = ledger, identity, settings
        self._changed, self._deliver, self._clock, self._steady = changed, deliver, clock, steady
        self._live_us = int(settings.live_seconds * 1e6)
        self.over = False  # nothing is taken for it any more
        self.draining = False  # nothing more is asked; what was is still answered
        self.finishing = False  # the gateway stops: it ends once nothing is in flight
        self.progress = False  # a block was settled
        self.cause: CommandError | None = None  # why it ended, if it ended badly
        self._names = Naming(ledger.spool)
        self._columns = Columns()
        self._opened = False
        self._unsent = deque(ledger.flights)  # numbers, rising: what it has not sent yet
        self._sent_at: dict[int, float] = {}  # by number, rising: what is on its way, there or back
        self._heard_at = 0.0  # when silence began to count
        self._telling = False  # the sink is at work, and nobody reads
        self._revisions: dict[int, deque[Scores]] = {}  # heard ahead of the answer that they belong to
        self._revised_rows = 0  # in them

    def end(self, cause: CommandError | None = None) -> None:
        """It is over; the first cause that is told is the one that counts."""
        with self._changed:
            self.cause = self.cause or cause
            self.over = True
            self._changed.notify_all()

    def is_silent(self) -> bool:
        """Whether the oldest thing that the scorer owes an answer waits for too long, whatever else is answered."""
        waiting = self._expects() and not self._telling
        return waiting and self._clock.monotonic() - self._heard_at > self._settings.answer_timeout_seconds

    def _expects(self) -> bool:
        return self._names.asked is not None or bool(self._sent_at)

    def _ask(self) -> None:
        """Before a message is sent: silence counts from the first that waits for an answer."""
        if not self._expects():
            self._heard_at = self._clock.monotonic()

    def _hear(self, sequence: int) -> None:
        """Something came for a block. It counts if that is the oldest: answers come in the order of the blocks."""
        if sequence == next(iter(self._sent_at), None):
            self._heard_at = self._clock.monotonic()

    # Requests: gRPC's thread.

    def requests(self) -> Iterator[bytes]:
        """Messages until there are no more: gRPC half-closes then."""
        try:
            while (request := self._next()) is not None:
                yield request
        except Exception as error:  # in gRPC's thread it would be lost
            self.end(as_failure("making a request", error))

    def _next(self) -> bytes | None:
        """The next message once there is one, or None to half-close."""
        with self._changed:
            while not (self.over or self.draining):
                if self._names.asked is None and (request := self._open_request() or self._block_request()):
                    return request
                if self.draining or (self.finishing and not self._ledger.flights):
                    return None
                self._clock.wait(self._changed, self._patience())
            return None

    def _patience(self) -> float:
        linger = self._settings.batch_seconds
        return min(linger / 4, TICK_SECONDS) if linger and self._ledger.spool.waiting_rows else TICK_SECONDS

    def _open_request(self) -> bytes | None:
        """An Open for the names that the server has not been told yet and needs, or None."""
        names, spool = self._names, self._ledger.spool
        if not self._opened:
            names.want(self._identity.declared)
            for flight in self._ledger.flights.values():
                names.want(flight.block.assets)
            names.want(spool.waiting_assets(self._steady.now_us(), self._live_us, ASSETS_PER_OPEN))
            names.ask_codes()
        elif not names.wants:
            return None
        self._ask()
        fresh = names.ask()
        who = self._identity
        unknown = [float("nan")] * len(who.attributes)
        return encode_open(
            who.gateway,
            spool.epoch,
            who.asset_class,
            who.sensors,
            fresh,
            names.codes,
            self._settings.durable,
            self._settings.want_features,
            who.attributes,
            [value for asset in fresh for value in who.attributes_of.get(asset, unknown)],
            self._settings.reasons,
            self._settings.reasons_always,
        )

    def _block_request(self) -> bytes | None:
        """An unsettled block again, or the next new one while there is credit; before it an Open where it needs one."""
        flight = self._next_flight()
        if flight is None:
            return None
        block, now_us, ledger = flight.block, self._steady.now_us(), self._ledger
        if len(block) > ledger.rows_max:
            if ledger.is_first(block):  # nothing is on its way
                ledger.split(now_us)
                self.draining = True
            return None
        if block.kind is Kind.EVENTS and not self._names.has_codes(block):
            self.draining = True  # a later Open may add assets only: new event codes need a new stream
            return None
        if missing := self._names.missing(block):
            self._names.want(missing)
            self._names.want(ledger.spool.waiting_assets(now_us, self._live_us, ASSETS_PER_OPEN))
            if self._names.wants:
                return self._open_request()
        self._unsent.popleft()
        if flight.sent:
            ledger.counters.resent_rows += len(block)
        else:
            ledger.counters.sent_rows += len(block)
        flight.sent = True
        self._ask()
        self._sent_at[block.sequence] = self._clock.monotonic()
        handles = self._names.handles_of(block)
        settled = next(iter(ledger.flights)) - 1  # they are in the order of their numbers
        if block.kind is Kind.EVENTS:
            return encode_events(block.sequence, handles, block.times, self._names.codes_of(block), settled)
        historical = block.historical or now_us - block.accepted_us > self._live_us
        return encode_readings(block.sequence, handles, block.times, block.cells, historical, settled)

    def _next_flight(self) -> Flight | None:
        settings, flights = self._settings, self._ledger.flights
        if len(flights) - len(self._unsent) >= settings.in_flight_blocks_max:
            return None
        if not self._unsent:
            rows_max, linger_us = min(settings.batch_rows, self._ledger.rows_max), int(settings.batch_seconds * 1e6)
            block = self._ledger.spool.seal(self._steady.now_us(), rows_max, self._live_us, linger_us)
            if block is None:
                return None
            flights[block.sequence] = Flight(block)
            self._unsent.append(block.sequence)
        return flights[self._unsent[0]]

    # Responses: the reader's thread.

    def read(self, call: Iterable[bytes]) -> None:
        """Responses until the conversation is over."""
        cause: CommandError | None = None
        try:
            for data in call:
                self._take(data)
        except grpc.RpcError as error:
            cause = self._explain(error)
        except Exception as error:  # a protocol error, a sink that raised, a spool that cannot be written: try again
            cause = as_failure("reading an answer", error)
        finally:
            self.end(cause)

    def _explain(self, error: Any) -> CommandError:
        code, details = error.code(), error.details()
        with self._changed:
            flights, rows_max = self._ledger.flights, self._ledger.rows_max
            longest = max((len(flights[number].block) for number in self._sent_at), default=0)
        if longest > rows_max:
            return CommandError(f"the scorer takes {rows_max:,} rows at once now", "the gateway cuts what it sends")
        if code in _REFUSALS:
            return Refused(f"the scorer refused: {details} ({code.name})", "mend the request or the scorer's release")
        return CommandError(f"no connection to the scorer: {details} ({code.name})", _AGAIN)

    def _take(self, data: bytes) -> None:
        body, message = decode_response(data, self._columns)
        if isinstance(message, Scores) and body != "revisions":
            self._take_scores(message)
            return
        with self._changed:
            if isinstance(message, contract.Opened):
                self._take_opened(message)
            elif isinstance(message, Scores):
                self._take_revisions(message)
            elif isinstance(message, contract.Ack):
                self._settle(self._ledger.answered_to(message.sequence))
            else:
                self.draining = True
            self._changed.notify_all()

    def _take_opened(self, opened: contract.Opened) -> None:
        ledger = self._ledger
        outputs, named = tuple(opened.outputs), tuple(opened.features)
        self._columns = Columns(outputs, named if self._settings.want_features else (), named)
        if self._opened and self._names.are_all(opened.handles):  # a new release answers other columns
            ledger.opened = opened
            return
        self._names.take(opened.handles)
        self._opened, ledger.opened, ledger.failure = True, opened, None
        # Safe at the server and answered here: nothing is left to ask. The unanswered are asked again.
        self._settle(ledger.answered_to(opened.resume_sequence))
        self._unsent = deque(number for number in self._unsent if number in ledger.flights)

    def _take_revisions(self, revised: Scores) -> None:
        """Keep revisions until they are told with the answer: if that is lost, all of it comes again. A scorer that
        revises without end is not kept without end."""
        self._check_opened()
        flight = self._ledger.flights.get(revised.sequence)
        if flight is None or revised.sequence not in self._sent_at:
            return
        self._hear(revised.sequence)
        if flight.answered or not revised:
            return
        kept = self._revisions.setdefault(revised.sequence, deque())
        kept.append(revised)
        self._revised_rows += len(revised)
        while self._revised_rows > self._settings.answers_rows_max and kept:
            lost = len(kept.popleft())
            self._revised_rows -= lost
            self._ledger.counters.dropped_answers += lost

    def _take_scores(self, scores: Scores) -> None:
        """Hand over what was answered for the first time, and only then settle it: a program that is killed before it
        was told asks again. The lock is free meanwhile, for a sink takes as long as it likes."""
        with self._changed:
            self._check_opened()
            flight = self._ledger.flights.get(scores.sequence)
            sent_at = self._sent_at.get(scores.sequence)
            if flight is None or sent_at is None:
                return  # settled before its answer came again
            deliveries = [] if flight.answered else self._deliveries(scores, flight, sent_at)
            began, self._telling = self._clock.monotonic(), True
        for delivery in deliveries:
            self._tell(delivery)
        with self._changed:
            self._heard_at += self._clock.monotonic() - began
            self._telling = False
            self._hear(scores.sequence)
            del self._sent_at[scores.sequence]
            if not flight.answered:
                self._count(scores, flight, deliveries)
            flight.answered = True
            if not self._settings.durable:
                self._settle([scores.sequence])
            self._changed.notify_all()

    def _check_opened(self) -> None:
        if not self._opened:
            raise ProtocolError("expected Opened first, found a score block")

    def _deliveries(self, scores: Scores, flight: Flight, sent_at: float) -> list[Delivery]:
        """A block's revisions, then its own scores; of events nothing else is told."""
        if len(scores) != len(flight.block):
            raise ProtocolError(
                f"expected {len(flight.block)} rows in the answer to block {scores.sequence}, found {len(scores)}"
            )
        revisions = self._revisions.pop(scores.sequence, ())
        self._revised_rows -= sum(map(len, revisions))
        deliveries = [
            Delivery(revised, self._names.ids(revised.handles), self._columns, revision=True, latency_seconds=0.0)
            for revised in revisions
        ]
        if flight.block.kind is Kind.READINGS:
            assets, latency = self._names.assets_of(flight.block), self._clock.monotonic() - sent_at
            deliveries.append(Delivery(scores, assets, self._columns, revision=False, latency_seconds=latency))
        return deliveries

    def _tell(self, delivery: Delivery) -> None:
        try:
            self._deliver(delivery)
        except BaseException as error:  # also sys.exit(): the thread that it would end is not the sink's
            hint = "mend the sink; the gateway asks again by itself, and tells it the block's answer again"
            raise CommandError(f"the sink raised {error!r}", hint) from error

    def _count(self, scores: Scores, flight: Flight, deliveries: Iterable[Delivery]) -> None:
        counters = self._ledger.counters
        counters.revised_rows += sum(len(delivery.scores) for delivery in deliveries if delivery.revision)
        counters.answered_rows += len(scores)
        if flight.block.kind is Kind.EVENTS:
            counters.refused_events += len(scores) - scores.status.count(contract.ROW_STATUS_TAKEN)
        else:
            counters.unknown_rows += scores.status.count(contract.ROW_STATUS_UNKNOWN_HANDLE)

    def _settle(self, sequences: list[int]) -> None:
        if sequences:
            self.progress = True
            self._ledger.settle(sequences)
            for sequence in sequences:
                self._sent_at.pop(sequence, None)
