"""The twin descriptors write what the contract writes, and read whatever a legal sender may write."""

from __future__ import annotations

import contextlib
import struct
from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wheeltapper_gateway import wire
from wheeltapper_proto import scoring_pb2 as pb

ROWS = st.integers(0, 7)
LENGTH_DELIMITED = 2


def key(field: int, kind: int) -> bytes:
    return bytes([field << 3 | kind])


def pieces(draw: st.DrawFn, field: int, items: list[bytes]) -> bytes:
    """A repeated fixed-width field, split into packed runs and single unpacked items at will."""
    out = b""
    while items:
        size = draw(st.integers(1, len(items)))
        if size == 1 and draw(st.booleans()):
            out += key(field, 5 if len(items[0]) == 4 else 1) + items[0]
        else:
            run = b"".join(items[:size])
            out += key(field, LENGTH_DELIMITED) + bytes([len(run)]) + run
        items = items[size:]
    return out


@st.composite
def score_blocks(draw: st.DrawFn) -> tuple[bytes, int, int, int]:
    rows, outputs, features = draw(ROWS), draw(st.integers(1, 2)), draw(st.integers(0, 2))
    floats = st.floats(width=32)
    cells = rows * outputs
    handles = [struct.pack("<I", draw(st.integers(0, 2**32 - 1))) for _ in range(rows)]
    times = [struct.pack("<q", draw(st.integers(-(2**63), 2**63 - 1))) for _ in range(rows)]
    body = b""
    parts = [
        pieces(draw, 3, handles),
        pieces(draw, 4, times),
        key(5, 2) + bytes([rows]) + draw(st.binary(min_size=rows, max_size=rows)),
        pieces(draw, 6, [struct.pack("<f", draw(floats)) for _ in range(cells)]),
        key(7, 2) + bytes([cells]) + draw(st.binary(min_size=cells, max_size=cells)),
        key(8, 2) + bytes([cells]) + draw(st.binary(min_size=cells, max_size=cells)),
        key(9, 2) + bytes([rows]) + draw(st.binary(min_size=rows, max_size=rows)),
        pieces(draw, 10, [struct.pack("<f", draw(floats)) for _ in range(rows * features)]),
        key(1, 0) + bytes([draw(st.integers(0, 127))]),
        b"\x7a\x03new",  # field 15: of a later version
    ]
    reasons = draw(st.integers(0, 4)) if cells else 0
    for number, limit in ((11, rows), (12, outputs), (13, 5)):
        positions = [struct.pack("<I", draw(st.integers(0, limit - 1))) for _ in range(reasons)]
        parts.append(pieces(draw, number, positions))
    parts.append(pieces(draw, 14, [struct.pack("<f", draw(floats)) for _ in range(reasons)]))
    body = b"".join(draw(st.permutations(parts)))
    size = len(body)
    prefix = bytes([size & 0x7F | 0x80, size >> 7]) if size > 127 else bytes([size])
    return key(2, 2) + prefix + body, rows, outputs, features


def columns(outputs: int, features: int, named: int) -> wire.Columns:
    return wire.Columns(tuple("o" * outputs), tuple("f" * features), tuple("n" * named))


@given(score_blocks())
def test_reads_split_unpacked_and_mixed_columns_like_the_typed_messages(drawn: tuple[bytes, int, int, int]) -> None:
    data, rows, outputs, features = drawn
    typed = pb.StreamResponse.FromString(data).scores
    body, found = wire.decode_response(data, columns(outputs, features, 5))
    assert body == "scores"
    assert isinstance(found, wire.Scores)
    assert len(found) == rows
    assert found.sequence == typed.sequence
    assert found.handles == array("I", typed.handles)
    assert found.times == array("q", typed.times)
    assert found.values.tobytes() == array("f", typed.values).tobytes()
    assert found.features.tobytes() == array("f", typed.features).tobytes()
    assert (found.status, found.health) == (typed.status, typed.health)
    assert (found.levels, found.alarms) == (typed.levels, typed.alarms)
    assert found.reasons.rows == array("I", typed.reason_rows)
    assert found.reasons.outputs == array("I", typed.reason_outputs)
    assert found.reasons.features == array("I", typed.reason_features)
    assert found.reasons.values.tobytes() == array("f", typed.reason_values).tobytes()


