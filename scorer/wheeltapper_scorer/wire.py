"""Columns ↔ the messages of `wheeltapper/v1/scoring.proto`. Protobuf stops here: above this module are NumPy arrays.

Requests are read by the typed parser: protobuf hands a packed column to NumPy as a whole, and a sender that splits or
unpacks a column is understood as a matter of course. Answers are written through a twin of the schema in which every
packed fixed-width column is `bytes`: the two are the same on the wire, and protobuf has no other way to take an array
without boxing each element. docs/decisions/0006-wire-twin.md has the figures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message, message_factory
from numpy.typing import NDArray
from wheeltapper.reasons import Reasons
from wheeltapper_proto import scoring_pb2

from wheeltapper_scorer.faults import CallError, Reason


@dataclass(frozen=True, slots=True)
class Readings:
    """A reading block as it came: n handles, n times, n × sensors values if the sender keeps the contract."""

    sequence: int
    handles: NDArray[np.uint32]
    times: NDArray[np.int64]  # µs since 1970, UTC
    values: NDArray[np.float32]  # flat, row-major
    historical: bool = False
    settled: int = 0  # no block up to this sequence comes again


@dataclass(frozen=True, slots=True)
class Events:
    """An event block as it came: n handles, n times, n codes if the sender keeps the contract."""

    sequence: int
    handles: NDArray[np.uint32]
    times: NDArray[np.int64]
    codes: NDArray[np.uint32]  # positions in Open.event_codes
    settled: int = 0


@dataclass(frozen=True, slots=True)
class Scores:
    """One answered block: n rows, o outputs, and f features and reasons where they were asked for."""

    sequence: int
    release: int
    handles: NDArray[np.uint32]  # n
    times: NDArray[np.int64]  # n
    status: NDArray[np.uint8]  # n, RowStatus
    values: NDArray[np.float32]  # n × o
    levels: NDArray[np.uint8]  # n × o, Level
    alarms: NDArray[np.uint8]  # n × o, AlarmState
    health: NDArray[np.uint8]  # n, Health bits
    features: NDArray[np.float32] | None = None  # n × f
    reasons: Reasons | None = None  # row: position in the block

    def cut(self, begin: int, end: int) -> Scores:
        """Rows [begin, end)."""
        return joined([self], slice(begin, end))


_COLUMNS = ("handles", "times", "status", "values", "levels", "alarms", "health", "features")


def joined(blocks: Sequence[Scores], rows: slice = slice(None)) -> Scores:
    """`rows` of each of the blocks, behind one another, under the first one's sequence and release."""
    columns: dict[str, NDArray[Any] | None] = {}
    for name in _COLUMNS:
        parts = [getattr(block, name) for block in blocks]
        columns[name] = None if parts[0] is None else np.concatenate([part[rows] for part in parts])
    return replace(blocks[0], **columns, reasons=_joined_reasons(blocks, rows))  # type: ignore[arg-type]


def _joined_reasons(blocks: Sequence[Scores], rows: slice) -> Reasons | None:
    """Those of the kept rows, which are counted anew."""
    parts: list[Reasons] = []
    shift = 0
    for block in blocks:
        if block.reasons is None:
            return None
        begin, end, _ = rows.indices(len(block.handles))
        kept = (block.reasons.row >= begin) & (block.reasons.row < end)
        part = Reasons._make(column[kept] for column in block.reasons)
        parts.append(part._replace(row=part.row - begin + shift))
        shift += end - begin
    return Reasons._make(np.concatenate(columns) for columns in zip(*parts, strict=True))


@dataclass(frozen=True, slots=True)
class UnaryRequest:
    open: scoring_pb2.Open
    readings: Readings
    events: Events | None


def decode_stream(raw: bytes) -> scoring_pb2.Open | Readings | Events:
    """The body of one StreamRequest. Raises CallError MALFORMED where the bytes are no message or it has no body."""
    request = scoring_pb2.StreamRequest()
    _parse(request, raw)
    match request.WhichOneof("body"):
        case "open":
            return request.open
        case "readings":
            return _readings(request.readings)
        case "events":
            return _events(request.events)
    raise CallError(Reason.MALFORMED, "expected open, readings or events in a StreamRequest; found none of them")


def decode_unary(raw: bytes) -> UnaryRequest:
    """A ScoreRequest. Raises CallError MALFORMED where the bytes are no message."""
    request = scoring_pb2.ScoreRequest()
    _parse(request, raw)
    events = _events(request.events) if request.HasField("events") else None
    return UnaryRequest(request.open, _readings(request.readings), events)


