"""More than the scorer can do: memory stays bounded, the excess is told when to come back, newcomers are heard."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Coroutine, Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
from crowd import Crowd
from offering import METHOD, Calls, Flood, Phase, offer
from serving import MINUTE_US, Running, block, now_us, opening, reason, run_server
from wheeltapper.registry import Registry
from wheeltapper_proto import scoring_pb2 as pb


@pytest.fixture
def small(registry: Registry) -> Iterator[Running]:
    """A server that does little at once."""
    with run_server(registry.path, "--calls-max", "8", "--wait-seconds", "0.3") as server:
        yield server


def rss_mb(server: Running) -> float:
    lines = Path(f"/proc/{server.process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))


def call_of(rows: int) -> bytes:
    start = now_us() - 2 * rows * MINUTE_US
    times = (start + MINUTE_US * np.arange(rows)).tolist()
    readings = block(1, [0] * rows, times, np.full((rows, 3), 50))
    return pb.ScoreRequest(open=opening("unary"), readings=readings).SerializeToString()


def test_excess_calls_are_told_when_to_come_back(small: Running) -> None:
    """Five times as many callers as may call at once, and none of them waits between two calls."""

    async def press(seconds: float) -> tuple[list[float], list[tuple[grpc.StatusCode, str, float]]]:
        channel = grpc.aio.insecure_channel(small.address)
        call, raw = channel.unary_unary("/wheeltapper.v1.Scoring/Score"), call_of(1_000)
        end, admitted, refused = time.monotonic() + seconds, list[float](), list[tuple[grpc.StatusCode, str, float]]()

        async def caller() -> None:
            while (began := time.monotonic()) < end:
                try:
                    await call(raw, timeout=20)
                    admitted.append(time.monotonic() - began)
                except grpc.aio.AioRpcError as error:
                    refused.append(reason(error))

        await asyncio.gather(*(caller() for _ in range(40)))
        began = time.monotonic()
        while True:
            try:
                await call(raw, timeout=20)
                break
            except grpc.aio.AioRpcError:
                await asyncio.sleep(0.1)
        recovered_s = time.monotonic() - began
        await channel.close()
        assert recovered_s < 5
        return admitted, refused

    before_mb = rss_mb(small)
    admitted, refused = asyncio.run(press(3.0))
    assert len(admitted) > 20
    assert len(refused) > 20
    for code, why, retry_s in refused:
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert why in ("TOO_MANY_CALLS", "OVERLOADED")
        assert retry_s > 0
    assert np.percentile(admitted, 99) < 3.0, "who is let in is served soon"
    assert rss_mb(small) - before_mb < 150
    assert "a call failed" not in small.events()


@pytest.fixture
def patient(registry: Registry) -> Iterator[Running]:
    """A server that refuses nobody for what waits: not if the machine pauses for a second or two, either."""
    with run_server(registry.path, "--wait-seconds", "30") as server:
        yield server


def test_newcomers_are_heard_by_a_saturated_server(patient: Running) -> None:
    """Without `loop.Loop`, newcomers wait until the others stop, which they do not here."""

    async def check() -> None:
        crowd, newcomers = Crowd(patient.address, 400, 16), Crowd(patient.address, 40, 16)
        busy = asyncio.create_task(crowd.run(60.0))
        await asyncio.sleep(4.0)
        heard = await newcomers.run(1.0)
        assert not crowd.stop.is_set()
        crowd.stop.set()
        everybody = await busy
        assert (len(heard.first_s), len(everybody.first_s)) == (40, 400)
        assert not heard.failures + everybody.failures
        assert max(heard.first_s) < 20.0, sorted(heard.first_s)

    before_mb = rss_mb(patient)
    asyncio.run(check())
    assert rss_mb(patient) - before_mb < 100


@pytest.mark.slow
def test_a_thousand_streams_are_served(running: Running, capsys: pytest.CaptureFixture[str]) -> None:
    before_mb = rss_mb(running)
    heard = asyncio.run(Crowd(running.address, 1_000, 16).run(10.0))
    kilobytes = 1024 * (rss_mb(running) - before_mb) / 1_000
    first = np.percentile(heard.first_s, [50, 99, 100])
    with capsys.disabled():
        print(
            f"\n1,000 streams at once: first score after {first[0]:.2f} s (median), {first[1]:.2f} s (p99), "
            f"{first[2]:.2f} s (last); {heard.rows / 10:,.0f} rows/s; {kilobytes:.0f} kB a stream"
        )
    assert len(heard.first_s) == 1_000
    assert not heard.failures + heard.refusals
    assert first[2] < 6.0
    assert kilobytes < 200


@pytest.fixture
def smaller(registry: Registry) -> Iterator[Running]:
    """A server for calls: few wait unheard in grpc's core, for few streams could be served."""
    with run_server(registry.path, "--calls-max", "8", "--streams-max", "56", "--wait-seconds", "0.3") as server:
        yield server


