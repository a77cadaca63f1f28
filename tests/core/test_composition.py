"""One pack made of two: each part scores as in the pack it comes from, bit for bit; what does not fit is refused."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from packs import random_trees, small_content, started_content
from wheeltapper.composed_content import content_of
from wheeltapper.composition import Source, alarm_changes, parts_of
from wheeltapper.errors import NotFound, Refused
from wheeltapper.forest import margins
from wheeltapper.pack import AssetContent, HeadContent, Pack, PackContent, Why, write_pack
from wheeltapper.spec import AlarmSpec, ModelSpec


def trained(number: int, **changes: Any) -> PackContent:
    """`small_content` whose golden rows ask class heads alone, as training writes them."""
    content = dataclasses.replace(small_content(number), **changes)
    classes = tuple(
        dataclasses.replace(one, golden_heads=np.array([one.heads] * len(one.golden_rows), np.int32))  # type: ignore[arg-type]
        for one in content.classes
    )
    return dataclasses.replace(content, classes=classes)


OLD, NEW = trained(1), trained(2, seed=9, lineage={"data": "later"})


def same_regimes(content: PackContent) -> PackContent:
    """With the regimes of OLD, as of classes that have none: then assets may be mixed."""
    pump = dataclasses.replace(content.classes[0], regimes=OLD.classes[0].regimes)
    return dataclasses.replace(content, classes=(pump, *content.classes[1:]))


def source(content: PackContent, number: int) -> Source:
    data = write_pack(content)
    return Source(f"release {number}", hashlib.sha256(data).hexdigest(), Pack.from_bytes(data))


BASE, OTHER = source(OLD, 1), source(same_regimes(NEW), 2)


def composed(base: Source, classes: dict[str, Source], assets: dict[str, Source]) -> Source:
    return source(content_of(parts_of(base, classes, assets)), 99)


def margins_of(pack: Pack, asset: str, rows: np.ndarray) -> np.ndarray:
    """uint32[slots, n]: the bits of an asset's margins in each slot, zeros where nobody answers."""
    index = pack.asset_index(asset)
    heads = pack.asset_heads[index] if index >= 0 else pack.class_heads[0]
    found = [margins(pack.forest, np.full(len(rows), head, np.int32), rows) for head in heads]
    return np.array(found).view(np.uint32)


def rows_of(pack: Pack, asset_class: str) -> np.ndarray:
    rows = np.random.default_rng(4).normal(size=(64, pack.class_named(asset_class).features)).astype(np.float32)
    rows[::7, 0] = np.nan
    return rows


def answers_of(pack: Pack, asset: str) -> tuple[Any, ...]:
    """Everything of an asset that decides its scores, but for its features."""
    index = pack.asset_index(asset)
    known = pack.classes[pack.asset_class[index]]
    heads = pack.asset_heads[index, : known.slots]
    knots = [pack.knots[slice(*pack.head_knots[head])].tobytes() for head in heads]
    levels, scales = pack.head_level[heads].tolist(), pack.head_scale[heads].tobytes()
    rest = pack.asset_reasons[index].tobytes(), pack.asset_statics[index].tobytes(), pack.asset_start[index].tobytes()
    return (margins_of(pack, asset, rows_of(pack, known.name)).tobytes(), knots, levels, scales, *rest)


ALL = ("pump-1", "pump-2", "fan-é")


@pytest.mark.parametrize("moved", [("fan-é",), ("pump-2",), ("pump-1", "fan-é"), ALL])
def test_an_asset_answers_as_where_it_comes_from_and_the_others_as_before(moved: tuple[str, ...]) -> None:
    found = composed(BASE, {}, dict.fromkeys(moved, OTHER)).pack
    for asset in ALL:
        whose, other = (OTHER, BASE) if asset in moved else (BASE, OTHER)
        assert answers_of(found, asset) == answers_of(whose.pack, asset)
        assert answers_of(found, asset) != answers_of(other.pack, asset)
    for one in found.classes:
        before = BASE.pack.class_named(one.name)
        assert (one.outputs, one.spec) == (before.outputs, before.spec)
    assert margins_of(found, "never seen", rows_of(found, "pump")).tobytes() == (
        margins_of(BASE.pack, "never seen", rows_of(found, "pump")).tobytes()
    )


