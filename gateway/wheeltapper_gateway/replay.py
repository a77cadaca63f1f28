"""A replay's journey: a history in time order → one stream per asset class → the final answer to every reading."""

from __future__ import annotations

import time
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import grpc
from wheeltapper_command.errors import CommandError, Refused
from wheeltapper_command.progress import Progress

from wheeltapper_gateway.channel import Connector, Tls
from wheeltapper_gateway.csv_history import CsvHistory
from wheeltapper_gateway.disorder import Disorder, disordered
from wheeltapper_gateway.final import FinalAnswers, Table, counts, joined, parquet
from wheeltapper_gateway.gateway import Gateway
from wheeltapper_gateway.probe import known_names
from wheeltapper_gateway.rows import Event, HistoryClass, HistorySource, Rows
from wheeltapper_gateway.settings import Settings
from wheeltapper_gateway.spool import MEMORY

_PACED_BLOCK_SECONDS = 0.25  # a paced block spans at most so much real time
_QUEUED_BLOCKS = 4  # accepted ahead of what is in flight, so that the stream never waits for the reader
_LIVE_SECONDS = 1e9  # a replay has no backlog: old as its readings are, they come in order


@dataclass(frozen=True, slots=True)
class Plan:
    """What to replay and how. Times are microseconds since 1970 UTC; speed 0 = as fast as the scorer answers."""

    target: str
    gateway: str = "replay"
    speed: float = 0.0  # multiples of real time
    from_us: int | None = None  # only readings from here on are reported
    warm_up_us: int = 0  # so much before it is sent as well, and not reported
    disorder: Disorder = field(default_factory=Disorder)
    batch_rows: int = 256
    in_flight_blocks_max: int = 8
    want_features: bool = False
    reasons: int = 0  # for each output of a reading that raises an alarm, of every reading where `reasons_always`
    reasons_always: bool = False
    spool: str = MEMORY  # a file: one more per asset class is made beside it
    tls: Tls | None = None
    patience_seconds: float = 30.0  # without a connection before the replay gives up


@dataclass(slots=True)
class Report:
    """What a replay did. `table` holds the final answers."""

    table: Table
    classes: list[str]
    readings_sent: int
    rows_sent: int
    warm_up_rows: int
    duplicates_sent: int
    events_sent: int
    resent_rows: int
    revisions: int
    reconnects: int
    refused_events: int
    foreign_rows: int  # answered of assets that the history does not have: an earlier replay left them in the spool
    stream_seconds: float
    latencies: list[float]
    releases: list[int]

    def as_dict(self) -> dict[str, Any]:
        answered, seconds = len(self.table["status"]), max(self.stream_seconds, 1e-9)
        return {
            "classes": self.classes,
            "readings_sent": self.readings_sent,
            "readings_answered": answered,
            "rows_sent": self.rows_sent,
            "warm_up_rows": self.warm_up_rows,
            "duplicates_sent": self.duplicates_sent,
            "events_sent": self.events_sent,
            "events_refused": self.refused_events,
            "answers_left_out": self.foreign_rows,
            "rows_resent": self.resent_rows,
            "revisions": self.revisions,
            "reconnects": self.reconnects,
            "statuses": counts(self.table),
            "stream_seconds": round(self.stream_seconds, 6),
            "readings_per_second": round(self.rows_sent / seconds, 3),
            "latency_p50_ms": _percentile_ms(self.latencies, 0.50),
            "latency_p99_ms": _percentile_ms(self.latencies, 0.99),
            "releases": self.releases,
        }


@dataclass(slots=True)
class _Stream:
    """One asset class on its way."""

    own: HistoryClass
    sensors: tuple[str, ...]
    gateway: Gateway
    answers: FinalAnswers
    events: list[Event]
    numbers: array[int] = field(default_factory=lambda: array("I"))  # of the gateway, by asset number of the history
    events_sent: int = 0
    rows: int = 0
    reported_rows: int = 0
    distinct_rows: int = 0


@dataclass(frozen=True, slots=True, order=True)
class _Block:
    """Rows [begin, end) of a class's slice, all on the same side of the reported time."""

    due_us: int
    place: int
    begin: int
    end: int
    warm_up: bool


def open_history(path: str) -> HistorySource:
    """A Parquet history (needs pyarrow) or a CSV one. Raises NotFound or UsageError."""
    folder = Path(path)
    if "://" in path or any(folder.glob("readings/*.parquet")):
        source: HistorySource = parquet().ParquetHistory(path)
        return source
    return CsvHistory(folder)


