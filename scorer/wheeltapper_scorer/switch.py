"""Which assets an operator has switched off, as the scorer knows it now, and how their rows are answered."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from wheeltapper.kill_switch import Blocked
from wheeltapper.live import Answers
from wheeltapper_proto import scoring_pb2

from wheeltapper_scorer.wire import Scores


class Switch:
    """One for all sessions; `version` changes with what is off, so that a session asks per asset only then."""

    def __init__(self) -> None:
        self.blocked = Blocked()
        self.version = 0

    def turn(self, blocked: Blocked) -> bool:
        """Obey. Whether that is something new."""
        if blocked == self.blocked:
            return False
        self.blocked = blocked
        self.version += 1
        return True

    def off(self, asset_class: str, asset_ids: Sequence[str]) -> NDArray[np.bool_]:
        """Which of the assets are off, bool [n]."""
        blocked = self.blocked
        if blocked.fleet or asset_class in blocked.classes:
            return np.ones(len(asset_ids), dtype=np.bool_)
        if not blocked.assets:
            return np.zeros(len(asset_ids), dtype=np.bool_)
        return np.array([asset in blocked.assets for asset in asset_ids], dtype=np.bool_)


class StreamSwitch:
    """The switch as it stands for the assets of one stream, looked up again only where either has changed."""

    def __init__(self, switch: Switch, asset_class: str, ids: Sequence[str]) -> None:
        """ids: by handle; the stream goes on adding to them."""
        self._switch, self._asset_class, self._ids = switch, asset_class, ids
        self._version = -1
        self._off = np.zeros(1, dtype=np.bool_)  # by handle; the last: beyond them
        self._is_any_off = False

    def apply(self, answers: Answers, handles: NDArray[np.uint32]) -> None:
        """Answer rows of assets that are off as such."""
        if (off := self._of(handles)) is not None:
            _answer(answers, off)

    def applied(self, scores: Scores) -> Scores:
        """An answer that was given before; an asset that was switched off since is not scored."""
        off = self._of(scores.handles)
        if off is None:
            return scores
        names = ("status", "values", "levels", "alarms")
        own = scores._replace(**{name: getattr(scores, name).copy() for name in names}, reasons=None)
        _answer(own, off)
        return own

    def _of(self, handles: NDArray[np.uint32]) -> NDArray[np.bool_] | None:
        """Which of the handles are off; None where none is."""
        if self._version != self._switch.version or len(self._off) != len(self._ids) + 1:
            self._version = self._switch.version
            self._off = np.append(self._switch.off(self._asset_class, self._ids), False)
            self._is_any_off = bool(self._off.any())
        if not self._is_any_off:
            return None
        off = self._off.take(handles, mode="clip")
        return off if off.any() else None


def _answer(answers: Answers | Scores, off: NDArray[np.bool_]) -> None:
    """Their windows have taken the readings in, so that an asset that is switched on again is scored as if nothing had
    been."""
    answers.status[off] = scoring_pb2.ROW_STATUS_BLOCKED
    answers.values[off] = np.nan
    answers.levels[off] = 0
    answers.alarms[off] = 0
