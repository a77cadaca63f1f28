"""One stream, without grpc: an Open, then blocks in, answers out. A Score call is a stream of one block.

A session only maps: handles of the stream to rows of the fleet, the gateway's columns to the class's, answers to
blocks. What a reading means is the fleet's business.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from wheeltapper.errors import Refused
from wheeltapper.live import Answers, LiveFleet
from wheeltapper.reasons import Reasons
from wheeltapper_proto import scoring_pb2

from wheeltapper_scorer import opening
from wheeltapper_scorer.faults import CallError, Reason
from wheeltapper_scorer.resume import ResumePoints
from wheeltapper_scorer.settings import Settings
from wheeltapper_scorer.switch import Switch
from wheeltapper_scorer.wire import Events, Readings, Scores

_UNKNOWN = -1  # the fleet's row of a handle that this stream has not
_EXPLAINED_ROWS_MAX = 256  # of a block of which every row is explained, which costs more than scoring it


@dataclass(frozen=True, slots=True)
class Answered:
    """A block's answer: `reopened` where a new release has other columns, revisions, then the scores."""

    reopened: scoring_pb2.Opened | None
    revisions: list[Scores]
    scores: Scores


@dataclass(slots=True)
class _Assets:
    """The assets of a stream; a handle is a position in both."""

    ids: list[str] = field(default_factory=list)
    handle: dict[str, int] = field(default_factory=dict)
    rows: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, dtype=np.int64))


