"""Histories of a scorer whose process, machine and disk fail between any two steps, without network or files.

The real service, sessions, journal and snapshots run on a disk in memory, in a time of their own, and talk to gateways
in memory. A history is a function of its seed: `trace` is all that happened, the same whenever it is told again.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter, deque
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from drowned_disk import DrownedDisk, PowerCutError
from presses import MINUTE_US, content
from seeded_time import SeededTime
from wheeltapper import warmth
from wheeltapper.answers import Answers
from wheeltapper.features import KERNELS
from wheeltapper.live import LiveFleet
from wheeltapper.pack import Pack, write_pack
from wheeltapper_proto import scoring_pb2 as pb
from wheeltapper_scorer.counters import Counters
from wheeltapper_scorer.journal import Journal
from wheeltapper_scorer.recovery import recover
from wheeltapper_scorer.service import ScoringService
from wheeltapper_scorer.settings import Settings

T0 = 1_700_000_040 * 1_000_000
SETTINGS = Settings(state=Path("in memory"), segment_bytes_max=6_000, journal_retry_s=0.001, gather_s=0.0)
PACKS = {number: Pack.from_bytes(write_pack(content(number)), KERNELS) for number in (1, 2)}
BLOCKS, IN_FLIGHT = 30, 4
LIFE_S_MAX = 60.0  # of its own time
TOLD_MAX = 400  # lines of a history that failed
Answer = tuple[bytes, ...]  # handles, times, status, values, levels, alarms, health, features


class Threads(Executor):
    """Work of other threads, each piece done a moment later, while the event loop goes on."""

    def __init__(self, time: SeededTime) -> None:
        self._time = time

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        asyncio.get_running_loop().call_later(self._time.moment(), self.do, future, fn, *args)
        return future

    def do(self, future: Future[Any], fn: Any, *args: Any) -> None:
        if not future.set_running_or_notify_cancel():
            return
        try:
            future.set_result(fn(*args))
        except Exception as error:
            future.set_exception(error)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        pass


class Line:
    """The server's end of a stream, as grpc.aio gives it to a handler."""

    def __init__(self) -> None:
        self.requests: asyncio.Queue[Any] = asyncio.Queue()
        self.responses: asyncio.Queue[Any] = asyncio.Queue()
        self.ended = ""

    async def read(self) -> Any:
        return await self.requests.get()

    async def write(self, message: bytes) -> None:
        await asyncio.sleep(0)
        self.responses.put_nowait(pb.StreamResponse.FromString(message))

    async def abort(self, code: Any, details: str, trailing: Any) -> None:
        assert "the journal's disk failed" in details
        self.ended = details
        raise grpc.aio.AbortError(details)

    def done(self) -> bool:
        return False

    def auth_context(self) -> dict[str, Any]:
        return {}

    def time_remaining(self) -> None:
        return None


@dataclass
class Site:
    """A gateway: it sends its blocks in order and forgets none before its Ack."""

    name: str
    blocks: list[pb.StreamRequest]
    trace: list[str]  # shared by all that happens
    acked: int = 0
    refusals: int = 0
    answers: dict[int, list[Answer]] = field(default_factory=dict)  # by sequence: revisions, then the scores
    repeated: int = 0  # blocks that were answered more than once

    @property
    def done(self) -> bool:
        return self.acked == len(self.blocks)

    def opening(self) -> pb.StreamRequest:
        assets = [f"{self.name}/{i}" for i in range(3)]
        codes = ["error:e1"]
        opened = pb.Open(gateway=self.name, epoch=1, asset_class="press", sensors=["force", "heat", "oil"],
                         asset_ids=assets, event_codes=codes, ack=pb.ACK_LEVEL_DURABLE, attributes=["age"],
                         attribute_values=[1.0, 2.0, 3.0], want_features=True)  # fmt: skip
        return pb.StreamRequest(open=opened)

    async def converse(self, service: ScoringService, in_flight: int = IN_FLIGHT) -> None:
        """One conversation, until all is acknowledged or it breaks."""
        line = Line()
        call = asyncio.create_task(service._stream_scores(None, line))
        call.add_done_callback(lambda ended: ended.cancelled() or (ended.exception(), line.responses.put_nowait(None)))
        line.requests.put_nowait(self.opening().SerializeToString())
        opened = await line.responses.get()
        if opened is None:
            self.refusals += 1
            return
        assert opened.opened.resume_sequence >= self.acked, "what was acknowledged is gone"
        flying: deque[int] = deque()
        heard: list[Answer] = []
        following = self.acked
        while not self.done:
            while len(flying) < in_flight and following < len(self.blocks):
                line.requests.put_nowait(self.block(following).SerializeToString())
                following += 1
                flying.append(following)
            response = await line.responses.get()
            if response is None:
                self.refusals += 1
                self.trace.append(f"{self.name} is cut off")
                return
            if response.HasField("ack"):
                assert response.ack.sequence > self.acked
                self.acked = response.ack.sequence
                self.trace.append(f"{self.name} is safe up to {self.acked}")
                while flying and flying[0] <= self.acked:
                    flying.popleft()
            elif not response.HasField("opened"):
                heard = self.keep(heard, response)
        line.requests.put_nowait(grpc.aio.EOF)
        await call

    def block(self, place: int) -> pb.StreamRequest:
        """A block as it is sent now."""
        request = self.blocks[place]
        body = request.events if request.HasField("events") else request.readings
        body.settled_sequence = self.acked
        return request

    def keep(self, before: list[Answer], response: pb.StreamResponse) -> list[Answer]:
        """What was heard of the block so far; a second answer is the first one."""
        if response.HasField("revisions"):
            return [*before, answer_of(response.revisions)]
        sequence, told = response.scores.sequence, [*before, answer_of(response.scores)]
        self.repeated += sequence in self.answers
        self.trace.append(f"{self.name} hears {sequence}")
        assert self.answers.setdefault(sequence, told) == told, f"{self.name} hears something else of {sequence}"
        return []


