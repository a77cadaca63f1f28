"""More than the scorer can do: memory stays bounded, the excess is told when to come back, newcomers are heard."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import numpy as np
import pytest
from crowd import Crowd
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


def test_newcomers_are_heard_by_a_saturated_server(running: Running) -> None:
    """Without `loop.Loop`, newcomers wait until the others stop: more than 4 s here."""

    async def check() -> None:
        crowd, newcomers = Crowd(running.address, 400, 16), Crowd(running.address, 40, 16)
        busy = asyncio.create_task(crowd.run(8.0))
        await asyncio.sleep(4.0)
        heard = await newcomers.run(1.0)
        late = max(heard.first_s)
        crowd.stop.set()
        everybody = await busy
        assert (len(heard.first_s), len(everybody.first_s)) == (40, 400)
        assert not heard.failures + everybody.failures
        assert late < 3.0, sorted(heard.first_s)

    before_mb = rss_mb(running)
    asyncio.run(check())
    assert rss_mb(running) - before_mb < 100


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


class Calls:
    """Calls of 250 assets and 4 readings of each, none like another: readings that come again cost little."""

    def __init__(self) -> None:
        names = [f"overload-{i}" for i in range(250)]
        self._times = np.tile(now_us() - (1_000_000 - np.arange(4)) * MINUTE_US, 250).astype("<i8")
        readings = block(0, np.repeat(range(250), 4).tolist(), self._times.tolist(), np.full((1_000, 3), 50))
        raw = pb.ScoreRequest(open=opening(*names), readings=readings).SerializeToString()
        self._head, self._tail = raw.split(self._times.tobytes())

    def __next__(self) -> bytes:
        self._times += 4 * MINUTE_US
        return self._head + self._times.tobytes() + self._tail


@dataclass
class Phase:
    """Calls that came at a fixed rate, whether or not the server kept up."""

    admitted_s: list[float] = field(default_factory=list)  # from sending to the answer
    refused: list[tuple[grpc.StatusCode, str, float]] = field(default_factory=list)
    lost: int = 0  # ended by grpc's core, which keeps 1,000 calls that nobody has accepted
    per_s: float = 0.0  # that were really sent
    rss_mb: float = 0.0  # the most

    @property
    def p99_s(self) -> float:
        return float(np.percentile(self.admitted_s, 99))


async def offer(server: Running, calls_of: Calls, per_s: float, seconds: float) -> Phase:
    """Open loop: a call every 1/per_s seconds on 4 connections."""
    phase = Phase()
    options = [("grpc.use_local_subchannel_pool", 1)]
    channels = [grpc.aio.insecure_channel(server.address, options=options) for _ in range(4)]
    calls = [channel.unary_unary("/wheeltapper.v1.Scoring/Score") for channel in channels]

    async def one(number: int) -> None:
        began = time.monotonic()
        try:
            await calls[number % 4](next(calls_of), timeout=30)
            phase.admitted_s.append(time.monotonic() - began)
        except grpc.aio.AioRpcError as error:
            try:
                phase.refused.append(reason(error))
            except AssertionError:
                if error.code() is not grpc.StatusCode.CANCELLED:
                    raise
                phase.lost += 1

    begin, count, open_calls = time.monotonic(), round(per_s * seconds), set[asyncio.Task[None]]()
    for number in range(count):
        await asyncio.sleep(max(0.0, begin + number / per_s - time.monotonic()))
        task = asyncio.create_task(one(number))
        open_calls.add(task)
        task.add_done_callback(open_calls.discard)
        if number % 50 == 0:
            phase.rss_mb = max(phase.rss_mb, rss_mb(server))
    phase.per_s = count / (time.monotonic() - begin)
    await asyncio.gather(*open_calls)
    await asyncio.gather(*(channel.close() for channel in channels))
    return phase


@pytest.mark.slow
def test_five_times_what_it_can_do(small: Running, capsys: pytest.CaptureFixture[str]) -> None:
    """SECONDS=120 for longer than 10. Sustainable is what 4 callers get who ask again when they are answered."""
    seconds, calls = float(os.environ.get("SECONDS", "10")), Calls()

    async def sustainable() -> float:
        async with grpc.aio.insecure_channel(small.address) as channel:
            call, end = channel.unary_unary("/wheeltapper.v1.Scoring/Score"), time.monotonic() + 3.0

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
        async with grpc.aio.insecure_channel(small.address) as channel:
            call = channel.unary_unary("/wheeltapper.v1.Scoring/Score")
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

    async def press() -> tuple[float, Phase, Phase, Phase, float]:
        per_s = await sustainable()
        before = await offer(small, calls, per_s / 2, 3.0)
        during = await offer(small, calls, 5 * per_s, seconds)
        recovered_s = await recover(float(np.median(before.admitted_s)))
        return per_s, before, during, await offer(small, calls, per_s / 2, 3.0), recovered_s

    per_s, before, during, after, recovered_s = asyncio.run(press())
    with capsys.disabled():
        print(f"\n{during.per_s / per_s:.1f} × {per_s:.0f} calls/s of 1,000 rows for {seconds:.0f} s: "
              f"{len(during.admitted_s)} admitted, {len(during.refused)} refused, {during.lost} never let in by grpc; "
              f"quick again after {recovered_s:.2f} s")  # fmt: skip
        for name, phase in (("before", before), ("during", during), ("after", after)):
            print(f"  {name}: p50 {1e3 * float(np.median(phase.admitted_s)):.0f} ms, p99 {1e3 * phase.p99_s:.0f} ms, "
                  f"RSS {phase.rss_mb:.0f} MB, {len(phase.refused)} refused")  # fmt: skip
    assert before.lost + after.lost == 0
    assert len(during.refused) > len(during.admitted_s) / 2, "what cannot be served is refused, not kept waiting unseen"
    for code, why, retry_s in during.refused:
        assert (code, retry_s > 0) == (grpc.StatusCode.RESOURCE_EXHAUSTED, True), why
    assert during.rss_mb - before.rss_mb < 300, "grpc's core keeps 1,000 calls, and the scorer those it has let in"
    assert len(during.admitted_s) > 0.3 * per_s * seconds, "it goes on answering"
    assert float(np.median(during.admitted_s)) < 8.0, "who is let in is served before callers give up"
    assert recovered_s < 5