class Session:
    """Raises CallError where the stream must end; a row that cannot be scored is answered, not raised."""

    def __init__(
        self, fleet: LiveFleet, settings: Settings, points: ResumePoints, switch: Switch | None = None
    ) -> None:
        self._fleet = fleet
        self._settings = settings
        self._points = points
        self._assets = _Assets()
        self._speaker: opening.Speaker | None = None
        self._release = -1
        self._switch = switch or Switch()
        self._switch_version = self._switch.version
        self._off = np.zeros(0, dtype=np.bool_)  # by handle: switched off by an operator

    def open(self, message: scoring_pb2.Open) -> scoring_pb2.Opened:
        """Open the stream, or add assets to it. Nothing is changed where it raises CallError."""
        first = self._speaker
        if first is None:
            told = opening.speaker(message, self._fleet.class_names(), self._settings)
        else:
            opening.check_again(first, message)
            told = first
        spec = self._fleet.spec(told.asset_class)
        opening.sensor_columns(spec, told.sensors)
        ids = opening.asset_ids(message, self._settings)
        statics = opening.statics(spec, message)
        self._add_assets(told.asset_class, ids, statics)
        self._speaker = told
        self._bind()
        handles = np.array([self._assets.handle[asset] for asset in ids], dtype=np.int64)
        return self._opened(handles)

    def score(self, block: Readings, now_us: int) -> Answered:
        """Every row answered, in order. Raises CallError NOT_OPENED or BLOCK_TOO_LARGE."""
        told, rows_count = self._accept(block)
        reopened = self._reopened()
        handles, times = _fit(block.handles, rows_count), _fit(block.times, rows_count)
        sensors = len(told.sensors)
        if len(block.handles) != len(block.times) or len(block.values) != rows_count * sensors:
            blank = self._blank(block.sequence, handles, times, scoring_pb2.ROW_STATUS_WRONG_WIDTH)
            return Answered(reopened, [], blank)
        values = np.full((rows_count, self._width), np.nan, dtype=np.float32)
        values[:, self._columns] = block.values.reshape(rows_count, sensors)
        answers = self._fleet.score(
            told.asset_class,
            self.rows_of(handles),
            times,
            values,
            now_us,
            historical=block.historical,
            want_features=self._needs_features,
            repeated=self._points.taken(told.gateway, told.epoch, block.sequence),
        )
        silence(answers, self._off_of(handles))
        revisions = self._revisions(block.sequence, answers.revisions)
        return Answered(reopened, revisions, self._scores(block.sequence, handles, answers))

    def take_events(self, block: Events, now_us: int) -> Answered:
        """Every event row answered: TAKEN, or why not. Raises CallError NOT_OPENED or BLOCK_TOO_LARGE."""
        told, rows_count = self._accept(block)
        reopened = self._reopened()
        handles, times = _fit(block.handles, rows_count), _fit(block.times, rows_count)
        answer = self._blank(block.sequence, handles, times, scoring_pb2.ROW_STATUS_TAKEN)
        if not len(block.handles) == len(block.times) == len(block.codes):
            answer.status[:] = scoring_pb2.ROW_STATUS_WRONG_WIDTH
            return Answered(reopened, [], answer)
        rows = self.rows_of(handles)
        known = block.codes < len(self._codes)
        answer.status[~known] = scoring_pb2.ROW_STATUS_UNKNOWN_CODE
        answer.status[rows == _UNKNOWN] = scoring_pb2.ROW_STATUS_UNKNOWN_HANDLE
        chosen = np.flatnonzero(known & (rows != _UNKNOWN))
        taken = self._fleet.take_events(
            told.asset_class,
            rows[chosen],
            times[chosen],
            self._codes[block.codes[chosen]],
            now_us,
            want_features=self._needs_features,
            repeated=self._points.taken(told.gateway, told.epoch, block.sequence),
        )
        answer.status[chosen] = taken.status
        return Answered(reopened, self._revisions(block.sequence, taken.revisions), answer)

    def answered(self, sequence: int) -> None:
        """The answer of a block has left: the gateway may resume after it."""
        if self._speaker is not None:
            self._points.answered(self._speaker.gateway, self._speaker.epoch, sequence)

    def _add_assets(self, asset_class: str, ids: list[str], statics: NDArray[np.float32] | None) -> None:
        """Fresh assets get the next handles; one that is open already keeps its own."""
        assets = self._assets
        fresh = [i for i, asset in enumerate(ids) if asset not in assets.handle]
        if len(assets.ids) + len(fresh) > self._settings.assets_max:
            raise CallError(Reason.TOO_MANY_ASSETS, f"a stream may open at most {self._settings.assets_max:,} assets")
        fresh_ids = [ids[i] for i in fresh]
        try:
            rows = self._fleet.open_assets(asset_class, fresh_ids, None if statics is None else statics[fresh])
        except Refused as error:
            raise CallError(Reason.CAPACITY, f"{error}; another scorer must take these assets") from error
        assets.handle.update((asset, len(assets.ids) + i) for i, asset in enumerate(fresh_ids))
        assets.ids += fresh_ids
        assets.rows = np.concatenate((assets.rows, rows.astype(np.int64)))
        self._row_order = np.argsort(assets.rows)

    def _bind(self) -> None:
        """Look up what the serving release says of this stream's names."""
        told = self._told()
        opening.check_class(told.asset_class, self._fleet.class_names())
        spec = self._fleet.spec(told.asset_class)
        self._release = self._fleet.release
        self._width = len(spec.sensors)
        self._columns = opening.sensor_columns(spec, told.sensors)
        self._codes = np.array([self._fleet.event_code(told.asset_class, c) for c in told.event_codes], dtype=np.int64)
        self._outputs = self._fleet.outputs(told.asset_class)
        self._needs_features = told.want_features or told.reasons_top > 0
        self._features = self._fleet.features(told.asset_class) if self._needs_features else []
        features = len(self._features) if told.want_features else 0
        reasons = told.reasons_top * len(self._outputs)
        self._rows_max = rows_max(len(told.sensors), len(self._outputs), features, reasons, self._settings)
        if reasons and told.reasons_always:
            self._rows_max = min(self._rows_max, _EXPLAINED_ROWS_MAX)

    def _reopened(self) -> scoring_pb2.Opened | None:
        """Bind again where a new release serves; what the gateway must hear of it, if its columns are other ones."""
        if self._release == self._fleet.release:
            return None
        before = self._outputs, self._features, self._rows_max
        self._bind()
        if before == (self._outputs, self._features, self._rows_max):
            return None
        return self._opened(np.arange(len(self._assets.ids)))

    def _opened(self, handles: NDArray[np.int64]) -> scoring_pb2.Opened:
        told = self._told()
        sent = set(told.sensors)
        spec = self._fleet.spec(told.asset_class)
        return scoring_pb2.Opened(
            handles=handles.tolist(),
            release=self._fleet.release,
            pack=self._fleet.pack.sha256,
            resume_sequence=self._points.resume(told.gateway, told.epoch, told.durable),
            outputs=self._outputs,
            features=self._features,
            missing_sensors=[sensor.name for sensor in spec.sensors if sensor.name not in sent],
            rows_max=self._rows_max,
            levels=self._fleet.levels(told.asset_class, self._assets.rows[handles]).tolist(),
        )

    def _told(self) -> opening.Speaker:
        if self._speaker is None:
            raise CallError(Reason.NOT_OPENED, "expected Open as the first message; found a block")
        return self._speaker

    def _accept(self, block: Readings | Events) -> tuple[opening.Speaker, int]:
        """Who speaks, and how many rows must be answered: one per handle or time, whichever are more."""
        told = self._told()
        rows_count = max(len(block.handles), len(block.times))
        if rows_count > self._rows_max:
            raise CallError(
                Reason.BLOCK_TOO_LARGE,
                f"expected at most {self._rows_max:,} rows in a block, as Opened.rows_max says; found {rows_count:,}",
            )
        return told, rows_count

    def rows_of(self, handles: NDArray[np.uint32]) -> NDArray[np.int64]:
        """The fleet's rows of handles, −1 where this stream has none."""
        known = handles < len(self._assets.rows)
        rows = np.full(len(handles), _UNKNOWN, dtype=np.int64)
        rows[known] = self._assets.rows[handles[known]]
        return rows

    def _off_of(self, handles: NDArray[np.uint32]) -> NDArray[np.bool_]:
        """Which of the handles are of assets that an operator has switched off."""
        ids, switch = self._assets.ids, self._switch
        if self._switch_version != switch.version or len(self._off) != len(ids):
            self._switch_version, self._off = switch.version, switch.off(self._told().asset_class, ids)
        known = handles < len(ids)
        off = np.zeros(len(handles), dtype=np.bool_)
        off[known] = self._off[handles[known]]
        return off

    def _handles_of(self, rows: NDArray[np.int64]) -> NDArray[np.uint32]:
        order = self._row_order
        return order[np.searchsorted(self._assets.rows, rows, sorter=order)].astype(np.uint32)

    def _revisions(self, sequence: int, answers: Answers | None) -> list[Scores]:
        """Blocks of at most rows_max rows, so that none passes the message limit."""
        if answers is None or len(answers.rows) == 0:
            return []
        handles = self._handles_of(answers.rows)
        silence(answers, self._off_of(handles))
        whole = self._scores(sequence, handles, answers)
        return [whole.cut(i, i + self._rows_max) for i in range(0, len(answers.rows), self._rows_max)]

    def _scores(self, sequence: int, handles: NDArray[np.uint32], answers: Answers) -> Scores:
        return Scores(
            sequence,
            self._release,
            handles,
            answers.times,
            answers.status,
            answers.values,
            answers.levels,
            answers.alarms,
            answers.health,
            answers.features if self._told().want_features else None,
            self._reasons(answers),
        )

    def _reasons(self, answers: Answers) -> Reasons | None:
        told = self._told()
        if not told.reasons_top:
            return None
        which = np.ones(answers.values.shape, dtype=np.bool_) if told.reasons_always else None
        return self._fleet.reasons(told.asset_class, answers, told.reasons_top, which)

    def _blank(self, sequence: int, handles: NDArray[np.uint32], times: NDArray[np.int64], status: int) -> Scores:
        """The answer of rows that have no scores."""
        n, outputs = len(handles), len(self._outputs)
        features = np.full((n, len(self._features)), np.nan, dtype=np.float32) if self._told().want_features else None
        return Scores(
            sequence,
            self._release,
            handles,
            times,
            np.full(n, status, dtype=np.uint8),
            np.full((n, outputs), np.nan, dtype=np.float32),
            np.zeros((n, outputs), dtype=np.uint8),
            np.zeros((n, outputs), dtype=np.uint8),
            np.zeros(n, dtype=np.uint8),
            features,
        )


def silence(answers: Answers, off: NDArray[np.bool_]) -> None:
    """Answer rows of assets that are switched off as such. Their windows have taken the readings in, so that an asset
    that is switched on again is scored as if nothing had been."""
    if off.any():
        answers.status[off] = scoring_pb2.ROW_STATUS_BLOCKED
        answers.values[off] = np.nan
        answers.levels[off] = 0
        answers.alarms[off] = 0


def rows_max(sensors: int, outputs: int, features: int, reasons: int, settings: Settings) -> int:
    """The most rows with which neither a block nor its answer passes the message limit; a tenth of it is left over."""
    row_bytes = max(4 + 8 + 4 * sensors, 4 + 8 + 1 + 1 + 6 * outputs + 4 * features + 16 * reasons)
    return max(1, min(settings.rows_max, settings.message_bytes_max * 9 // 10 // row_bytes))


def _fit(column: NDArray[Any], rows_count: int) -> NDArray[Any]:
    """`column` with zeros at its end where the sender left some out."""
    return (
        column
        if len(column) == rows_count
        else np.concatenate((column, np.zeros(rows_count - len(column), column.dtype)))
    )