def answer_of(block: pb.ScoreBlock) -> Answer:
    columns = block.handles, block.times, block.values, block.features
    dtypes = np.uint32, np.int64, np.float32, np.float32
    handles, times, values, features = (
        np.array(one, dtype).tobytes() for one, dtype in zip(columns, dtypes, strict=True)
    )
    return handles, times, block.status, values, block.levels, block.alarms, block.health, features


def sites_of(rng: random.Random, trace: list[str] | None = None) -> list[Site]:
    """Three gateways of three assets: readings of each minute, some missing, some two minutes late, and events."""
    trace = [] if trace is None else trace
    return [Site(name, blocks_of(rng), trace) for name in ("north", "south", "west")]


def blocks_of(rng: random.Random) -> list[pb.StreamRequest]:
    rows = [(asset, minute) for minute in range(BLOCKS) for asset in range(3) if rng.random() < 0.9]
    rows.sort(key=lambda row: row[1] + (rng.randrange(3) if rng.random() < 0.2 else 0))
    blocks = []
    while rows:
        count = rng.randint(1, 4)
        part, rows = rows[:count], rows[count:]
        values = [rng.uniform(0, 100) if rng.random() < 0.95 else float("nan") for _ in range(3 * len(part))]
        sequence = len(blocks) + 1
        handles, times = [asset for asset, _ in part], [T0 + minute * MINUTE_US for _, minute in part]
        if rng.random() < 0.1:
            body = {"events": pb.EventBlock(sequence=sequence, handles=handles, times=times, codes=[0] * len(part))}
        else:
            body = {"readings": pb.ReadingBlock(sequence=sequence, handles=handles, times=times, values=values)}
        blocks.append(pb.StreamRequest(**body))
    return blocks


async def live(
    disk: DrownedDisk, sites: list[Site], time: SeededTime, seen: Counter[str], swap_at: int = -1
) -> LiveFleet:
    """One life of a scorer process: until all is acknowledged, or the lights go out."""
    recovered = recover(disk, PACKS[1], 1, lambda number, _: PACKS[number], SETTINGS)
    counters = Counters()
    journal = Journal(disk, recovered, SETTINGS, counters, Threads(time))
    service = ScoringService(recovered.fleet, SETTINGS, counters, recovered.points, journal, clock=time.clock())

    async def run(site: Site) -> None:
        while not site.done and not disk.dead:
            await site.converse(service)
            await asyncio.sleep(0.001)

    async def work() -> None:
        await journal.start()
        await asyncio.gather(*(run(site) for site in sites))
        await journal.close()

    async def power() -> None:
        while not disk.dead:
            if 0 <= swap_at <= sum(site.acked for site in sites) and recovered.fleet.release != 2:
                recovered.fleet.swap(PACKS[2], 2)
            await asyncio.sleep(0)

    asyncio.get_running_loop().set_exception_handler(lambda *_: None)  # whatever a dying process complains of
    tasks = [asyncio.create_task(work()), asyncio.create_task(power())]
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED, timeout=LIFE_S_MAX)
    assert done, "nothing moves any more"
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    for result in results:
        if isinstance(result, Exception) and not isinstance(result, PowerCutError) and not disk.dead:
            raise result
    seen.update(lives=1, failures=counters.journal_failures, snapshots=counters.snapshots, replayed=recovered.blocks)
    return recovered.fleet


@dataclass
class History:
    """What became of a seed: how often what was seen, and all that happened, step by step."""

    seen: Counter[str]
    trace: list[str]


