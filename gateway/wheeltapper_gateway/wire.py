"""Columns in, protobuf bytes out, and back, without touching a single element in Python.

On the wire a packed fixed-width field and a `bytes` field are the same. So a twin of the committed contract, in which
every such field is `repeated bytes`, reads and writes whole columns (measured for 256 rows: 10 ns a row against 540
written and 260 read through the typed fields). A legal sender may split a field or leave it unpacked: the first is
joined, the second is seen by its wire type, and the typed, slower messages decode it.
"""

from __future__ import annotations

import math
import sys
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError
from google.protobuf.unknown_fields import UnknownFieldSet
from wheeltapper_command.errors import CommandError
from wheeltapper_proto import scoring_pb2 as contract

METHOD = "/wheeltapper.v1.Scoring/StreamScores"
METHOD_UNARY = "/wheeltapper.v1.Scoring/Score"

if sys.byteorder != "little":  # columns travel as they lie in memory
    raise ImportError("wheeltapper_gateway needs a little-endian machine: its columns are sent as they lie in memory")


class ProtocolError(CommandError):
    """The other side sent what the contract does not allow."""


@dataclass(frozen=True, slots=True)
class Reasons:
    """Why, as columns: m reasons in the order of rows, outputs, weight. Positions uint32[m], values float32[m]."""

    rows: array[int] = field(default_factory=lambda: array("I"))
    outputs: array[int] = field(default_factory=lambda: array("I"))
    features: array[int] = field(default_factory=lambda: array("I"))  # in Opened.features
    values: array[float] = field(default_factory=lambda: array("f"))


@dataclass(frozen=True, slots=True)
class Columns:
    """What a score block's columns are called, as Opened and the Open before it say."""

    outputs: tuple[str, ...] = ()
    features: tuple[str, ...] = ()  # of ScoreBlock.features; none unless asked for
    named: tuple[str, ...] = ()  # what a reason's feature is called


@dataclass(frozen=True, slots=True)
class Scores:
    """One ScoreBlock as columns. Row i is element i; `values`, `levels`, `alarms`, `features` are row-major."""

    sequence: int
    release: int
    handles: array[int]  # uint32[n]
    times: array[int]  # int64[n], microseconds since 1970 UTC
    status: bytes  # RowStatus[n]
    values: array[float]  # float32[n × outputs]
    levels: bytes  # Level[n × outputs]
    alarms: bytes  # AlarmState[n × outputs]
    health: bytes  # Health bits[n]
    features: array[float]  # float32[n × features], empty unless asked for
    reasons: Reasons = field(default_factory=Reasons)  # empty unless asked for

    def __len__(self) -> int:
        return len(self.status)


Response = contract.Opened | Scores | contract.Ack | contract.Drain


def encode_open(
    gateway: str,
    epoch: int,
    asset_class: str,
    sensors: Sequence[str],
    asset_ids: Sequence[str],
    event_codes: Sequence[str] = (),
    durable: bool = False,
    want_features: bool = False,
    attributes: Sequence[str] = (),
    attribute_values: Iterable[float] = (),
    reasons_top: int = 0,
    reasons_always: bool = False,
) -> bytes:
    """The Open message; `attribute_values` is row-major, assets × attributes."""
    request = contract.StreamRequest()
    request.open.gateway = gateway
    request.open.epoch = epoch
    request.open.asset_class = asset_class
    request.open.sensors.extend(sensors)
    request.open.asset_ids.extend(asset_ids)
    request.open.event_codes.extend(event_codes)
    request.open.ack = contract.ACK_LEVEL_DURABLE if durable else contract.ACK_LEVEL_SCORED
    request.open.want_features = want_features
    request.open.attributes.extend(attributes)
    request.open.attribute_values.extend(attribute_values)
    request.open.reasons_top = reasons_top
    request.open.reasons_always = reasons_always
    return request.SerializeToString()


def encode_readings(
    sequence: int,
    handles: array[int],
    times: array[int],
    values: array[float],
    historical: bool = False,
    settled_sequence: int = 0,
) -> bytes:
    """A ReadingBlock: uint32[n], int64[n], float32[n × sensors] row-major. No block up to `settled_sequence` will be
    sent again."""
    request = _TwinRequest()
    block = request.readings
    block.sequence = sequence
    block.handles.append(handles.tobytes())
    block.times.append(times.tobytes())
    block.values.append(values.tobytes())
    block.historical = historical
    block.settled_sequence = settled_sequence
    return bytes(request.SerializeToString())


