"""Every legal way to write a message is read alike, and what we write is what protobuf itself would write."""

from __future__ import annotations

import contextlib
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from wheeltapper.reasons import Reasons
from wheeltapper_proto import scoring_pb2 as pb
from wheeltapper_scorer import wire
from wheeltapper_scorer.faults import CallError, Reason

uint32s = st.integers(0, 2**32 - 1)
int64s = st.integers(-(2**63), 2**63 - 1)
floats = st.floats(width=32)


def varint(number: int) -> bytes:
    out = b""
    while number > 127:
        out += bytes([number & 127 | 128])
        number >>= 7
    return out + bytes([number])


def packed(field: int, letter: str, values: list) -> bytes:
    body = struct.pack(f"<{len(values)}{letter}", *values)
    return varint(field << 3 | 2) + varint(len(body)) + body


def unpacked(field: int, letter: str, values: list) -> bytes:
    kind = 1 if letter == "q" else 5
    return b"".join(varint(field << 3 | kind) + struct.pack(f"<{letter}", value) for value in values)


@st.composite
def columns(draw, field: int, letter: str, elements: st.SearchStrategy) -> tuple[list, list[bytes]]:
    """A column's values, and the pieces in which a sender wrote it: whole, split, unpacked, empty ones between."""
    chunks = draw(st.lists(st.lists(elements, max_size=5), max_size=4))
    pieces = [draw(st.sampled_from((packed, unpacked)))(field, letter, chunk) for chunk in chunks]
    return [value for chunk in chunks for value in chunk], pieces


@st.composite
def woven(draw, *rows: list[bytes]) -> bytes:
    """Pieces of several columns in any order that keeps each column's own."""
    left, out = [list(row) for row in rows if row], b""
    while left:
        row = draw(st.sampled_from(left))
        out += row.pop(0)
        left = [row for row in left if row]
    return out


unknown = st.sampled_from(
    [b"", varint(99 << 3 | 2) + b"\x03abc", varint(77 << 3 | 0) + b"\x05", varint(2 << 3 | 0) + b"\x01"]
)


@given(st.data(), st.lists(st.integers(0, 2**64 - 1), max_size=3), unknown)
def test_every_legal_reading_block_is_read_alike(data, sequences, alien):
    handles, handle_pieces = data.draw(columns(2, "I", uint32s))
    times, time_pieces = data.draw(columns(3, "q", int64s))
    values, value_pieces = data.draw(columns(4, "f", floats))
    scalars = [varint(1 << 3) + varint(number) for number in sequences] + [varint(5 << 3) + b"\x01"]
    body = data.draw(woven(handle_pieces, time_pieces, value_pieces, scalars, [alien]))
    cut = data.draw(st.sampled_from([None, "twice"]))
    raw = varint(2 << 3 | 2) + varint(len(body)) + body
    if cut:  # the same member of the oneof twice is one merged message
        raw += varint(2 << 3 | 2) + b"\x00"
    read = wire.decode_stream(raw)
    assert isinstance(read, wire.Readings)
    assert (read.sequence, read.historical) == (sequences[-1] if sequences else 0, True)
    assert read.handles.tolist() == handles
    assert read.times.tolist() == times
    np.testing.assert_array_equal(read.values, np.array(values, np.float32))
    assert (read.handles.dtype, read.times.dtype, read.values.dtype) == (np.uint32, np.int64, np.float32)
    assert read.values.flags.writeable
    assert read.times.flags.c_contiguous


@given(st.data())
def test_every_legal_event_block_is_read_alike(data):
    handles, handle_pieces = data.draw(columns(2, "I", uint32s))
    times, time_pieces = data.draw(columns(3, "q", int64s))
    codes, code_pieces = data.draw(columns(4, "I", uint32s))
    body = data.draw(woven(handle_pieces, time_pieces, code_pieces))
    read = wire.decode_stream(varint(3 << 3 | 2) + varint(len(body)) + body)
    assert isinstance(read, wire.Events)
    assert [read.handles.tolist(), read.times.tolist(), read.codes.tolist()] == [handles, times, codes]


def test_bits_of_values_survive():
    bits = np.array([0x7F800001, 0xFFC00000, 0x80000000, 0x00000001, 0x7F800000], "<u4")
    body = varint(4 << 3 | 2) + varint(20) + bits.tobytes()
    read = wire.decode_stream(varint(2 << 3 | 2) + varint(len(body)) + body)
    assert isinstance(read, wire.Readings)
    np.testing.assert_array_equal(read.values.view(np.uint32)[1:], bits[1:])
    assert np.isnan(read.values[0])


