"""Blocks over live windows: any order and size, late rows, duplicates, bad rows, packs swapped meanwhile."""

from __future__ import annotations

import dataclasses
import tracemalloc
from dataclasses import dataclass

import numpy as np
import packs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wheeltapper.bound import score_rows
from wheeltapper.errors import Refused
from wheeltapper.features import feature_rows
from wheeltapper.live import Answers, LiveFleet
from wheeltapper.pack import Pack, write_pack
from wheeltapper.spec import EventFeature, features_of
from wheeltapper.windows import RowStatus

CADENCE_US = 600_000_000
NOW_US = 10**15
PACK = Pack.from_bytes(write_pack(packs.small_content()))
STARTED_PACK = Pack.from_bytes(write_pack(packs.started_content()))
OTHER_PACK = Pack.from_bytes(write_pack(packs.small_content(seed=2)))


@dataclass(frozen=True)
class Block:
    times: np.ndarray
    values: np.ndarray


def history(seed: int, rows: int, cadence_us: int = CADENCE_US, sensors: int = 3) -> Block:
    rng = np.random.default_rng(seed)
    values = rng.uniform(0, 60, (rows, sensors)).astype(np.float32)
    values[rng.random(values.shape) < 0.05] = np.nan
    return Block(np.arange(rows) * (cadence_us or 1000) + rng.integers(0, cadence_us or 1000, rows), values)


def final_answers(
    fleet: LiveFleet, asset_class: str, asset: str, block: Block, order: np.ndarray, size: int
) -> dict[int, tuple[bytes, bytes]]:
    """The last word on every reading: time → (values, features), whether it came as an answer or as a revision."""
    row = fleet.open_assets(asset_class, [asset])
    last: dict[int, tuple[bytes, bytes]] = {}

    def note(answers: Answers | None) -> None:
        if answers is None:
            return
        assert answers.features is not None
        for i, time in enumerate(answers.times):
            if answers.status[i] in (RowStatus.OK, RowStatus.DUPLICATE, RowStatus.SUPERSEDED):
                last[int(time)] = (answers.values[i].tobytes(), answers.features[i].tobytes())

    for begin in range(0, len(order), size):
        part = order[begin : begin + size]
        rows = np.repeat(row, len(part))
        answers = fleet.score(asset_class, rows, block.times[part], block.values[part], NOW_US, want_features=True)
        note(answers.revisions)
        note(answers)
    return last


@pytest.mark.parametrize("pack", [PACK, STARTED_PACK], ids=["plain", "own starts"])
@pytest.mark.parametrize(("asset_class", "asset", "lateness"), [("pump", "pump-2", 3), ("fan", "fan-é", 0)])
@given(seed=st.integers(0, 2**32 - 1), size=st.integers(1, 70), twice=st.booleans())
@settings(max_examples=30, deadline=None)
def test_order_blocks_and_duplicates_do_not_matter(
    pack: Pack, asset_class: str, asset: str, lateness: int, seed: int, size: int, twice: bool
) -> None:
    known = pack.class_named(asset_class)
    block = history(seed, 60, known.spec.cadence_us, len(known.spec.sensors))
    sorted_order = np.arange(60)
    truth = final_answers(LiveFleet(pack, 1), asset_class, asset, block, sorted_order, 60)
    rng = np.random.default_rng(seed)
    order = np.argsort(sorted_order + rng.uniform(0, lateness, 60) if lateness else sorted_order, kind="stable")
    if twice:
        order = np.repeat(order, rng.integers(1, 3, 60))
    assert final_answers(LiveFleet(pack, 1), asset_class, asset, block, order, size) == truth
    statics = pack.asset_statics[pack.asset_index(asset), : len(known.spec.statics)]
    start = pack.asset_start[pack.asset_index(asset), : known.spec.start_width]
    none = np.zeros(0, np.int64)
    batch, _ = feature_rows(known.spec, known.regimes, statics, block.times, block.values, none, none, start)
    assert [truth[int(t)][1] for t in block.times] == [row.tobytes() for row in batch]


