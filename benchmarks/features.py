"""What a reading costs until its features stand: clean, place in the ring, compute every statistic of every window.

Peers compute whole arrays at once (bottleneck, polars, pandas), which a stream cannot, or reading by reading (river).
All windows are full before anything is timed, because a filling window is cheaper.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from wheeltapper.ahead import fetch_windows
from wheeltapper.features import feature_row, scratch_for
from wheeltapper.kernel import heapless_kernel
from wheeltapper.readings import clean_row
from wheeltapper.regimes import no_regimes
from wheeltapper.spec import ClassSpec, Sensor
from wheeltapper.windows import Plan, Windows, allocate, compile_plan, place

from benchmarks.harness import Row, alternate, compared, cpu_seconds, main, require

CADENCE_US = 1_000_000
STATISTICS = ("mean", "std", "min", "max", "range", "slope")
WINDOWS = (10, 60, 360)
SENSORS = 16
Array = np.ndarray[Any, Any]


class Stream:
    """Full windows of some assets, and readings that go on from there."""

    def __init__(
        self, sensors: int, windows: tuple[int, ...], assets: int = 1, rows: int = 20_000, shuffled: bool = False,
        cadence_us: int = CADENCE_US, statistics: tuple[str, ...] = STATISTICS,
        lost_slots: float = 0.0, lost_values: float = 0.0,
    ) -> None:  # fmt: skip
        named = tuple(Sensor(f"s{i}") for i in range(sensors))
        spec = ClassSpec("bench", named, cadence_us, windows, statistics, 0, 0, ())
        self.plan: Plan = compile_plan(spec, no_regimes(spec))
        self.state: Windows = allocate(self.plan, assets)
        self.scratch = scratch_for(self.plan)
        rng = np.random.default_rng(1)
        self.values = (rng.normal(size=(rows, sensors)) * 5 + 20).astype(np.float32)
        self.values[rng.random(self.values.shape) < lost_values] = np.nan
        self.row = np.empty(sensors, np.float32)
        self.out = np.empty((rows, self.plan.features), np.float32)
        self.next = windows[-1] + 16
        laps = -(-rows // assets)
        kept = np.flatnonzero(rng.random(3 * laps) >= lost_slots)[:laps]
        order = np.tile(rng.permutation(assets) if shuffled else np.arange(assets), laps)[:rows]
        self.order, self.laps = order, np.repeat(kept, assets)[:rows]
        _fill(self.plan, self.state, assets, self.next, self.values, self.row)

    def run(self) -> float:
        """Nanoseconds per reading, of this process's CPU time."""
        slots = (self.next + self.laps) * CADENCE_US
        self.next += int(self.laps[-1]) + 1
        work = (self.plan, self.state, self.order, slots, self.values, self.scratch, self.row, self.out)
        return cpu_seconds(lambda: _stream(*work)) / len(self.order) * 1e9

    def bytes_per_asset(self) -> int:
        return sum(array[:1].nbytes for array in self.state)


@heapless_kernel
def _fill(plan: Plan, state: Windows, assets: int, slots: int, values: Array, row: Array) -> None:
    for a in range(assets):
        for slot in range(slots):
            clean_row(plan, values[(a + slot) % values.shape[0]], row)
            place(plan, state, a, slot * CADENCE_US, row)


@heapless_kernel
def _stream(
    plan: Plan, state: Windows, order: Array, times: Array, values: Array, scratch: Array, row: Array, out: Array
) -> None:
    for i in range(order.size):
        if i + 1 < order.size and order[i + 1] != order[i]:
            fetch_windows(plan, state, order[i + 1], times[i + 1])
        clean_row(plan, values[i], row)
        _, slot, _ = place(plan, state, order[i], times[i], row)
        feature_row(plan, state, order[i], slot, scratch[0], scratch, out[i])  # no start: nobody asks for shifts


def bottleneck_features(columns: Array, windows: tuple[int, ...]) -> list[Array]:
    """columns float64 [sensors, rows]; a list of [sensors, rows] in the order of the statistics."""
    import bottleneck as bn

    found, position = [], np.arange(columns.shape[1], dtype=np.float64)
    for w in windows:
        low, high = bn.move_min(columns, w, 1), bn.move_max(columns, w, 1)
        total, cross = bn.move_sum(columns, w, 1), bn.move_sum(columns * position, w, 1)
        found += [bn.move_mean(columns, w, 1), bn.move_std(columns, w, 1), low, high, high - low]
        found.append(_slope(total, cross, position, w))
    return found


