"""A scorer runs for months: what it refuses, follows and lets go again and again leaves nothing behind."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
from conversation import Conversation
from growth import Growth
from grpc_health.v1 import health_pb2_grpc
from packs import small_content
from pests import PESTS
from serving import MINUTE_US, block, now_us, opening, promote, run_server
from wheeltapper.features import KERNELS
from wheeltapper.live import LiveFleet
from wheeltapper.pack import Pack, open_pack, write_pack
from wheeltapper.registry import Registry
from wheeltapper_proto import scoring_pb2 as pb
from wheeltapper_scorer import segments
from wheeltapper_scorer.access import Access, Grant
from wheeltapper_scorer.counters import Counters
from wheeltapper_scorer.disk import Folder
from wheeltapper_scorer.doctor import Doctor
from wheeltapper_scorer.guard import Guard
from wheeltapper_scorer.loop import Loop
from wheeltapper_scorer.records import Kind
from wheeltapper_scorer.reload import Stage, follow
from wheeltapper_scorer.service import ScoringService
from wheeltapper_scorer.settings import Settings
from wheeltapper_scorer.switch import Switch

_TRIES = 3  # what is left behind grows every time; threads of libraries that are under way do not


@pytest.fixture(autouse=True)
def _nobody_keeps_the_log() -> Iterator[None]:
    """pytest does, every record of it, as soon as any test has had a scorer log in this process."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def _alter(registry: Registry) -> None:
    """Production's pack loses its last byte."""
    path = registry.resolve("production").pack_path
    path.chmod(0o600)
    path.write_bytes(path.read_bytes()[:-1])


def _of_other_kernels(registry: Registry) -> None:
    """A pack that is whole, signed for and mapped, and that this scorer cannot serve."""
    promote(registry, registry.publish(write_pack(small_content()), who="a test", why="other kernels").number)


@pytest.mark.parametrize("spoil", [_alter, _of_other_kernels])
def test_a_stage_that_holds_a_bad_pack_costs_no_memory(
    registry: Registry, packs: dict[str, bytes], spoil: Callable[[Registry], None]
) -> None:
    """Looked at for ever: refused each time, mapped never again, and the old pack serves."""
    times, counters = 100, Counters()
    spoil(registry)
    fleet = LiveFleet(Pack.from_bytes(packs["first"], KERNELS), 1)

    async def looks(count: int) -> None:
        until = counters.reloads_failed + count
        while counters.reloads_failed < until:
            await asyncio.sleep(0.001)

    async def watch() -> Growth:
        stage = Stage(registry, "production")
        following = asyncio.create_task(follow(stage, "", fleet, counters, 0.0, Switch()))
        await looks(20)
        for _ in range(_TRIES):
            with Growth() as growth:
                await looks(times)
            if growth.objects < times / 2:
                break
        following.cancel()
        return growth

    growth = asyncio.run(watch())
    assert (growth.arrays, growth.mapped, fleet.release) == (0, 0, 1)
    assert growth.objects < times / 2


def test_swaps_of_the_same_class_leave_nothing(packs: dict[str, bytes], tmp_path: Path) -> None:
    paths = [tmp_path / f"{name}.pack" for name in ("first", "second")]
    for path in paths:
        path.write_bytes(packs[path.stem])
    fleet, times = LiveFleet(open_pack(paths[0], KERNELS), 1), 60
    fleet.open_assets("press", [f"a-{i}" for i in range(50)])

    def swap(count: int) -> None:
        for number in range(count):
            fleet.swap(fleet.prepare(open_pack(paths[number % 2], KERNELS), number))

    swap(10)
    with Growth() as growth:
        swap(times)
    assert (growth.arrays, growth.mapped) == (0, 0)
    assert growth.objects < times / 2


def test_assets_that_are_named_again_and_again_are_kept_once(registry: Registry, tmp_path: Path) -> None:
    """A gateway that says all its assets before each block. The journal repeats each once in a new segment, and no more
    is needed: after a restart every window is as it was."""
    names, state = [f"a-{i}" for i in range(40)], tmp_path / "state"
    words = ["--state", str(state), "--segment-bytes", "20000"]
    times = [now_us() - (len(names) - i) * MINUTE_US for i in range(len(names))]
    with run_server(registry.path, *words) as server, server.channel() as channel:
        stream = Conversation(channel)
        for i, time in enumerate(times):
            for _ in range(3):
                stream.ask(opening(*names[: i + 1], attributes=["age"], attribute_values=range(i + 1)))
            stream.ask(block(i + 1, range(i + 1), [time] * (i + 1), [[1, 2, 3]] * (i + 1)))
        stream.half_close()
    disk = Folder(state)
    begins = [
        [pb.StreamRequest.FromString(bytes(one.payload)).open for one in records if one.kind == Kind.REOPEN]
        for records in (segments.read_segment(disk, number) for number in segments.segments_of(disk))
    ]
    disk.release()
    repeated = next(begin for begin in reversed(begins) if begin)
    named = [asset for one in repeated for asset in one.asset_ids]
    assert len(named) == len(set(named)) > 20
    assert sum(len(one.sensors) for one in repeated) == 3, "what the first Open said is not said again"
    with run_server(registry.path, *words) as server, server.channel() as channel:
        stream = Conversation(channel)
        stream.ask(opening(*names, gateway="another"))
        again = stream.ask(block(1, range(40), [times[-1]] * 40, [[1, 2, 3]] * 40)).scores
        assert set(again.status) == {pb.ROW_STATUS_DUPLICATE}


def test_claims_of_a_caller_are_kept_once() -> None:
    everything = re.compile("")
    caller = Access(True, {"gw": [Grant(everything, everything, everything)]}).caller(
        {"transport_security_type": [b"ssl"], "peer_dns": [b"gw"]}
    )
    message = opening(*(f"a-{i}" for i in range(9)))
    caller.check_open(message)
    with Growth() as growth:
        for _ in range(100):
            caller.check_open(message)
    assert growth.objects < 50


@pytest.mark.parametrize("name", PESTS)
def test_what_is_wrong_leaves_nothing(packs: dict[str, bytes], name: str) -> None:
    """Caller and scorer in one process, so what either forgets is counted."""
    pest, ends = PESTS[name]
    times, settings, counters = 60, Settings(capacity_max=200), Counters()
    fleet = LiveFleet(Pack.from_bytes(packs["first"], KERNELS), 1, settings.capacity_max)

    async def work() -> Growth:
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((ScoringService(fleet, settings, counters).handler(),))
        health_pb2_grpc.add_HealthServicer_to_server(Doctor(fleet, settings, Guard(settings), counters), server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            for _ in range(80):  # more than the refusals that are kept, to be said again cheaply
                await pest(channel)
            await asyncio.sleep(0.2)
            for _ in range(_TRIES):
                with Growth() as growth:
                    found = {await pest(channel) for _ in range(times)}
                    await asyncio.sleep(0.2)
                if growth.objects < times / 2:
                    break
        await server.stop(None)
        assert found == {ends}
        return growth

    with asyncio.Runner(loop_factory=Loop) as runner:
        growth = runner.run(work())
    assert growth.arrays == counters.faults == 0
    assert growth.objects < times / 2