@pytest.mark.slow
def test_five_times_what_it_can_do(smaller: Running, capsys: pytest.CaptureFixture[str]) -> None:
    """SECONDS=120 for longer than 10. Sustainable is what 4 callers get who ask again when they are answered. A process
    of its own offers five times that; what a call waits is measured by another one, that has little else to do."""
    seconds, calls = float(os.environ.get("SECONDS", "10")), Calls("probe")

    async def sustainable() -> float:
        async with grpc.aio.insecure_channel(smaller.address) as channel:
            call, end = channel.unary_unary(METHOD), time.monotonic() + 3.0

            async def caller() -> int:
                count = 0
                while time.monotonic() < end:
                    await call(next(calls), timeout=20)
                    count += 1
                return count

            return sum(await asyncio.gather(*(caller() for _ in range(4)))) / 3.0

    async def recover(p50_s: float) -> float:
        """Seconds until a call is answered as soon as before."""
        began = time.monotonic()
        async with grpc.aio.insecure_channel(smaller.address) as channel:
            call = channel.unary_unary(METHOD)
            while time.monotonic() - began < 10:
                asked = time.monotonic()
                try:
                    await call(next(calls), timeout=20)
                except grpc.aio.AioRpcError:
                    await asyncio.sleep(0.05)
                    continue
                if time.monotonic() - asked < 3 * p50_s + 0.05:
                    break
        return time.monotonic() - began

    def probe(per_s: float, for_s: float) -> Coroutine[None, None, Phase]:
        return offer(smaller.address, calls, per_s, for_s, lambda: rss_mb(smaller))

    async def press() -> tuple[float, Phase, Phase, Phase, float, dict[str, float]]:
        per_s = await sustainable()
        before = await probe(per_s / 2, 3.0)
        flood = Flood(smaller.address, 5 * per_s, seconds)
        await asyncio.sleep(1.0)
        during = await probe(20.0, seconds - 2.0)
        flooded = await asyncio.to_thread(flood.outcome)
        recovered_s = await recover(float(np.median(before.admitted_s)))
        return per_s, before, during, await probe(per_s / 2, 3.0), recovered_s, flooded

    per_s, before, during, after, recovered_s, flooded = asyncio.run(press())
    with capsys.disabled():
        print(f"\n{flooded['per_s'] / per_s:.1f} × {per_s:.0f} calls/s of 1,000 rows for {seconds:.0f} s: "
              f"{flooded['admitted']} admitted, {flooded['refused']} refused, {flooded['lost']} never let in by grpc; "
              f"quick again after {recovered_s:.2f} s")  # fmt: skip
        for name, phase in (("before", before), ("during", during), ("after", after)):
            p50_ms, admitted = 1e3 * float(np.median(phase.admitted_s)), len(phase.admitted_s)
            print(f"  {name}: p50 {p50_ms:.0f} ms, p99 {1e3 * phase.p99_s:.0f} ms of {admitted} admitted, "
                  f"RSS {phase.rss_mb:.0f} MB, {len(phase.refused)} refused, {phase.lost} lost")  # fmt: skip
    assert before.lost + after.lost + flooded["other"] == 0
    assert flooded["refused"] > flooded["admitted"] / 4, "what cannot be served is refused, not kept waiting unseen"
    for code, why, retry_s in during.refused:
        assert (code, retry_s > 0) == (grpc.StatusCode.RESOURCE_EXHAUSTED, True), why
    assert during.rss_mb - before.rss_mb < 300, "grpc's core keeps few calls, and the scorer those it has let in"
    assert flooded["admitted"] > 0.3 * per_s * seconds, "it goes on answering"
    assert during.p99_s < 1.0, "who is let in is served soon"
    assert recovered_s < 5
