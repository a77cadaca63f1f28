"""The write-ahead spool: what `append` returned from is on disk, and stays there until it is settled.

One table of chunks in SQLite (WAL, synchronous=FULL). A chunk waits without a sequence number; `seal` joins waiting
chunks into a block and gives it the next one, on disk before it is sent, so a block is the same block after a crash.
Numbers are thus given in the order of sending, which may differ from the order of arrival: live chunks go first.

Every `now_us` is of a clock that does not jump while a process lives (`settings.Steady`), so that an age is an age. Of
what an earlier process left only the wall clock tells one. It is taken at its word, but for a chunk from the future:
accepted nobody knows when, that one is backlog, so that nothing old raises an alarm for today.
"""

from __future__ import annotations

import json
import sqlite3
from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import IntEnum
from pathlib import Path
from typing import Any

from wheeltapper_command.errors import CommandError, Refused, UsageError

from wheeltapper_gateway.names import check_codes, check_count, check_names, code_fault, fault

MEMORY = ":memory:"
_CHUNK_OVERHEAD_BYTES = 64
_LONG_AGO_US = -(1 << 62)
_MENDS = {  # by a word of SQLite's own message
    "full": "free some space; nothing accepted earlier is lost",
    "locked": "another gateway has it open; give each its own file",
    "readonly": "let this program write to that disk and folder again; nothing accepted earlier is lost",
    "I/O": "look at what the system's log says of that disk; nothing accepted earlier is lost unless the disk lost it",
    "unable to open": "name a file in a folder that is there and that this program may write to",
}
_SCHEMA = """
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS names (kind INTEGER, number INTEGER, name TEXT, PRIMARY KEY (kind, number)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS chunks (
    place INTEGER PRIMARY KEY, sequence INTEGER, kind INTEGER NOT NULL, historical INTEGER NOT NULL,
    accepted_us INTEGER NOT NULL, rows INTEGER NOT NULL, payload BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS waiting ON chunks (accepted_us, place) WHERE sequence IS NULL;
CREATE INDEX IF NOT EXISTS sealed ON chunks (sequence) WHERE sequence IS NOT NULL;
"""


class SpoolError(CommandError):
    """The spool could not keep it: nothing of what the call brought was accepted."""


class Kind(IntEnum):
    READINGS = 0
    EVENTS = 1


class Name(IntEnum):
    ASSET = 0
    CODE = 1


FAULTS = {Name.ASSET: fault, Name.CODE: code_fault}  # why no scorer takes a name


@dataclass(frozen=True, slots=True)
class Block:
    """Rows under one sequence number. `cells` is float32[n × sensors] of readings or uint32[n] codes of events."""

    sequence: int
    kind: Kind
    historical: bool  # the sender said so when it was accepted
    accepted_us: int  # of its oldest row
    assets: array[int]  # uint32[n], the spool's own asset numbers
    times: array[int]  # int64[n], microseconds since 1970 UTC
    cells: array[Any]

    def __len__(self) -> int:
        return len(self.times)

    def cut(self, begin: int, end: int, sequence: int) -> Block:
        """Rows [begin, end) as a block of its own."""
        width, rows = len(self.cells) // max(len(self), 1), slice(begin, end)
        cells = self.cells[begin * width : end * width]
        return replace(self, sequence=sequence, assets=self.assets[rows], times=self.times[rows], cells=cells)


