"""The proof of no skew: streamed over gRPC or scored offline, shuffled and doubled or not, the bits are the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import trips
from wheeltapper_trainer.history import read_table

DISORDER = ("--shuffle", "3rows", "--duplicate", "0.2", "--seed", "11")


@pytest.mark.parametrize("fleet", ["simulated", "turbofan"])
@pytest.mark.parametrize("disorder", [(), DISORDER], ids=["in order", "shuffled and doubled"])
def test_streamed_equals_offline_bit_for_bit(
    fleet: str, disorder: tuple[str, ...], request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    folder: Path = request.getfixturevalue(fleet)
    offline, streamed = folder / "offline.parquet", tmp_path / "streamed.parquet"
    if not offline.exists():
        trips.wheeltapper(
            "score", folder / "history", "--registry", folder / "registry", "--stage", "production", "--out", offline,
            "--features",
        )  # fmt: skip
    with trips.serving(folder / "registry") as address:
        sent = trips.wheeltapper(
            "replay", folder / "history", "--to", address, "--out", streamed, "--features", *disorder
        )
    assert sent["readings_answered"] == sent["readings_sent"]
    truth, found = read_table(offline), read_table(streamed)
    assert len(truth["time"]) == len(found["time"])
    # Late rows move no alarm, so alarms are compared where everything came in order.
    columns = [name for name in truth if disorder == () or not name.startswith("alarm:")]
    for name in columns:
        if name in ("revisions", "health"):
            continue
        same = truth[name].tobytes() == found[name].tobytes() if truth[name].dtype != object else None
        if same is None:
            same = bool(np.array_equal(truth[name], found[name]))
        assert same, f"{name} differs"
    assert {name for name in truth if name.startswith("score:")}
    assert {name for name in truth if name.startswith("feature:")}