def replay(
    source: HistorySource,
    plan: Plan,
    progress: Progress,
    connect: Callable[[], grpc.Channel] | None = None,
) -> Report:
    """Stream the history and wait for every answer. Raises Refused where the scorer declines a class, CommandError
    where it cannot be reached for `patience_seconds`."""
    channel = connect or Connector(plan.target, plan.tls)
    first_us, last_us = source.span_us()
    from_us = first_us if plan.from_us is None else plan.from_us
    begin_us = from_us - plan.warm_up_us
    all_events = source.events()
    streams: list[_Stream] = []
    try:
        for own in source.classes:
            streams.append(_open(own, plan, from_us, all_events, channel, connect))
        progress.start("replay", source.count(begin_us, last_us + 1), "readings")
        began = time.monotonic()
        for slices in source.slices(begin_us, {stream.own.name: stream.sensors for stream in streams}):
            _send_slices(streams, slices, plan, from_us, began, begin_us, progress)
        for stream in streams:
            _send_events(stream, last_us)
            _wait(stream.gateway, 0, plan.patience_seconds)
        seconds = time.monotonic() - began
        progress.finish()
        return _report(streams, seconds)
    finally:
        for stream in streams:
            stream.gateway.close(timeout=0.0)


def _open(
    own: HistoryClass,
    plan: Plan,
    from_us: int,
    all_events: Sequence[Event],
    channel: Callable[[], grpc.Channel],
    connect: Callable[[], grpc.Channel] | None,
) -> _Stream:
    known = known_names(channel, plan.gateway, own, plan.patience_seconds)
    sensors = tuple(name for name in own.sensors if name in known.sensors)
    if not sensors:
        raise Refused(
            f"class {own.name!r}: expected sensors {', '.join(sorted(known.sensors))}, "
            f"found {', '.join(own.sensors)} in the history"
        )
    statics = {
        asset: {name: value for name, value in values.items() if name in known.attributes}
        for asset, values in own.attributes.items()
    }
    mine = set(own.asset_ids)
    events = [event for event in all_events if event.asset_id in mine]
    answers = FinalAnswers(own.asset_ids, from_us, plan.reasons > 0)
    gateway = Gateway(
        plan.target,
        name=f"{plan.gateway}/{own.name}",
        asset_class=own.name,
        sensors=sensors,
        assets=statics,
        events=sorted({event.code for event in events}),
        spool=plan.spool if plan.spool == MEMORY else f"{plan.spool}.{own.name}",
        settings=Settings(
            batch_rows=plan.batch_rows,
            in_flight_blocks_max=plan.in_flight_blocks_max,
            want_features=plan.want_features,
            reasons=plan.reasons,
            reasons_always=plan.reasons_always,
            live_seconds=_LIVE_SECONDS,
        ),
        tls=plan.tls,
        connect=connect,
        sink=answers.add,
    )
    return _Stream(own, sensors, gateway, answers, events, gateway.numbers(own.asset_ids))


def _send_slices(
    streams: Sequence[_Stream],
    slices: dict[str, Rows],
    plan: Plan,
    from_us: int,
    began: float,
    begin_us: int,
    progress: Progress,
) -> None:
    """One slice of every class, block by block in the order in which they are due."""
    parts = [
        disordered(slices[stream.own.name], plan.disorder, len(stream.sensors)) if stream.own.name in slices else None
        for stream in streams
    ]
    span_us = int(plan.speed * _PACED_BLOCK_SECONDS * 1e6) if plan.speed else None
    blocks = [
        block
        for place, rows in enumerate(parts)
        if rows is not None
        for block in _blocks(rows, place, plan.batch_rows, span_us, from_us)
    ]
    for stream in streams:
        if (own := slices.get(stream.own.name)) is not None:
            stream.distinct_rows += _distinct(own, from_us)
    for block in sorted(blocks):
        stream, rows = streams[block.place], parts[block.place]
        if rows is None:
            continue
        if plan.speed:
            due = began + (block.due_us - begin_us) / 1e6 / plan.speed
            while (left := due - time.monotonic()) > 0:
                progress.advance(0)
                time.sleep(min(left, _PACED_BLOCK_SECONDS))
        _send_block(stream, rows, block)
        _wait(stream.gateway, (plan.in_flight_blocks_max + _QUEUED_BLOCKS) * plan.batch_rows, plan.patience_seconds)
        progress.advance(block.end - block.begin)


