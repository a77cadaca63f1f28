"""`wheeltapper demo`, small: every key of its answer, the same bits twice over, nothing left running."""

from __future__ import annotations

from pathlib import Path

import trips

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


def test_the_demo_makes_the_whole_trip(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
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
