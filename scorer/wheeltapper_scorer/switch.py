"""Which assets an operator has switched off, as the scorer knows it now."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from wheeltapper.kill_switch import Blocked


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
