"""The machines of a simulated fleet: what they are made of, and how load and wear show in their sensors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from wheeltapper.spec import Sensor

from wheeltapper_trainer.wear import Floats, lagged


@dataclass(frozen=True, slots=True)
class Component:
    """One thing that wears. `life_days` is the median life at the fleet's usual load, `spread` its log deviation from
    machine to machine; `fatal` components stop the machine at the end, others only degrade it."""

    code: str
    error: str  # the error code that its wear provokes
    life_days: float
    spread: float
    exponent: float  # of load: how much harder work hastens it
    growth: float  # how much faster it wears in the end: 1 + growth times as fast as new
    service_days: float
    shocks_per_year: float
    fatal: bool = True


@dataclass(frozen=True, slots=True)
class Conditions:
    """What one machine goes through, one value per slot: float64[n], wear float64[n, components]."""

    load: Floats  # 1 = full
    ambient: Floats  # °C
    wear: Floats
    unit: Floats  # float64[8], this machine's own deviations, standard normal
    noise: Floats  # float64[n, sensors], standard normal


@dataclass(frozen=True, slots=True)
class Machine:
    name: str
    sensors: tuple[Sensor, ...]
    components: tuple[Component, ...]
    signature: Callable[[Conditions], Floats]  # conditions → float64[n, sensors]


def bearing_rise(wear: Floats) -> Floats:
    """Vibration of a worn bearing against a new one: hardly anything for most of a life, then exponential."""
    return 1.0 + 0.045 * np.expm1(3.3 * wear)


def pump_signature(c: Conditions) -> Floats:
    bearing, seal, fouling = c.wear.T
    speed = 1480.0 * (0.55 + 0.45 * c.load)
    relative = speed / 1480.0
    vibration = (1.9 + 0.25 * c.unit[0]) * (0.35 + 0.65 * relative**2) * bearing_rise(bearing) + 0.15 * seal**2
    vibration *= np.exp(0.09 * c.noise[:, 2])
    heat = c.ambient + (21.0 + 2.0 * c.unit[1]) * c.load + 13.0 * c.load * bearing**2.5 + 6.0
    temperature = lagged(heat, 0.35) + 0.8 * c.noise[:, 3]
    leak = 0.24 * np.maximum(seal, 0.0) ** 3
    pressure = (6.1 + 0.2 * c.unit[2]) * relative**2 * (1.0 - leak - 0.05 * fouling) + 0.07 * c.noise[:, 4]
    flow = (118.0 + 4.0 * c.unit[3]) * c.load * (1.0 - 0.8 * leak - 0.10 * fouling) + 1.6 * c.noise[:, 5]
    seal_temperature = lagged(c.ambient + 16.0 * c.load * (1.0 + 0.45 * seal**3) + 4.0 + c.unit[4], 0.5)
    seal_temperature += 0.7 * c.noise[:, 6]
    current = (34.0 + 1.2 * c.unit[5]) * (0.3 + 0.7 * c.load) * (1.0 + 0.05 * fouling + 0.03 * bearing**3)
    current += 0.5 * c.noise[:, 7]
    load = 100.0 * c.load + 0.8 * c.noise[:, 0]
    speed = speed + 4.0 * c.noise[:, 1]
    return np.stack([load, speed, vibration, temperature, pressure, flow, seal_temperature, current], axis=1)


def compressor_signature(c: Conditions) -> Floats:
    bearing, valve, fouling = c.wear.T
    speed = 2950.0 * (0.7 + 0.3 * c.load)
    relative = speed / 2950.0
    vibration = (2.6 + 0.3 * c.unit[0]) * (0.3 + 0.7 * relative**2) * bearing_rise(bearing) * (1.0 + 0.08 * valve**3)
    vibration *= np.exp(0.08 * c.noise[:, 2])
    heat = c.ambient + (28.0 + 2.5 * c.unit[1]) * c.load + 15.0 * c.load * bearing**2.5 + 8.0
    temperature = lagged(heat, 0.3) + 0.9 * c.noise[:, 3]
    loss = 0.28 * np.maximum(valve, 0.0) ** 3.5
    pressure = (8.4 + 0.25 * c.unit[2]) * (0.5 + 0.5 * c.load) * (1.0 - 0.5 * loss) + 0.08 * c.noise[:, 4]
    discharge = lagged(c.ambient + 72.0 + 26.0 * c.load * (1.0 + 0.9 * loss + 0.12 * fouling) + 2.0 * c.unit[3], 0.5)
    discharge += 1.1 * c.noise[:, 5]
    flow = (640.0 + 20.0 * c.unit[4]) * c.load * (1.0 - loss - 0.08 * fouling) + 9.0 * c.noise[:, 6]
    power = (110.0 + 4.0 * c.unit[5]) * (0.35 + 0.65 * c.load) * (1.0 + 0.25 * loss + 0.06 * fouling)
    power += 1.5 * c.noise[:, 7]
    oil = (3.2 + 0.1 * c.unit[6]) * relative * (1.0 - 0.10 * bearing**2) + 0.05 * c.noise[:, 8]
    load = 100.0 * c.load + 0.8 * c.noise[:, 0]
    speed = speed + 8.0 * c.noise[:, 1]
    columns = [load, speed, vibration, temperature, pressure, discharge, flow, power, oil]
    return np.stack(columns, axis=1)


PUMP = Machine(
    "pump",
    (
        Sensor("load", "%", -10, 150),
        Sensor("speed", "rpm", 0, 4_000),
        Sensor("vibration", "mm/s", 0, 100),
        Sensor("bearing_temperature", "°C", -40, 200),
        Sensor("discharge_pressure", "bar", -1, 25),
        Sensor("flow", "m³/h", -20, 400),
        Sensor("seal_temperature", "°C", -40, 200),
        Sensor("motor_current", "A", 0, 200),
    ),
    (
        Component("bearing", "vibration_high", 95, 0.50, 2.2, 12.0, 110, 0.4),
        Component("seal", "leakage", 125, 0.45, 1.4, 7.0, 130, 0.3),
        Component("fouling", "flow_low", 80, 0.30, 1.0, 0.0, 60, 0.0, fatal=False),
    ),
    pump_signature,
)

COMPRESSOR = Machine(
    "compressor",
    (
        Sensor("load", "%", -10, 150),
        Sensor("speed", "rpm", 0, 8_000),
        Sensor("vibration", "mm/s", 0, 100),
        Sensor("bearing_temperature", "°C", -40, 250),
        Sensor("discharge_pressure", "bar", -1, 40),
        Sensor("discharge_temperature", "°C", -40, 300),
        Sensor("flow", "m³/h", -100, 2_000),
        Sensor("power", "kW", -10, 500),
        Sensor("oil_pressure", "bar", -1, 12),
    ),
    (
        Component("bearing", "vibration_high", 120, 0.50, 2.0, 12.0, 130, 0.4),
        Component("valve", "overheat", 100, 0.45, 1.7, 8.0, 120, 0.3),
        Component("fouling", "flow_low", 70, 0.30, 1.0, 0.0, 50, 0.0, fatal=False),
    ),
    compressor_signature,
)

MACHINES = (PUMP, COMPRESSOR)