def encode_opened(opened: scoring_pb2.Opened) -> bytes:
    """A StreamResponse that says who was opened."""
    return scoring_pb2.StreamResponse(opened=opened).SerializeToString()


def encode_drain(reason: str) -> bytes:
    """A StreamResponse that asks the gateway to go elsewhere."""
    return scoring_pb2.StreamResponse(drain=scoring_pb2.Drain(reason=reason)).SerializeToString()


def encode_ack(sequence: int) -> bytes:
    """A StreamResponse that says up to which block all is safe."""
    return scoring_pb2.StreamResponse(ack=scoring_pb2.Ack(sequence=sequence)).SerializeToString()


def encode_scores(scores: Scores) -> bytes:
    """A StreamResponse that answers a block."""
    return _serialized(_TWIN["StreamResponse"](scores=_score_block(scores)))


def encode_revisions(scores: Scores) -> bytes:
    """A StreamResponse with readings scored anew."""
    return _serialized(_TWIN["StreamResponse"](revisions=_score_block(scores)))


def encode_unary(opened: scoring_pb2.Opened, scores: Scores, revisions: Scores | None) -> bytes:
    """A ScoreResponse. Two encodings in a row are the encoding of both: protobuf merges by concatenation."""
    columns = _TWIN["ScoreResponse"](scores=_score_block(scores))
    if revisions is not None:
        columns.revisions.CopyFrom(_score_block(revisions))
    return scoring_pb2.ScoreResponse(opened=opened).SerializeToString() + _serialized(columns)


def _parse(request: message.Message, raw: bytes) -> None:
    try:
        request.ParseFromString(raw)
    except message.DecodeError as error:
        raise CallError(
            Reason.MALFORMED, f"expected a {request.DESCRIPTOR.full_name}; found bytes that are none"
        ) from error


def _readings(block: scoring_pb2.ReadingBlock) -> Readings:
    return Readings(
        block.sequence,
        np.array(block.handles, dtype=np.uint32),
        np.array(block.times, dtype=np.int64),
        np.array(block.values, dtype=np.float32),
        block.historical,
        block.settled_sequence,
    )


def _events(block: scoring_pb2.EventBlock) -> Events:
    return Events(
        block.sequence,
        np.array(block.handles, dtype=np.uint32),
        np.array(block.times, dtype=np.int64),
        np.array(block.codes, dtype=np.uint32),
        block.settled_sequence,
    )


def _score_block(scores: Scores) -> Any:
    return _TWIN["ScoreBlock"](
        sequence=scores.sequence,
        release=scores.release,
        handles=_column(scores.handles, "<u4"),
        times=_column(scores.times, "<i8"),
        status=_column(scores.status, "u1"),
        values=_column(scores.values, "<f4"),
        levels=_column(scores.levels, "u1"),
        alarms=_column(scores.alarms, "u1"),
        health=_column(scores.health, "u1"),
        features=b"" if scores.features is None else _column(scores.features, "<f4"),
        **_reason_columns(scores.reasons),
    )


def _reason_columns(reasons: Reasons | None) -> dict[str, bytes]:
    if reasons is None:
        return {}
    return {
        "reason_rows": _column(reasons.row, "<u4"),
        "reason_outputs": _column(reasons.output, "<u4"),
        "reason_features": _column(reasons.feature, "<u4"),
        "reason_values": _column(reasons.contribution, "<f4"),
    }


def _column(values: NDArray[Any], wire_type: str) -> bytes:
    return values.astype(wire_type, copy=False).tobytes()


def _serialized(twin: message.Message) -> bytes:
    return twin.SerializeToString()


def _twin() -> dict[str, Any]:
    """The messages of the contract with each `[packed = true]` column as `bytes`, in a pool of their own."""
    schema = descriptor_pb2.FileDescriptorProto()
    scoring_pb2.DESCRIPTOR.CopyToProto(schema)
    for kind in schema.message_type:
        for column in kind.field:
            if column.options.packed:
                column.type = descriptor_pb2.FieldDescriptorProto.TYPE_BYTES
                column.label = descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL
                column.ClearField("options")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(schema)
    messages = pool.FindFileByName(schema.name).message_types_by_name
    return {name: message_factory.GetMessageClass(descriptor) for name, descriptor in messages.items()}


_TWIN = _twin()