def test_a_class_is_taken_whole() -> None:
    fan = composed(BASE, {"fan": OTHER}, {}).pack
    for asset in ALL:
        assert answers_of(fan, asset) == answers_of((OTHER if asset == "fan-é" else BASE).pack, asset)
    taken, there = fan.class_named("fan"), OTHER.pack.class_named("fan")
    assert (taken.spec, taken.outputs) == (there.spec, there.outputs)
    for name in ("sketch", "golden_rows", "golden_margins"):
        assert getattr(taken, name).tobytes() == getattr(there, name).tobytes()
    pump = composed(BASE, {"pump": source(NEW, 2)}, {}).pack.class_named("pump")
    assert pump.regimes.centroids.tobytes() == NEW.classes[0].regimes.centroids.tobytes()  # type: ignore[union-attr]


def test_an_asset_on_top_of_a_class_from_elsewhere() -> None:
    found = composed(BASE, {"pump": OTHER}, {"pump-2": BASE}).pack
    assert answers_of(found, "pump-2") == answers_of(BASE.pack, "pump-2")
    assert answers_of(found, "pump-1") == answers_of(OTHER.pack, "pump-1")
    assert answers_of(found, "fan-é") == answers_of(BASE.pack, "fan-é")


def test_a_class_and_an_asset_that_are_new_to_the_base() -> None:
    heads = tuple(h for h in OLD.heads if h.class_index == 0)
    pumps = dataclasses.replace(OLD, classes=OLD.classes[:1], heads=heads, assets=OLD.assets[2:])
    alone = source(dataclasses.replace(pumps, heads=heads[:2]), 3)
    found = composed(alone, {"fan": OTHER}, {"pump-2": OTHER}).pack
    assert [one.name for one in found.classes] == ["pump", "fan"]
    for asset, whose in (("pump-1", BASE), ("pump-2", OTHER), ("fan-é", OTHER)):
        assert answers_of(found, asset)[0] == answers_of(whose.pack, asset)[0]


def test_the_same_parts_give_the_same_bytes_and_taking_all_back_gives_the_trained_pack() -> None:
    one = composed(BASE, {"fan": OTHER}, {"pump-1": OTHER, "pump-2": OTHER})
    again = composed(BASE, {"fan": OTHER}, {"pump-2": OTHER, "pump-1": OTHER})
    assert one.sha256 == again.sha256 != BASE.sha256
    assert composed(one, {"fan": BASE}, {"pump-1": BASE, "pump-2": BASE}).sha256 == BASE.sha256
    assert composed(one, {"pump": BASE, "fan": BASE}, {}).sha256 == BASE.sha256
    assert composed(BASE, {"pump": BASE}, {"fan-é": BASE}).sha256 == BASE.sha256
    assert composed(one, {"pump": OTHER}, {}).sha256 == OTHER.sha256


def test_a_class_head_that_is_the_same_in_both_is_kept_once() -> None:
    own = dataclasses.replace(OLD.heads[4], trees=random_trees(np.random.default_rng(8), 5, 2))
    retrained = source(dataclasses.replace(OLD, heads=(*OLD.heads[:4], own, OLD.heads[5]), lineage={"data": "x"}), 2)
    found = composed(BASE, {}, {"pump-2": retrained}).pack
    assert len(found.head_class) == len(OLD.heads)
    assert answers_of(found, "pump-2") == answers_of(retrained.pack, "pump-2") != answers_of(BASE.pack, "pump-2")
    carried = composed(BASE, {}, {"pump-2": OTHER}).pack  # brings the class heads that it continues
    assert np.bincount(carried.head_level).tolist() == [0, 0, 6, 2]
    assert len(carried.classes[0].golden_rows) == 3 + 3, "and their golden rows prove them at every load"
    assert (carried.classes[0].golden_heads[3:] >= 0).any()


