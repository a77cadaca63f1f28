"""How many cores there are to use, in a container and outside one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from wheeltapper_command.machine import available_cpus


@pytest.mark.parametrize(
    ("limit", "expected"),
    [("max 100000", 6), ("200000 100000", 2), ("150000 100000", 2), ("20000 100000", 1), ("900000 100000", 6), ("", 6)],
)
def test_a_containers_share_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, expected: int) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _process: set(range(6)))
    (tmp_path / "cpu.max").write_text(f"{limit}\n")
    assert available_cpus(tmp_path / "cpu.max") == expected
    assert available_cpus(tmp_path / "none") == 6
