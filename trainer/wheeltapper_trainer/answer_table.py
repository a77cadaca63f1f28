"""Final answers as a table: one row a reading, the columns of every class of the history."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from wheeltapper.pack import Pack
from wheeltapper.spec import features_of
from wheeltapper.windows import RowStatus

from wheeltapper_trainer.final_answers import FinalAnswers

_STATUS = np.array([status.name for status in RowStatus])

Table = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True, slots=True)
class AnswerTable:
    """Its columns: outputs and features by class; what a class does not have is NaN there, its alarm 0."""

    outputs: dict[str, list[str]]
    features: dict[str, list[str]]
    with_reasons: bool

    @classmethod
    def of(cls, pack: Pack, classes: Iterable[str], with_features: bool, with_reasons: bool) -> AnswerTable:
        known = [pack.class_named(name) for name in classes]
        features = {one.name: [f.name for f in features_of(one.spec)] if with_features else [] for one in known}
        outputs = {one.name: [output.name for output in one.outputs] for one in known}
        return cls(outputs, features, with_reasons)

    def rows(self, asset_id: str, asset_class: str, release: int, final: FinalAnswers) -> Table:
        """The rows of one asset, with the columns of every class."""
        rows = len(final.times)
        table: Table = {
            "asset_id": np.full(rows, asset_id),
            "time": final.times.astype("M8[us]"),
            "status": _STATUS[final.status],
            "release": np.full(rows, release, np.uint64),
            "level": final.levels[:, 0] if final.levels.shape[1] else np.zeros(rows, np.uint8),
            "health": final.health,
            "revisions": final.revisions,
        }
        outputs, features = self.outputs[asset_class], self.features[asset_class]
        for output in _union(self.outputs):
            at = outputs.index(output) if output in outputs else -1
            table[f"score:{output}"] = final.values[:, at] if at >= 0 else np.full(rows, np.nan, np.float32)
            table[f"alarm:{output}"] = final.alarms[:, at] if at >= 0 else np.zeros(rows, np.uint8)
            if self.with_reasons:
                table[f"reasons:{output}"] = final.reasons[:, at].astype(np.str_) if at >= 0 else np.full(rows, "")
        place = {feature: at for at, feature in enumerate(features)}
        blank = np.full(rows, np.nan, np.float32)
        for feature in _union(self.features):
            table[f"feature:{feature}"] = final.features[:, place[feature]] if feature in place else blank
        return table

    def nothing(self, release: int) -> Table:
        """The table of no reading at all."""
        name = next(iter(self.outputs))
        empty = FinalAnswers(np.empty(0, np.int64), len(self.outputs[name]), len(self.features[name]))
        return self.rows("", name, release, empty)


def _union(names: dict[str, list[str]]) -> list[str]:
    return list(dict.fromkeys(name for own in names.values() for name in own))