def test_an_asset_brings_its_own_start() -> None:
    old = started_content()
    starts = (7_000_000_000.0, 21.0, 31.0, 0.25, 0.5)
    moved = tuple(dataclasses.replace(a, start=starts) if a.asset_id == "pump-2" else a for a in old.assets)
    new = dataclasses.replace(old, assets=moved, lineage={"data": "later"})
    found = composed(source(old, 1), {}, {"pump-2": source(new, 2)}).pack
    assert tuple(found.asset_start[found.asset_index("pump-2")][:5]) == starts
    assert answers_of(found, "fan-é") == answers_of(source(old, 1).pack, "fan-é")


def split(asset_class: str, by: str, test_from: int = 0, assets: tuple[str, ...] = ()) -> dict[str, Any]:
    return {"asset_class": asset_class, "by": by, "valid_from_us": test_from // 2, "test_from_us": test_from,
            "valid_assets": [], "test_assets": list(assets)}  # fmt: skip


def test_the_lineage_names_what_was_trained_however_many_steps_lie_between() -> None:
    cuts = [split("pump", "time", 50), split("fan", "time", 50)]
    old = dataclasses.replace(OLD, lineage={"data": "a", "split": cuts})
    fans = split("fan", "asset", assets=("fan-é",))
    new = dataclasses.replace(same_regimes(NEW), lineage={"data": "b", "split": [split("pump", "time", 80), fans]})
    a, b = source(old, 1), source(new, 2)
    first = composed(a, {"fan": b}, {"pump-2": b})
    assert first.pack.lineage == {
        "composed": {"classes": {"pump": a.sha256, "fan": b.sha256}, "assets": {"pump-2": b.sha256}},
        "sources": {a.sha256: {"data": "a"}, b.sha256: {"data": "b"}},
        "split": [split("pump", "time", 80), fans],  # by then, neither's heads had seen what came later
    }
    second = composed(a, {"pump": first}, {}).pack.lineage
    assert second["composed"] == {"classes": {"pump": a.sha256, "fan": a.sha256}, "assets": {"pump-2": b.sha256}}
    third = composed(first, {}, {"pump-1": first, "pump-2": a, "fan-é": a}).pack.lineage
    assert third["composed"] == {"classes": {"pump": a.sha256, "fan": b.sha256}, "assets": {"fan-é": a.sha256}}
    assert [entry["asset_class"] for entry in third["split"]] == ["pump"], "fans split both ways: no test part is known"


@pytest.mark.parametrize("other", ["by time", [5, "pump"], [{"asset_class": "pump", "by": "time"}], None])
def test_a_split_that_another_hand_wrote_is_none(other: Any) -> None:
    known = source(dataclasses.replace(OLD, lineage={"split": [split("pump", "time", 50)]}), 1)
    foreign = source(dataclasses.replace(same_regimes(NEW), lineage={"split": other, "sources": 3}), 2)
    assert composed(known, {}, {"pump-1": foreign}).pack.lineage["split"] == []


def test_whole_assets_that_were_held_out_stay_so_by_their_own_source() -> None:
    a = source(dataclasses.replace(OLD, lineage={"split": [split("pump", "asset", assets=("pump-1",))]}), 1)
    new = dataclasses.replace(same_regimes(NEW), lineage={"split": [split("pump", "asset", assets=("pump-2",))]})
    found = composed(a, {}, {"pump-1": source(new, 2), "pump-2": source(new, 2)}).pack
    assert found.lineage["split"] == [split("pump", "asset", assets=("pump-2",))]


def test_alarms_are_those_of_the_class_and_every_difference_is_told() -> None:
    outputs = OLD.classes[0].outputs
    other = dataclasses.replace(outputs[0], threshold=0.6, hold=3)
    pump = dataclasses.replace(OLD.classes[0], outputs=(other, outputs[1]))
    there = source(dataclasses.replace(OLD, classes=(pump, OLD.classes[1]), lineage={}), 2)
    parts = parts_of(BASE, {}, {"pump-1": there, "pump-2": there})
    found = [(c["output"], c["what"], c["before"], c["after"]) for c in alarm_changes(parts)]
    assert found == [("failure:seal", "threshold", 0.6, 0.4), ("failure:seal", "hold", 3, 2)]
    assert alarm_changes(parts)[0]["assets"] == ["pump-1", "pump-2"]
    assert alarm_changes(parts_of(BASE, {"pump": there}, {"fan-é": BASE})) == []


