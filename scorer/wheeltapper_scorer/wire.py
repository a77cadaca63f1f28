"""Columns ↔ the messages of `wheeltapper/v1/scoring.proto`. Protobuf stops here: above this module are NumPy arrays.

Both directions go through a twin of the schema in which every packed fixed-width column is `bytes`: the two are the
same on the wire, and a column is taken over whole. A sender may also split or unpack a column, which a twin would
misread: where the bytes are not just one whole piece of every column, the typed parser reads them. On the wire numbers
are little-endian, as NumPy's are on every machine that Numba compiles for. docs/decisions/0006-wire-twin.md has the
figures.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message, message_factory
from google.protobuf.unknown_fields import UnknownFieldSet
from numpy.typing import NDArray
from wheeltapper.reasons import Reasons
from wheeltapper_proto import scoring_pb2

from wheeltapper_scorer.faults import CallError, Reason

_HANDLES, _TIMES, _VALUES = np.dtype(np.uint32), np.dtype(np.int64), np.dtype(np.float32)

Parsed = TypeVar("Parsed", bound=message.Message)


class Readings(NamedTuple):
    """A reading block as it came: n handles, n times, n × sensors values if the sender keeps the contract."""

    sequence: int
    handles: NDArray[np.uint32]
    times: NDArray[np.int64]  # µs since 1970, UTC
    values: NDArray[np.float32]  # flat, row-major
    historical: bool = False
    settled: int = 0  # no block up to this sequence comes again


class Events(NamedTuple):
    """An event block as it came: n handles, n times, n codes if the sender keeps the contract."""

    sequence: int
    handles: NDArray[np.uint32]
    times: NDArray[np.int64]
    codes: NDArray[np.uint32]  # positions in Open.event_codes
    settled: int = 0


class Scores(NamedTuple):
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
    columns: dict[str, Any] = {}
    for name in _COLUMNS:
        parts = [getattr(block, name) for block in blocks]
        columns[name] = None if parts[0] is None else np.concatenate([part[rows] for part in parts])
    return blocks[0]._replace(**columns, reasons=_joined_reasons(blocks, rows))


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


class UnaryRequest(NamedTuple):
    open: scoring_pb2.Open
    readings: Readings
    events: Events | None


def decode_stream(raw: bytes) -> scoring_pb2.Open | Readings | Events:
    """The body of one StreamRequest. Raises CallError MALFORMED where the bytes are no message or it has no body."""
    twin = _parsed(_TwinRequest(), raw)
    body = twin.WhichOneof("body")
    if body == "readings" and _is_whole(twin, twin.readings, raw):
        return _whole_readings(twin.readings)
    if body == "events" and _is_whole(twin, twin.events, raw):
        return _whole_events(twin.events)
    request = _parsed(scoring_pb2.StreamRequest(), raw)
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
    request = _parsed(scoring_pb2.ScoreRequest(), raw)
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
    response = _TwinResponse()
    _write(scores, response.scores)
    return _serialized(response)


def decode_scores(raw: bytes, outputs: int, features: int | None, has_reasons: bool) -> Scores:
    """The columns of what `encode_scores` wrote, which cannot be written; features: None where there is no such column.
    Raises ValueError where the bytes are no such answer."""
    try:
        block = _TwinResponse.FromString(raw).scores
    except message.DecodeError as error:
        raise ValueError(f"expected an answer, found {len(raw):,} bytes that are none") from error
    status = np.frombuffer(block.status, np.uint8)
    rows = len(status)
    return Scores(
        block.sequence,
        block.release,
        np.frombuffer(block.handles, _HANDLES).reshape(rows),
        np.frombuffer(block.times, _TIMES).reshape(rows),
        status,
        np.frombuffer(block.values, _VALUES).reshape(rows, outputs),
        np.frombuffer(block.levels, np.uint8).reshape(rows, outputs),
        np.frombuffer(block.alarms, np.uint8).reshape(rows, outputs),
        np.frombuffer(block.health, np.uint8).reshape(rows),
        None if features is None else np.frombuffer(block.features, _VALUES).reshape(rows, features),
        _decoded_reasons(block) if has_reasons else None,
    )


def _decoded_reasons(block: Any) -> Reasons:
    return Reasons(
        np.frombuffer(block.reason_rows, _HANDLES).astype(np.int64),
        np.frombuffer(block.reason_outputs, _HANDLES).astype(np.uint8),
        np.frombuffer(block.reason_features, _HANDLES).astype(np.int32),
        np.frombuffer(block.reason_values, _VALUES),
    )


def encode_revisions(scores: Scores) -> bytes:
    """A StreamResponse with readings scored anew."""
    response = _TwinResponse()
    _write(scores, response.revisions)
    return _serialized(response)


def encode_unary(opened: scoring_pb2.Opened, scores: Scores, revisions: Scores | None) -> bytes:
    """A ScoreResponse. Two encodings in a row are the encoding of both: protobuf merges by concatenation."""
    response = _TWIN["ScoreResponse"]()
    _write(scores, response.scores)
    if revisions is not None:
        _write(revisions, response.revisions)
    return scoring_pb2.ScoreResponse(opened=opened).SerializeToString() + _serialized(response)


def _parsed(request: Parsed, raw: bytes) -> Parsed:
    try:
        request.ParseFromString(raw)
    except message.DecodeError as error:
        raise _malformed(request.DESCRIPTOR.full_name) from error
    return request


def _malformed(name: str) -> CallError:
    return CallError(Reason.MALFORMED, f"expected a {name}; found bytes that are none")


def _is_whole(twin: message.Message, block: message.Message, raw: bytes) -> bool:
    """Whether a twin has read all there is. An unpacked column is unknown to it. Of a column in pieces, as of a block
    in pieces, it keeps the last one only, so that what it would write is shorter than what it read."""
    return twin.ByteSize() == len(raw) and len(UnknownFieldSet(block)) == 0


def _whole_readings(block: Any) -> Readings:
    return Readings(
        block.sequence,
        _taken(block.handles, _HANDLES),
        _taken(block.times, _TIMES),
        _taken(block.values, _VALUES),
        block.historical,
        block.settled_sequence,
    )


def _whole_events(block: Any) -> Events:
    return Events(
        block.sequence,
        _taken(block.handles, _HANDLES),
        _taken(block.times, _TIMES),
        _taken(block.codes, _HANDLES),
        block.settled_sequence,
    )


def _taken(column: bytes, kind: np.dtype[Any]) -> NDArray[Any]:
    """A column as an array of its own, one that can be written: kernels are compiled for no other."""
    try:
        return np.frombuffer(column, kind).copy()
    except ValueError as error:  # part of an element is left over
        raise _malformed("StreamRequest") from error


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


def _write(scores: Scores, block: Any) -> None:
    block.sequence = scores.sequence
    block.release = scores.release
    block.handles = scores.handles.tobytes()
    block.times = scores.times.tobytes()
    block.status = scores.status.tobytes()
    block.values = scores.values.tobytes()
    block.levels = scores.levels.tobytes()
    block.alarms = scores.alarms.tobytes()
    block.health = scores.health.tobytes()
    if scores.features is not None:
        block.features = scores.features.tobytes()
    if scores.reasons is not None:
        block.reason_rows = scores.reasons.row.astype(np.uint32).tobytes()
        block.reason_outputs = scores.reasons.output.astype(np.uint32).tobytes()
        block.reason_features = scores.reasons.feature.astype(np.uint32).tobytes()
        block.reason_values = scores.reasons.contribution.tobytes()


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
_TwinRequest, _TwinResponse = _TWIN["StreamRequest"], _TWIN["StreamResponse"]
