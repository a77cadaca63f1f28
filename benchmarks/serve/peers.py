"""Other ways to serve the same forest, each as its own documentation would have it: `python -m benchmarks.serve.peers`.

KIND MODEL: listen on a free port of loopback, print it, and serve for ever. Each takes what `work.block` makes (gRPC)
or the same as JSON, and answers with the forest's probability per row. The Booster runs on one thread.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator
from concurrent import futures
from typing import Any

import numpy as np
from wheeltapper_proto import scoring_pb2 as pb
from wheeltapper_proto import scoring_pb2_grpc

from benchmarks.serve.guest import Model, listening


class Blocks:
    """A forest that answers blocks."""

    def __init__(self, path: str) -> None:
        self.model = Model(path)

    def answer(self, readings: pb.ReadingBlock) -> pb.ScoreBlock:
        rows = np.array(readings.values, np.float32).reshape(len(readings.handles), -1)
        scores = pb.ScoreBlock(sequence=readings.sequence, handles=readings.handles, times=readings.times)
        scores.values.extend(self.model.scores(rows).tolist())
        return scores


class _Sync(scoring_pb2_grpc.ScoringServicer):
    def __init__(self, blocks: Blocks) -> None:
        self._blocks = blocks

    def Score(self, request: pb.ScoreRequest, _context: Any) -> pb.ScoreResponse:  # noqa: N802
        return pb.ScoreResponse(scores=self._blocks.answer(request.readings))

    def StreamScores(  # noqa: N802
        self, requests: Iterator[pb.StreamRequest], _context: Any
    ) -> Iterator[pb.StreamResponse]:
        for request in requests:
            yield pb.StreamResponse(scores=self._blocks.answer(request.readings))


class _Async(scoring_pb2_grpc.ScoringServicer):
    def __init__(self, blocks: Blocks) -> None:
        self._blocks = blocks

    async def Score(self, request: pb.ScoreRequest, _context: Any) -> pb.ScoreResponse:  # noqa: N802
        return pb.ScoreResponse(scores=self._blocks.answer(request.readings))

    async def StreamScores(  # noqa: N802
        self, requests: AsyncIterator[pb.StreamRequest], _context: Any
    ) -> AsyncIterator[pb.StreamResponse]:
        async for request in requests:
            yield pb.StreamResponse(scores=self._blocks.answer(request.readings))


def grpc_sync(blocks: Blocks) -> None:
    import grpc

    server = grpc.server(futures.ThreadPoolExecutor(16))
    scoring_pb2_grpc.add_ScoringServicer_to_server(_Sync(blocks), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    listening(port)
    server.wait_for_termination()


def grpc_aio(blocks: Blocks) -> None:
    import grpc
    import uvloop

    async def run() -> None:
        server = grpc.aio.server()
        scoring_pb2_grpc.add_ScoringServicer_to_server(_Async(blocks), server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        listening(port)
        await server.wait_for_termination()

    uvloop.run(run())


def fastapi(blocks: Blocks) -> None:
    import uvicorn
    import uvloop

    from benchmarks.serve.fastapi_peer import app_of

    config = uvicorn.Config(
        app_of(blocks.model.scores),
        host="127.0.0.1",
        port=0,
        loop="uvloop",
        http="httptools",
        access_log=False,
        log_level="error",
        timeout_keep_alive=600,
    )
    server = uvicorn.Server(config)

    async def run() -> None:
        serving = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.01)
        listening(server.servers[0].sockets[0].getsockname()[1])
        await serving

    uvloop.run(run())


if __name__ == "__main__":
    kind, path = sys.argv[1:]
    {"grpc-sync": grpc_sync, "grpc-aio": grpc_aio, "fastapi": fastapi}[kind](Blocks(path))
