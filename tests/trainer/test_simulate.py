"""The simulated fleet: reproducible machine by machine, with the troubles of a real one, and wear that shows."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from wheeltapper.config import load_fleet
from wheeltapper_command.errors import UsageError
from wheeltapper_command.main import parser
from wheeltapper_command.progress import Progress
from wheeltapper_trainer.fleets import spec_for
from wheeltapper_trainer.history import History
from wheeltapper_trainer.history_verbs import import_, simulate
from wheeltapper_trainer.machines import COMPRESSOR, MACHINES, PUMP, Conditions, Machine
from wheeltapper_trainer.simulate import BEGIN_US, CADENCE_US, SimulatedAsset, simulate_asset
from wheeltapper_trainer.simulate import simulate as write
from wheeltapper_trainer.wear import Floats

QUIET = Progress(quiet=True)
HOUR = CADENCE_US


@pytest.fixture(scope="module")
def fleet() -> list[SimulatedAsset]:
    return [simulate_asset(machine, number, 120, 7) for machine in MACHINES for number in range(40)]


def test_a_machine_depends_on_its_seed_and_number_alone(tmp_path: Path) -> None:
    small, large, other = (tmp_path / name for name in ("small", "large", "other"))
    write(small, 6, 20, 3, QUIET)
    write(large, 15, 20, 3, QUIET)
    write(other, 6, 20, 4, QUIET)
    ids = History.open(small).asset_ids()
    assert len(ids) == 6
    assert {h.split("-")[0] for h in ids} == {"pump", "compressor"}
    digests = [[History.open(path).digest(asset_id) for asset_id in ids] for path in (small, large, other)]
    assert digests[0] == digests[1]
    assert not set(digests[0]) & set(digests[2])
    again = tmp_path / "again"
    write(again, 6, 20, 3, QUIET)
    for file in ("readings/pump-00000.parquet", "readings/compressor-00000.parquet", "events.parquet", "fleet.toml"):
        assert (small / file).read_bytes() == (again / file).read_bytes()


def test_the_fleet_has_the_troubles_of_a_real_one(fleet: list[SimulatedAsset]) -> None:
    events = [event for made in fleet for event in made.events]
    kinds = Counter((kind, code) for _, _, kind, code in events)
    failed = {code for kind, code in kinds if kind == "failure"}
    assert failed == {"bearing", "seal", "valve"}
    assert all(kinds["maintenance", code] > kinds["failure", code] for code in failed)  # replaced without failing, too
    assert kinds["maintenance", "fouling"] > 0
    never = np.mean([all(event[2] != "failure" for event in made.events) for made in fleet])
    assert 0.15 < never < 0.5
    per_asset = sum(kind == "failure" for _, _, kind, _ in events) / len(fleet)
    assert 0.7 < per_asset < 2.5
    begins = np.array([made.times[0] - BEGIN_US for made in fleet]) / HOUR
    assert 0.03 < np.mean(begins > 24 * 20) < 0.3  # some are new
    missing = [np.isnan(made.values).any(axis=1).mean() for made in fleet]
    assert 0.005 < np.mean(missing) < 0.3
    gaps = np.concatenate([np.diff(made.times // HOUR) for made in fleet])
    assert (gaps >= 1).all()  # one reading in a slot
    assert 0.001 < (gaps > 1).mean() < 0.05  # lost rows, and downtime
    shares = [made.values[:, 0] for made in fleet]
    loads = np.concatenate(shares)
    assert np.nanmin(loads) < 20
    assert np.nanmax(loads) > 90


def test_sensors_stay_in_their_range_and_events_inside_the_history(fleet: list[SimulatedAsset]) -> None:
    for made in fleet:
        machine = PUMP if made.asset.asset_class == "pump" else COMPRESSOR
        for column, sensor in enumerate(machine.sensors):
            values = made.values[:, column]
            inside = (values >= sensor.minimum) & (values <= sensor.maximum)
            assert np.mean(inside | np.isnan(values)) > 0.999, (made.asset.asset_id, sensor.name)
        assert (np.diff(made.times) > 0).all()
        assert all(BEGIN_US <= time <= BEGIN_US + 120 * 24 * HOUR for _, time, _, _ in made.events)


def test_a_failure_is_followed_by_downtime_and_repair(fleet: list[SimulatedAsset]) -> None:
    seen = 0
    for made in fleet:
        for asset_id, time, kind, code in made.events:
            if kind == "failure" and time < made.times[-1] - 48 * HOUR:
                following = made.times[np.searchsorted(made.times, time)] - time
                assert following >= 5 * HOUR
                repairs = [e[1] for e in made.events if e[2:] == ("maintenance", code) and e[1] > time]
                assert repairs
                assert repairs[0] - time < 40 * HOUR
                assert asset_id == made.asset.asset_id
                seen += 1
    assert seen > 40


def test_wear_shows_before_a_bearing_fails_and_no_event_announces_it(fleet: list[SimulatedAsset]) -> None:
    rises, announced, failures = [], Counter[str](), 0
    for made in fleet:
        column = [s.name for s in (PUMP if made.asset.asset_class == "pump" else COMPRESSOR).sensors].index("vibration")
        usual = np.nanmedian(made.values[:, column])
        for _, time, _, _ in (e for e in made.events if e[2:] == ("failure", "bearing")):
            failures += 1
            last = (made.times < time) & (made.times >= time - 24 * HOUR)
            if last.sum() > 12:
                rises.append(np.nanmean(made.values[last, column]) / usual)
            announced.update({e[3] for e in made.events if e[2] == "error" and time - 24 * HOUR <= e[1] <= time})
    assert np.median(rises) > 1.25
    assert np.min(rises) < 0.8 * np.median(rises)  # some are sudden: no model can catch all
    assert max(announced.values()) < 0.6 * failures


def steady(machine: Machine, worn: int | None) -> Floats:
    """What the sensors of a machine show at three quarters of its load, noise apart, one component nearly worn out."""
    wear = np.zeros((200, 3))
    if worn is not None:
        wear[:, worn] = 0.95
    quiet = np.zeros((200, len(machine.sensors)))
    shown: Floats = machine.signature(Conditions(np.full(200, 0.75), np.full(200, 15.0), wear, np.zeros(8), quiet))[-1]
    return shown


def test_each_component_moves_its_own_sensors() -> None:
    for machine in MACHINES:
        names = [s.name for s in machine.sensors]
        new = steady(machine, None)
        moved = [np.abs(steady(machine, k) / new - 1.0) for k in range(3)]
        assert moved[0][names.index("vibration")] > 0.3 > moved[1][names.index("vibration")]
        assert moved[1][names.index("discharge_pressure")] > 0.05 > moved[0][names.index("discharge_pressure")]
        assert moved[2].max() < 0.15
        assert all(change[names.index("load")] == 0 for change in moved)


def test_the_verb_writes_a_history_that_trains_as_it_is(tmp_path: Path) -> None:
    out = tmp_path / "fleet"
    options = parser([simulate, import_]).parse_args(
        ["simulate", str(out), "--assets", "3", "--days", "10", "--seed", "1"]
    )
    outcome = options.verb.run(options, QUIET)
    history = History.open(out)
    assert outcome.result["assets"] == len(history.assets()) == 3
    assert outcome.result["readings"] == sum(part.rows for part in history.plan())
    assert outcome.result["failures"] == len(history.events().times_of("failure"))
    assert str(out / "fleet.toml") in outcome.text
    fleet = load_fleet(out / "fleet.toml")
    assert fleet == spec_for("simulated")
    for spec in fleet.classes:
        assert [sensor.name for sensor in spec.sensors] == history.sensors(spec.name)
        assert set(spec.statics) <= history.assets()[0].attributes.keys()


@pytest.mark.parametrize("words", [["--assets", "0"], ["--days", "2"], ["--seed", "-1"]])
def test_the_verb_refuses_nonsense(tmp_path: Path, words: list[str]) -> None:
    options = parser([simulate]).parse_args(["simulate", str(tmp_path / "h"), *words])
    with pytest.raises(UsageError, match=words[0]):
        options.verb.run(options, QUIET)
    assert list(tmp_path.iterdir()) == []
