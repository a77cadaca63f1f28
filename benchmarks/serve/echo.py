"""The least that public grpcio takes for a message: `python -m benchmarks.serve.echo`.

The first message of a stream is what every further one is answered with. Nothing is parsed, nothing is scored; grpc is
set as `wheeltapper serve` sets it.
"""

from __future__ import annotations

import asyncio
import os

os.environ.setdefault("GRPC_EXPERIMENTS", "-event_engine_listener")  # before grpc is loaded

import grpc
from wheeltapper_proto import scoring_pb2 as pb

from benchmarks.serve.guest import listening

_SERVICE = pb.DESCRIPTOR.services_by_name["Scoring"].full_name


async def _answer(_requests: object, context: grpc.aio.ServicerContext[bytes, bytes]) -> None:
    answer = await context.read()
    message: object = answer
    while message is not grpc.aio.EOF:
        await context.write(answer)
        message = await context.read()


async def _serve() -> None:
    server = grpc.aio.server()
    handlers = {"StreamScores": grpc.stream_stream_rpc_method_handler(_answer)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    listening(port)
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(_serve())
