"""Files of records: what is read of a damaged one is always a beginning of what was written."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from wheeltapper_scorer.records import Kind, Reader, Record, Writer

RECORDS = [Record(7 + i, Kind.BLOCK, i, 10**15 + i, bytes([i]) * (3 * i)) for i in range(5)]


def written(file_number: int = 3) -> bytes:
    writer = Writer(file_number)
    data = writer.opening + b"".join(part for record in RECORDS for part in writer.encode(record))
    assert writer.bytes == len(data)
    return data


def read(data: bytes, file_number: int = 3) -> list[Record]:
    return [
        Record(one.number, one.kind, one.stream, one.clock_us, bytes(one.payload))
        for one in Reader(memoryview(data), file_number)
    ]


def test_what_is_written_is_read() -> None:
    records = Reader(memoryview(written()), 3)
    assert len(list(records)) == len(RECORDS)
    assert records.valid == len(written())
    assert read(written()) == RECORDS
    assert read(written(), file_number=4) == []  # a file under another one's name


def test_every_flipped_bit_ends_what_is_read() -> None:
    data = written()
    for bit in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        found = read(bytes(damaged))
        assert found == RECORDS[: len(found)]
        assert len(found) < len(RECORDS)


def test_every_truncation_leaves_a_beginning() -> None:
    data = written()
    for size in range(len(data)):
        found = read(data[:size])
        assert found == RECORDS[: len(found)]
        assert len(found) < len(RECORDS)


def test_a_missing_record_ends_what_is_read() -> None:
    writer = Writer(3)
    parts = [b"".join(writer.encode(record)) for record in RECORDS]
    assert read(writer.opening + parts[0] + b"".join(parts[2:])) == RECORDS[:1]


@given(st.binary(max_size=400))
def test_any_bytes_are_read_without_harm(data: bytes) -> None:
    assert read(data) == []
    assert len(read(written() + data)) >= len(RECORDS)