def pandas_features(columns: Array, windows: tuple[int, ...]) -> list[Array]:
    import pandas as pd

    frame, found = pd.DataFrame(columns.T), []
    position = np.arange(len(frame), dtype=np.float64)
    crossed = frame.mul(position, axis=0)
    for w in windows:
        roll = frame.rolling(w, min_periods=1)
        low, high = roll.min(), roll.max()
        parts = [roll.mean(), roll.std(ddof=0), low, high, high - low]
        found += [part.to_numpy().T for part in parts]
        total, cross = roll.sum().to_numpy().T, crossed.rolling(w, min_periods=1).sum().to_numpy().T
        found.append(_slope(total, cross, position, w))
    return found


def polars_features(columns: Array, windows: tuple[int, ...]) -> list[Array]:
    import polars as pl

    frame = pl.DataFrame({f"s{i}": column for i, column in enumerate(columns)})
    position = np.arange(columns.shape[1], dtype=np.float64)
    names, place_of = frame.columns, pl.Series("position", position)
    expressions = []
    for w in windows:
        for name in names:
            asked: dict[str, Any] = {"window_size": w, "min_samples": 1}
            x = pl.col(name)
            low, high = x.rolling_min(**asked), x.rolling_max(**asked)
            both = [x.rolling_mean(**asked), x.rolling_std(**asked, ddof=0), low, high, high - low]
            both += [x.rolling_sum(**asked), (x * place_of).rolling_sum(**asked)]
            expressions += [one.alias(f"{w} {name} {k}") for k, one in enumerate(both)]
    answer = frame.select(expressions)
    found = []
    for w in windows:
        parts = [np.stack([answer[f"{w} {name} {k}"].to_numpy() for name in names]) for k in range(7)]
        found += [*parts[:5], _slope(parts[5], parts[6], position, w)]
    return found


def _slope(total: Array, cross: Array, position: Array, window: int) -> Array:
    """Least squares from Σx and Σ position·x, in the rows where the window is full."""
    centre = position - (window - 1) / 2
    return (cross - centre * total) / (window * (window * window - 1) / 12)


class River:
    """The same statistics with river, one reading at a time."""

    def __init__(self, sensors: int, windows: tuple[int, ...]) -> None:
        from river import stats, utils

        self.windows = windows
        self.parts: list[list[Any]] = [
            [
                (
                    utils.Rolling(stats.Mean, window_size=w),
                    utils.Rolling(stats.Var, window_size=w, ddof=0),
                    stats.RollingMin(w),
                    stats.RollingMax(w),
                    utils.Rolling(stats.Cov, window_size=w, ddof=0),
                )
                for w in windows
            ]
            for _ in range(sensors)
        ]
        self.position = 0

    def row(self, values: list[float]) -> list[list[float]]:
        """Per window and statistic a list of sensors."""
        found: list[list[float]] = [[] for _ in range(6 * len(self.windows))]
        for sensor, x in zip(self.parts, values, strict=True):
            for w, (mean, var, low, high, cov) in enumerate(sensor):
                mean.update(x)
                var.update(x)
                low.update(x)
                high.update(x)
                cov.update(float(self.position), x)
                least, most = low.get(), high.get()
                slope = cov.get() * 12 / (self.windows[w] ** 2 - 1)
                for k, one in enumerate((mean.get(), var.get() ** 0.5, least, most, most - least, slope)):
                    found[6 * w + k].append(one)
        self.position += 1
        return found


