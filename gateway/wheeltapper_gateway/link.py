"""Keeps one gateway in conversation with a scorer: connects, watches for silence, reconnects with back-off.

Three threads: ours supervises and decides when to connect again, a second reads responses, and gRPC's own pulls
requests; a stuck server can block the last two, and a slow sink the second. All state is guarded by `changed`, which
the gateway shares; the sink is called without it. The next conversation begins when the reader of the last is done.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial

import grpc
from wheeltapper_command.errors import CommandError

from wheeltapper_gateway.conversation import TICK_SECONDS, Conversation, as_failure
from wheeltapper_gateway.delivery import Delivery, Identity
from wheeltapper_gateway.ledger import Ledger
from wheeltapper_gateway.settings import Clock, Settings, Steady
from wheeltapper_gateway.wire import METHOD


class Link:
    """Runs in the background from `start` to `stop`."""

    def __init__(
        self,
        identity: Identity,
        settings: Settings,
        ledger: Ledger,
        changed: threading.Condition,
        connect: Callable[[], grpc.Channel],
        deliver: Callable[[Delivery], None],
        clock: Clock,
        steady: Steady,
        jitter: random.Random,
    ) -> None:
        self._settings, self._ledger = settings, ledger
        self._changed, self._connect, self._clock, self._jitter = changed, connect, clock, jitter
        self._begin = partial(Conversation, ledger, identity, settings, changed, deliver, clock, steady)
        self._conversation: Conversation | None = None
        self._thread = threading.Thread(target=self._run, name=f"wheeltapper {identity.gateway}", daemon=True)
        self._reader: threading.Thread | None = None
        self._stopping = False

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout: float) -> None:
        """End the conversation and the thread, waiting for a sink that is at work. Unsettled blocks stay in the
        spool."""
        with self._changed:
            self._stopping = True
            if self._conversation is not None:
                self._conversation.finishing = True
            self._changed.notify_all()
            idle = not self._ledger.flights
        if not idle:
            self.hang_up()
        self._thread.join(timeout)
        if self._thread.is_alive():
            self.hang_up()
            self._thread.join()

    def hang_up(self) -> None:
        """Cut the connection at once; the link goes on with the next one unless it is stopped."""
        with self._changed:
            if self._conversation is not None:
                self._conversation.end()

    def is_telling_here(self) -> bool:
        """Whether the caller is the sink: its thread is ours, and waiting for it would never end."""
        return threading.current_thread() is self._reader

    def _run(self) -> None:
        failures = conversations = 0
        while True:
            with self._changed:
                if self._stopping:
                    return
                conversation = self._conversation = self._begin()
                self._ledger.counters.reconnects += conversations > 0
            conversations += 1
            began = self._clock.monotonic()
            try:
                self._converse(conversation)
            except Exception as error:  # no channel, no thread: whatever it is, try again later
                conversation.end(as_failure("connecting to the scorer", error))
            with self._changed:
                lasted = self._clock.monotonic() - began > self._settings.backoff_seconds_max
                # Opening alone is no progress: a block that breaks every conversation must not be sent in a hot loop.
                failures = 0 if conversation.progress or conversation.draining or lasted else failures + 1
                if conversation.cause is not None and not self._stopping:
                    self._ledger.failure = conversation.cause
                self._changed.notify_all()
                self._pause(failures)

    def _pause(self, failures: int) -> None:
        """Full jitter, so that a thousand gateways do not come back in the same second."""
        limit = min(self._settings.backoff_seconds * 2.0 ** min(failures, 32), self._settings.backoff_seconds_max)
        until = self._clock.monotonic() + self._jitter.uniform(0.0, limit)
        while not self._stopping and (left := until - self._clock.monotonic()) > 0:
            self._clock.wait(self._changed, left)

    def _converse(self, conversation: Conversation) -> None:
        with ExitStack() as left:  # undone from the last to the first
            channel = self._connect()
            left.callback(channel.close)
            call = channel.stream_stream(METHOD)(conversation.requests())
            name = f"{self._thread.name} reader"
            self._reader = reader = threading.Thread(target=conversation.read, args=(call,), name=name, daemon=True)
            reader.start()
            left.callback(reader.join)
            left.callback(call.cancel)
            with self._changed:
                while not conversation.over:
                    self._clock.wait(self._changed, TICK_SECONDS)
                    if conversation.is_silent():
                        conversation.end(CommandError("the scorer has been silent with blocks in flight"))
