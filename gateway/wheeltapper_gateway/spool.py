"""The write-ahead spool: what `append` returned from is on disk, and stays there until it is settled.

One table of chunks in SQLite (WAL, synchronous=FULL). A chunk waits without a sequence number; `seal` joins waiting
chunks into a block and gives it the next one, on disk before it is sent, so a block is the same block after a crash.
Numbers are thus given in the order of sending, which may differ from the order of arrival: live chunks go first.
"""

from __future__ import annotations

import json
import sqlite3
from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

from wheeltapper_command.errors import CommandError, Refused, UsageError

MEMORY = ":memory:"
_CHUNK_OVERHEAD_BYTES = 64
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
    """The spool could not keep it: what the call brought was not accepted."""


class Kind(IntEnum):
    READINGS = 0
    EVENTS = 1


class Name(IntEnum):
    ASSET = 0
    CODE = 1


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


class Spool:
    """Not thread-safe by itself: the gateway holds its lock around every call. `path` may be ":memory:"."""

    def __init__(
        self, path: str | Path, gateway: str, asset_class: str, sensors: Sequence[str], bytes_max: int, now_us: int
    ) -> None:
        self.path = str(path)
        self.sensors = tuple(sensors)
        self._bytes_max = bytes_max
        self._newest_us = 0
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
                facts = {**identity, "epoch": now_us, "sequence": 0, "dropped": 0}
                self._database.executemany("REPLACE INTO facts VALUES (?, ?)", facts.items())
            if not chunks:
                self._database.execute("DELETE FROM names")
        self.epoch = int(facts["epoch"])
        self.dropped_rows = int(facts["dropped"])
        self._sequence = int(facts["sequence"])
        self._names: dict[Name, dict[str, int]] = {Name.ASSET: {}, Name.CODE: {}}
        for kind, number, name in self._database.execute("SELECT kind, number, name FROM names ORDER BY kind, number"):
            self._names[Name(kind)][name] = number
        self._listed = {kind: list(known) for kind, known in self._names.items()}
        waiting = self._database.execute("SELECT total(rows) FROM chunks WHERE sequence IS NULL").fetchone()[0]
        self.waiting_rows = int(waiting)
        self.bytes = int(size) + chunks * _CHUNK_OVERHEAD_BYTES

    def number(self, kind: Name, name: str) -> int:
        """The spool's number for an asset id or an event code, given at first sight and kept."""
        known = self._names[kind]
        if (number := known.get(name)) is None:
            number = len(known)
            with self._transaction("keep a name"):
                self._database.execute("INSERT INTO names VALUES (?, ?, ?)", (kind, number, name))
            known[name] = number
            self._listed[kind].append(name)
        return number

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
    ) -> int:
        """Keep rows; on disk when it returns. Returns how many older rows the byte budget dropped for it."""
        width = len(self.sensors) if kind is Kind.READINGS else 1
        if not len(assets) == len(times) or len(cells) != len(times) * width:
            raise UsageError(f"expected {len(times)} rows of {width} values, found {len(assets)} and {len(cells)}")
        payload = assets.tobytes() + times.tobytes() + cells.tobytes()
        size = len(payload) + _CHUNK_OVERHEAD_BYTES
        if size > self._bytes_max:
            raise UsageError(
                f"expected at most {self._bytes_max:,} bytes (spool_bytes_max), found {size:,} in one call"
            )
        accepted_us = max(now_us, self._newest_us)
        with self._transaction("keep readings"):
            self._database.execute(
                "INSERT INTO chunks (kind, historical, accepted_us, rows, payload) VALUES (?, ?, ?, ?, ?)",
                (kind, historical, accepted_us, len(times), payload),
            )
            dropped_rows, dropped_bytes = self._drop(self.bytes + size - self._bytes_max)
        self._newest_us = accepted_us
        self.bytes += size - dropped_bytes
        self.waiting_rows += len(times) - dropped_rows
        self.dropped_rows += dropped_rows
        return dropped_rows

    def _drop(self, excess_bytes: int) -> tuple[int, int]:
        """Delete the oldest waiting chunks until `excess_bytes` are freed. Sealed blocks stay: few, and sent."""
        rows = size = 0
        oldest = "SELECT place, rows, length(payload) FROM chunks WHERE sequence IS NULL ORDER BY accepted_us, place"
        victims = []
        if excess_bytes > 0:
            for place, count, length in self._database.execute(oldest):
                victims.append((place,))
                rows += count
                size += length + _CHUNK_OVERHEAD_BYTES
                if size >= excess_bytes:
                    break
            self._database.executemany("DELETE FROM chunks WHERE place = ?", victims)
            self._database.execute("UPDATE facts SET value = value + ? WHERE name = 'dropped'", (rows,))
        return rows, size

    def seal(self, now_us: int, rows_max: int, live_us: int, linger_us: int = 0) -> Block | None:
        """The next block to send, or None: live chunks (accepted within `live_us`) before backlog, each oldest first.
        A live block of fewer than `rows_max` rows waits until its oldest row is `linger_us` old."""
        border_us = now_us - live_us
        with self._reading("read waiting readings"):
            chunks = self._waiting(">= ?", border_us, rows_max) or self._waiting("< ?", border_us, rows_max)
        if not chunks:
            return None
        rows = sum(chunk[4] for chunk in chunks)
        if rows < rows_max and now_us - chunks[0][3] < linger_us:
            return None
        sequence = self._sequence + 1
        with self._transaction("seal a block"):
            places = [(sequence, chunk[0]) for chunk in chunks]
            self._database.executemany("UPDATE chunks SET sequence = ? WHERE place = ?", places)
            self._database.execute("UPDATE facts SET value = ? WHERE name = 'sequence'", (sequence,))
        self._sequence = sequence
        self.waiting_rows -= rows
        with self._reading("read a block"):
            return self._block(sequence, chunks)

    def _waiting(self, accepted: str, border_us: int, rows_max: int) -> list[tuple[Any, ...]]:
        """The first waiting chunks on one side of the border that may share a block: one kind, one flag."""
        taken: list[tuple[Any, ...]] = []
        rows = 0
        query = (
            "SELECT place, kind, historical, accepted_us, rows, payload FROM chunks "  # noqa: S608 - own constant
            f"WHERE sequence IS NULL AND accepted_us {accepted} ORDER BY accepted_us, place LIMIT ?"
        )
        for chunk in self._database.execute(query, (border_us, rows_max)):
            if taken and (rows + chunk[4] > rows_max or chunk[1:3] != taken[0][1:3]):
                break
            taken.append(chunk)
            rows += chunk[4]
        return taken

    def sealed(self) -> list[Block]:
        """The blocks that were given a number and are not settled, in the order of their numbers."""
        query = (
            "SELECT place, kind, historical, accepted_us, rows, payload, sequence FROM chunks "
            "WHERE sequence IS NOT NULL ORDER BY sequence, accepted_us, place"
        )
        blocks: dict[int, list[tuple[Any, ...]]] = {}
        with self._reading("read sealed blocks"):
            for *chunk, sequence in self._database.execute(query):
                blocks.setdefault(sequence, []).append(tuple(chunk))
            return [self._block(sequence, chunks) for sequence, chunks in blocks.items()]

    def settle(self, sequences: Iterable[int]) -> None:
        """Forget sealed blocks: the server has answered for them. Numbers that are not here are ignored."""
        freed = 0
        with self._transaction("settle blocks"):
            for sequence in sequences:
                sizes = self._database.execute("SELECT length(payload) FROM chunks WHERE sequence = ?", (sequence,))
                freed += sum(size + _CHUNK_OVERHEAD_BYTES for (size,) in sizes)
                self._database.execute("DELETE FROM chunks WHERE sequence = ?", (sequence,))
        self.bytes -= freed

    def close(self) -> None:
        self._database.close()

    def _block(self, sequence: int, chunks: Sequence[tuple[Any, ...]]) -> Block:
        kind = Kind(chunks[0][1])
        assets, times, cells = array("I"), array("q"), array("f" if kind is Kind.READINGS else "I")
        for *_, rows, payload in chunks:
            assets.frombytes(payload[: 4 * rows])
            times.frombytes(payload[4 * rows : 12 * rows])
            cells.frombytes(payload[12 * rows :])
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
