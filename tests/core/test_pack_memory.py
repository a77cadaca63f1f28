"""A process that is offered packs for months keeps neither those that it refuses nor those that it lets go."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from growth import Growth
from packs import KERNELS, sealed_again, small_content
from wheeltapper.errors import PackError
from wheeltapper.forest import margins
from wheeltapper.pack import open_pack, write_pack
from wheeltapper.pack_layout import unseal

DATA = write_pack(small_content())
TIMES = 100


def _forged(section: str, value: int) -> bytes:
    """A pack that is sealed again after the bytes of a whole section have changed."""
    forged, found = bytearray(DATA), unseal(DATA)[0][section]
    start = DATA.index(found.tobytes())
    forged[start : start + found.nbytes] = bytes([value]) * found.nbytes
    return sealed_again(forged)


HOSTILE = {
    "nothing": b"",
    "cut short": DATA[:-1],
    "altered": DATA[:-40] + b"\xff" + DATA[-39:],
    "not JSON": _forged("meta", ord("[")),
    "nodes in a circle": _forged("nodes", 0),  # what a kernel finds
    "strange assets": _forged("asset_ids", 0xFF),
    "alien heads": _forged("asset_heads", 1),
    "another golden margin": _forged("c0.golden_margins", 0x40),  # what is found last
}


def _offered(path: Path) -> None:
    with pytest.raises(PackError):
        open_pack(path)


def _opened(path: Path) -> None:
    opened = open_pack(path, KERNELS)
    heads = np.flatnonzero(opened.head_class == 0).astype(np.int32)
    margins(opened.forest, heads, np.zeros((len(heads), opened.classes[0].features), np.float32))


@pytest.mark.parametrize("name", [*HOSTILE, "a good one"])
def test_a_pack_that_is_let_go_leaves_nothing(tmp_path: Path, name: str) -> None:
    path = tmp_path / "offered.pack"
    path.write_bytes(HOSTILE.get(name, DATA))
    work: Callable[[Path], None] = _offered if name in HOSTILE else _opened
    for _ in range(10):
        work(path)
    with Growth() as growth:
        for _ in range(TIMES):
            work(path)
    assert (growth.arrays, growth.mapped) == (0, 0)
    assert growth.objects < TIMES / 2