def test_reasons_that_are_all_unpacked_are_not_lost() -> None:
    """Of every column the same number is missing from the twin, so no length tells."""
    body = pb.ScoreBlock(
        handles=[1], times=[1], status=b"\0", values=[1.0], levels=b"\0", alarms=b"\0", health=b"\0"
    ).SerializeToString()
    for number, cell in ((11, 0), (12, 0), (13, 2)):
        body += key(number, 5) + struct.pack("<I", cell)
    body += key(14, 5) + struct.pack("<f", 0.5)
    _, found = wire.decode_response(key(2, 2) + bytes([len(body)]) + body, columns(1, 0, 3))
    assert isinstance(found, wire.Scores)
    assert (list(found.reasons.features), list(found.reasons.values)) == ([2], [0.5])


@given(ROWS, st.integers(0, 3), st.booleans(), st.integers(0, 2**64 - 1))
def test_writes_the_bytes_of_the_typed_messages(rows: int, sensors: int, historical: bool, sequence: int) -> None:
    handles, times = array("I", range(rows)), array("q", range(-rows, 0))
    values = array("f", [0.1] * (rows * sensors))
    expected = pb.StreamRequest()
    block = expected.readings
    block.sequence, block.historical = sequence, historical
    block.handles.extend(handles)
    block.times.extend(times)
    block.values.extend(values)
    # Compared as messages: an empty column is written as an empty field by one and left out by the other.
    assert pb.StreamRequest.FromString(wire.encode_readings(sequence, handles, times, values, historical)) == expected
    events = pb.StreamRequest.FromString(wire.encode_events(sequence, handles, times, handles)).events
    assert (events.sequence, list(events.handles)) == (sequence, list(handles))
    assert (list(events.times), list(events.codes)) == (list(times), list(handles))


@pytest.mark.parametrize(
    "change",
    [
        lambda block: block.values.pop(),
        lambda block: block.handles.append(1),
        lambda block: block.times.pop(),
        lambda block: setattr(block, "health", b"\0" * 5),
        lambda block: setattr(block, "levels", b"\0"),
        lambda block: block.features.append(1.0),
        lambda block: block.reason_rows.append(0),
        lambda block: block.reason_values.pop(),
        lambda block: block.reason_rows.__setitem__(0, 2),
        lambda block: block.reason_outputs.__setitem__(0, 1),
        lambda block: block.reason_features.__setitem__(0, 3),
    ],
)
def test_columns_that_do_not_agree_are_refused(change: object) -> None:
    """Not one row is guessed: which value belongs to which row is no longer known."""
    response = pb.StreamResponse()
    block = response.scores
    block.handles.extend([1, 2])
    block.times.extend([1, 2])
    block.status, block.levels, block.alarms, block.health = b"\0\0", bytes(2), bytes(2), bytes(2)
    block.values.extend([1.0, 2.0])
    block.reason_rows.append(1)
    block.reason_outputs.append(0)
    block.reason_features.append(2)
    block.reason_values.append(0.5)
    wire.decode_response(response.SerializeToString(), columns(1, 0, 3))
    change(block)  # type: ignore[operator]
    with pytest.raises(wire.ProtocolError, match="do not agree"):
        wire.decode_response(response.SerializeToString(), columns(1, 0, 3))


@given(st.binary(max_size=64))
def test_any_bytes_are_a_message_or_a_protocol_error(data: bytes) -> None:
    with contextlib.suppress(wire.ProtocolError):
        wire.decode_response(data, columns(2, 0, 0))
