"""Features answer to `naive.py`, and are the same bits in every order, block size and starting point."""

from __future__ import annotations

import naive
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wheeltapper.features import KERNELS, feature_rows
from wheeltapper.kernel import source_digest
from wheeltapper.regimes import Regimes, no_regimes
from wheeltapper.spec import STATISTICS, ClassSpec, EventFeature, RegimeSpec, Sensor, features_of
from wheeltapper.windows import RowStatus

MINUTE_US = 60_000_000
CADENCE_US = 10 * MINUTE_US
NO_EVENTS = np.zeros(0, np.int64)


def class_spec(cadence_us: int = CADENCE_US, windows: tuple[int, ...] = (3, 16, 50), regime: bool = False) -> ClassSpec:
    sensors = (Sensor("a", minimum=-50, maximum=50), Sensor("load", feature=not regime), Sensor("b"), Sensor("c"))
    return ClassSpec(
        "pump", sensors, cadence_us, windows, STATISTICS, 8, 0, (), statics=("age",), start=20,
        events=(EventFeature("error", "e1", (5 * CADENCE_US, 40 * CADENCE_US)), EventFeature("failure", since=False)),
        regime=RegimeSpec(("load",), 3) if regime else None,
    )  # fmt: skip


def some_regimes(rng: np.random.Generator) -> Regimes:
    mean, inverse = rng.normal(size=(4, 4)).astype(np.float32), rng.uniform(0.5, 2, (4, 4)).astype(np.float32)
    mean[:, 1], inverse[:, 1] = 0, 1
    return Regimes(np.array([[-1.0], [0.0], [1.2]]), np.array([[0.3, 2.0]]), mean, inverse)


def some_history(
    rng: np.random.Generator, rows: int, gaps: float = 0.1, missing: float = 0.1
) -> tuple[np.ndarray, np.ndarray]:
    slots = np.flatnonzero(rng.random(int(rows / (1 - gaps)) + 1) >= gaps)[:rows]
    times = (slots * CADENCE_US + rng.integers(0, CADENCE_US, len(slots))).astype(np.int64)
    values = (rng.normal(size=(len(slots), 4)) * 20).astype(np.float32)
    values[rng.random(values.shape) < missing] = np.nan
    values[rng.random(values.shape) < missing / 5] = np.inf
    values[rng.random(values.shape) < missing / 5] = -np.inf
    return times, values


@pytest.mark.parametrize("cadence_us", [CADENCE_US, 0])
@pytest.mark.parametrize("regime", [False, True])
@pytest.mark.parametrize("missing", [0.0, 0.15])
def test_every_feature_is_the_naive_one(cadence_us: int, regime: bool, missing: float) -> None:
    rng = np.random.default_rng(5)
    spec = class_spec(cadence_us, regime=regime)
    regimes = some_regimes(rng) if regime else no_regimes(spec)
    times, values = some_history(rng, 150, gaps=missing, missing=missing)
    event_times = np.sort(rng.integers(0, times[-1], 30))
    event_codes = rng.integers(0, 2, 30)
    readings = {int(t): row for t, row in zip(times, values, strict=True)}
    start = naive.start(spec, regimes, readings)
    given = np.array(start)
    statics = np.array([7.5], np.float32)
    found, status = feature_rows(spec, regimes, statics, times, values, event_times, event_codes, given)
    assert (status == RowStatus.OK).all()
    events = list(zip(event_times.tolist(), event_codes.tolist(), strict=True))
    names = [feature.name for feature in features_of(spec)]
    for i in range(0, len(times), 3):
        truth = naive.features(spec, regimes, [7.5], readings, events, int(times[i]), start)
        np.testing.assert_allclose(found[i], truth, rtol=2e-5, atol=2e-5, err_msg=f"row {i}: {names}")


def test_a_spike_is_forgotten_with_its_slot() -> None:
    """A running float64 sum would still say 3.1 where the truth is 0.7."""
    rng = np.random.default_rng(2)
    spec = class_spec(windows=(20,))
    times, values = some_history(rng, 300, gaps=0, missing=0)
    spiked = values.copy()
    spiked[100, 2] = 1e9
    plain = feature_rows(spec, no_regimes(spec), np.zeros(1, np.float32), times, values, NO_EVENTS, NO_EVENTS)[0]
    after = feature_rows(spec, no_regimes(spec), np.zeros(1, np.float32), times, spiked, NO_EVENTS, NO_EVENTS)[0]
    assert (plain[119] != after[119]).any()
    assert plain[120:].tobytes() == after[120:].tobytes()


@pytest.mark.parametrize("cadence_us", [CADENCE_US, 0])
@given(start=st.integers(0, 80), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_the_starting_point_does_not_matter(cadence_us: int, start: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    spec = class_spec(cadence_us, windows=(5, 40))
    times, values = some_history(rng, 160)
    statics = np.zeros(1, np.float32)
    whole = feature_rows(spec, no_regimes(spec), statics, times, values, NO_EVENTS, NO_EVENTS)[0]
    part = feature_rows(spec, no_regimes(spec), statics, times[start:], values[start:], NO_EVENTS, NO_EVENTS)[0]
    # From here on the longest window lies in what both have seen.
    full = 39 if cadence_us == 0 else int(np.searchsorted(times[start:] // CADENCE_US, times[start] // CADENCE_US + 39))
    assert whole[start + full :].tobytes() == part[full:].tobytes()


def test_two_times_in_one_slot_the_later_holds_it() -> None:
    spec = class_spec(windows=(3,))
    times = np.array([0, 1, CADENCE_US], np.int64)
    values = np.array([[1, 1, 1, 1], [2, 2, 2, 2], [3, 3, 3, 3]], np.float32)
    found, status = feature_rows(spec, no_regimes(spec), np.zeros(1, np.float32), times, values, NO_EVENTS, NO_EVENTS)
    assert status.tolist() == [RowStatus.SUPERSEDED, RowStatus.OK, RowStatus.OK]
    assert np.isnan(found[0]).all()
    assert found[2, [f.name for f in features_of(spec)].index("mean(b, 30min)")] == 2.5


def test_the_digest_sees_code_and_not_comments(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("digest")
    plain, commented, changed = (folder / name / "k.py" for name in ("plain", "commented", "changed"))
    for path, text in (
        (plain, "def f(x):\n    return x < 1\n"),
        (commented, '# why\ndef f(x):\n    """What."""\n\n    return x < 1  # less\n'),
        (changed, "def f(x):\n    return x <= 1\n"),
    ):
        path.parent.mkdir()
        path.write_text(text)
    assert source_digest([plain]) == source_digest([commented]) != source_digest([changed])
    assert len(KERNELS) == 64
