"""The forest behind Ray Serve: `python -m benchmarks.serve.rayserve_peer MODEL`, in an environment that has it.

gRPC with this product's own service and what Ray calls throughput optimised: the replica's code on its event loop, and
clients that reach the one replica without a proxy between. No dashboard, no access log.
"""

# Ray reads its environment where it is imported.
# ruff: noqa: E402
# mypy: disable-error-code="attr-defined"
from __future__ import annotations

import os
import signal
import sys

from benchmarks.serve.guest import Model, free_port, listening, only_line

_PORT = os.environ.setdefault("RAY_SERVE_DIRECT_INGRESS_MIN_GRPC_PORT", str(free_port()))  # the replica's
os.environ["RAY_SERVE_DIRECT_INGRESS_MAX_GRPC_PORT"] = str(int(_PORT) + 1)
os.environ["RAY_SERVE_THROUGHPUT_OPTIMIZED"] = "1"  # all are read where Serve is imported
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] = "0"  # under `uv run` Ray would upload this folder to its workers
os.environ["RAY_AUTH_MODE"] = "disabled"  # nobody else reaches it

import numpy as np
import ray
from ray import serve
from ray.serve.config import HTTPOptions, ProxyLocation, gRPCOptions
from ray.serve.schema import LoggingConfig
from wheeltapper_proto import scoring_pb2 as pb

_STUBS = "wheeltapper_proto.scoring_pb2_grpc.add_ScoringServicer_to_server"


@serve.deployment(max_ongoing_requests=100, ray_actor_options={"num_cpus": 0})
class Forest:
    def __init__(self, path: str) -> None:
        self._model = Model(path)

    async def Score(self, request: pb.ScoreRequest) -> pb.ScoreResponse:  # noqa: N802
        readings = request.readings
        rows = np.array(readings.values, np.float32).reshape(len(readings.handles), -1)
        scores = pb.ScoreBlock(sequence=readings.sequence, handles=readings.handles, times=readings.times)
        scores.values.extend(self._model.scores(rows).tolist())
        return pb.ScoreResponse(scores=scores)


def run(path: str) -> None:
    out = only_line()
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, object_store_memory=100 << 20)
    quiet = LoggingConfig(enable_access_log=False, log_level="WARNING")
    serve.start(
        proxy_location=ProxyLocation.HeadOnly,
        http_options=HTTPOptions(host="127.0.0.1", port=free_port()),
        grpc_options=gRPCOptions(port=free_port(), grpc_servicer_functions=[_STUBS]),
        logging_config=quiet,
    )
    serve.run(Forest.options(logging_config=quiet).bind(path), name="forest", route_prefix="/")
    listening(int(_PORT), out)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # Ray ends what it has started when Python exits
    signal.pause()


if __name__ == "__main__":
    run(sys.argv[1])
