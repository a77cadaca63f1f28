"""`wheeltapper demo`, small: every key of its answer, the same bits twice over, nothing left running."""

from __future__ import annotations

from pathlib import Path

import pytest
import trips
from wheeltapper.signing import generate_keys

SECRETS = {"AWS_SECRET_ACCESS_KEY": "a-secret-of-a-store", "MLFLOW_TRACKING_PASSWORD": "a-secret-of-a-server"}
KEYS = {
    "assets", "heads_trained", "assets_failed", "pack_bytes", "bytes_per_head", "readings_sent", "readings_answered",
    "stream_equals_offline", "failures", "failures_warned", "lead_time_median_hours", "false_alarms_per_asset_week",
    "train_seconds", "stream_readings_per_second", "latency_p50_ms", "latency_p99_ms", "report",
}  # fmt: skip


def processes_about(folder: Path) -> list[str]:
    """The command lines of running processes that name `folder`."""
    lines = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines.append(entry.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:  # it ended meanwhile
            continue
    return [line for line in lines if str(folder) in line]


def test_the_demo_makes_the_whole_trip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "demo"
    for name, secret in SECRETS.items():
        monkeypatch.setenv(name, secret)
    found = trips.wheeltapper("demo", "--assets", 10, "--days", 120, "--seed", 3, "--dir", folder)
    assert found.keys() >= KEYS
    assert (found["assets"], found["assets_failed"]) == (10, 0)
    assert found["stream_equals_offline"] is True
    assert found["readings_answered"] == found["readings_sent"] == found["rows_compared"] > 5_000
    assert found["columns_compared"] > 100
    assert found["failures"] >= found["failures_warned"] >= 1
    assert abs(found["pack_bytes"] / found["heads_kept"] - found["bytes_per_head"]) < 0.1
    assert found["latency_p99_ms"] >= found["latency_p50_ms"] > 0
    assert "<h1>" in Path(found["report"]).read_text(encoding="utf-8")
    assert processes_about(folder) == []
    assert_no_secret_was_written(tmp_path, folder)


def assert_no_secret_was_written(beside: Path, folder: Path) -> None:
    """Neither the environment's nor the key that signs: not in a release, a pack, a report or a log."""
    private, _, _ = generate_keys(beside / "keys")
    signing = ("--key", private, "--by", "a test", "--why", "signed", "--override", "a small fleet")
    trips.wheeltapper("release", "promote", 1, "--to", "qa", "--registry", folder / "registry", *signing)
    secrets = [secret.encode() for secret in SECRETS.values()] + private.read_bytes().splitlines()[1:-1]
    for path in (path for path in folder.rglob("*") if path.is_file()):
        written = path.read_bytes()
        assert not [secret for secret in secrets if secret in written], path
