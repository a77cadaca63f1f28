"""The final answer to every reading: first answers, duplicates and revisions joined by (asset, event time).

All answers are held in memory until the end, as compact columns: about 25 bytes a row, 6 for each output and 4 for each
feature, and 100 more a row while they are sorted; reasons as text, where there are any.
"""

from __future__ import annotations

import csv
import json
import math
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import groupby
from pathlib import Path
from typing import Any

from wheeltapper_command.errors import UsageError
from wheeltapper_command.reasons import reasons_text
from wheeltapper_proto import scoring_pb2 as contract

from wheeltapper_gateway.answer import SCORED, STATUS, reasons_of
from wheeltapper_gateway.delivery import Delivery

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FORMATS = (".parquet", ".csv", ".jsonl")
Table = dict[str, "array[Any] | list[str]"]


class FinalAnswers:
    """Answers of one asset class from `begin_us` on. `add` is called by the gateway's reader thread alone. Answers of
    other assets are counted and left out: an interrupted replay of another history may have left some in the spool."""

    def __init__(self, asset_ids: Sequence[str], begin_us: int, with_reasons: bool = False) -> None:
        self._asset_ids, self._begin_us = asset_ids, begin_us
        self._number = {asset: i for i, asset in enumerate(asset_ids)}
        self._assets, self._times, self._releases = array("I"), array("q"), array("Q")
        self._status, self._health, self._revision = bytearray(), bytearray(), bytearray()
        self._levels, self._alarms = bytearray(), bytearray()
        self._values, self._features = array("f"), array("f")
        self._with_reasons = with_reasons
        self._reasons: dict[int, dict[str, str]] = {}  # by answer, then by output
        self._outputs: tuple[str, ...] | None = None
        self._feature_names: tuple[str, ...] = ()
        self.answered_rows = 0  # answers to rows, revisions not counted
        self.foreign_rows = 0  # of them, answers of other assets
        self.latencies = array("d")  # seconds, one a block
        self.releases: set[int] = set()

    def add(self, delivery: Delivery) -> None:
        if self._outputs is None:
            self._outputs, self._feature_names = delivery.columns.outputs, delivery.columns.features
        scores, number = delivery.scores, self._number
        self.releases.add(scores.release)
        if not delivery.revision:
            self.answered_rows += len(scores)
            self.foreign_rows += sum(asset not in number for asset in delivery.assets)
            self.latencies.append(delivery.latency_seconds)
        asked = zip(scores.times, delivery.assets, strict=True)
        keep = [row for row, (time, asset) in enumerate(asked) if time >= self._begin_us and asset in number]
        same = (delivery.columns.outputs, delivery.columns.features) == (self._outputs, self._feature_names)
        if len(keep) == len(scores) and same:
            self._times.extend(scores.times)
            self._status += scores.status
            self._health += scores.health
            self._levels += scores.levels
            self._alarms += scores.alarms
            self._values.extend(scores.values)
            self._features.extend(scores.features)
        else:
            self._add_rows(delivery, keep)
        self._add_reasons(delivery, keep)
        self._assets.extend([number[delivery.assets[row]] for row in keep])
        self._releases.extend([scores.release] * len(keep))
        self._revision += bytes([delivery.revision]) * len(keep)

    def _add_rows(self, delivery: Delivery, keep: Iterable[int]) -> None:
        """Row by row, outputs and features by name: a release in the middle may have other ones."""
        scores, columns = delivery.scores, delivery.columns
        width, asked = len(columns.outputs), len(columns.features)
        outputs = [_position(columns.outputs, name) for name in self._outputs or ()]
        features = [_position(columns.features, name) for name in self._feature_names]
        for row in keep:
            self._times.append(scores.times[row])
            self._status.append(scores.status[row])
            self._health.append(scores.health[row])
            for i in outputs:
                self._levels.append(scores.levels[row * width + i] if i >= 0 else 0)
                self._alarms.append(scores.alarms[row * width + i] if i >= 0 else 0)
                self._values.append(scores.values[row * width + i] if i >= 0 else math.nan)
            self._features.extend([scores.features[row * asked + i] if i >= 0 else math.nan for i in features])

    def _add_reasons(self, delivery: Delivery, keep: Sequence[int]) -> None:
        reasons = reasons_of(delivery.scores, delivery.columns)
        for place, row in enumerate(keep, start=len(self._assets)) if reasons else ():
            for output, own in groupby(reasons.get(row, ()), key=lambda reason: reason.output):
                text = reasons_text((reason.feature, reason.contribution) for reason in own)
                self._reasons.setdefault(place, {})[output] = text

    def columns(self) -> Table:
        """One row per reading, sorted by asset_id and time. Scores, features, level and release are the latest ones,
        reasons those of the latest answer that gave any; alarm and health are as first told: an alarm that rang has
        rung, and a reading came as it came."""
        outputs, names = self._outputs or (), self._feature_names
        chosen, told, explained, statuses, revisions = self._choose()
        table: Table = {
            "asset_id": [self._asset_ids[self._assets[i]] for i in chosen],
            "time": array("q", [self._times[i] for i in chosen]),
            "status": [STATUS.get(status, f"STATUS_{status}") for status in statuses],
            "release": array("Q", [self._releases[i] for i in chosen]),
            "level": array("B", _gather(self._levels, chosen, len(outputs))[:: max(len(outputs), 1)]),
            "health": array("B", [self._health[i] for i in told]),
            "revisions": array("I", revisions),
        }
        values, alarms = _gather(self._values, chosen, len(outputs)), _gather(self._alarms, told, len(outputs))
        for i, name in enumerate(outputs):
            table[f"score:{name}"] = values[i :: len(outputs)]
            table[f"alarm:{name}"] = array("B", alarms[i :: len(outputs)])
            if self._with_reasons:
                table[f"reasons:{name}"] = [self._reasons.get(at, {}).get(name, "") for at in explained]
        features = _gather(self._features, chosen, len(names))
        for i, name in enumerate(names):
            table[f"feature:{name}"] = features[i :: len(names)]
        return table

    def _choose(self) -> tuple[list[int], list[int], list[int], list[int], list[int]]:
        """Per reading: which answer holds its scores, which was told first, which has its reasons (−1: none), its
        status, how often it was revised."""
        assets, times, found = self._assets, self._times, self._status
        order = sorted(range(len(times)), key=lambda i: (assets[i], times[i]))  # stable: arrival breaks ties
        chosen: list[int] = []
        told: list[int] = []
        explained: list[int] = []
        statuses: list[int] = []
        revisions: list[int] = []
        before: tuple[int, int] | None = None
        for i in order:
            key = (assets[i], times[i])
            if key != before:
                chosen.append(i)
                told.append(i)
                explained.append(-1)
                statuses.append(found[i])
                revisions.append(0)
            elif self._revision[i]:
                chosen[-1], statuses[-1] = i, found[i]
                revisions[-1] += 1
            elif found[i] == contract.ROW_STATUS_DUPLICATE and statuses[-1] in SCORED:
                chosen[-1] = i  # the windows may have changed since, and then nothing else says so
            elif found[i] == contract.ROW_STATUS_OK and statuses[-1] not in SCORED:
                chosen[-1] = told[-1] = i
                statuses[-1] = found[i]
            if i in self._reasons:
                explained[-1] = i
            before = key
        return chosen, told, explained, statuses, revisions