def history(seed: int, lies: bool = False) -> History:
    """Crashes at random steps until all blocks of all sites are acknowledged; then the bytes are compared.

    Raises AssertionError where anything is not as in an undisturbed scorer; seed and trace are noted on what is raised.
    """
    disk = DrownedDisk(random.Random(seed), lies)
    try:
        return History(_lives(seed, disk), disk.trace)
    except Exception as error:
        error.add_note("\n".join([f"seed {seed}, lies={lies}, at the end of", *disk.trace[-TOLD_MAX:]]))
        raise


def _lives(seed: int, disk: DrownedDisk) -> Counter[str]:
    rng, time, seen = disk.rng, SeededTime(seed), Counter[str]()
    sites = sites_of(rng, disk.trace)
    fleet = None
    while not all(site.done for site in sites):
        crashes = seen["lives"] < 6
        disk.cut_at = disk.steps + rng.randrange(1, 60) if crashes else -1
        begin = disk.steps + rng.randrange(60)
        disk.fails = range(begin, begin + rng.randrange(1, 6)) if rng.random() < 0.3 else range(0)
        fleet = time.run(live(disk, sites, time, seen))
        if disk.dead:
            disk.power_on(keep_unsynced=rng.random() < 0.3)
    assert fleet is not None
    compare(fleet, sites)
    again = recover(disk, PACKS[1], 1, lambda number, _: PACKS[number], SETTINGS)
    compare(again.fleet, sites)
    for site in sites:
        assert again.points.resume(site.name, 1, durable=True) == len(site.blocks), f"{site.name} has lost blocks"
    raised = sum(pb.ALARM_STATE_RAISED in one[5] for site in sites for told in site.answers.values() for one in told)
    seen.update(
        refusals=sum(site.refusals for site in sites), repeated=sum(site.repeated for site in sites), raised=raised
    )
    return seen


def undisturbed(sites: list[Site]) -> tuple[LiveFleet, dict[str, dict[int, list[Answer]]]]:
    """The fleet at the end, and every answer of every site's blocks."""
    told: dict[str, dict[int, list[Answer]]] = {}
    fleet = LiveFleet(PACKS[1], 1)
    code = fleet.event_code("press", "error:e1")
    for site in sites:
        ids = list(site.opening().open.asset_ids)
        rows = fleet.open_assets("press", ids, np.array([[1.0], [2.0], [3.0]], np.float32))
        own = told.setdefault(site.name, {})
        for request in site.blocks:
            block = request.events if request.HasField("events") else request.readings
            whose, times = rows[list(block.handles)], np.array(block.times, np.int64)
            if request.HasField("events"):
                codes = np.full(len(times), code)
                taken = fleet.take_events("press", whose, times, codes, 2**62, want_features=True)
                parts = [*heard(taken.revisions, rows[0]), events_taken(fleet, block, taken.status)]
            else:
                values = np.array(block.values, np.float32).reshape(-1, 3)
                answers = fleet.score("press", whose, times, values, 2**62, want_features=True)
                parts = [*heard(answers.revisions, rows[0]), *heard(answers, rows[0])]
            own[block.sequence] = parts
    return fleet, told


def heard(answers: Answers | None, first: int) -> list[Answer]:
    """Answers of the fleet as a gateway hears them, whose first asset has the row `first`."""
    if answers is None:
        return []
    assert answers.features is not None
    handles = (answers.rows - first).astype(np.uint32)
    shown = answers.status, answers.values, answers.levels, answers.alarms, answers.health, answers.features
    return [tuple(column.tobytes() for column in (handles, answers.times, *shown))]


def events_taken(fleet: LiveFleet, block: pb.EventBlock, status: np.ndarray) -> Answer:
    n, outputs, features = len(block.handles), len(fleet.outputs("press")), len(fleet.features("press"))
    handles, times = np.array(block.handles, np.uint32).tobytes(), np.array(block.times, np.int64).tobytes()
    empty = np.full(n * outputs, np.nan, np.float32).tobytes()
    wide = np.full(n * features, np.nan, np.float32).tobytes()
    return handles, times, status.tobytes(), empty, bytes(n * outputs), bytes(n * outputs), bytes(n), wide


def compare(fleet: LiveFleet, sites: list[Site]) -> None:
    expected, told = undisturbed(sites)
    for site in sites:
        for sequence, answer in told[site.name].items():
            assert site.answers[sequence] == answer, f"{site.name} heard something else of {sequence}"
        compare_rows(fleet, expected, list(site.opening().open.asset_ids))


def compare_rows(fleet: LiveFleet, expected: LiveFleet, assets: list[str]) -> None:
    """Every byte of windows and alarms."""
    for asset in assets:
        found = int(fleet.open_assets("press", [asset])[0])
        right = int(expected.open_assets("press", [asset])[0])
        assert warmth.save_rows(fleet, "press", found, found + 1) == warmth.save_rows(
            expected, "press", right, right + 1
        ), f"windows or alarms of {asset} differ"