def test_a_start_is_the_packs_own_and_an_unknown_asset_has_none() -> None:
    """Whoever was served before, by whichever pack: a shift is measured from what the pack in service says."""
    spec = STARTED_PACK.class_named("pump").spec
    mean, shift = ([f.name for f in features_of(spec)].index(f"{name}(pressure, 1h)") for name in ("mean", "shift"))
    moved = dataclasses.replace(
        packs.started_content(),
        assets=tuple(
            dataclasses.replace(a, start=(0.0, 0.0, 0.0, 1.0, 1.0)) for a in packs.started_content().assets[:1]
        ),
    )
    fleet = LiveFleet(STARTED_PACK, 1)
    rows = fleet.open_assets("pump", ["pump-2", "pump-1", "new"])
    fleet.open_assets("pump", [f"more-{i}" for i in range(40)])  # the columns grow

    def shifts(slot: int, usual: float, scale: float) -> tuple[list[float], list[float]]:
        answers = fleet.score(
            "pump", rows, np.full(3, slot * CADENCE_US), np.full((3, 3), 36, np.float32), NOW_US, want_features=True
        )
        assert answers.features is not None
        expected = [(float(answers.features[0, mean]) - usual) * scale, np.nan, np.nan]
        return [float(x) for x in answers.features[:, shift]], expected

    np.testing.assert_array_equal(shifts(4, 20, 0.125)[0], [np.nan] * 3, "its start is over after five slots")
    np.testing.assert_allclose(*shifts(5, 20, 0.125), rtol=1e-5)
    fleet.swap(Pack.from_bytes(write_pack(moved)), 2)
    np.testing.assert_allclose(*shifts(6, 0, 1), rtol=1e-5)
    fleet.swap(Pack.from_bytes(write_pack(dataclasses.replace(moved, assets=()))), 3)
    np.testing.assert_array_equal(shifts(7, 0, 1)[0], [np.nan] * 3)


def test_bad_rows_get_a_reason_and_poison_nothing() -> None:
    block = history(3, 30)
    clean, dirty = LiveFleet(PACK, 1), LiveFleet(PACK, 1)
    row = int(clean.open_assets("pump", ["pump-1"])[0])
    dirty.open_assets("pump", ["pump-1"])
    for i in range(30):
        dirty.score("pump", np.array([row]), block.times[i : i + 1], block.values[i : i + 1], NOW_US)
        clean.score("pump", np.array([row]), block.times[i : i + 1], block.values[i : i + 1], NOW_US)
        bad = np.array([-1, row, row, row])
        times = np.array([block.times[i], NOW_US + 1, block.times[i] - 4 * CADENCE_US, -(2**62)])
        answers = dirty.score("pump", bad, times, np.zeros((4, 3), np.float32), NOW_US)
        expected = [RowStatus.UNKNOWN_HANDLE, RowStatus.FUTURE, RowStatus.TOO_LATE, RowStatus.TOO_LATE]
        assert answers.status.tolist() == expected
        assert np.isnan(answers.values).all()
        assert answers.revisions is None
        told = dirty.take_events("pump", bad, times, np.ones(4, np.int64), NOW_US)
        assert told.status[[0, 1, 3]].tolist() == [expected[0], expected[1], expected[3]]
    last = block.times[-1:] + CADENCE_US
    a = clean.score("pump", np.array([row]), last, block.values[:1], NOW_US, want_features=True)
    b = dirty.score("pump", np.array([row]), last, block.values[:1], NOW_US, want_features=True)
    assert a.features is not None
    assert b.features is not None
    assert a.features.tobytes() == b.features.tobytes()
    assert a.values.tobytes() == b.values.tobytes()


def test_an_attribute_that_the_pack_knows_is_the_packs() -> None:
    """Whatever a gateway says, and however often and in which order an Open and a swap come."""
    fleet, block, age = LiveFleet(PACK, 1), history(2, 4), LiveFleet(PACK, 1).features("pump").index("age")
    assets, given = ["pump-2", "unknown"], np.array([[1.0], [1.0]], np.float32)

    def ages(at: int) -> list[float]:
        rows = fleet.open_assets("pump", assets)
        answers = fleet.score("pump", rows, block.times[[at, at]], block.values[[at, at]], NOW_US, want_features=True)
        assert answers.features is not None
        return answers.features[:, age].tolist()

    fleet.open_assets("pump", assets, given)
    assert ages(0) == [3.5, 1.0]
    fleet.swap(PACK, 2)
    assert ages(1) == [3.5, 1.0]
    fleet.open_assets("pump", assets, given)
    assert ages(2) == [3.5, 1.0]


