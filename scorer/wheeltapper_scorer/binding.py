"""A stream's names as the serving release has them: where sensors go, what is answered, how long a block may be."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from wheeltapper.live import LiveFleet

from wheeltapper_scorer import opening
from wheeltapper_scorer.answer_memory import Named
from wheeltapper_scorer.opening import Speaker
from wheeltapper_scorer.settings import Settings
from wheeltapper_scorer.wire import Scores

_EXPLAINED_ROWS_MAX = 256  # of a block of which every row is explained, which costs more than scoring it


@dataclass(frozen=True, slots=True)
class Binding:
    """Of one stream to one release; another release serves, another binding."""

    named: Named
    missing: tuple[str, ...]  # sensors of the class that the gateway does not send
    columns: NDArray[np.int64]  # of a row of the class, by sensor of the gateway
    width: int  # sensors of the class
    is_in_order: bool  # the gateway's row is the class's
    codes: NDArray[np.int64]  # the class's number of each event code
    want_features: bool
    rows_max: int  # of a block

    @property
    def release(self) -> int:
        return self.named.release

    def placed(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Rows of the gateway's sensors as rows of the class's, NaN where it has none."""
        if self.is_in_order:
            return values
        placed = np.full((len(values), self.width), np.nan, dtype=np.float32)
        placed[:, self.columns] = values
        return placed

    def blank(self, sequence: int, handles: NDArray[np.uint32], times: NDArray[np.int64], status: int) -> Scores:
        """The answer of rows that have no scores."""
        n, outputs = len(handles), len(self.named.outputs)
        features = np.full((n, len(self.named.features)), np.nan, dtype=np.float32) if self.want_features else None
        return Scores(
            sequence,
            self.release,
            handles,
            times,
            np.full(n, status, dtype=np.uint8),
            np.full((n, outputs), np.nan, dtype=np.float32),
            np.zeros((n, outputs), dtype=np.uint8),
            np.zeros((n, outputs), dtype=np.uint8),
            np.zeros(n, dtype=np.uint8),
            features,
        )


def bind(fleet: LiveFleet, told: Speaker, settings: Settings) -> Binding:
    """What the serving release says of the stream's names. Raises CallError where it lacks its class or a sensor."""
    opening.check_class(told.asset_class, fleet.class_names())
    spec = fleet.spec(told.asset_class)
    columns, width = opening.sensor_columns(spec, told.sensors), len(spec.sensors)
    sent = set(told.sensors)
    outputs = tuple(fleet.outputs(told.asset_class))
    features = tuple(fleet.features(told.asset_class)) if told.needs_features else ()
    wanted = told.want_features, told.reasons_top, told.reasons_always
    reasons = told.reasons_top * len(outputs)
    rows = rows_max(len(told.sensors), len(outputs), len(features) * told.want_features, reasons, settings)
    return Binding(
        named=Named(fleet.release, fleet.pack.sha256, outputs, features, wanted),
        missing=tuple([sensor.name for sensor in spec.sensors if sensor.name not in sent]),
        columns=columns,
        width=width,
        is_in_order=np.array_equal(columns, np.arange(width)),
        codes=np.array([fleet.event_code(told.asset_class, code) for code in told.event_codes], dtype=np.int64),
        want_features=told.want_features,
        rows_max=min(rows, _EXPLAINED_ROWS_MAX) if reasons and told.reasons_always else rows,
    )


def rows_max(sensors: int, outputs: int, features: int, reasons: int, settings: Settings) -> int:
    """The most rows with which neither a block nor its answer passes the message limit; a tenth of it is left over."""
    row_bytes = max(4 + 8 + 4 * sensors, 4 + 8 + 1 + 1 + 6 * outputs + 4 * features + 16 * reasons)
    return max(1, min(settings.rows_max, settings.message_bytes_max * 9 // 10 // row_bytes))
