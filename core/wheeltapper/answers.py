"""What a fleet answers to a block: columns that kernels fill, and the same as they are handed out."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from wheeltapper.scoring import Columns


class Answers(NamedTuple):
    """Answers of n rows, O outputs, F features.

    rows int64 [n] state row, −1 unknown; times int64 [n] µs; status uint8 [n] (RowStatus); values float32 [n, O], NaN
    where there is none; levels, alarms uint8 [n, O]; health uint8 [n] bits; features float32 [n, F] where asked for;
    revisions: earlier readings scored anew because a late row changed their window.
    """

    rows: npt.NDArray[np.int64]
    times: npt.NDArray[np.int64]
    status: npt.NDArray[np.uint8]
    values: npt.NDArray[np.float32]
    levels: npt.NDArray[np.uint8]
    alarms: npt.NDArray[np.uint8]
    health: npt.NDArray[np.uint8]
    features: npt.NDArray[np.float32] | None = None
    revisions: Answers | None = None


class EventAnswers(NamedTuple):
    """status uint8 [n] of the events (TAKEN, FUTURE, UNKNOWN_HANDLE) and the readings they changed."""

    status: npt.NDArray[np.uint8]
    revisions: Answers | None


def columns(n: int, outputs: int, features: int) -> Columns:
    """Answers of `n` rows, to be filled; features: 0 where nobody asked for them."""
    return columns_of(np.empty(n, np.int64), np.empty(n, np.int64), outputs, features)


def columns_of(rows: npt.NDArray[np.int64], times: npt.NDArray[np.int64], outputs: int, features: int) -> Columns:
    """Answers to a block, to be filled: its own rows and times are part of them. Otherwise as `columns`."""
    n = len(rows)
    return Columns(
        rows,
        times,
        np.empty(n, np.uint8),
        np.empty((n, outputs), np.float32),
        np.empty((n, outputs), np.uint8),
        np.empty((n, outputs), np.uint8),
        np.empty(n, np.uint8),
        np.empty((n if features else 0, features), np.float32),
    )


def first(columns: Columns, count: int) -> Columns:
    """A copy of its first `count` rows."""
    return Columns._make(column[:count].copy() for column in columns)


def joined(parts: list[Columns], want_features: bool) -> Answers | None:
    """All rows of `parts`; None where there are none."""
    if not any(len(part.rows) for part in parts):
        return None
    whole = parts[0] if len(parts) == 1 else Columns._make(np.concatenate(same) for same in zip(*parts, strict=True))
    return answers(whole, [], want_features)


def answers(columns: Columns, revisions: list[Columns], want_features: bool) -> Answers:
    """Filled columns and the revisions that came with them."""
    features = columns.features if want_features else None
    return Answers(*columns[:-1], features, joined(revisions, want_features) if revisions else None)
