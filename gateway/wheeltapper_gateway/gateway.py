"""The gateway as a program embeds it: `send` keeps a reading, `answers` gives back its score.

with Gateway("127.0.0.1:7070", name="plant-1", asset_class="pump", sensors=["vibration", "temperature"],
             assets=["pump-001"], spool="plant-1.spool") as gateway:
    gateway.send("pump-001", time=datetime.now(UTC), values=[2.1, 64.0])
    for answer in gateway.answers(timeout=1.0):
        print(answer.asset, answer.time, answer.scores["failure"], answer.level, answer.alarm)
"""

from __future__ import annotations

import dataclasses
import math
import random
import threading
from array import array
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any

import grpc
from wheeltapper_command.errors import CommandError, Refused, UsageError

from wheeltapper_gateway.answer import Answer, answers_of
from wheeltapper_gateway.channel import Connector, Tls
from wheeltapper_gateway.delivery import Counters, Delivery, Identity
from wheeltapper_gateway.ledger import Ledger
from wheeltapper_gateway.link import Link
from wheeltapper_gateway.names import check_count, check_names
from wheeltapper_gateway.settings import Clock, Settings, Steady
from wheeltapper_gateway.spool import MEMORY, Kind, Name, Spool

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_CHANNEL_OPTIONS = (
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.max_receive_message_length", 64 << 20),  # a block's answers with features
)
Time = datetime | int  # an int is microseconds since 1970 UTC