@pytest.mark.parametrize(
    "raw", [b"", b"\x12\x05abc", b"\x12\x05\x12\x03abc", varint(99 << 3 | 2) + b"\x03abc", b"\xff" * 40]
)
def test_what_is_no_request_is_called_malformed(raw):
    with pytest.raises(CallError) as caught:
        wire.decode_stream(raw)
    assert caught.value.reason is Reason.MALFORMED


@given(st.binary(max_size=60))
def test_any_bytes_are_a_request_or_malformed(raw):
    with contextlib.suppress(CallError):
        assert isinstance(wire.decode_stream(raw), (pb.Open, wire.Readings, wire.Events))


@st.composite
def scores(draw) -> wire.Scores:
    n, outputs, features = draw(st.integers(0, 5)), draw(st.integers(0, 3)), draw(st.none() | st.integers(0, 4))

    def column(letter: str, elements: st.SearchStrategy, *shape: int) -> np.ndarray:
        size = int(np.prod(shape))
        return np.array(draw(st.lists(elements, min_size=size, max_size=size)), letter).reshape(shape)

    byte = st.integers(0, 255)
    return wire.Scores(
        draw(st.integers(0, 2**64 - 1)), draw(st.integers(0, 2**64 - 1)),
        column("u4", uint32s, n), column("i8", int64s, n), column("u1", byte, n), column("f4", floats, n, outputs),
        column("u1", byte, n, outputs), column("u1", byte, n, outputs), column("u1", byte, n),
        None if features is None else column("f4", floats, n, features),
        draw(st.none() | reasons(n)),
    )  # fmt: skip


@st.composite
def reasons(draw, rows: int) -> Reasons:
    """Up to six of them, in the order of rows."""
    count = draw(st.integers(0, 6 if rows else 0))
    cells = [draw(st.tuples(st.integers(0, rows - 1), st.integers(0, 9), st.integers(0, 99))) for _ in range(count)]
    row, output, feature = np.array(sorted(cells), np.int64).reshape(-1, 3).T
    values = np.array(draw(st.lists(floats, min_size=count, max_size=count)), "f4")
    return Reasons(row, output.astype(np.uint8), feature.astype(np.int32), values)


def typed(block: wire.Scores) -> pb.ScoreBlock:
    return pb.ScoreBlock(
        sequence=block.sequence, release=block.release, handles=block.handles.tolist(), times=block.times.tolist(),
        status=block.status.tobytes(), values=block.values.ravel().tolist(), levels=block.levels.tobytes(),
        alarms=block.alarms.tobytes(), health=block.health.tobytes(),
        features=[] if block.features is None else block.features.ravel().tolist(),
        **dict(zip(
            ("reason_rows", "reason_outputs", "reason_features", "reason_values"),
            [column.tolist() for column in block.reasons or ()], strict=block.reasons is not None,
        )),
    )  # fmt: skip


@given(scores())
def test_answers_are_the_bytes_that_protobuf_writes(block):
    assert wire.encode_scores(block) == pb.StreamResponse(scores=typed(block)).SerializeToString()
    assert wire.encode_revisions(block) == pb.StreamResponse(revisions=typed(block)).SerializeToString()


@given(scores())
def test_answers_are_read_back_as_they_were(block):
    shape = block.values.shape[1], None if block.features is None else block.features.shape[1]
    read = wire.decode_scores(wire.encode_scores(block), *shape, block.reasons is not None)
    for found, expected in zip((*read[:-1], *(read.reasons or ())), (*block[:-1], *(block.reasons or ())), strict=True):
        np.testing.assert_array_equal(found, expected)
        assert getattr(found, "dtype", None) == getattr(expected, "dtype", None)


@pytest.mark.parametrize("outputs", [1, 3])
@given(raw=st.binary(max_size=60))
def test_any_bytes_are_an_answer_or_none(outputs, raw):
    with contextlib.suppress(ValueError):
        assert isinstance(wire.decode_scores(raw, outputs, None, has_reasons=True), wire.Scores)


@given(scores(), st.none() | scores())
def test_a_unary_answer_reads_as_its_parts(block, revisions):
    opened = pb.Opened(handles=[0, 7], release=3, pack="ab", outputs=["rul"], levels=[2, 3])
    response = pb.ScoreResponse.FromString(wire.encode_unary(opened, block, revisions))
    expected = pb.ScoreResponse(opened=opened, scores=typed(block))
    if revisions is not None:
        expected.revisions.CopyFrom(typed(revisions))
    assert response.SerializeToString(deterministic=True) == expected.SerializeToString(deterministic=True)


@given(scores(), st.integers(1, 3))
def test_cutting_and_joining_are_inverse(block, size):
    n = len(block.handles)
    pieces = [block.cut(i, i + size) for i in range(0, n, size)] or [block.cut(0, 0)]
    assert all(len(piece.handles) <= size for piece in pieces)
    assert wire.encode_scores(wire.joined(pieces)) == wire.encode_scores(block)