class Spool:
    """Not thread-safe by itself: the gateway holds its lock around every call. `path` may be ":memory:"."""

    def __init__(
        self, path: str | Path, gateway: str, asset_class: str, sensors: Sequence[str], bytes_max: int, now_us: int
    ) -> None:
        self.path = str(path)
        self.sensors = tuple(sensors)
        self._bytes_max = bytes_max
        with self._reading("open"):
            # Exclusive: a second process on the same spool would send the same sequence numbers.
            self._database = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, timeout=1.0)
            try:
                for pragma in ("locking_mode=EXCLUSIVE", "journal_mode=WAL", "synchronous=FULL"):
                    self._database.execute(f"PRAGMA {pragma}")
                self._database.executescript(_SCHEMA)
                self._recover({"gateway": gateway, "asset_class": asset_class, "sensors": json.dumps(sensors)}, now_us)
            except BaseException:
                self._database.close()
                raise

    def _recover(self, identity: dict[str, str], now_us: int) -> None:
        facts = dict(self._database.execute("SELECT name, value FROM facts"))
        totals = "SELECT count(*), total(rows), total(length(payload)) FROM chunks"
        chunks, rows, size = self._database.execute(totals).fetchone()
        changed = [f"{name} {facts[name]}" for name, value in identity.items() if facts.get(name, value) != value]
        if chunks and changed:
            raise Refused(
                f"{self.path} holds {int(rows):,} unsent readings or events of {', '.join(changed)}",
                "open it once more as it was, until they are sent; or begin another file",
            )
        with self._transaction("open"):
            if changed or not facts:
                # A clock reading rises from one spool file to the next, even where the old file is lost.
                epoch = max(now_us, int(facts.get("epoch", 0)) + 1)
                facts = {**identity, "epoch": epoch, "sequence": 0, "dropped": 0}
                self._database.executemany("REPLACE INTO facts VALUES (?, ?)", facts.items())
            if not chunks:
                self._database.execute("DELETE FROM names")
            self._database.execute("UPDATE chunks SET accepted_us = ? WHERE accepted_us > ?", (_LONG_AGO_US, now_us))
        self.epoch = int(facts["epoch"])
        self.dropped_rows = int(facts["dropped"])
        self._sequence = int(facts["sequence"])
        self._listed: dict[Name, list[str]] = {kind: [] for kind in Name}
        for kind, name in self._database.execute("SELECT kind, name FROM names ORDER BY kind, number"):
            self._listed[Name(kind)].append(name)
        self._numbers = {  # without names that an older release kept and no scorer takes
            kind: {name: i for i, name in enumerate(listed) if not FAULTS[kind](name)}
            for kind, listed in self._listed.items()
        }
        waiting = self._database.execute("SELECT total(rows) FROM chunks WHERE sequence IS NULL").fetchone()[0]
        self.waiting_rows = int(waiting)
        self.bytes = int(size) + chunks * _CHUNK_OVERHEAD_BYTES

    def fresh(self, kind: Name, names: Iterable[str]) -> list[str]:
        """Those that have no number yet. Raises UsageError where no scorer takes one of them, or so many."""
        known = self._numbers[kind]
        fresh = [name for name in dict.fromkeys(names) if name not in known]
        if kind is Name.ASSET:
            check_names("asset id", fresh)
        else:
            check_codes(fresh)
            check_count("event codes", len(known) + len(fresh))
        return fresh

    def numbers(self, kind: Name, names: Sequence[str]) -> array[int]:
        """The spool's numbers for asset ids or event codes, uint32, given at first sight and kept. Raises UsageError,
        and keeps none, where no scorer takes one: its Open would be refused for ever, and all others with it."""
        known, listed = self._numbers[kind], self._listed[kind]
        if fresh := self.fresh(kind, names):
            rows = [(kind, number, name) for number, name in enumerate(fresh, start=len(listed))]
            with self._transaction("keep names"):
                self._database.executemany("INSERT INTO names VALUES (?, ?, ?)", rows)
            known.update((name, number) for _, number, name in rows)
            listed.extend(fresh)
        return array("I", map(known.__getitem__, names))

    def names(self, kind: Name) -> Sequence[str]:
        """All names of a kind; the position is the number. It grows in place."""
        return self._listed[kind]

    def append(
        self,
        kind: Kind,
        assets: array[int],
        times: array[int],
        cells: array[Any],
        now_us: int,
        historical: bool = False,
        chunk_rows: int = 4096,
    ) -> int:
        """Keep rows, all or none, in chunks of at most `chunk_rows`; on disk when it returns. Returns how many older
        rows the byte budget dropped for them."""
        width, rows = len(self.sensors) if kind is Kind.READINGS else 1, len(times)
        if not len(assets) == rows or len(cells) != rows * width:
            raise UsageError(f"expected {rows} rows of {width} values, found {len(assets)} and {len(cells)}")
        if (assets.itemsize, times.itemsize, cells.itemsize) != (4, 8, 4):
            found = f"{assets.typecode}, {times.typecode}, {cells.typecode}"
            raise UsageError(f"expected columns of 4, 8 and 4 bytes a value (array types I, q, f), found {found}")
        chunks = []
        for begin in range(0, rows, chunk_rows):
            end = min(begin + chunk_rows, rows)
            columns = assets[begin:end], times[begin:end], cells[begin * width : end * width]
            chunks.append((kind, historical, now_us, end - begin, b"".join(columns)))
        size = sum(_size(len(chunk[-1])) for chunk in chunks)
        if size > self._bytes_max:
            raise UsageError(
                f"expected at most {self._bytes_max:,} bytes (spool_bytes_max), found {size:,} in one call"
            )
        insert = "INSERT INTO chunks (kind, historical, accepted_us, rows, payload) VALUES (?, ?, ?, ?, ?)"
        with self._transaction("keep readings"):
            self._database.executemany(insert, chunks)
            dropped_rows, dropped_bytes = self._drop(self.bytes + size - self._bytes_max)
        self.bytes += size - dropped_bytes
        self.waiting_rows += rows - dropped_rows
        self.dropped_rows += dropped_rows
        return dropped_rows

    def _drop(self, excess_bytes: int) -> tuple[int, int]:
        """Delete the oldest waiting chunks until `excess_bytes` are freed. Sealed blocks stay: few, and sent."""
        rows = size = 0
        oldest = "SELECT place, rows, length(payload) FROM chunks NOT INDEXED WHERE sequence IS NULL ORDER BY place"
        victims = []
        if excess_bytes > 0:
            for place, count, length in self._database.execute(oldest):
                victims.append((place,))
                rows += count
                size += _size(length)
                if size >= excess_bytes:
                    break
            self._database.executemany("DELETE FROM chunks WHERE place = ?", victims)
            self._database.execute("UPDATE facts SET value = value + ? WHERE name = 'dropped'", (rows,))
        return rows, size

    def seal(self, now_us: int, rows_max: int, live_us: int, linger_us: int = 0) -> Block | None:
        """The next block to send, or None: live chunks (accepted within `live_us`) before backlog, each oldest first.
        A live block of fewer than `rows_max` rows waits until its oldest row is `linger_us` old."""
        chunks: list[tuple[Any, ...]] = []
        rows = 0
        with self._reading("read waiting readings"):
            for chunk in self._waiting(now_us - live_us, rows_max):  # those that may share a block: one kind, one flag
                if chunks and (rows + chunk[4] > rows_max or chunk[1:3] != chunks[0][1:3]):
                    break
                chunks.append(chunk)
                rows += chunk[4]
        if not chunks or (rows < rows_max and now_us - chunks[0][3] < linger_us):
            return None
        sequence, is_cut = self._sequence + 1, rows > rows_max
        with self._transaction("seal a block"), self._reading("seal a block"):
            if is_cut:
                chunks = [self._first_rows(chunks[0], rows_max)]
            places = [(sequence, chunk[0]) for chunk in chunks]
            self._database.executemany("UPDATE chunks SET sequence = ? WHERE place = ?", places)
            self._database.execute("UPDATE facts SET value = ? WHERE name = 'sequence'", (sequence,))
        self._sequence = sequence
        self.bytes += _CHUNK_OVERHEAD_BYTES * is_cut
        with self._reading("read a block"):
            block = self._block(sequence, chunks)
        self.waiting_rows -= len(block)
        return block

    def _waiting(self, border_us: int, chunks_max: int) -> Iterator[tuple[Any, ...]]:
        """The waiting chunks as they go: those accepted since the border, and only where there are none all others.
        Both in the order of arrival, which is that of their places."""
        young = (
            "SELECT place FROM chunks WHERE sequence IS NULL AND accepted_us >= ? ORDER BY accepted_us, place LIMIT 1"
        )
        live = self._database.execute(young, (border_us,)).fetchone()
        begin = (live[0], border_us) if live else (0, _LONG_AGO_US)
        query = (  # by place alone: an index would have them sorted, all that an outage has left
            "SELECT place, kind, historical, accepted_us, rows, payload FROM chunks NOT INDEXED "
            "WHERE sequence IS NULL AND place >= ? AND accepted_us >= ? ORDER BY place LIMIT ?"
        )
        return self._database.execute(query, (*begin, chunks_max))

    def _first_rows(self, chunk: tuple[Any, ...], rows: int) -> tuple[Any, ...]:
        """The first rows of a waiting chunk as a chunk of its own; the others keep its place."""
        place, kind, historical, accepted_us, _, _ = chunk
        whole = self._block(0, [chunk])
        first, rest = (_payload(whole.cut(*span, 0)) for span in ((0, rows), (rows, len(whole))))
        self._database.execute(
            "UPDATE chunks SET rows = ?, payload = ? WHERE place = ?", (len(whole) - rows, rest, place)
        )
        insert = "INSERT INTO chunks (kind, historical, accepted_us, rows, payload) VALUES (?, ?, ?, ?, ?)"
        own = kind, historical, accepted_us, rows, first
        return self._database.execute(insert, own).lastrowid, *own

    def waiting_assets(self, now_us: int, live_us: int, rows_max: int) -> set[int]:
        """The assets of about so many rows that go next."""
        found: set[int] = set()
        with self._reading("read waiting readings"):
            for chunk in self._waiting(now_us - live_us, rows_max):
                found.update(self._block(0, [chunk]).assets)
                rows_max -= chunk[4]
                if rows_max <= 0:
                    break
        return found

    def sealed(self) -> list[Block]:
        """The blocks that were given a number and are not settled, in the order of their numbers."""
        query = (
            "SELECT place, kind, historical, accepted_us, rows, payload, sequence FROM chunks "
            "WHERE sequence IS NOT NULL ORDER BY sequence, place"
        )
        blocks: dict[int, list[tuple[Any, ...]]] = {}
        with self._reading("read sealed blocks"):
            for *chunk, sequence in self._database.execute(query):
                blocks.setdefault(sequence, []).append(tuple(chunk))
            return [self._block(sequence, chunks) for sequence, chunks in blocks.items()]

    def split(self, rows_max: int, now_us: int) -> dict[int, list[Block]]:
        """Cut the sealed blocks for a scorer that takes no more rows at once. Returns by its old number what each has
        become. A number names a block for ever and none may be left out, so all of them go on in a new epoch."""
        parts: dict[int, list[Block]] = {}
        sequence = 0
        for block in self.sealed():
            parts[block.sequence] = []
            for begin in range(0, len(block), rows_max):
                sequence += 1
                parts[block.sequence].append(block.cut(begin, begin + rows_max, sequence))
        blocks = [block for own in parts.values() for block in own]
        rows = [(b.sequence, b.kind, b.historical, b.accepted_us, len(b), _payload(b)) for b in blocks]
        epoch = max(self.epoch + 1, now_us)
        with self._transaction("split blocks"):
            freed = self._sealed_bytes("IS NOT NULL")
            self._database.execute("DELETE FROM chunks WHERE sequence IS NOT NULL")
            self._database.executemany(
                "INSERT INTO chunks (sequence, kind, historical, accepted_us, rows, payload) VALUES (?, ?, ?, ?, ?, ?)",
                rows,
            )
            self._database.executemany(
                "UPDATE facts SET value = ? WHERE name = ?", ((epoch, "epoch"), (sequence, "sequence"))
            )
        self.epoch, self._sequence = epoch, sequence
        self.bytes += sum(_size(len(row[-1])) for row in rows) - freed
        return parts

    def settle(self, sequences: Iterable[int]) -> None:
        """Forget sealed blocks: the server has answered for them. Numbers that are not here are ignored."""
        freed = 0
        with self._transaction("settle blocks"):
            for sequence in sequences:
                freed += self._sealed_bytes("= ?", sequence)
                self._database.execute("DELETE FROM chunks WHERE sequence = ?", (sequence,))
        self.bytes -= freed

    def _sealed_bytes(self, which: str, *sequence: int) -> int:
        query = f"SELECT length(payload) FROM chunks WHERE sequence {which}"  # noqa: S608 - own words
        return sum(_size(length) for (length,) in self._database.execute(query, sequence))

    def close(self) -> None:
        self._database.close()

    def _block(self, sequence: int, chunks: Sequence[tuple[Any, ...]]) -> Block:
        kind = Kind(chunks[0][1])
        assets, times, cells = array("I"), array("q"), array("f" if kind is Kind.READINGS else "I")
        for *_, rows, payload in chunks:
            assets.frombytes(payload[: 4 * rows])
            times.frombytes(payload[4 * rows : 12 * rows])
            cells.frombytes(payload[12 * rows :])
        width = len(self.sensors) if kind is Kind.READINGS else 1
        if not len(assets) == len(times) or len(cells) != len(times) * width:
            raise ValueError("rows that are not whole")
        return Block(sequence, kind, bool(chunks[0][2]), chunks[0][3], assets, times, cells)

    @contextmanager
    def _transaction(self, purpose: str) -> Iterator[None]:
        with self._guard(purpose):
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._database.execute("COMMIT")
            except BaseException:
                if self._database.in_transaction:  # SQLite has rolled back some failures by itself
                    self._database.execute("ROLLBACK")
                raise

    @contextmanager
    def _reading(self, purpose: str) -> Iterator[None]:
        """Rows that SQLite reads and no gateway wrote are damage, as pages are that it cannot read."""
        with self._guard(purpose):
            try:
                yield
            except (ValueError, TypeError, KeyError, IndexError, OverflowError) as error:
                message = f"the spool {self.path} could not {purpose}: it holds what no gateway wrote: {error!r}"
                raise SpoolError(message, "move it away and begin another; what it held unsent is lost") from error

    @contextmanager
    def _guard(self, purpose: str) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            hint = next((mend for word, mend in _MENDS.items() if word in str(error)), "")
            raise SpoolError(f"the spool {self.path} could not {purpose}: {error}", hint) from error


def _size(payload_bytes: int) -> int:
    """What a chunk takes of the budget."""
    return payload_bytes + _CHUNK_OVERHEAD_BYTES


def _payload(block: Block) -> bytes:
    """Columns as a chunk keeps them."""
    return b"".join((block.assets, block.times, block.cells))
