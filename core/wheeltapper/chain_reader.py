"""A registry's chain as one reader knows it: read on where it left off, and never back behind what it has seen."""

from __future__ import annotations

from pathlib import Path

from wheeltapper.chain import ENTRY_BYTES_MAX, Entry, StageState, check_signature, read_entry, replay
from wheeltapper.durable import sha256_of
from wheeltapper.errors import NotFound, Refused
from wheeltapper.kill_switch import Blocked, blocked_after
from wheeltapper.signing import TrustedKeys

_PUT_BACK = (
    "it was put back in time, or is another registry: put the newer entries back; only if it is meant so, remove what "
    "remembers them (of a scorer, --state DIR/seen-STAGE) and start anew"
)


class ChainReader:
    """The chain of the registry folder `path`. Not for several threads at once.

    trusted: an entry counts only if one of these keys signed it; without keys all do. One that counted may never go
    again. One that did not may: whoever writes files without a key must not be able to make others remember it.
    """

    def __init__(self, path: Path, trusted: TrustedKeys | None = None) -> None:
        self.entries: list[Entry] = []
        self.states: dict[str, StageState] = {}
        self._path = path
        self._folder = path / "releases"
        self._trusted = trusted
        self._blocked, self._judged = Blocked(), 0  # after so many entries
        self._newest: Entry | None = None
        self._searched = 0  # entries among which `_newest` was looked for
        self._stamps: dict[int, tuple[int, ...]] = {}  # of the files of two entries, found to be as they were read

    def refresh(self) -> None:
        """Read the entries that were added since. Raises NotFound (no registry) or Refused: a broken link, or an entry
        that counted is gone or another one now. What was read before stays as it was."""
        self.require()
        self._forget_what_never_counted()
        previous = self.entries[-1].sha256 if self.entries else ""
        while entry := read_entry(self._folder, len(self.entries) + 1, previous):
            self.entries.append(entry)
            self.states = replay([entry], self.states)
            previous = entry.sha256

    def require(self) -> None:
        """Raises NotFound where there is no registry."""
        if not self._folder.is_dir():
            raise NotFound(f"no registry at {self._path}", "`wheeltapper train … --registry DIR` makes one")

    def newest(self) -> Entry | None:
        """The newest entry read so far that counts."""
        for entry in reversed(self.entries[self._searched :]):
            if self._counts(entry):
                self._newest = entry
                break
        self._searched = len(self.entries)
        return self._newest

    def check_held(self, number: int, sha256: str) -> None:
        """Raises Refused unless entry `number` is the one with this digest."""
        if not 1 <= number <= len(self.entries):
            raise self._put_back(number, sha256, f"a chain that ends at entry {len(self.entries)}")
        if self.entries[number - 1].sha256 != sha256:
            raise self._put_back(number, sha256, "another entry of this number")

    def blocked(self) -> Blocked:
        """What is switched off, as of the entries read so far."""
        self._blocked = blocked_after(self._blocked, self.entries[self._judged :], self._trusted)
        self._judged = len(self.entries)
        return self._blocked

    def _forget_what_never_counted(self) -> None:
        """Entries that are gone from the end of the chain, where nobody has to answer for them."""
        kept = len(self.entries)
        while kept and not self._stands(entry := self.entries[kept - 1]):
            if self._counts(entry):
                raise self._put_back(entry.number, entry.sha256, "no such file, or another one")
            kept -= 1
        newest = self.newest()
        if newest is not None and newest.number < kept and not self._stands(newest):  # hidden by what does not count
            raise self._put_back(newest.number, newest.sha256, "no such file, or another one")
        if kept < len(self.entries):
            del self.entries[kept:]
            self.states = replay(self.entries)
            self._blocked, self._judged = Blocked(), 0
            self._searched = min(self._searched, kept)

    def _stands(self, entry: Entry) -> bool:
        """Whether the file of an entry is still what was read: one look at its date, unless that is another."""
        path = self._folder / f"{entry.number}.json"
        try:
            state = path.stat()
            stamp = state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns
            if stamp != self._stamps.get(entry.number):
                if state.st_size > ENTRY_BYTES_MAX or sha256_of(path) != entry.sha256:
                    return False
                looked_at = len(self.entries), self._newest.number if self._newest else 0
                self._stamps = {n: s for n, s in self._stamps.items() if n in looked_at} | {entry.number: stamp}
        except (FileNotFoundError, Refused):  # Refused: something that is no file
            return False
        return True

    def _counts(self, entry: Entry) -> bool:
        if self._trusted is None:
            return True
        try:
            check_signature(entry, self._trusted)
        except Refused:
            return False
        return True

    def _put_back(self, number: int, sha256: str, found: str) -> Refused:
        message = f"{self._path}: entry {number} was seen before (sha256 {sha256[:16]}…), and now there is {found}"
        return Refused(message, _PUT_BACK)
