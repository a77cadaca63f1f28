"""How machines age: hidden wear driven by load, its ends, what resets it. None of it is written to a history.

Each component carries a wear that starts near 0 and fails at its life's own limit near 1:

    wear += rate · load**exponent · (1 + growth · wear⁴) · noise + shock       per slot in which the machine runs

The limit differs from life to life, so that no sensor can say exactly when; shocks make some failures sudden.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from wheeltapper.kernel import kernel

FAILURE, PLANNED, PREMATURE, REPAIR = 0, 1, 2, 3  # what happened to a component, in the third column of `what`
LIVES_MAX = 64  # lives drawn in advance for each component; a machine that used them all keeps the last draw

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@kernel
def wear_path(
    first: int,
    load: Floats,
    exponent: Floats,
    growth: Floats,
    rate: Floats,
    limit: Floats,
    fatal: NDArray[np.bool_],
    noise: Floats,
    shock: Floats,
    luck: Floats,
    wear_now: Floats,
    service_next: Floats,
    service_every: Floats,
    inspection_phase: int,
    downtime: Integers,
    wear: Floats,
    running: NDArray[np.bool_],
    what: Integers,
) -> int:
    """One machine from slot `first` to the end of `load`; returns the number of rows filled in `what`.

    Per slot: load float64[n]; noise, shock, luck float64[n, K]; downtime int64[n] (slots that a stop at that time
    lasts). Per component: exponent, growth, service_every float64[K] (slots), fatal bool[K] (else it only degrades).
    Per component and life: rate, limit float64[K, LIVES_MAX]. `wear_now` and `service_next` float64[K] are advanced.
    Filled: wear float64[n, K], running bool[n], what int64[m, 3] of (slot, component, FAILURE …).
    """
    components = len(growth)
    life = np.zeros(components, np.int64)
    down, repaired, events = 0, -1, 0
    for slot in range(first, len(load)):
        if down > 0:
            down -= 1
            wear[slot] = wear_now
            if down == 0 and repaired >= 0 and events < len(what):
                what[events] = (slot, repaired, REPAIR)
                events += 1
                repaired = -1
            continue
        running[slot] = True
        for k in range(components):
            stress = rate[k, life[k]] * load[slot] ** exponent[k]
            wear_now[k] += stress * (1.0 + growth[k] * wear_now[k] ** 4) * noise[slot, k] + shock[slot, k]
            wear[slot, k] = wear_now[k]
            ended = -1
            if fatal[k] and wear_now[k] >= limit[k, life[k]]:
                ended = FAILURE
            elif slot >= service_next[k]:
                ended = PLANNED
            elif slot % 168 == inspection_phase and wear_now[k] > 0.6 and luck[slot, k] < 0.12:
                ended = PREMATURE
            if ended >= 0 and down == 0 and events < len(what):
                what[events] = (slot, k, ended)
                events += 1
                wear_now[k] = 0.02
                life[k] = min(life[k] + 1, LIVES_MAX - 1)
                service_next[k] = slot + service_every[k]
                down = downtime[slot]
                if ended == FAILURE:
                    repaired = k
                else:
                    down = 1 + down // 4
    return events


@kernel
def lagged(values: Floats, weight: float) -> Floats:
    """First-order lag: each value moves by `weight` of the way towards its input, as warm metal does."""
    found = np.empty_like(values)
    state = values[0]
    for i in range(len(values)):
        state += weight * (values[i] - state)
        found[i] = state
    return found


@kernel
def regime_path(hour_of_week: Integers, switch: Floats, choice: Floats, weekday: Floats, weekend: Floats) -> Integers:
    """The operating regime of each hour: by day, by week, and by chance. int64[n], 0 idle … 3 full.

    A new regime is drawn where `switch` (uniform draws, float64[n]) falls below 0.12, and at 6:00 and 18:00, from the
    cumulative shares `weekday` float64[2, 4] (night, day) or `weekend` float64[4].
    """
    regime = np.empty(len(hour_of_week), np.int64)
    current = 2
    for i in range(len(hour_of_week)):
        hour = hour_of_week[i] % 24
        if i == 0 or switch[i] < 0.12 or hour in (6, 18):
            shares = weekend if hour_of_week[i] >= 120 else weekday[1 if 6 <= hour < 18 else 0]
            current = 0
            while current < 3 and choice[i] >= shares[current]:
                current += 1
        regime[i] = current
    return regime
