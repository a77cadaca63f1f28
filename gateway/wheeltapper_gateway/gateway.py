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
from wheeltapper_command.errors import CommandError, UsageError

from wheeltapper_gateway.answer import Answer, answers_of
from wheeltapper_gateway.channel import Connector, Tls
from wheeltapper_gateway.delivery import Counters, Delivery, Identity
from wheeltapper_gateway.link import Link
from wheeltapper_gateway.settings import Clock, Settings
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
    columns on the reader's thread instead of `answers()`.
    Raises UsageError for settings out of their limits, Refused for a spool of other sensors that is not empty,
    SpoolError for one that cannot be opened.
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
        self._settings, self._clock = settings or Settings(), clock or Clock()
        self._changed = threading.Condition(threading.RLock())
        self._spool = Spool(spool, name, asset_class, sensors, self._settings.spool_bytes_max, self._clock.time_us())
        for asset in assets:
            self._spool.number(Name.ASSET, asset)
        for code in events:
            self._spool.number(Name.CODE, code)
        statics: Mapping[str, Mapping[str, float]] = assets if isinstance(assets, Mapping) else {}
        attributes = tuple(sorted({key for own in statics.values() for key in own}))
        values = {asset: [float(own.get(key, math.nan)) for key in attributes] for asset, own in statics.items()}
        self._answers: deque[Delivery] = deque()
        self._answer_rows = 0
        self._refusal_told: CommandError | None = None
        self._closed = False
        self._link = Link(
            Identity(name, asset_class, tuple(sensors), attributes, values),
            self._settings,
            self._spool,
            self._changed,
            connect or Connector(target, tls, _CHANNEL_OPTIONS),
            sink or self._keep,
            self._clock,
            jitter or random.Random(),  # noqa: S311 - spreads reconnects, hides nothing
        )
        self._link.start()

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
        self.send_columns(self.numbers(assets), array("q", map(microseconds, times)), cells)

    def numbers(self, assets: Iterable[str]) -> array[int]:
        """The gateway's own asset numbers, uint32, for `send_columns`."""
        with self._changed:
            self._check_open()
            return array("I", [self._spool.number(Name.ASSET, asset) for asset in assets])

    def send_columns(
        self, numbers: array[int], times: array[int], values: array[float], historical: bool = False
    ) -> None:
        """Keep readings given as columns: uint32[n] of `numbers`, int64[n] µs, float32[n × sensors] row-major.
        `historical` rows are scored but raise no live alarm."""
        self._append(Kind.READINGS, numbers, times, values, historical)

    def send_events(self, assets: Sequence[str], times: Sequence[Time], codes: Sequence[str]) -> None:
        """Keep events, each a "kind:code" such as "maintenance:bearing"."""
        with self._changed:
            self._check_open()
            named = array("I", [self._spool.number(Name.CODE, code) for code in codes])
            self._append(Kind.EVENTS, self.numbers(assets), array("q", map(microseconds, times)), named, False)

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
        until = self._clock.monotonic() + timeout
        with self._changed:
            while self._link.unsettled_rows > unsettled_rows_max:
                self._tell_refusal()
                left = until - self._clock.monotonic()
                if left <= 0 or self._closed:
                    return False
                self._clock.wait(self._changed, left)
            return True

    @property
    def counters(self) -> Counters:
        with self._changed:
            return dataclasses.replace(self._link.counters, dropped_rows=self._spool.dropped_rows)

    @property
    def failure(self) -> CommandError | None:
        """Why there is no conversation now; None while there is one."""
        with self._changed:
            return self._link.failure

    @property
    def outputs(self) -> tuple[str, ...]:
        """What the scorer answers for this class; empty before the first conversation."""
        with self._changed:
            return tuple(self._link.opened.outputs) if self._link.opened else ()

    def close(self, timeout: float = 10.0) -> bool:
        """Flush for `timeout` seconds at most, then stop. Returns whether all was settled; what was not stays in the
        spool. Closing twice is allowed."""
        with self._changed:
            if self._closed:
                return True
            refused = self._link.refused
        settled = self._settle_quietly(0.0 if refused else timeout)
        self._link.stop(timeout=1.0)
        with self._changed:
            self._closed = True
            self._spool.close()
            self._changed.notify_all()
        return settled

    def _settle_quietly(self, timeout: float) -> bool:
        with self._changed:
            self._refusal_told = self._link.failure if self._link.refused else self._refusal_told
        try:
            return self.flush(timeout)
        except CommandError:  # closing keeps the rows; `failure` and the next opening tell why
            return False

    def _append(self, kind: Kind, numbers: array[int], times: array[int], cells: array[Any], historical: bool) -> None:
        width = len(self._spool.sensors) if kind is Kind.READINGS else 1
        step = self._settings.batch_rows
        with self._changed:
            self._check_open()
            for begin in range(0, max(len(times), len(numbers)), step):
                rows = slice(begin, begin + step)
                piece = cells[begin * width : (begin + step) * width] if len(times) > step else cells
                now_us = self._clock.time_us()
                self._spool.append(kind, numbers[rows], times[rows], piece, now_us, historical)
            self._changed.notify_all()

    def _check_open(self) -> None:
        if self._closed:
            raise UsageError("expected an open gateway, found one that is closed")

    def _keep(self, delivery: Delivery) -> None:
        """The sink of `answers()`: bounded, the oldest are dropped and counted."""
        self._answers.append(delivery)
        self._answer_rows += len(delivery.scores)
        while self._answer_rows > self._settings.answers_rows_max:
            rows = len(self._answers.popleft().scores)
            self._answer_rows -= rows
            self._link.counters.dropped_answers += rows

    def _next_delivery(self, timeout: float | None) -> Delivery | None:
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
        failure = self._link.failure
        if self._link.refused and failure is not None and failure is not self._refusal_told:
            self._refusal_told = failure
            raise failure


def microseconds(time: Time) -> int:
    """A time as microseconds since 1970 UTC. Raises UsageError for a datetime without a time zone."""
    if isinstance(time, int):
        return time
    if time.tzinfo is None:
        raise UsageError(f"expected a time with a time zone, found {time.isoformat()}", "give it tzinfo=UTC")
    return (time - _EPOCH) // _MICROSECOND
