"""Each package installed alone from its wheel does its job, and brings nothing it has no business with."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import trips
from wheeltapper.pack import open_pack

ROOT = Path(__file__).parents[2]
OWN = {"wheeltapper-command", "wheeltapper-proto"}
GIANTS = {"ray", "xgboost", "xgboost-cpu", "pyarrow", "scipy", "numba", "numpy"}


def uv(*words: object) -> str:
    found = os.environ.get("UV") or shutil.which("uv") or str(ROOT / ".tools" / "bin" / "uv")
    done = subprocess.run([found, *map(str, words)], capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheels")
    uv("build", "--quiet", "--all-packages", "--wheel", "--out-dir", folder, ROOT)
    return folder


def installed(wheels: Path, folder: Path, package: str) -> tuple[tuple[str, ...], set[str]]:
    """The command of a fresh environment with `package` alone, and the distributions in it."""
    python = folder / "bin" / "python"
    uv("venv", "--quiet", folder)
    locked = uv("export", "--quiet", "--project", ROOT, "--frozen", "--no-dev", "--no-emit-workspace", "--no-hashes")
    constraints = folder / "constraints.txt"
    constraints.write_text("\n".join(line for line in locked.splitlines() if "==" in line))
    uv("pip", "install", "--quiet", "--python", python, "--find-links", wheels, "-c", constraints, package)
    names = {line.split("==")[0] for line in uv("pip", "freeze", "--python", python).splitlines()}
    return (str(python), "-m", "wheeltapper_command"), {name.split(" @")[0] for name in names}


def test_a_gateway_alone_replays(wheels: Path, simulated: Path, tmp_path: Path) -> None:
    command, found = installed(wheels, tmp_path / "venv", "wheeltapper-gateway")
    assert found == OWN | {"wheeltapper-gateway", "grpcio", "protobuf", "typing-extensions"}
    history = tmp_path / "history"
    (history / "readings").mkdir(parents=True)
    (history / "assets.csv").write_text("asset_id,asset_class\npump-000,pump\n")
    names = [sensor.name for sensor in open_pack(pack_of(simulated)).class_named("pump").spec.sensors]
    rows = [f"pump-000,2026-01-01T{hour:02d}:00:00Z," + ",".join(["1.5"] * len(names)) for hour in range(24)]
    (history / "readings" / "pump.csv").write_text("\n".join([",".join(["asset_id", "time", *names]), *rows, ""]))
    with trips.serving(simulated / "registry") as address:
        out = tmp_path / "answers.csv"
        sent = trips.wheeltapper("replay", history, "--to", address, "--out", out, command=command)
    assert sent["readings_answered"] == 24
    assert len(out.read_text().splitlines()) == 25


def test_a_scorer_alone_serves(wheels: Path, simulated: Path, tmp_path: Path) -> None:
    command, found = installed(wheels, tmp_path / "venv", "wheeltapper-scorer")
    assert not found & (GIANTS - {"numba", "numpy"})
    assert "wheeltapper-gateway" not in found
    with trips.serving(simulated / "registry", command=command) as address:
        words = ("replay", simulated / "history", "--to", address, "--out", tmp_path / "answers.parquet")
        sent = trips.wheeltapper(*words)
    assert sent["readings_answered"] == sent["readings_sent"] > 0


def test_a_trainer_alone_trains(wheels: Path, tmp_path: Path) -> None:
    command, found = installed(wheels, tmp_path / "venv", "wheeltapper-trainer")
    assert not found & {"grpcio", "wheeltapper-scorer", "wheeltapper-gateway", "wheeltapper-proto"}
    history, registry = tmp_path / "history", tmp_path / "registry"
    trips.wheeltapper("simulate", history, "--assets", 4, "--days", 120, command=command)
    trips.lighter(history / "fleet.toml", rounds=10)
    words = ("train", history / "fleet.toml", "--history", history, "--registry", registry)
    assert trips.wheeltapper(*words, command=command)["release"] == 1


def pack_of(folder: Path) -> Path:
    return next((folder / "registry" / "packs").iterdir())
