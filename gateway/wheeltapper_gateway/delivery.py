"""What passes between a link and the gateway that owns it: who speaks, what was answered, and how much of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from wheeltapper_gateway.wire import Columns, Scores


@dataclass(slots=True)
class Counters:
    """What a gateway did since it was opened. Rows are readings and events."""

    sent_rows: int = 0  # put on the wire for the first time
    resent_rows: int = 0
    answered_rows: int = 0
    revised_rows: int = 0
    refused_events: int = 0  # event rows answered other than TAKEN
    unknown_rows: int = 0  # answered UNKNOWN_HANDLE: of an asset id that no scorer takes, kept by an older release
    dropped_rows: int = 0  # by the byte budget of the spool, never sent
    dropped_answers: int = 0  # rows beyond answers_rows_max, answers not fetched or revisions without an answer
    reconnects: int = 0


@dataclass(frozen=True, slots=True)
class Identity:
    """Who speaks and of what; the same for every conversation."""

    gateway: str
    asset_class: str
    sensors: tuple[str, ...]
    attributes: tuple[str, ...] = ()
    attributes_of: Mapping[str, Sequence[float]] = field(default_factory=dict)  # asset id → one value per attribute
    declared: Sequence[int] = ()  # the spool's numbers of assets that are opened whether they have readings or not


@dataclass(frozen=True, slots=True)
class Delivery:
    """Scores on their way to the application, with what is needed to read them."""

    scores: Scores
    assets: tuple[str, ...] | list[str]  # asset id of each row
    columns: Columns
    revision: bool
    latency_seconds: float  # from handing the block to gRPC to its answer; 0 for revisions
