"""The names of one conversation: which assets it has opened and as what, and how it calls event codes.

Only what a block or the program itself needs is named, so that a name which the scorer refuses stops nothing once its
rows are gone. A name that no scorer takes, in a spool of an older release, is never said, nor one that a damaged spool
lacks: such rows go as those of an unknown handle or code, and are answered as that.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence

from wheeltapper_gateway.names import NAMES_MAX, code_fault, fault
from wheeltapper_gateway.settings import ASSETS_PER_OPEN
from wheeltapper_gateway.spool import Block, Name, Spool
from wheeltapper_gateway.wire import ProtocolError

_UNKNOWN = 2**32 - 1  # a handle or a code that no stream has


class Naming:
    """Numbers are the spool's, handles the scorer's."""

    def __init__(self, spool: Spool) -> None:
        self._assets, self._codes = spool.names(Name.ASSET), spool.names(Name.CODE)
        self._handles: dict[int, int] = {}
        self._given: list[int] = []  # the handles of this stream, as they came
        self._ids: dict[int, str] = {}  # by handle
        self._wanted: dict[int, None] = {}  # still to be opened
        self._positions: list[int] = []  # of codes in the Open
        self.asked: list[int] | None = None  # the numbers in an Open that is not yet answered
        self.codes: list[str] = []

    def want(self, numbers: Iterable[int]) -> None:
        """Have assets opened that are not."""
        for number in sorted(set(numbers) - self._handles.keys()):
            if number >= len(self._assets) or fault(self._assets[number]):
                self._handles[number] = _UNKNOWN
            else:
                self._wanted[number] = None

    @property
    def wants(self) -> bool:
        return bool(self._wanted)

    def ask(self) -> list[str]:
        """The ids for the next Open."""
        self.asked = list(self._wanted)[:ASSETS_PER_OPEN]
        for number in self.asked:
            del self._wanted[number]
        return [self._assets[number] for number in self.asked]

    def ask_codes(self) -> list[str]:
        """The event codes for the first Open: they hold for the whole stream."""
        self.codes, self._positions = [], []
        for code in self._codes:
            is_said = not code_fault(code) and len(self.codes) < NAMES_MAX
            self._positions.append(len(self.codes) if is_said else _UNKNOWN)
            self.codes += [code] * is_said
        return self.codes

    def take(self, handles: Sequence[int]) -> None:
        """What an Opened has given to those asked for. Raises ProtocolError where it has not one handle for each."""
        asked, self.asked = self.asked or [], None
        if len(handles) != len(asked):
            raise ProtocolError(f"expected {len(asked)} handles, found {len(handles)}")
        self._given.extend(handles)
        for number, handle in zip(asked, handles, strict=True):
            self._handles[number], self._ids[handle] = handle, self._assets[number]

    def are_all(self, handles: Sequence[int]) -> bool:
        """Whether these are all the handles of the stream, as an Opened has them that nobody asked for."""
        return list(handles) == self._given

    def missing(self, block: Block) -> set[int]:
        """The assets of a block that are not opened."""
        return set(block.assets) - self._handles.keys()

    def has_codes(self, block: Block) -> bool:
        """Whether an EventBlock is of codes that were known when the stream began, or that nobody knows."""
        return max(block.cells, default=0) < len(self._positions) or len(self._positions) == len(self._codes)

    def handles_of(self, block: Block) -> array[int]:
        return array("I", map(self._handles.__getitem__, block.assets))

    def codes_of(self, block: Block) -> array[int]:
        known = len(self._positions)
        return array("I", [self._positions[code] if code < known else _UNKNOWN for code in block.cells])

    def assets_of(self, block: Block) -> list[str]:
        known = len(self._assets)
        return [self._assets[number] if number < known else "" for number in block.assets]

    def ids(self, handles: Sequence[int]) -> list[str]:
        """The assets that handles mean."""
        return [self._ids.get(handle, "") for handle in handles]