class Gateway:
    """Streams one asset class to a scorer. Thread-safe.

    `spool` is the file that survives outages and restarts (":memory:" keeps nothing beyond the process). `assets` may
    be a mapping to static attributes, and assets not named here are added when first sent. `tls` names
    the certificates, and without it the channel is plaintext; `connect` makes another channel. `sink` takes score
    columns on the reader's thread instead of `answers()`, one call at a time, and may call all but `close`, `flush`,
    `wait` and `answers`.
    Raises UsageError for settings out of their limits and for names that no scorer takes, Refused for a spool of other
    sensors that is not empty, SpoolError for one that cannot be opened.
    """

    def __init__(
        self,
        target: str,
        *,
        name: str,
        asset_class: str,
        sensors: Sequence[str],
        assets: Iterable[str] | Mapping[str, Mapping[str, float]] = (),
        events: Sequence[str] = (),
        spool: str | Path = MEMORY,
        settings: Settings | None = None,
        tls: Tls | None = None,
        connect: Callable[[], grpc.Channel] | None = None,
        sink: Callable[[Delivery], None] | None = None,
        clock: Clock | None = None,
        jitter: random.Random | None = None,
    ) -> None:
        if not name or not asset_class or len(set(sensors)) != len(sensors):
            raise UsageError("expected a name, an asset class and sensors that all differ")
        statics: Mapping[str, Mapping[str, float]] = assets if isinstance(assets, Mapping) else {}
        attributes = tuple(sorted({key for own in statics.values() for key in own}))
        values = {asset: [float(own.get(key, math.nan)) for key in attributes] for asset, own in statics.items()}
        for what, names in (("name", [name, asset_class]), ("sensor", sensors), ("attribute", attributes)):
            check_names(what, names)
            check_count(f"{what}s", len(names))
        self._settings, self._clock = settings or Settings(), clock or Clock()
        self._steady = Steady(self._clock)
        self._changed = threading.Condition(threading.RLock())
        budget = self._settings.spool_bytes_max
        self._answers: deque[Delivery] = deque()
        self._answer_rows = 0
        self._refusal_told: CommandError | None = None
        self._closed = False
        self._spool = Spool(spool, name, asset_class, sensors, budget, self._steady.now_us())
        try:
            self._spool.fresh(Name.CODE, events)
            declared = self._spool.numbers(Name.ASSET, list(assets))
            self._spool.numbers(Name.CODE, events)
            self._ledger = Ledger(self._spool)
            self._link = Link(
                Identity(name, asset_class, tuple(sensors), attributes, values, declared),
                self._settings,
                self._ledger,
                self._changed,
                connect or Connector(target, tls, _CHANNEL_OPTIONS),
                sink or self._keep,
                self._clock,
                self._steady,
                jitter or random.Random(),  # noqa: S311 - spreads reconnects, hides nothing
            )
            self._link.start()
        except BaseException:
            self._spool.close()
            raise

    def __enter__(self) -> Gateway:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(timeout=10.0 if kind is None else 0.0)

    def send(self, asset: str, time: Time, values: Sequence[float | None]) -> None:
        """Keep one reading; in the spool when it returns. `values` follow `sensors`; None or NaN = missing."""
        self.send_many([asset], [time], [values])

    def send_many(self, assets: Sequence[str], times: Sequence[Time], rows: Sequence[Sequence[float | None]]) -> None:
        """Keep readings, all or none: one asset, time and row of values each."""
        width = len(self._spool.sensors)
        wrong = next((len(row) for row in rows if len(row) != width), width)
        if wrong != width or not len(assets) == len(times) == len(rows):
            raise UsageError(
                f"expected an asset, a time and {width} values per reading ({', '.join(self._spool.sensors)}), "
                f"found {len(assets)} assets, {len(times)} times, {len(rows)} rows of {wrong} values"
            )
        cells = array("f", [math.nan if value is None else value for row in rows for value in row])
        stamps = array("q", map(microseconds, times))
        self._append(Kind.READINGS, self.numbers(assets), stamps, cells, False)

    def numbers(self, assets: Iterable[str]) -> array[int]:
        """The gateway's own asset numbers, uint32, for `send_columns`. Raises UsageError for an id that no scorer
        takes."""
        with self._changed:
            self._check_open()
            return self._spool.numbers(Name.ASSET, list(assets))

    def send_columns(
        self, numbers: array[int], times: array[int], values: array[float], historical: bool = False
    ) -> None:
        """Keep readings, all or none, given as columns: uint32[n] of `numbers`, int64[n] µs, float32[n × sensors]
        row-major. `historical` rows are scored but raise no live alarm."""
        with self._changed:
            known = len(self._spool.names(Name.ASSET))
        wrong = next((number for number in numbers if not 0 <= number < known), None)
        if wrong is not None:
            raise UsageError(f"expected asset numbers of 0 to {known - 1:,}, found {wrong:,}", "ask `numbers` for them")
        self._append(Kind.READINGS, numbers, times, values, historical)

    def send_events(self, assets: Sequence[str], times: Sequence[Time], codes: Sequence[str]) -> None:
        """Keep events, all or none, each a "kind:code" such as "maintenance:bearing"."""
        if not len(assets) == len(times) == len(codes):
            found = f"{len(assets)} assets, {len(times)} times, {len(codes)} codes"
            raise UsageError(f"expected an asset, a time and a code per event, found {found} in these rows")
        stamps = array("q", map(microseconds, times))
        with self._changed:
            self._check_open()
            self._spool.fresh(Name.ASSET, assets)
            named = self._spool.numbers(Name.CODE, codes)
            self._append(Kind.EVENTS, self.numbers(assets), stamps, named, False)

    def answers(self, timeout: float | None = None) -> Iterator[Answer]:
        """Answers and revisions as they come; ends when none has come for `timeout` seconds (None: when closed).
        Raises Refused, once for each, where the scorer refuses this gateway."""
        while (delivery := self._next_delivery(timeout)) is not None:
            yield from answers_of(delivery.scores, delivery.assets, delivery.columns, delivery.revision)

    def flush(self, timeout: float) -> bool:
        """Wait until everything accepted is settled. Returns whether it is; raises Refused as `answers` does."""
        return self.wait(0, timeout)

    def wait(self, unsettled_rows_max: int, timeout: float) -> bool:
        """Wait until at most so many rows are unsettled: the back-pressure of a fast sender."""
        self._check_not_in_sink()
        until = self._clock.monotonic() + timeout
        with self._changed:
            while self._ledger.unsettled_rows > unsettled_rows_max:
                self._tell_refusal()
                left = until - self._clock.monotonic()
                if left <= 0 or self._closed:
                    return False
                self._clock.wait(self._changed, left)
            return True

    @property
    def counters(self) -> Counters:
        with self._changed:
            return dataclasses.replace(self._ledger.counters, dropped_rows=self._spool.dropped_rows)

    @property
    def failure(self) -> CommandError | None:
        """Why there is no conversation now; None while there is one."""
        with self._changed:
            return self._ledger.failure

    @property
    def outputs(self) -> tuple[str, ...]:
        """What the scorer answers for this class; empty before the first conversation."""
        with self._changed:
            return tuple(self._ledger.opened.outputs) if self._ledger.opened else ()

    def close(self, timeout: float = 10.0) -> bool:
        """Flush for `timeout` seconds at most, then stop, once a sink that is at work has returned. Returns whether all
        was settled; what was not stays in the spool. Closing twice is allowed."""
        self._check_not_in_sink()
        with self._changed:
            if self._closed:
                return True
            refused = isinstance(self._ledger.failure, Refused)
        settled = self._settle_quietly(0.0 if refused else timeout)
        self._link.stop(timeout=1.0)
        with self._changed:
            self._closed = True
            self._spool.close()
            self._changed.notify_all()
        return settled

    def _settle_quietly(self, timeout: float) -> bool:
        with self._changed:
            if isinstance(self._ledger.failure, Refused):
                self._refusal_told = self._ledger.failure
        try:
            return self.flush(timeout)
        except CommandError:  # closing keeps the rows; `failure` and the next opening tell why
            return False

    def _append(self, kind: Kind, numbers: array[int], times: array[int], cells: array[Any], historical: bool) -> None:
        with self._changed:
            self._check_open()
            chunk_rows = self._settings.batch_rows
            self._spool.append(kind, numbers, times, cells, self._steady.now_us(), historical, chunk_rows)
            self._changed.notify_all()

    def _check_open(self) -> None:
        if self._closed:
            raise UsageError("expected an open gateway, found one that is closed")

    def _check_not_in_sink(self) -> None:
        if self._link.is_telling_here():
            raise UsageError(
                "expected another thread than the sink's, found a sink that waits for itself",
                "let it return, and call close, flush, wait and answers elsewhere",
            )

    def _keep(self, delivery: Delivery) -> None:
        """The sink of `answers()`: bounded, the oldest are dropped and counted."""
        with self._changed:
            self._answers.append(delivery)
            self._answer_rows += len(delivery.scores)
            while self._answer_rows > self._settings.answers_rows_max:
                rows = len(self._answers.popleft().scores)
                self._answer_rows -= rows
                self._ledger.counters.dropped_answers += rows
            self._changed.notify_all()

    def _next_delivery(self, timeout: float | None) -> Delivery | None:
        self._check_not_in_sink()
        until = math.inf if timeout is None else self._clock.monotonic() + timeout
        with self._changed:
            while not self._answers:
                self._tell_refusal()
                left = until - self._clock.monotonic()
                if left <= 0 or self._closed:
                    return None
                self._clock.wait(self._changed, min(left, 60.0))
            delivery = self._answers.popleft()
            self._answer_rows -= len(delivery.scores)
            return delivery

    def _tell_refusal(self) -> None:
        failure = self._ledger.failure
        if isinstance(failure, Refused) and failure is not self._refusal_told:
            self._refusal_told = failure
            raise failure


def microseconds(time: Time) -> int:
    """A time as microseconds since 1970 UTC. Raises UsageError for a datetime without a time zone."""
    if isinstance(time, int):
        return time
    if time.tzinfo is None:
        raise UsageError(f"expected a time with a time zone, found {time.isoformat()}", "give it tzinfo=UTC")
    return (time - _EPOCH) // _MICROSECOND