def encode_events(
    sequence: int, handles: array[int], times: array[int], codes: array[int], settled_sequence: int = 0
) -> bytes:
    """An EventBlock: uint32[n], int64[n], uint32[n] positions in `Open.event_codes`."""
    request = _TwinRequest()
    block = request.events
    block.sequence = sequence
    block.handles.append(handles.tobytes())
    block.times.append(times.tobytes())
    block.codes.append(codes.tobytes())
    block.settled_sequence = settled_sequence
    return bytes(request.SerializeToString())


def decode_response(data: bytes, columns: Columns) -> tuple[str, Response]:
    """What the server said: ("opened" | "scores" | "revisions" | "ack" | "drain", message). Raises ProtocolError for
    anything else, and for a ScoreBlock of other columns."""
    try:
        twin = _TwinResponse.FromString(data)
        body = twin.WhichOneof("body")
        if body in ("scores", "revisions"):
            block = getattr(twin, body)
            scores = None if _is_unpacked(block) else _scores(block, _joined, columns)
            if scores is None:
                block = getattr(contract.StreamResponse.FromString(data), body)
                scores = _scores(block, _listed, columns)
            if scores is None:
                raise ProtocolError(
                    f"expected every column of score block {block.sequence} to have {len(block.status)} rows "
                    f"({len(columns.outputs)} outputs, {len(columns.features)} features) and reasons to name these, "
                    "found lengths or positions that do not agree"
                )
            return body, scores
        typed = contract.StreamResponse.FromString(data)
    except DecodeError as error:
        raise ProtocolError(f"expected a StreamResponse of wheeltapper.v1, found {len(data)} other bytes") from error
    if body is None:
        raise ProtocolError("expected a StreamResponse with a body, found none that this version knows")
    return body, getattr(typed, body)


def _is_unpacked(block: Any) -> bool:
    """Whether a sender has left part of a column unpacked: the twin does not know such elements by their wire type."""
    unknown = UnknownFieldSet(block)
    return any(unknown[i].field_number in _PACKED for i in range(len(unknown)))


def _scores(block: Any, column: Any, columns: Columns) -> Scores | None:
    """The block's columns, or None where their lengths do not agree with its rows."""
    rows = len(block.status)
    handles, times = column("I", block.handles), column("q", block.times)
    values, asked = column("f", block.values), column("f", block.features)
    reasons = _reasons(block, column, rows, columns)
    if handles is None or times is None or values is None or asked is None or reasons is None:
        return None
    cells = rows * len(columns.outputs)
    if column is _listed and not values:  # the answer to events may leave out what only readings have
        values = array("f", [math.nan]) * cells
    levels, alarms, health = block.levels or bytes(cells), block.alarms or bytes(cells), block.health or bytes(rows)
    agree = (
        len(handles) == len(times) == len(health) == rows
        and len(values) == len(levels) == len(alarms) == cells
        and (len(asked) == rows * len(columns.features) or (column is _listed and not asked))
    )
    if not agree:
        return None
    return Scores(
        block.sequence, block.release, handles, times, block.status, values, levels, alarms, health, asked, reasons
    )


def _reasons(block: Any, column: Any, rows: int, columns: Columns) -> Reasons | None:
    """The block's reasons, or None where one of them is not whole or points at what is not there."""
    at, output = column("I", block.reason_rows), column("I", block.reason_outputs)
    feature, value = column("I", block.reason_features), column("f", block.reason_values)
    if at is None or output is None or feature is None or value is None:
        return None
    if not len(at) == len(output) == len(feature) == len(value):
        return None
    if len(at) and not (max(at) < rows and max(output) < len(columns.outputs) and max(feature) < len(columns.named)):
        return None
    return Reasons(at, output, feature, value)


def _joined(code: str, parts: Sequence[bytes]) -> array[Any] | None:
    column = array(code)
    data = parts[0] if len(parts) == 1 else b"".join(parts)
    if len(data) % column.itemsize:
        return None
    column.frombytes(data)
    return column


def _listed(code: str, items: Sequence[Any]) -> array[Any]:
    return array(code, items)


def _twin_pool() -> descriptor_pool.DescriptorPool:
    """The committed contract with every packed fixed-width column turned into `repeated bytes`."""
    file = descriptor_pb2.FileDescriptorProto()
    contract.DESCRIPTOR.CopyToProto(file)
    for message in file.message_type:
        for column in message.field:
            if column.options.packed:
                column.type = descriptor_pb2.FieldDescriptorProto.TYPE_BYTES
                column.ClearField("options")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return pool


_POOL = _twin_pool()
_PACKED = {column.number for column in contract.ScoreBlock.DESCRIPTOR.fields if column.GetOptions().packed}
_TwinRequest: Any = message_factory.GetMessageClass(_POOL.FindMessageTypeByName("wheeltapper.v1.StreamRequest"))
_TwinResponse: Any = message_factory.GetMessageClass(_POOL.FindMessageTypeByName("wheeltapper.v1.StreamResponse"))