def _blocks(rows: Rows, place: int, batch_rows: int, span_us: int | None, from_us: int) -> Iterator[_Block]:
    """Cut a slice into blocks of at most `batch_rows` rows and `span_us` of due time, on one side of `from_us` each."""
    begin, count = 0, len(rows)
    while begin < count:
        end = min(begin + batch_rows, count)
        if span_us is not None:
            end = max(min(end, bisect_right(rows.due_us, rows.due_us[begin] + span_us, begin, end)), begin + 1)
        warm_up = rows.times[begin] < from_us
        if warm_up or min(rows.times[begin:end]) < from_us:
            end = next((i for i in range(begin, end) if (rows.times[i] < from_us) != warm_up), end)
        yield _Block(rows.due_us[end - 1], place, begin, end, warm_up)
        begin = end


def _distinct(rows: Rows, from_us: int) -> int:
    """How many readings from `from_us` on an undisturbed slice has: a repeated (asset, time) is one."""
    begin = bisect_left(rows.times, from_us)
    keys = zip(rows.times[begin:], rows.assets[begin:], strict=True)
    return sum(1 for _ in groupby(keys))


def _send_block(stream: _Stream, rows: Rows, block: _Block) -> None:
    """Events up to the block's newest reading go first, so that none comes behind a reading that must see it."""
    cut, width = slice(block.begin, block.end), len(stream.sensors)
    _send_events(stream, max(rows.times[cut]))
    assets = array("I", map(stream.numbers.__getitem__, rows.assets[cut]))
    values = rows.values[block.begin * width : block.end * width]
    stream.gateway.send_columns(assets, rows.times[cut], values, historical=block.warm_up)
    stream.rows += block.end - block.begin
    stream.reported_rows += 0 if block.warm_up else block.end - block.begin


def _send_events(stream: _Stream, until_us: int) -> None:
    due = bisect_right(stream.events, until_us, stream.events_sent, key=lambda event: event.time_us)
    events = stream.events[stream.events_sent : due]
    if events:
        stream.gateway.send_events(
            [event.asset_id for event in events],
            [event.time_us for event in events],
            [event.code for event in events],
        )
        stream.events_sent = due


def _wait(gateway: Gateway, rows_max: int, patience_seconds: float) -> None:
    """Wait for the scorer to catch up; give up only where it cannot be reached."""
    unreached_since: float | None = None
    while not gateway.wait(rows_max, 0.5):
        failure = gateway.failure
        if failure is None:
            unreached_since = None
            continue
        unreached_since = unreached_since or time.monotonic()
        if time.monotonic() - unreached_since > patience_seconds:
            raise CommandError(f"{failure}; gave up after {patience_seconds:.0f} s", failure.hint)


def _report(streams: Sequence[_Stream], seconds: float) -> Report:
    counters = [stream.gateway.counters for stream in streams]
    reported = sum(stream.reported_rows for stream in streams)
    distinct = sum(stream.distinct_rows for stream in streams)
    return Report(
        table=joined([stream.answers.columns() for stream in streams]),
        classes=[stream.own.name for stream in streams],
        readings_sent=distinct,
        rows_sent=sum(stream.rows for stream in streams),
        warm_up_rows=sum(stream.rows - stream.reported_rows for stream in streams),
        duplicates_sent=reported - distinct,
        events_sent=sum(stream.events_sent for stream in streams),
        resent_rows=sum(own.resent_rows for own in counters),
        revisions=sum(own.revised_rows for own in counters),
        reconnects=sum(own.reconnects for own in counters),
        refused_events=sum(own.refused_events for own in counters),
        foreign_rows=sum(stream.answers.foreign_rows for stream in streams),
        stream_seconds=seconds,
        latencies=sorted(latency for stream in streams for latency in stream.answers.latencies),
        releases=sorted({release for stream in streams for release in stream.answers.releases}),
    )


def _percentile_ms(ordered_seconds: Sequence[float], share: float) -> float:
    """The nearest-rank percentile in milliseconds; 0 where nothing was measured."""
    if not ordered_seconds:
        return 0.0
    return round(ordered_seconds[min(int(share * len(ordered_seconds)), len(ordered_seconds) - 1)] * 1000, 3)
