"""What outlives a conversation: blocks that are not settled, what was counted, what the scorer has said last."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from wheeltapper_command.errors import CommandError
from wheeltapper_proto import scoring_pb2 as contract

from wheeltapper_gateway.delivery import Counters
from wheeltapper_gateway.settings import BATCH_ROWS_MAX
from wheeltapper_gateway.spool import Block, Spool


@dataclass(slots=True)
class Flight:
    """A block that has its number and is not settled."""

    block: Block
    sent: bool = False  # by any conversation
    answered: bool = False  # and the answer handed over: it is not told again


class Ledger:
    """Guarded by the gateway's lock."""

    def __init__(self, spool: Spool) -> None:
        self.spool = spool
        self.flights = {block.sequence: Flight(block, sent=True) for block in spool.sealed()}  # their numbers rise
        self.counters = Counters()
        self.opened: contract.Opened | None = None
        self.failure: CommandError | None = None  # why the latest conversation ended, if it ended badly

    @property
    def unsettled_rows(self) -> int:
        """Rows accepted and not yet settled."""
        return self.spool.waiting_rows + sum(len(flight.block) for flight in self.flights.values())

    @property
    def rows_max(self) -> int:
        """Rows of a block that the scorer takes, as it has said last."""
        return (self.opened.rows_max if self.opened is not None else 0) or BATCH_ROWS_MAX

    def is_first(self, block: Block) -> bool:
        """Whether all before it are settled."""
        return block.sequence == next(iter(self.flights))

    def answered_to(self, newest: int) -> list[int]:
        """The numbers up to `newest` of blocks whose answers were handed over."""
        return [number for number, flight in self.flights.items() if number <= newest and flight.answered]

    def settle(self, sequences: Iterable[int]) -> None:
        """Forget blocks. Raises SpoolError, and keeps them, where the spool cannot: then they are asked again."""
        sequences = list(sequences)
        self.spool.settle(sequences)
        for sequence in sequences:
            del self.flights[sequence]

    def split(self, now_us: int) -> None:
        """Cut all blocks to what the scorer takes. They go on in a new epoch, which a stream says when it opens."""
        parts = self.spool.split(self.rows_max, now_us)
        self.flights = {
            block.sequence: Flight(block, self.flights[before].sent, self.flights[before].answered)
            for before, blocks in parts.items()
            for block in blocks
        }
