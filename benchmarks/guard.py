"""Whether a reading still costs what it did, beside a peer in the same run: `make bench NAME=guard`, seconds long.

The scorer's own path in this process, from the bytes of a request to the bytes of its answer, against XGBoost's
`inplace_predict` of the same forest on the same values. CPU time, everyone in turn. A best round below its
bound ends the run with an error; bounds are the ratios found when they were set on a machine with a load of 20 (6.8 to
9.8 and 1.2 to 1.9), less as much again as they strayed.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import xgboost
from wheeltapper.features import KERNELS
from wheeltapper.live import LiveFleet
from wheeltapper.pack import open_pack
from wheeltapper_proto import scoring_pb2 as pb
from wheeltapper_scorer import wire
from wheeltapper_scorer.resume import points_of
from wheeltapper_scorer.session import Session
from wheeltapper_scorer.settings import Settings

from benchmarks import harness
from benchmarks.harness import Row, alternate, compared, cpu_seconds, require
from benchmarks.serve import work

_LEAST = {1: 3.8, 256: 0.9}  # readings a message: the least ratio
_PEER = "XGBoost inplace_predict"
_NOW_US = 2**60


def measure(short: bool) -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        plain = work.prepare(Path(folder), "plain", windowed=False)
        booster = xgboost.Booster({"nthread": 1}, model_file=plain.model)
        booster.set_param({"nthread": 1})
        fleet = LiveFleet(open_pack(plain.pack, kernels=KERNELS), 1)
        return [_row(fleet, booster, size, 5 if short else 15) for size in _LEAST]


def _row(fleet: LiveFleet, booster: xgboost.Booster, size: int, rounds: int) -> Row:
    answer, values = _conversation(fleet, size), work.values(size, 0)
    found = np.array(pb.StreamResponse.FromString(answer()).scores.values, np.float32)
    require(bool(np.allclose(found, booster.inplace_predict(values), atol=1e-6)), "both answer the same")
    calls = 400 if size == 1 else 40
    works = {
        "ours": lambda: cpu_seconds(answer, calls) / size * 1e6,
        _PEER: lambda: cpu_seconds(lambda: booster.inplace_predict(values), calls) / size * 1e6,
    }
    alternate(works, 1)  # warm
    samples = alternate(works, rounds)
    case = f"{size} readings a message"
    ratio = min(samples[_PEER]) / min(samples["ours"])
    require(ratio >= _LEAST[size], f"{case}: {ratio:.2f} times as cheap as {_PEER}; expected at least {_LEAST[size]:g}")
    return compared(case, "µs CPU/reading", samples["ours"], _PEER, samples[_PEER])


def _conversation(fleet: LiveFleet, size: int) -> Callable[[], bytes]:
    """Answers one block after another, each a second later than the one before."""
    settings = Settings()
    session = Session(fleet, settings, points_of(settings))
    session.open(work.opening(f"guard-{size}", size))
    times = np.full(size, work.FIRST_US, "<i8")
    raw = pb.StreamRequest(readings=work.block(0, work.values(size, 0), 0)).SerializeToString()
    head, tail = raw.split(times.tobytes())

    def answer() -> bytes:
        nonlocal times
        times += work.SECOND_US
        request = wire.decode_stream(head + times.tobytes() + tail)
        if not isinstance(request, wire.Readings):
            raise SystemExit("expected readings")
        return wire.encode_scores(session.score(request, _NOW_US).scores)

    return answer


if __name__ == "__main__":
    harness.main("guard", __doc__ or "", measure)
