"""A composed release in a running scorer: re-pointed machines score as in the release they come from, the others as
before, to the bit and from the first block on, for no window began anew; and back again."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from conversation import Conversation, numbers
from serving import MINUTE_US, Running, block, now_us, opening, promote, values_of
from wheeltapper.features import KERNELS
from wheeltapper.live import LiveFleet
from wheeltapper.pack import Pack
from wheeltapper.registry import Registry
from wheeltapper_command.main import main

ASSETS = ("a-1", "a-2", "a-3")  # with heads of its own; answered by its class; unknown to every pack
BLOCKS_WARM = 12  # more than the longest window


def test_a_running_scorer_answers_for_each_machine_from_its_own_release(
    running: Running, registry: Registry, packs: dict[str, bytes], capsys: Any
) -> None:
    start, values = now_us() - 500 * MINUTE_US, numbers(3 * 400).reshape(400, 3, 3)
    whole = {
        number: LiveFleet(Pack.from_bytes(packs[name], KERNELS), number)
        for number, name in ((1, "first"), (2, "second"))
    }
    seats = {number: fleet.open_assets("press", ASSETS) for number, fleet in whole.items()}
    position = 0

    def send(stream: Conversation) -> tuple[int, np.ndarray, dict[int, np.ndarray]]:
        """One block: the release that answered, its scores, and what each whole release says of the same readings."""
        nonlocal position
        times, rows = np.full(3, start + position * MINUTE_US), values[position % len(values)]
        stream.say(block(position, [0, 1, 2], times.tolist(), rows))
        scores = next(heard.scores for heard in iter(stream.hear, None) if heard.WhichOneof("body") == "scores")
        position += 1
        expected = {
            number: fleet.score("press", seats[number], times, rows, now_us()).values for number, fleet in whole.items()
        }
        return scores.release, values_of(scores, 2), expected

    def until(stream: Conversation, release: int, whose: Callable[[str], int]) -> None:
        """Blocks until `release` has answered a window's worth; each as the release that trained each machine says."""
        answered, deadline = 0, time.monotonic() + 20
        while answered < BLOCKS_WARM:
            found, scores, expected = send(stream)
            assert time.monotonic() < deadline
            if found != release:
                time.sleep(0.02)
                continue
            answered += 1
            for row, asset in enumerate(ASSETS):
                assert scores[row].tobytes() == expected[whose(asset)][row].tobytes(), (asset, position)
            assert (expected[1] != expected[2]).all(), "the releases say different things"

    with running.channel() as channel:
        stream = Conversation(channel)
        stream.ask(opening(*ASSETS))
        until(stream, 1, lambda asset: 1)
        words = ("--asset", "a-1=2", "--why", "its head of before was better", "--registry", str(registry.path))
        assert main(["release", "compose", "production", *words]) == 0
        capsys.readouterr()
        composed = registry.resolve("candidate").number
        promote(registry, composed)
        until(stream, composed, lambda asset: 2 if asset == "a-1" else 1)
        registry.rollback(who="a test", why="back")
        until(stream, 1, lambda asset: 1)
        stream.half_close()

    def reloaded() -> list[int]:
        return [line["release"] for line in running.lines() if line["event"] == "reloaded"]

    deadline = time.monotonic() + 20
    while len(reloaded()) < 2:  # it is said once the pack before is let go, when the new one has long been answering
        assert time.monotonic() < deadline, running.lines()
        time.sleep(0.02)
    assert reloaded() == [composed, 1]
