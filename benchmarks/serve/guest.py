"""What a peer begins with, wherever it runs: the forest as a Booster, and a line that says where it listens.

Nothing here is the product's, so that it also runs in an environment that holds only the peer, NumPy and XGBoost.
"""

from __future__ import annotations

import os
import socket
import sys
from typing import Any


class Model:
    """A Booster on one thread."""

    def __init__(self, path: str) -> None:
        import xgboost

        self._booster = xgboost.Booster({"nthread": 1})
        self._booster.load_model(path)
        self._booster.set_param({"nthread": 1})

    def scores(self, rows: Any) -> Any:
        return self._booster.inplace_predict(rows)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def only_line() -> Any:
    """Standard output for one line of ours; whatever else writes there goes to standard error from now on."""
    ours = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return ours


def listening(port: int, out: Any = None) -> None:
    """Say where: the line that the benchmark waits for."""
    out = out or sys.stdout
    out.write(f"{port}\n")
    out.flush()
