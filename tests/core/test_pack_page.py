"""docs/pack-v1.md is enough to read a pack: this reader follows the page, with `struct` and nothing of ours."""

from __future__ import annotations

import hashlib
import json
import math
import re
import struct
from pathlib import Path

import numpy as np
import pytest
from packs import small_content, started_content
from wheeltapper.forest import margins
from wheeltapper.pack import Pack, PackContent, write_pack

PAGE = Path(__file__).parents[2] / "docs" / "pack-v1.md"
ELEMENTS = {"u1": "B", "i4": "i", "i8": "q", "f4": "f", "f8": "d", "node": "fHH"}


def read_by_the_page(data: bytes) -> dict[str, list]:
    magic, version, count, length = struct.unpack_from("<8sIIQ", data, 0)
    assert magic == bytes.fromhex("57 54 50 41 43 4B 0D 0A")
    assert length == len(data)
    assert data[24:64] == bytes(40)
    assert hashlib.sha256(data[:-32]).digest() == data[-32:]
    sections = {}
    place = 64 + 64 * count
    for i in range(count):
        entry = struct.unpack_from("<24s4sI4Q", data, 64 + 64 * i)
        name, kind = entry[0].rstrip(b"\0").decode(), entry[1].rstrip(b"\0").decode()
        dimensions, rows, columns, offset, size = entry[2:]
        start = (place + 63) // 64 * 64
        assert offset == start
        assert data[place:start] == bytes(start - place)
        form = struct.Struct("<" + ELEMENTS[kind])
        assert size == rows * columns * form.size
        values = [found if kind == "node" else found[0] for found in form.iter_unpack(data[offset : offset + size])]
        assert len(values) == rows * columns
        is_table = dimensions == 2
        sections[name] = [values[r * columns : (r + 1) * columns] for r in range(rows)] if is_table else values
        place = offset + size
    assert (place + 63) // 64 * 64 == length - 32
    assert list(sections) == names_by_the_page(version, sum(name.endswith(".mean") for name in sections))
    return sections


def names_by_the_page(version: int, classes: int) -> list[str]:
    table = PAGE.read_text().split("\n## Sections\n")[1].split("\n## ")[0]
    rows = re.findall(r"(?m)^\| `([a-z_.{}]+)` \| (\w+) \| [^|]* \|(.*)$", table)
    assert all(kind in ELEMENTS for _, kind, _ in rows)
    names = [name for name, _, what in rows if version > 1 or "only in version 2" not in what]
    whole = [name for name in names if not name.startswith("c{k}.")]
    own = [name for name in names if name.startswith("c{k}.")]
    return whole + [name.replace("{k}", str(k)) for k in range(classes) for name in own]


def single(x: float) -> float:
    return struct.unpack("<f", struct.pack("<f", x))[0]


def margin_by_the_page(pack: dict[str, list], head: int, row: list[float]) -> float:
    wide = [math.inf if math.isnan(x) else x for x in row] + [-math.inf if math.isnan(x) else x for x in row]
    wide.append(-math.inf)
    chain = [head]
    while pack["head_parent"][chain[0]] >= 0:
        chain.insert(0, pack["head_parent"][chain[0]])
    total = pack["head_base"][chain[0]]
    for link in chain:
        for tree in range(*pack["head_trees"][link]):
            root = pack["tree_begin"][tree]
            at = 0
            for _ in range(pack["tree_depth"][tree]):
                value, feature, left = pack["nodes"][root + at]
                at = left if wide[feature] < value else left + 1
            value, feature, left = pack["nodes"][root + at]
            assert (feature, left) == (2 * len(row), at)
            total = single(total + value)
    return total


@pytest.mark.parametrize(("content", "version", "golden"), [(small_content(), 1, 9), (started_content(), 2, 5)])
def test_the_page_is_enough_to_read_a_pack(content: PackContent, version: int, golden: int):
    data = write_pack(content)
    pack, ours = read_by_the_page(data), Pack.from_bytes(data)
    assert data[8:12] == struct.pack("<I", version)
    meta = json.loads(bytes(pack["meta"]))
    assert json.dumps(meta, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode() == bytes(pack["meta"])
    assert list(pack)[:4] == ["meta", "nodes", "node_cover", "tree_begin"]
    assert pack["node_cover"] == ours.forest.node_cover.tolist()
    assert [one["name"] for one in meta["classes"]] == ["pump", "fan"]
    ids = bytes(pack["asset_ids"])
    found = [ids[a:b].decode() for a, b in zip(pack["asset_begin"], pack["asset_begin"][1:], strict=False)]
    assert found == [ours.asset_id(i) for i in range(ours.asset_count)]
    checked = 0
    for k in range(len(meta["classes"])):
        rows = pack[f"c{k}.golden_rows"]
        asked = zip(rows, pack[f"c{k}.golden_heads"], pack[f"c{k}.golden_margins"], strict=True)
        for row, heads, said in asked:
            for head, expected in zip(heads, said, strict=True):
                if head >= 0:
                    assert margin_by_the_page(pack, head, row) == expected
                    checked += 1
        for head in range(len(pack["head_base"])):
            if rows and pack["head_class"][head] == k:
                by_us = margins(ours.forest, np.full(len(rows), head, np.int32), np.array(rows, np.float32))
                assert [margin_by_the_page(pack, head, row) for row in rows] == by_us.tolist()
    assert checked == golden
