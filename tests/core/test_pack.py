"""A pack says what it was given, and one that was cut, altered or forged is refused without a crash."""

from __future__ import annotations

import dataclasses
import json
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from packs import KERNELS, sealed_again, small_content
from wheeltapper import pack_layout
from wheeltapper.errors import NotFound, PackError
from wheeltapper.forest import margins, no_trees
from wheeltapper.pack import AssetContent, HeadContent, Pack, PackContent, Why, open_pack, write_pack
from wheeltapper.pack_content import sealed_content

GOLDEN = Path(__file__).parents[1] / "golden"
CONTENT = small_content()
DATA = write_pack(CONTENT)


def arrays_of(data: bytes) -> dict[str, np.ndarray]:
    return {name: array.copy() for name, array in pack_layout.unseal(data)[0].items()}


def forged(**changes: np.ndarray) -> bytes:
    return pack_layout.seal(arrays_of(DATA) | changes, 2)


def changed(section: str, at: tuple[int, ...] | int, value: object, field: str | None = None) -> bytes:
    array = arrays_of(DATA)[section]
    (array if field is None else array[field])[at] = value
    return forged(**{section: array})


def test_a_pack_says_what_it_was_given():
    pack = Pack.from_bytes(DATA, KERNELS)
    assert (pack.fleet, pack.seed, pack.kernels, pack.lineage) == ("works", 7, KERNELS, dict(CONTENT.lineage))
    assert [one.spec for one in pack.classes] == [one.spec for one in CONTENT.classes]
    assert [one.outputs for one in pack.classes] == [one.outputs for one in CONTENT.classes]
    assert pack.size_bytes == len(DATA)
    pump, fan = pack.classes
    assert pump.heads.tolist() == [0, 1]
    assert fan.heads.tolist() == [2, 3]
    assert np.array_equal(pump.regimes.centroids, CONTENT.classes[0].regimes.centroids)
    assert np.array_equal(pump.regimes.mean, CONTENT.classes[0].regimes.mean)
    assert np.array_equal(pump.sketch, CONTENT.classes[0].sketch)
    assert (fan.regimes.mean == 0).all()
    assert (fan.regimes.inverse_std == 1).all()
    assert [pack.asset_id(i) for i in range(pack.asset_count)] == ["fan-é", "pump-1", "pump-2"]
    for asset in CONTENT.assets:
        index = pack.asset_index(asset.asset_id)
        assert pack.asset_class[index] == asset.class_index
        assert tuple(pack.asset_heads[index]) == asset.heads
        assert tuple(Why(r) for r in pack.asset_reasons[index]) == asset.reasons
    assert pack.asset_statics[pack.asset_index("pump-2")].tolist() == [3.5]
    assert np.isnan(pack.asset_statics[pack.asset_index("fan-é")]).all()
    assert pack.asset_index("pump-3") == -1
    assert pack.asset_index("") == -1
    assert pack.knots[slice(*pack.head_knots[0])].tolist() == CONTENT.heads[0].knots.tolist()
    assert pack.head_scale[4].tolist() == pytest.approx([0.9, -0.1])
    assert pack.head_level.tolist() == [2, 2, 2, 2, 3, 3]


def test_same_content_same_bytes_whatever_the_order_of_assets():
    shuffled = dataclasses.replace(CONTENT, assets=CONTENT.assets[::-1])
    assert write_pack(small_content()) == DATA
    assert write_pack(shuffled) == DATA
    assert write_pack(small_content(seed=2)) != DATA


def test_a_file_is_mapped_read_only(tmp_path):
    path = tmp_path / "fleet.pack"
    path.write_bytes(DATA)
    pack = open_pack(path, kernels=KERNELS)
    assert pack.sha256 == Pack.from_bytes(DATA).sha256
    with pytest.raises(ValueError, match="read-only"):
        pack.forest.head_base[0] = 1
    with pytest.raises(NotFound, match="expected a pack"):
        open_pack(tmp_path / "absent.pack")
    (tmp_path / "empty.pack").write_bytes(b"")
    with pytest.raises(PackError, match="empty file"):
        open_pack(tmp_path / "empty.pack")


@settings(max_examples=50, deadline=None)
@given(st.sets(st.text(min_size=1, max_size=6).filter(lambda t: t.isprintable()), max_size=30), st.text(max_size=3))
def test_every_asset_is_found_and_no_other(ids, stranger):
    assets = [AssetContent(i, 0, (0, 1), (Why.NO_EVENTS,) * 2) for i in ids]
    pack = Pack.from_bytes(write_pack(dataclasses.replace(CONTENT, assets=assets)))
    assert {pack.asset_id(pack.asset_index(i)) for i in ids} == ids
    if stranger.isprintable() and stranger not in ids:
        assert pack.asset_index(stranger) == -1


