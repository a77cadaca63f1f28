"""A TCP line between a gateway and a scorer that a test can slow down, cut, or let hang half-open."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any

_CHUNK_BYTES = 16_384


class Proxy:
    """Listens on `address` and passes bytes on to `target`. The knobs are plain attributes, read for every chunk."""

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._target = host, int(port)
        self.delay_seconds = 0.0  # each chunk, each way
        self.swallowing = False  # half-open: bytes are taken and go nowhere, and nobody hears of it
        self.refusing = False  # new connections are closed at once
        self.connections = 0
        self._open: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._thread.start()
        self._server = self._run(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def cut(self) -> None:
        """Reset every connection there is."""
        self._run(self._cut())

    def close(self) -> None:
        self._run(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _cut(self) -> None:
        for writer in list(self._open):
            writer.transport.abort()

    async def _stop(self) -> None:
        self._server.close()
        await self._cut()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        ends = {writer}
        self._open.add(writer)  # before there is a way on: a cut must find a line that is being made
        try:
            if self.refusing:
                raise ConnectionRefusedError
            onward_reader, onward = await asyncio.open_connection(*self._target)
            ends.add(onward)
            self._open.add(onward)
            await asyncio.gather(self._pass(reader, onward), self._pass(onward_reader, writer))
        except OSError:  # what one end has lost, the other must hear of
            for end in ends:
                end.transport.abort()
        finally:
            self._open -= ends

    async def _pass(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while chunk := await source.read(_CHUNK_BYTES):
            if self.delay_seconds:
                await asyncio.sleep(self.delay_seconds)
            if self.swallowing:
                continue
            sink.write(chunk)
            await sink.drain()
        sink.close()