def test_health_names_what_is_wrong_with_the_data() -> None:
    fleet = LiveFleet(PACK, 1)
    row = fleet.open_assets("pump", ["pump-1"])
    rows = [[1, 2, 3], [np.nan, 2, 3], [np.inf, 2, 3], [-1, 2, 3], [1, 2, 3]]
    times = np.arange(5) * CADENCE_US
    answers = fleet.score("pump", np.repeat(row, 5), times, np.array(rows, np.float32), NOW_US)
    assert (answers.health & 7).tolist() == [0, 1, 2, 4, 0]
    assert (answers.health & 8).tolist() == [8, 8, 0, 0, 0], "gaps until half of the window of 6 is filled"
    late = fleet.score("pump", row, times[3:4] + 1, np.array([[5, 5, 5]], np.float32), NOW_US)
    assert late.health[0] & 16
    assert late.revisions is not None
    assert sorted(late.revisions.times.tolist()) == times[3:].tolist()
    assert set(late.revisions.status.tolist()) == {RowStatus.SUPERSEDED, RowStatus.OK}


def test_an_unknown_asset_is_answered_by_its_class() -> None:
    fleet = LiveFleet(PACK, 1)
    rows = fleet.open_assets("pump", ["pump-2", "never seen", "fan-é"])
    assert fleet.levels("pump", rows).tolist() == [3, 2, 2]
    answers = fleet.score("pump", rows, np.zeros(3, np.int64), np.ones((3, 3), np.float32), NOW_US)
    assert answers.levels.tolist() == [[3, 2], [2, 2], [2, 2]]
    assert not np.isnan(answers.values).any()


def test_alarms_hold_raise_and_clear_and_backlog_raises_none() -> None:
    content = packs.small_content()
    pump = content.classes[0]
    always = dataclasses.replace(pump.outputs[0], threshold=0.0, hold=2)
    content = dataclasses.replace(
        content, classes=(dataclasses.replace(pump, outputs=(always, pump.outputs[1])), *content.classes[1:])
    )
    pack = Pack.from_bytes(write_pack(content))
    block = history(1, 6)
    for historical, expected in ((False, [1, 2, 3, 3, 3, 3]), (True, [0] * 6)):
        fleet = LiveFleet(pack, 1)
        rows = np.repeat(fleet.open_assets("pump", ["pump-1"]), 6)
        answers = fleet.score("pump", rows, block.times, block.values, NOW_US, historical=historical)
        assert answers.alarms[:, 0].tolist() == expected
    again = fleet.score("pump", rows[:1], block.times[2:3], block.values[2:3], NOW_US)
    assert again.status.tolist() == [RowStatus.DUPLICATE]


def test_late_events_revise_what_came_after_them() -> None:
    content = packs.small_content()
    fan = content.classes[1]
    spec = dataclasses.replace(fan.spec, events=(EventFeature("error", "*", (10**9,)),), cadence_us=1000, lateness=3)
    rng = np.random.default_rng(0)
    width = len(features_of(spec))
    heads = [
        dataclasses.replace(h, trees=packs.random_trees(rng, width, 3)) if h.class_index == 1 else h
        for h in content.heads
    ]
    changed = dataclasses.replace(fan, spec=spec, golden_rows=None, golden_heads=None)
    pack = Pack.from_bytes(
        write_pack(dataclasses.replace(content, classes=(content.classes[0], changed), heads=tuple(heads)))
    )
    times, values = np.arange(5) * 1000, np.ones((5, 2), np.float32)

    def run(event_after: int) -> dict[int, tuple[bytes, bytes]]:
        fleet = LiveFleet(pack, 1)
        rows = np.repeat(fleet.open_assets("fan", ["f"]), 5)
        code = fleet.event_code("fan", "error:e9")
        assert fleet.event_code("fan", "maintenance:e9") == -1
        last = {}
        for i in range(6):
            if i == event_after:
                taken = fleet.take_events("fan", rows[:1], np.array([2500]), np.array([code]), NOW_US, True)
                assert taken.status.tolist() == [RowStatus.TAKEN]
                for answers in filter(None, [taken.revisions]):
                    last |= {int(t): f.tobytes() for t, f in zip(answers.times, answers.features, strict=True)}
            if i < 5:
                one = fleet.score("fan", rows[:1], times[i : i + 1], values[i : i + 1], NOW_US, want_features=True)
                last[int(times[i])] = one.features[0].tobytes()
        return last

    assert run(3) == run(5) != run(6)


