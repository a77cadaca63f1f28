"""Histories at rest: what is written reads back, foreign files are taken, wrong ones are refused with a word why."""

from __future__ import annotations

import copy
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wheeltapper.errors import Refused, UsageError
from wheeltapper_trainer.history import (
    History,
    UnreadableFileError,
)
from wheeltapper_trainer.history_writer import HistoryWriter
from wheeltapper_trainer.records import Asset, AssetReadings, Events, HistoryError, content_digest

HOUR = 3_600_000_000


def readings(rows: int, sensors: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    times = np.cumsum(random.integers(0, HOUR, rows))
    values = random.standard_normal((rows, sensors)).astype(np.float32)
    values[random.random((rows, sensors)) < 0.1] = np.nan
    return times, values


def write(path: Path, sizes: dict[str, int], file_rows: int = 1_000_000) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Pumps (sensors a, b) of the given sizes, with one failure each."""
    written = {}
    with HistoryWriter(path, {"pump": ["a", "b"]}, file_rows) as writer:
        for seed, (asset_id, rows) in enumerate(sorted(sizes.items())):
            written[asset_id] = readings(rows, 2, seed)
            writer.add(Asset(asset_id, "pump", {"age": float(seed)}), *written[asset_id])
            writer.add_events([(asset_id, 5, "failure", "seal")])
    return written


@settings(max_examples=25, deadline=None)
@given(sizes=st.lists(st.integers(0, 9_000), min_size=1, max_size=9), file_rows=st.sampled_from([1, 5_000, 1_000_000]))
def test_what_is_written_reads_back_in_any_order(tmp_path_factory: Any, sizes: list[int], file_rows: int) -> None:
    path = tmp_path_factory.mktemp("history") / "own"
    written = write(path, {f"p{i:03d}": rows for i, rows in enumerate(sizes)}, file_rows)
    history = History.open(path)
    asked = sorted(written, reverse=True)
    found = list(history.read(asked, ["b", "a"]))
    assert [r.asset_id for r in found] == asked
    for one in found:
        times, values = written[one.asset_id]
        np.testing.assert_array_equal(one.times, times)
        np.testing.assert_array_equal(one.values, values[:, ::-1])
        assert one.values.dtype == np.float32
    assert {part.asset_id: part.rows for part in history.plan()} == dict(zip(sorted(written), sizes, strict=True))
    stored = [t for times, _ in written.values() for t in times.tolist()]
    if stored:
        assert history.span() == (min(stored), max(stored))


@pytest.mark.parametrize("assets", [6, 24])
def test_a_task_looks_at_its_own_files_alone_however_large_the_fleet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, assets: int
) -> None:
    written = write(tmp_path / "h", {f"p{i:02d}": 4_096 for i in range(assets)}, file_rows=8_192)
    whole = History.open(tmp_path / "h")
    assert len(whole.reading_files()) == assets // 2
    excerpt = copy.deepcopy(whole.excerpt(["p03", "p02"]))  # as it comes to a worker, with nothing of ours
    digests = {asset_id: whole.digest(asset_id) for asset_id in ("p02", "p03")}
    opened: list[str] = []
    plain = pq.ParquetFile
    monkeypatch.setattr(pq, "ParquetFile", lambda file: opened.append("readings") or plain(file))
    for name in ("scan", "History._table"):
        monkeypatch.setattr(f"wheeltapper_trainer.history.{name}", lambda *_: pytest.fail("a worker scanned"))
    part = History.of(excerpt)
    assert part.asset_ids() == ["p02", "p03"]
    assert {asset_id: part.digest(asset_id) for asset_id in digests} == digests
    for found in part.read(["p02", "p03"], ["a", "b"]):
        np.testing.assert_array_equal(found.values, written[found.asset_id][1])
    assert part.events(["p03"]).codes.tolist() == ["seal"]
    assert part.failed_components("pump") == {"seal"}
    assert len(opened) == 1


def test_an_excerpt_knows_what_failed_elsewhere_in_its_class(tmp_path: Path) -> None:
    times, values = readings(10, 1)
    with HistoryWriter(tmp_path / "h", {"pump": ["a"], "fan": ["c"]}) as writer:
        for name in ("p1", "p2", "pump-with-a-long-name"):
            writer.add(Asset(name, "pump", {}), times, values)
        writer.add(Asset("f1", "fan", {}), times, values)
        writer.add_events([("p1", 9, "failure", "seal"), ("p1", 3, "error", "e"), ("f1", 4, "failure", "hub")])
    whole = History.open(tmp_path / "h")
    excerpt = whole.excerpt(["p2", "pump-with-a-long-name"])
    assert excerpt.failed == {"seal"}
    assert len(excerpt.events) == 0
    assert whole.excerpt(["p1"]).events.times.tolist() == [3, 9]


def test_files_that_cannot_be_read_cost_their_assets_only_where_asked(tmp_path: Path) -> None:
    write(tmp_path / "h", {f"p{i}": 4_096 for i in range(6)}, file_rows=8_192)
    truncated = tmp_path / "h" / "readings" / "pump-00001.parquet"
    truncated.write_bytes(truncated.read_bytes()[:-9])
    with pytest.raises(UnreadableFileError, match=r"pump-00001\.parquet cannot be read as Parquet"):
        History.open(tmp_path / "h").plan()
    history = History.open(tmp_path / "h", skip_unreadable=True)
    assert [part.asset_id for part in history.plan() if part.rows] == ["p0", "p1", "p4", "p5"]
    assert history.lost().keys() == {"p2", "p3"}
    assert "pump-00001.parquet cannot be read" in history.lost()["p2"]
    assert history.span()[0] >= 0


def test_small_assets_share_row_groups_and_large_ones_are_cut(tmp_path: Path) -> None:
    written = write(tmp_path / "h", {"p0": 100, "p1": 100, "p2": 150_000, "p3": 10})
    parts = {part.asset_id: part for part in History.open(tmp_path / "h").plan()}
    assert parts["p0"].groups[0][0] == parts["p1"].groups[0][0]
    assert len(parts["p2"].groups) >= 3
    found = next(History.open(tmp_path / "h").read(["p2"], ["a", "b"]))
    np.testing.assert_array_equal(found.values, written["p2"][1])


def test_classes_events_and_attributes(tmp_path: Path) -> None:
    times, values = readings(10, 1)
    with HistoryWriter(tmp_path / "h", {"pump": ["a"], "fan": ["c"]}) as writer:
        writer.add(Asset("p1", "pump", {"age": 3.0}), times, values)
        writer.add(Asset("f1", "fan", {"blades": 5.0}), times, values)
        writer.add_events([("p1", 9, "error", "e"), ("f1", 4, "failure", "hub"), ("p1", 2, "error", "e")])
    history = History.open(tmp_path / "h")
    assert (history.classes(), history.sensors("fan"), history.sensors("pump")) == (["fan", "pump"], ["c"], ["a"])
    assert (history.asset_ids(), history.asset_ids("pump")) == (["f1", "p1"], ["p1"])
    fan, pump = history.assets()
    assert fan.attributes["blades"] == 5.0
    assert np.isnan(fan.attributes["age"])
    assert pump.attributes["age"] == 3.0
    events = history.events()
    assert events.asset_ids.tolist() == ["f1", "p1", "p1"]
    assert events.of_asset("p1").times.tolist() == [2, 9]
    assert events.of_asset("p").times.tolist() == []
    assert history.events(["f1"]).codes.tolist() == ["hub"]
    assert events.times_of("error").tolist() == [2, 9]
    assert events.times_of("failure", "seal").tolist() == []
    assert sorted(path.name for path in (tmp_path / "h" / "readings").iterdir()) == [
        "fan-00000.parquet",
        "pump-00000.parquet",
    ]


def test_the_digest_changes_with_the_content_and_only_with_it(tmp_path: Path) -> None:
    write(tmp_path / "one", {"p0": 50, "p1": 9_000})
    write(tmp_path / "two", {"p0": 50, "p1": 9_000, "p2": 70}, file_rows=1)
    one, two = History.open(tmp_path / "one"), History.open(tmp_path / "two")
    assert [one.digest(a) for a in ("p0", "p1")] == [two.digest(a) for a in ("p0", "p1")]
    assert one.digest("p0") != one.digest("p1")

    asset = Asset("p0", "pump", {"age": 1.0})
    own = AssetReadings("p0", *readings(20, 2))
    events = Events.of_rows([("p0", 5, "failure", "seal")])
    base = content_digest(asset, ["a", "b"], own, events)
    assert content_digest(asset, ["b", "a"], replace(own, values=own.values[:, ::-1]), events) == base
    other_nan = own.values.copy()
    other_nan.view(np.uint32)[np.isnan(other_nan)] = 0xFFC00001
    assert content_digest(asset, ["a", "b"], replace(own, values=other_nan), events) == base
    changed = own.values.copy()
    changed[np.isfinite(changed)] = np.nextafter(changed[np.isfinite(changed)], np.float32(np.inf))
    later = own.times.copy()
    later[-1] += 1
    for different in (
        content_digest(asset, ["a", "b"], replace(own, values=changed), events),
        content_digest(asset, ["a", "b"], replace(own, times=later), events),
        content_digest(asset, ["b", "a"], own, events),
        content_digest(asset, ["a", "c"], own, events),
        content_digest(replace(asset, attributes={"age": 2.0}), ["a", "b"], own, events),
        content_digest(asset, ["a", "b"], own, Events.of_rows([("p0", 6, "failure", "seal")])),
        content_digest(asset, ["a", "b"], own, Events.of_rows([("p0", 5, "failure", "bearing")])),
    ):
        assert different != base


def test_a_failed_write_leaves_nothing_and_a_second_never_overwrites(tmp_path: Path) -> None:
    def fail_half_way() -> None:
        with HistoryWriter(tmp_path / "h", {"pump": ["a"]}) as writer:
            writer.add(Asset("p", "pump", {}), *readings(5_000, 1))
            raise RuntimeError("power")

    with pytest.raises(RuntimeError, match="power"):
        fail_half_way()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "h").mkdir()
    write(tmp_path / "h", {"p0": 3})  # an empty folder is fine
    assert [path.name for path in tmp_path.iterdir()] == ["h"]
    with pytest.raises(Refused, match="not empty"):
        HistoryWriter(tmp_path / "h", {"pump": ["a"]})


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("s3://AKIA:pass-phrase@bucket/fleet?region=eu-west-1", "without a name and password"),
        ("abfs://account:pass-phrase@container/fleet", "without a name and password"),
        ("s3://AKIA:pass/phrase@bucket/fleet", "found one that cannot be read"),  # not even an address
        ("ftp://bucket/fleet", "found Unrecognized filesystem type"),
        ("s3://bucket/fleet?key=x", "found Unexpected query parameter"),
    ],
)
def test_an_address_is_refused_without_telling_the_password_in_it(address: str, says: str) -> None:
    """It would go into errors, reports, what workers are told, and every list of processes."""
    with pytest.raises(UsageError, match=says) as caught:
        History.open(address)
    assert not {"AKIA", "phrase"} & set(re.findall(r"\w+", f"{caught.value} {caught.value.hint}"))


def test_the_writer_refuses_disorder(tmp_path: Path) -> None:
    times, values = readings(9, 1)
    pump = Asset("p5", "pump", {})
    wrongs = [
        (replace(pump, asset_id="p4"), times, values),
        (pump, times, values),
        (replace(pump, asset_id="p6"), times[::-1], values),
        (replace(pump, asset_id="p6"), times, np.zeros((9, 2), np.float32)),
    ]

    def write_after(wrong: tuple[Asset, np.ndarray, np.ndarray]) -> None:
        with HistoryWriter(tmp_path / "h", {"pump": ["a"]}) as writer:
            writer.add(pump, times, values)
            writer.add(*wrong)

    for wrong in wrongs:
        with pytest.raises(HistoryError):
            write_after(wrong)