def with_pump(**changes: Any) -> PackContent:
    """OLD, where the class of pumps has another setting."""
    pump = OLD.classes[0]
    return dataclasses.replace(OLD, classes=(dataclasses.replace(pump, **changes), OLD.classes[1]))


def with_spec(**changes: Any) -> PackContent:
    return with_pump(spec=dataclasses.replace(OLD.classes[0].spec, **changes))


def moved_to_the_fans() -> PackContent:
    assets = tuple(a for a in OLD.assets if a.asset_id != "pump-1")
    return dataclasses.replace(OLD, assets=(*assets, AssetContent("pump-1", 1, (2, 3), (Why.NOT_TRAINED,) * 2)))


CAPPED = dataclasses.replace(OLD.classes[0].outputs[1], cap=80.0)


@pytest.mark.parametrize(
    ("other", "classes", "assets", "words"),
    [
        (
            dataclasses.replace(OLD, fleet="plant"),
            ("fan",),
            (),
            "expected the fleet 'works' of release 1",
        ),
        (dataclasses.replace(OLD, kernels="other code"), ("fan",), (), "expected the kernels"),
        (NEW, (), ("pump-1",), "found operating regimes that were learnt otherwise"),
        (with_spec(lateness=4), (), ("pump-1",), "found lateness 4 instead of 3"),
        (with_pump(outputs=(OLD.classes[0].outputs[0], CAPPED)), (), ("pump-1",), "found output rul as"),
        (moved_to_the_fans(), (), ("pump-1",), "expected it in one class, found it in pump and in fan"),
        (moved_to_the_fans(), ("fan",), (), "expected it in one class, found it in pump and in fan"),
    ],
)
def test_what_does_not_fit_together_is_refused(
    other: PackContent, classes: tuple[str, ...], assets: tuple[str, ...], words: str
) -> None:
    there = source(other, 2)
    with pytest.raises(Refused, match=words) as raised:
        composed(BASE, dict.fromkeys(classes, there), dict.fromkeys(assets, there))
    assert raised.value.hint


@pytest.mark.parametrize("settings", [{"alarm": AlarmSpec(hold=9)}, {"model": ModelSpec(rounds=3)}])
def test_what_changes_no_feature_may_differ(settings: dict[str, Any]) -> None:
    found = composed(BASE, {}, {"pump-2": source(with_spec(**settings), 2)}).pack
    assert answers_of(found, "pump-2") == answers_of(BASE.pack, "pump-2")


@pytest.mark.parametrize(
    ("work", "words"),
    [
        (lambda: parts_of(BASE, {"press": OTHER}, {}), "class 'press': expected one of release 2 (pump, fan)"),
        (lambda: parts_of(BASE, {}, {"pump-9": OTHER}), "asset 'pump-9': expected one of the 3 assets of release 2"),
    ],
)
def test_what_is_not_there(work: Callable[[], object], words: str) -> None:
    with pytest.raises(NotFound) as raised:
        work()
    assert words in str(raised.value)
    assert raised.value.hint


def test_an_asset_of_a_class_that_the_base_lacks() -> None:
    heads = tuple(HeadContent(0, h.slot, h.level, h.trees, h.base) for h in OLD.heads if h.class_index == 1)[:2]
    fan = dataclasses.replace(OLD.classes[1], heads=(0, 1), golden_rows=None, golden_heads=None)
    alone = source(dataclasses.replace(OLD, classes=(fan,), heads=heads, assets=()), 1)
    with pytest.raises(Refused, match="asset pump-1: expected its class 'pump' in the composed pack, found fan"):
        parts_of(alone, {}, {"pump-1": BASE})