def test_a_swap_keeps_windows_and_changes_scores_only() -> None:
    block = history(8, 40)
    fleet, kept = LiveFleet(PACK, 1), LiveFleet(OTHER_PACK, 2)
    for one in (fleet, kept):
        rows = np.repeat(one.open_assets("pump", ["pump-2"]), 30)
        one.score("pump", rows, block.times[:30], block.values[:30], NOW_US)
    fleet.swap(OTHER_PACK, 2)
    assert fleet.release == 2
    rest = [
        one.score("pump", rows[:10], block.times[30:], block.values[30:], NOW_US, want_features=True)
        for one in (fleet, kept)
    ]
    assert rest[0].features is not None
    assert rest[1].features is not None
    assert rest[0].features.tobytes() == rest[1].features.tobytes(), "windows were placed anew under other regimes"
    assert rest[0].values.tobytes() == rest[1].values.tobytes()
    fleet.open_assets("fan", ["f"])
    with pytest.raises(Refused, match="fan"):
        fleet.swap(Pack.from_bytes(write_pack(packs.lone_content())), 3)
    assert fleet.release == 2


def test_more_assets_than_allowed_are_refused() -> None:
    fleet = LiveFleet(PACK, 1, capacity_max=20)
    fleet.open_assets("pump", [f"p{i}" for i in range(20)])
    with pytest.raises(Refused, match="at most 20"):
        fleet.open_assets("fan", ["one more"])
    assert fleet.open_assets("pump", ["p3", "p3"]).tolist() == [3, 3]
    with pytest.raises(KeyError, match="turbine"):
        fleet.open_assets("turbine", ["t"])


def test_codes_a_gateway_makes_up_cost_no_memory() -> None:
    """Two codes of one meaning are one number, and asking for ever new ones leaves nothing behind."""
    fan = PACK.class_named("fan")
    counted = tuple(EventFeature("error", code, (10**9,)) for code in ("*", "e1"))
    fleet = LiveFleet(PACK, 1)
    live = fleet._classes["fan"]
    live.known = dataclasses.replace(fan, spec=dataclasses.replace(fan.spec, events=counted))
    assert fleet.event_code("fan", "error:e1") != fleet.event_code("fan", "error:e2") > 0
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    assert len({fleet.event_code("fan", f"error:made-up-{i}") for i in range(20_000)}) == 1
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert grown < 100_000, grown


def test_read_only_columns_are_answered_by_the_kernels_that_are_there() -> None:
    """As Arrow hands them out: a kernel compiled for them would cost half a minute, or fail, for it fills answers."""
    block, answers = history(3, 20), []
    for writable in (True, False):
        fleet = LiveFleet(PACK, 1)
        columns = np.repeat(fleet.open_assets("pump", ["pump-2"]), 20), block.times.copy(), block.values.copy()
        for column in columns:
            column.flags.writeable = writable
        known = len(score_rows.signatures)  # type: ignore[attr-defined]
        answers.append(fleet.score("pump", *columns, NOW_US))
        assert len(score_rows.signatures) == max(known, 1)  # type: ignore[attr-defined]
    assert answers[0].values.tobytes() == answers[1].values.tobytes()
    assert answers[0].times.tobytes() == answers[1].times.tobytes()
