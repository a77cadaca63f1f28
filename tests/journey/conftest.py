from __future__ import annotations

from pathlib import Path

import pytest
import trips


@pytest.fixture(scope="session")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small simulated fleet, trained with Ray and promoted: `history` and `registry` in one folder."""
    folder = tmp_path_factory.mktemp("simulated")
    trips.wheeltapper("simulate", folder / "history", "--assets", 14, "--days", 120, "--seed", 3)
    trips.lighter(folder / "history" / "fleet.toml", rounds=40)
    train(folder)
    return folder


@pytest.fixture(scope="session")
def turbofan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """C-MAPSS FD001, imported, trained and promoted."""
    if not (trips.DATA / "cmapss" / "train_FD001.txt").exists():
        pytest.skip("the real data is not here: set WHEELTAPPER_DATA to the folder that holds cmapss/")
    folder = tmp_path_factory.mktemp("turbofan")
    trips.wheeltapper("import", "cmapss", trips.DATA / "cmapss", folder / "history", "--subset", "FD001")
    trips.lighter(folder / "history" / "fleet.toml", rounds=40)
    train(folder)
    return folder


def train(folder: Path) -> None:
    history, registry = folder / "history", folder / "registry"
    trained = trips.wheeltapper("train", history / "fleet.toml", "--history", history, "--registry", registry)
    assert trained["assets_failed"] == 0
    trips.to_production(registry, trained["release"])
