"""A fleet that never was: load, wear, sensors, faults of the sensors themselves, and the events that people wrote down.

Each machine is drawn from its own seed (seed, class, number), so a larger fleet has the same first machines.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from wheeltapper.config import fleet_toml
from wheeltapper.spec import MICROSECONDS_PER_HOUR
from wheeltapper_command.progress import Progress

from wheeltapper_trainer.fleets import spec_for
from wheeltapper_trainer.history_writer import HistoryWriter
from wheeltapper_trainer.machines import COMPRESSOR, MACHINES, PUMP, Component, Conditions, Machine
from wheeltapper_trainer.records import Asset, Times, Values
from wheeltapper_trainer.wear import (
    FAILURE,
    LIVES_MAX,
    REPAIR,
    Floats,
    Integers,
    lagged,
    regime_path,
    wear_path,
)

CADENCE_US = MICROSECONDS_PER_HOUR
BEGIN_US = 1_736_121_600_000_000  # Monday, 2025-01-06 00:00 UTC
_SLOTS_PER_DAY = 24
_EVENTS_MAX = 4_096
_MEAN_STRESS = 0.55  # the usual mean of load**exponent, so that `life_days` is a life at the usual load
# Cumulative shares of idle, low, normal, full: at night and by day of a working day, and at the weekend.
_WEEKDAY = np.array([[0.10, 0.45, 0.90, 1.0], [0.02, 0.15, 0.70, 1.0]])
_WEEKEND = np.array([0.30, 0.65, 0.95, 1.0])
_REGIME_LOAD = np.array([0.12, 0.45, 0.75, 1.0])


@dataclass(frozen=True, slots=True)
class SimulatedAsset:
    """One machine's part of a history: times int64[n] µs, values float32[n, sensors], event rows."""

    asset: Asset
    times: Times
    values: Values
    events: list[tuple[str, int, str, str]]


def simulate(path: Path, assets: int, days: int, seed: int, progress: Progress) -> dict[str, Any]:
    """Write a simulated history with its fleet.toml into `path`; returns what was written."""
    with HistoryWriter(path, {m.name: [s.name for s in m.sensors] for m in MACHINES}) as writer:
        progress.start("simulate", assets, "assets")
        failures = 0
        for machine in MACHINES:
            for made in _machines_of(machine, assets, days, seed):
                writer.add(made.asset, made.times, made.values)
                writer.add_events(made.events)
                failures += sum(event[2] == "failure" for event in made.events)
                progress.advance()
        (writer.folder / "fleet.toml").write_text(fleet_toml(spec_for("simulated")), encoding="utf-8")
        progress.finish()
        return {**writer.written(), "failures": failures}


def _machines_of(machine: Machine, assets: int, days: int, seed: int) -> Iterator[SimulatedAsset]:
    # Two pumps for each compressor, in this order, whatever the size of the fleet.
    count = assets // 3 if machine is COMPRESSOR else assets - assets // 3
    for number in range(count):
        yield simulate_asset(machine, number, days, seed)


def simulate_asset(machine: Machine, number: int, days: int, seed: int) -> SimulatedAsset:
    """One machine over `days`; the same for the same (machine, number, days, seed)."""
    random = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(MACHINES.index(machine), number)))
    asset_id = f"{machine.name}-{number:05d}"
    slots, components = days * _SLOTS_PER_DAY, machine.components
    new = random.random() < 0.12  # put into service during the history
    first = int(random.uniform(0.25, 0.9) * slots) if new else 0
    end = int(random.uniform(0.6, 0.95) * slots) if random.random() < 0.04 and not new else slots
    age_years = 0.0 if new else float(np.round(random.gamma(3.0, 2.5), 1))

    load = _load(random, slots)
    wear, running, what = _age(random, components, load, first, end, age_years)
    noise = random.standard_normal((slots, len(machine.sensors)))
    ambient = _ambient(random, slots)
    readings = machine.signature(Conditions(load, ambient, wear, random.standard_normal(8), noise))
    readings = _sensor_faults(random, readings)

    phase_us = int(random.uniform(0.0, 0.4) * CADENCE_US)
    jitter_us = np.rint(random.uniform(0.0, 0.05, slots) * CADENCE_US).astype(np.int64)
    times = BEGIN_US + np.arange(slots) * CADENCE_US + phase_us + jitter_us
    kept = running & ~_lost_rows(random, slots)
    events = _failures_and_services(random, asset_id, components, what, end)
    events += _errors(random, asset_id, components, wear, running, first, end)
    rating = float(np.round((45.0 if machine is PUMP else 132.0) * np.exp(0.15 * random.standard_normal())))
    asset = Asset(asset_id, machine.name, {"age_years": age_years, "rating_kw": rating})
    return SimulatedAsset(asset, times[kept], readings[kept].astype(np.float32), sorted(events))


def _load(random: np.random.Generator, slots: int) -> Floats:
    """Load float64[n], 1 = full: the regime's load, this machine's duty, and a slow wandering."""
    hour_of_week = np.arange(slots, dtype=np.int64) % 168
    regime = regime_path(hour_of_week, random.random(slots), random.random(slots), _WEEKDAY, _WEEKEND)
    duty = random.uniform(0.88, 1.08)
    wandering = lagged(random.standard_normal(slots), 0.15) * 0.12
    return np.clip(_REGIME_LOAD[regime] * duty * (1.0 + wandering), 0.05, 1.25)


def _ambient(random: np.random.Generator, slots: int) -> Floats:
    """Ambient temperature float64[n] in °C: the day, the weather, the season."""
    hours = np.arange(slots)
    day = 4.0 * np.sin(2 * np.pi * (hours % 24 - 9) / 24)
    season = 6.0 * np.sin(2 * np.pi * hours / (365 * 24))
    weather = lagged(random.standard_normal(slots), 0.02) * 22.0
    return 14.0 + day + season + weather + 2.0 * random.standard_normal()


