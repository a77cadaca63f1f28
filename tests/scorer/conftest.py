"""Packs, a registry of releases of them, and a real server on loopback."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from presses import ONE_OUTPUT, content
from serving import Running, promote, run_server
from wheeltapper.features import KERNELS
from wheeltapper.live import LiveFleet
from wheeltapper.pack import Pack, write_pack
from wheeltapper.registry import Registry


@pytest.fixture(scope="session")
def packs() -> dict[str, bytes]:
    """Packs by what is special about them."""
    return {
        "first": write_pack(content(1)),
        "second": write_pack(content(2)),
        "narrow": write_pack(content(3, ONE_OUTPUT)),
    }


@pytest.fixture
def fleet(packs: dict[str, bytes]) -> LiveFleet:
    return LiveFleet(Pack.from_bytes(packs["first"], KERNELS), 1)


@pytest.fixture
def registry(tmp_path: Path, packs: dict[str, bytes]) -> Registry:
    """Releases 1 (first), 2 (second) and 3 (narrow); production stands at 1."""
    made = Registry(tmp_path / "registry")
    for name in ("first", "second", "narrow"):
        made.publish(packs[name], who="a test", why=name)
    promote(made, 1)
    return made


@pytest.fixture
def running(registry: Registry) -> Iterator[Running]:
    """`wheeltapper serve` as a process of its own, ended by SIGTERM if the test has not ended it."""
    with run_server(registry.path) as server:
        yield server