def test_an_empty_fleet_is_a_pack():
    assert Pack.from_bytes(write_pack(PackContent("none", 1, "k", ()))).asset_count == 0


def test_truncated_at_every_length():
    for length in range(len(DATA)):
        with pytest.raises(PackError):
            Pack.from_bytes(DATA[:length])
    with pytest.raises(PackError, match="wrong length"):
        Pack.from_bytes(DATA + b"\0")


def test_every_flipped_bit():
    data = bytearray(DATA)
    for position in range(len(data)):
        for bit in range(8):
            data[position] ^= 1 << bit
            with pytest.raises(PackError):
                Pack.from_bytes(bytes(data))
            data[position] ^= 1 << bit


def test_forged_bits_never_crash():
    """Bits flipped by a hand that seals again: refused, or harmless enough to score every head."""
    rng = np.random.default_rng(5)
    refused = 0
    for _ in range(1500):
        data = bytearray(DATA)
        for position in rng.integers(0, len(data) - 32, int(rng.integers(1, 4))):
            data[position] ^= 1 << int(rng.integers(8))
        try:
            pack = Pack.from_bytes(sealed_again(data))
        except PackError:
            refused += 1
            continue
        for one in pack.classes:
            heads = np.flatnonzero(pack.head_class == one.index).astype(np.int32)
            margins(pack.forest, heads, np.full((len(heads), one.features), np.nan, np.float32))
    assert 200 < refused < 1500


def test_versions_are_both_printed():
    later = bytearray(DATA)
    later[8] = 9
    with pytest.raises(PackError, match="version 9, this wheeltapper reads versions 1 and 2"):
        Pack.from_bytes(sealed_again(later))
    with pytest.raises(PackError, match="not a pack"):
        Pack.from_bytes(b"x" * 200)


def test_kernels_of_another_version_are_refused(tmp_path):
    path = tmp_path / "fleet.pack"
    path.write_bytes(DATA)
    with pytest.raises(PackError, match="kernels of a test, this wheeltapper computes other") as refused:
        open_pack(path, kernels="other")
    assert str(path) in str(refused.value)
    assert "train again" in refused.value.hint


NAMES = list(pack_layout.section_kinds(2))
ROWS, COLUMNS, OFFSET, BYTES = 32, 40, 48, 56  # in a table entry


@pytest.mark.parametrize(
    ("section", "changes", "words"),
    [
        ("nodes", {OFFSET: 0}, "section table is wrong at 'nodes'"),
        ("nodes", {OFFSET: 4096 + 8}, "section table is wrong at 'nodes'"),
        ("nodes", {BYTES: 1 << 40}, "section table is wrong at 'nodes'"),
        ("nodes", {ROWS: 1 << 40, BYTES: 8 << 40}, "beyond the pack"),
        ("nodes", {COLUMNS: 0, BYTES: 0}, "section table is wrong at 'nodes'"),
        ("c1.centroids", {ROWS: 1 << 62}, "beyond the pack"),
        ("c1.golden_margins", {ROWS: 100, BYTES: 800}, "beyond the pack"),
        ("c1.golden_margins", {ROWS: 0, BYTES: 0}, "where its sha256 stands"),
        ("knots", {0: 0x78}, "section table is wrong at 'knots'"),
        ("knots", {24: 0x3466}, "section table is wrong"),
    ],
)
def test_forged_section_table_is_refused(section, changes, words):
    data = bytearray(DATA)
    for field, value in changes.items():
        struct.pack_into("<Q" if field >= ROWS else "<I", data, 64 + 64 * NAMES.index(section) + field, value)
    if changes == {24: 0x3466}:  # "f4" again, but with another number of dimensions
        struct.pack_into("<I", data, 64 + 64 * NAMES.index(section) + 28, 1)
    with pytest.raises(PackError, match=words):
        Pack.from_bytes(sealed_again(data))


@pytest.mark.parametrize("count", [0, 20, 21, 29, 38, 1 << 21, (1 << 32) - 1])
def test_forged_section_count_is_refused(count):
    data = bytearray(DATA)
    struct.pack_into("<I", data, 12, count)
    with pytest.raises(PackError, match="section"):
        Pack.from_bytes(sealed_again(data))


INNER = int(np.flatnonzero(arrays_of(DATA)["nodes"]["left"] != 0)[0])  # the root of a tree that splits
TREE_BEGIN = arrays_of(DATA)["tree_begin"]
LEAF = int(TREE_BEGIN[1]) - 1  # the last node of a tree is a leaf
ID_ENDS = arrays_of(DATA)["asset_begin"]

