"""A forest gathered on disk is the one built in memory, and a pack is written from it in pieces."""

from __future__ import annotations

import dataclasses
import tracemalloc
from pathlib import Path

import numpy as np
import packs
import pytest
from wheeltapper.forest import NODE, Trees, build_forest, no_trees
from wheeltapper.pack import save_pack, write_pack
from wheeltapper.pack_content import HeadContent, PackContent, sealed_content
from wheeltapper_trainer.forest_file import ForestFile

CONTENT = packs.small_content()


def test_what_is_gathered_on_disk_is_what_is_built_in_memory(tmp_path: Path) -> None:
    with ForestFile(tmp_path) as file:
        numbers = [file.add(head.trees, head.base, head.parent) for head in CONTENT.heads]
        found = file.forest()
    assert numbers == list(range(len(CONTENT.heads)))
    built = build_forest([(head.trees, head.parent, head.base) for head in CONTENT.heads])
    for name, one, other in zip(found._fields, found, built, strict=True):
        assert one.dtype == other.dtype, name
        np.testing.assert_array_equal(one, other, err_msg=name)
    on_disk = dataclasses.replace(CONTENT, forest=found)
    save_pack(on_disk, tmp_path / "a.pack")
    assert (tmp_path / "a.pack").read_bytes() == write_pack(CONTENT)


def test_a_head_cannot_continue_one_that_comes_later(tmp_path: Path) -> None:
    with ForestFile(tmp_path) as file, pytest.raises(ValueError, match="expected a parent before it"):
        file.add(CONTENT.heads[0].trees, 0.0, 0)


def test_nothing_gathered_is_an_empty_forest(tmp_path: Path) -> None:
    with ForestFile(tmp_path) as file:
        for one, other in zip(file.forest(), build_forest([]), strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("heads", [100, 400])
def test_memory_does_not_grow_with_the_trees(tmp_path: Path, heads: int) -> None:
    """Every head brings 100 kB of nodes and covers; what is held of it is its begin and depth."""
    nodes, cover = np.zeros(5_000, NODE), np.zeros(5_000, np.float32)
    trees = Trees(nodes, np.array([0, 5_000], np.int64), np.ones(1, np.uint8), cover)
    tracemalloc.start()
    with ForestFile(tmp_path) as file:
        for _ in range(heads):
            file.add(trees)
        content = PackContent("large", 1, "k", (), [HeadContent(0, 0, 2, no_trees())] * heads, forest=file.forest())
        written = sum(len(piece) for piece in sealed_content(content))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert written > heads * 60_000
    assert peak < 6e6