def _age(
    random: np.random.Generator, components: tuple[Component, ...], load: Floats, first: int, end: int, age_years: float
) -> tuple[Floats, Any, Integers]:
    """Wear float64[n, K], running bool[n] and the rows (slot, component, what happened) of one machine."""
    slots, count = len(load), len(components)
    life = np.array([c.life_days for c in components])[:, None] * _SLOTS_PER_DAY
    spread = np.array([c.spread for c in components])[:, None]
    growth = np.array([c.growth for c in components])
    # A third of the machines is treated well and hardly ever fails; the old wear a little faster.
    kind = 2.2 if random.random() < 0.35 else 1.0
    unit = np.exp(spread * random.standard_normal((count, 1))) * kind / (1.0 + 0.02 * age_years)
    each = np.exp(0.25 * random.standard_normal((count, LIVES_MAX)))
    path = np.linspace(0.0, 1.0, 201)
    speedup = (1.0 / (1.0 + growth[:, None] * path**4)).mean(axis=1, keepdims=True)  # so that life is `life_days` long
    rate = speedup / (life * unit * each * _MEAN_STRESS)
    limit = np.maximum(1.0 + 0.05 * random.standard_normal((count, LIVES_MAX)), 0.8)
    shocks = np.array([c.shocks_per_year for c in components]) / (365 * _SLOTS_PER_DAY)
    shock = (random.random((slots, count)) < shocks) * random.uniform(0.15, 0.6, (slots, count))
    service_every = np.array([c.service_days for c in components]) * _SLOTS_PER_DAY * random.uniform(0.8, 1.25, count)
    started = np.zeros(count) if first else random.uniform(0.0, 0.75, count)
    service_next = first + service_every * (1.0 - started * random.uniform(0.3, 1.0, count))

    wear, running = np.zeros((slots, count)), np.zeros(slots, np.bool_)
    what = np.zeros((_EVENTS_MAX, 3), np.int64)
    found = wear_path(
        first,
        load[:end],
        np.array([c.exponent for c in components]),
        growth,
        rate,
        limit,
        np.array([c.fatal for c in components]),
        random.gamma(2.0, 0.5, (slots, count)),
        shock,
        random.random((slots, count)),
        started * 0.9,
        service_next,
        service_every,
        int(random.integers(8, 16)),
        random.integers(6, 30, slots),
        wear,
        running,
        what,
    )
    return wear, running, what[:found]


def _failures_and_services(
    random: np.random.Generator, asset_id: str, components: tuple[Component, ...], what: Integers, end: int
) -> list[tuple[str, int, str, str]]:
    """Event rows, each in the second half of its slot: after the slot's reading, before the next."""
    minutes = random.uniform(0.55, 0.95, len(what))
    rows = []
    for (slot, component, happened), share in zip(what.tolist(), minutes.tolist(), strict=True):
        if slot < end:
            kind = "failure" if happened == FAILURE else "maintenance"
            at = BEGIN_US + slot * CADENCE_US + int(share * CADENCE_US)
            if happened == REPAIR:
                at = BEGIN_US + slot * CADENCE_US + 1_000_000  # the machine runs again from the next slot on
            rows.append((asset_id, at, kind, components[component].code))
    return rows


def _errors(
    random: np.random.Generator,
    asset_id: str,
    components: tuple[Component, ...],
    wear: Floats,
    running: Any,
    first: int,
    end: int,
) -> list[tuple[str, int, str, str]]:
    """Error events: likelier with wear, and false ones all the time."""
    rows = []
    draws, shares = random.random(wear.shape), random.random(len(wear))
    for k, component in enumerate(components):
        chance = 0.0012 + 0.022 * np.clip(wear[:, k], 0.0, 1.2) ** 6
        for slot in np.flatnonzero((draws[:, k] < chance) & running).tolist():
            if first <= slot < end:
                at = BEGIN_US + slot * CADENCE_US + int(shares[slot] * CADENCE_US)
                rows.append((asset_id, at, "error", component.error))
    return rows


def _lost_rows(random: np.random.Generator, slots: int) -> Any:
    """bool[n]: readings that never arrived: single ones, and outages of the line."""
    lost = random.random(slots) < 0.004
    for begin in np.flatnonzero(random.random(slots) < 1 / (35 * _SLOTS_PER_DAY)):
        lost[begin : begin + int(random.integers(2, 20))] = True
    return lost


def _sensor_faults(random: np.random.Generator, readings: Floats) -> Floats:
    """What sensors do by themselves: drop out, on a few machines drift or stick. Load and speed stay true."""
    slots, sensors = readings.shape
    found = readings.copy()
    if random.random() < 0.05:
        sensor, begin = int(random.integers(2, sensors)), int(random.uniform(0.2, 0.8) * slots)
        size = float(np.nanstd(found[:, sensor])) * random.uniform(-1.5, 1.5)
        found[begin:, sensor] += size * np.linspace(0.0, 1.0, slots - begin)
    if random.random() < 0.05:
        sensor, begin = int(random.integers(2, sensors)), int(random.uniform(0.1, 0.9) * slots)
        found[begin : begin + int(random.integers(24, 240)), sensor] = found[begin, sensor]
    found[random.random((slots, sensors)) < 0.002] = np.nan
    for sensor in range(sensors):
        for gap in np.flatnonzero(random.random(slots) < 1 / (40 * _SLOTS_PER_DAY)).tolist():
            found[gap : gap + int(random.integers(1, 13)), sensor] = np.nan
    return found