def against_peers(short: bool) -> list[Row]:
    rows = 10_000 if short else 50_000
    ours = Stream(SENSORS, WINDOWS, rows=rows)
    columns = np.ascontiguousarray(ours.values.T.astype(np.float64))
    ours.run()
    batch: dict[str, Callable[[Array, tuple[int, ...]], list[Array]]] = {
        "bottleneck (whole arrays)": bottleneck_features,
        "polars (whole arrays)": polars_features,
        "pandas (whole arrays)": pandas_features,
    }
    full = WINDOWS[-1]
    for name, peer in batch.items():
        theirs = np.stack(peer(columns, WINDOWS))[:, :, full:]
        mine = ours.out[full:, SENSORS:].T.reshape(theirs.shape)
        require(np.allclose(mine, theirs, rtol=1e-3, atol=1e-4), f"{name} computes the same features")
    river, river_rows = River(SENSORS, WINDOWS), 40 if short else 200
    for k in range(full + 20):
        last = river.row(ours.values[k].tolist())
    require(
        np.allclose(ours.out[full + 19, SENSORS:], np.concatenate(last), rtol=1e-3, atol=1e-4),
        "river computes the same features",
    )

    def whole(peer: Callable[[Array, tuple[int, ...]], list[Array]]) -> Callable[[], float]:
        return lambda: cpu_seconds(lambda: peer(columns, WINDOWS)) / rows * 1e9

    def one_by_one() -> float:
        some = [row.tolist() for row in ours.values[:river_rows]]
        return cpu_seconds(lambda: [river.row(row) for row in some]) / river_rows * 1e9

    works: dict[str, Callable[[], float]] = {"ours": ours.run} | {name: whole(peer) for name, peer in batch.items()}
    works["river (streaming)"] = one_by_one
    found = alternate(works, 3 if short else 9)
    case = f"streaming, {SENSORS} sensors × windows 10, 60, 360 × 7 statistics"
    return [compared(case, "ns/reading", found["ours"], name, found[name]) for name in works if name != "ours"]


def by_size(short: bool) -> list[Row]:
    works = {
        f"{sensors} sensors, window {window}, 7 statistics": Stream(sensors, (window,), rows=5_000)
        for sensors in (8, 16, 64)
        for window in (10, 60, 360, 1440)
    }
    works |= {
        "16 sensors, window 360 readings (no time grid)": Stream(16, (360,), rows=5_000, cadence_us=0),
        "16 sensors, window 360, ewma alone": Stream(16, (360,), rows=5_000, statistics=("ewma",)),
    }
    found = alternate({name: stream.run for name, stream in works.items()}, 5 if short else 15)
    return [compared(name, "ns/reading", samples) for name, samples in found.items()]


def with_gaps(short: bool) -> list[Row]:
    """Slots without a reading, and readings without some values, beside the same stream with nothing missing."""
    whole = "the same, nothing missing: floor"
    works = {whole: Stream(SENSORS, WINDOWS, rows=5_000)}
    for share in (0.1, 0.3):
        works[f"{share:.0%} of slots without a reading"] = Stream(SENSORS, WINDOWS, rows=5_000, lost_slots=share)
        works[f"{share:.0%} of values missing"] = Stream(SENSORS, WINDOWS, rows=5_000, lost_values=share)
    for stream in works.values():
        stream.run()  # from the filled windows into those with gaps
    found = alternate({name: stream.run for name, stream in works.items()}, 5 if short else 15)
    return [compared(name, "ns/reading", found[name], whole, found[whole]) for name in works if name != whole]


def over_assets(short: bool) -> list[Row]:
    """Cold state: every reading another asset. One asset in turn with itself is hot."""
    found = []
    hot = Stream(SENSORS, WINDOWS)
    for assets in (100, 1_000, 10_000):
        streams = {
            "in order": Stream(SENSORS, WINDOWS, assets),
            "shuffled": Stream(SENSORS, WINDOWS, assets, shuffled=True),
        }
        works = {"hot": hot.run} | {name: stream.run for name, stream in streams.items()}
        samples = alternate(works, 3 if short else 7)
        for name, stream in streams.items():
            case = f"{assets:,} assets in turn, {name} ({stream.bytes_per_asset():,} bytes an asset)"
            found.append(compared(case, "ns/reading", samples[name], "itself, hot: floor", samples["hot"]))
    return found


def measure(short: bool) -> list[Row]:
    return [*against_peers(short), *by_size(short), *with_gaps(short), *over_assets(short)]


if __name__ == "__main__":
    main("features", "What a reading costs until its features stand.", measure)