def joined(tables: Sequence[Table]) -> Table:
    """Tables of several classes as one, sorted by asset_id; what a class does not have is NaN or 0."""
    tables = [table for table in tables if table["asset_id"]] or list(tables[:1])
    if len(tables) == 1:
        return tables[0]
    runs = sorted((run, k) for k, table in enumerate(tables) for run in _runs(table["asset_id"]))
    whole: Table = {}
    for name in dict.fromkeys(name for table in tables for name in table):
        pattern = next(table[name] for table in tables if name in table)
        column: Any = pattern[:0]
        for (_, begin, end), k in runs:
            own = tables[k].get(name)
            column += _blank(pattern, end - begin) if own is None else own[begin:end]
        whole[name] = column
    return whole


def _runs(ids: Any) -> list[tuple[str, int, int]]:
    """Where each asset's rows lie: (asset id, begin, end)."""
    begins = [i for i in range(len(ids)) if i == 0 or ids[i] != ids[i - 1]]
    return [(ids[begin], begin, end) for begin, end in zip(begins, [*begins[1:], len(ids)], strict=True)]


def _blank(pattern: Any, rows: int) -> Any:
    if isinstance(pattern, list):
        return [""] * rows
    return array(pattern.typecode, [math.nan if pattern.typecode == "f" else 0]) * rows


def write_answers(path: Path, table: Table) -> None:
    """By the name's ending: .parquet (needs pyarrow), .csv or .jsonl. Numbers keep their float32 bits; NaN is an empty
    cell or null, times are ISO 8601 in UTC."""
    if path.suffix == ".parquet":
        parquet().write_parquet(path, table)
        return
    rows = zip(*(_cells(name, column) for name, column in table.items()), strict=True)
    with path.open("w", newline="", encoding="utf-8") as text:
        if path.suffix == ".csv":
            writer = csv.writer(text, lineterminator="\n")
            writer.writerow(table)
            writer.writerows(rows)
        else:
            names = list(table)
            text.writelines(json.dumps(dict(zip(names, row, strict=True)), allow_nan=False) + "\n" for row in rows)


def check_format(path: Path) -> None:
    """Raises UsageError for an ending that cannot be written here, before any work is done."""
    if path.suffix not in _FORMATS:
        raise UsageError(f"--out: expected a name ending in {', '.join(_FORMATS)}, found {path.name!r}")
    if not path.resolve().parent.is_dir():
        raise UsageError(f"--out: expected a folder that exists, found {path.resolve().parent}")
    if path.suffix == ".parquet":
        parquet()


def parquet() -> Any:
    """The module that knows Parquet. Raises UsageError where pyarrow is not installed."""
    try:
        from wheeltapper_gateway import history  # noqa: PLC0415 - an optional dependency
    except ImportError as error:
        raise UsageError(
            f"Parquet needs pyarrow, which is not installed here ({error})",
            "pip install 'wheeltapper-gateway[replay]', or use CSV files",
        ) from error
    return history


def counts(table: Mapping[str, Any]) -> dict[str, int]:
    """How many readings ended with each status."""
    return dict(sorted(Counter(table["status"]).items()))


def _cells(name: str, column: Any) -> Iterable[Any]:
    if name == "time":
        return ((_EPOCH + timedelta(microseconds=time)).isoformat() for time in column)
    if isinstance(column, array) and column.typecode == "f":
        return (None if math.isnan(value) else value for value in column)
    return column  # type: ignore[no-any-return]


def _gather(column: Any, rows: Iterable[int], width: int) -> Any:
    """Rows of a row-major column."""
    out = column[:0]
    for row in rows:
        out += column[row * width : (row + 1) * width]
    return out


def _position(names: Sequence[str], name: str) -> int:
    return names.index(name) if name in names else -1