FORGERIES = {
    "child beyond the tree": (lambda: changed("nodes", INNER, 60_000, "left"), "right after those before it"),
    "cycle": (lambda: changed("nodes", INNER, 0, "left"), "right after those before it"),
    "feature beyond the class": (lambda: changed("nodes", INNER, 11, "feature"), "a feature its class has"),
    "leaf that leads on": (lambda: changed("nodes", LEAF, 0, "left"), "leads to itself"),
    "NaN leaf": (lambda: changed("nodes", LEAF, np.nan, "value"), "finite threshold or weight"),
    "infinite threshold": (lambda: changed("nodes", INNER, np.inf, "value"), "finite threshold or weight"),
    "cover below nothing": (lambda: changed("node_cover", LEAF, -1), "a finite cover"),
    "infinite cover": (lambda: changed("node_cover", LEAF, np.inf), "a finite cover"),
    "NaN cover": (lambda: changed("node_cover", LEAF, np.nan), "a finite cover"),
    "split that nothing reached": (lambda: changed("node_cover", INNER, 0), "above it where the node splits"),
    "a cover too few": (lambda: forged(node_cover=np.ones(3, np.float32)), "expected shape"),
    "depth too small": (lambda: changed("tree_depth", 1, 0), "stated depth"),
    "tree of no nodes": (lambda: changed("tree_begin", 1, 0), "tree_begin"),
    "trees that wrap around": (
        lambda: changed("tree_begin", slice(1, 4), [2**63 - 1, -(2**63), -1]),
        "tree_begin",
    ),
    "trees of another head": (lambda: changed("head_trees", (1, 0), 0), "expected its trees next"),
    "trees beyond the pack": (lambda: changed("head_trees", (5, 1), 10_000), "own all"),
    "parent loop": (lambda: changed("head_parent", 4, 4), "a parent before it"),
    "parent of another slot": (lambda: changed("head_parent", 4, 1), "its own class and slot"),
    "parent of its level": (lambda: changed("head_level", 4, 2), "a lower level"),
    "class beyond the pack": (lambda: changed("head_class", 0, 2), "a class of the pack"),
    "slot beyond the class": (lambda: changed("head_slot", 0, 2), "a slot of its class"),
    "level unknown": (lambda: changed("head_level", 0, 7), "level 1 to 3"),
    "NaN base": (lambda: changed("head_base", 0, np.nan), "finite base"),
    "infinite scale": (lambda: changed("head_scale", (0, 0), np.inf), "finite scale"),
    "knots beyond the pack": (lambda: changed("head_knots", (5, 1), 9), "knots of the pack"),
    "knots that fall": (lambda: changed("knots", (1, 0), -5), "growing margins"),
    "probability of 2": (lambda: changed("knots", (1, 1), 2), "probabilities from 0 to 1"),
    "asset class unknown": (lambda: changed("asset_class", 0, 9), "a class of the pack"),
    "asset head unknown": (lambda: changed("asset_heads", (0, 0), 6), "heads of the pack"),
    "asset head of another class": (lambda: changed("asset_heads", (0, 0), 0), "a head of its class"),
    "asset head of another slot": (lambda: changed("asset_heads", (1, 0), 1), "a head of its class for slot 0"),
    "class head unknown": (lambda: changed("class_heads", (0, 0), -2), "heads of the pack"),
    "reason unknown": (lambda: changed("asset_reasons", (0, 0), 9), "reasons up to 8"),
    "asset ids out of order": (lambda: changed("asset_ids", 0, ord("z")), "growing order"),
    "asset id of no bytes": (lambda: changed("asset_begin", 1, 0), "asset_begin"),
    "asset id that is not text": (lambda: changed("asset_ids", int(ID_ENDS[1]) - 1, ord("a")), "UTF-8"),
    "golden margin": (lambda: changed("c0.golden_margins", (0, 0), 1e9), "golden row 0, slot 0: expected margin"),
    "golden head of another slot": (lambda: changed("c0.golden_heads", (0, 0), 1), "golden row"),
    "another threshold": (lambda: changed("nodes", INNER, 1e9, "value"), "golden row|stated"),
    "a column too few": (lambda: forged(knots=np.zeros((3, 1), np.float32)), "expected shape"),
    "a centroid too many": (lambda: forged(**{"c0.centroids": np.zeros((9, 1))}), "expected shape"),
    "meta that is no JSON": (lambda: forged(meta=np.frombuffer(b"{", np.uint8)), "not JSON"),
    "meta nested too deep": (lambda: forged(meta=np.frombuffer(b"[" * 100_000, np.uint8)), "not JSON"),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_forged_pack_is_refused(name):
    make, words = FORGERIES[name]
    with pytest.raises(PackError, match=words):
        Pack.from_bytes(make())


def meta_with(change) -> bytes:
    meta = json.loads(arrays_of(DATA)["meta"].tobytes())
    change(meta)
    return forged(meta=np.frombuffer(json.dumps(meta).encode(), np.uint8))


META_FORGERIES = {
    "format": (lambda m: m.update(format="zip"), "meta.format"),
    "a key too few": (lambda m: m.pop("lineage"), "expected the keys"),
    "a class too few": (lambda m: m["classes"].pop(), "describes 1 classes"),
    "two classes of one name": (lambda m: m["classes"].append(m["classes"][0]), "each name once"),
    "seed": (lambda m: m.update(seed="7"), "meta.seed"),
    "spec without a key": (lambda m: m["classes"][0]["spec"].pop("windows"), "spec"),
    "sensor of words": (lambda m: m["classes"][0]["spec"].update(sensors=["a"]), "spec"),
    "window of words": (lambda m: m["classes"][0]["spec"].update(windows=["6"]), "whole numbers"),
    "window of a million years": (lambda m: m["classes"][0]["spec"].update(windows=[10**15]), "growing windows"),
    "windows that fall": (lambda m: m["classes"][0]["spec"].update(windows=[6, 6]), "growing windows"),
    "statistic unknown": (lambda m: m["classes"][0]["spec"].update(statistics=["median"]), "statistics"),
    "sensor twice": (lambda m: m["classes"][0]["spec"]["sensors"][1].update(name="pressure"), "different names"),
    "regime sensor unknown": (lambda m: m["classes"][0]["spec"]["regime"].update(sensors=["x"]), "expected sensors"),
    "target sensor unknown": (
        lambda m: m["classes"][1]["spec"]["targets"][0].update(sensors=["speed", "x"]),
        "expected sensors",
    ),
    "output of another target": (lambda m: m["classes"][0]["outputs"].reverse(), "the spec's targets"),
    "output of other slots": (lambda m: m["classes"][0]["outputs"][1].update(slots=[0, 1]), "expected slots"),
    "threshold of words": (lambda m: m["classes"][0]["outputs"][0].update(threshold="0.4"), "threshold"),
}


@pytest.mark.parametrize("name", META_FORGERIES)
def test_forged_meta_is_refused(name):
    change, words = META_FORGERIES[name]
    with pytest.raises(PackError, match=words):
        Pack.from_bytes(meta_with(change))


def test_the_writer_refuses_what_a_reader_would():
    with pytest.raises(PackError, match="finite base"):
        write_pack(dataclasses.replace(CONTENT, heads=[*CONTENT.heads, HeadContent(0, 0, 2, no_trees(), np.nan)]))
    twice = dataclasses.replace(CONTENT, assets=[CONTENT.assets[0]] * 2)
    with pytest.raises(PackError, match="growing order"):
        write_pack(twice)
    with pytest.raises(ValueError, match="JSON"):
        sealed_content(dataclasses.replace(CONTENT, lineage={"loss": float("nan")}))


def test_a_head_without_trees_is_its_parents():
    heads = [*CONTENT.heads[:5], dataclasses.replace(CONTENT.heads[5], trees=no_trees())]
    pack = Pack.from_bytes(write_pack(dataclasses.replace(CONTENT, heads=heads)))
    rows = CONTENT.classes[1].golden_rows
    own, above = (margins(pack.forest, np.full(len(rows), head, np.int32), rows) for head in (5, 3))
    assert np.array_equal(own, above)


def test_the_golden_pack_still_reads_and_scores_the_same():
    """tests/golden/small-v1.* were written once and never again: an old release writes, this one reads."""
    pack = open_pack(GOLDEN / "small-v1.pack")
    frozen = json.loads((GOLDEN / "small-v1.json").read_text())
    assert pack.sha256 == frozen["sha256"]
    assert [pack.asset_id(i) for i in range(pack.asset_count)] == frozen["assets"]
    for one, expected in zip(pack.classes, frozen["classes"], strict=True):
        assert one.name == expected["name"]
        for head, bits in expected["margins"].items():
            rows = np.array(expected["rows"], np.uint32).view(np.float32)
            found = margins(pack.forest, np.full(len(rows), int(head), np.int32), rows)
            assert found.view(np.uint32).tolist() == bits


def test_sections_are_sealed_into_the_bytes_they_came_from():
    """However they are written: the golden file's sections, sealed again, are the golden file."""
    data = (GOLDEN / "small-v1.pack").read_bytes()
    arrays, sha256 = pack_layout.unseal(data)
    pieces = list(pack_layout.sealed(arrays, len(Pack.from_bytes(data).classes)))
    assert b"".join(pieces) == data
    assert pieces[-1].hex() == sha256
