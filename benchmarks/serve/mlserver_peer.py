"""The forest behind MLServer: `python -m benchmarks.serve.mlserver_peer MODEL`, in an environment that has it.

gRPC of the Open Inference Protocol with raw tensors. A runtime of its own rather than MLServer's for XGBoost, whose
scikit-learn wrapper costs more; no worker process, no metrics, no access log, which would all be dearer.
"""

# The library is in this peer's own environment only.
# mypy: disable-error-code="import-not-found,misc,untyped-decorator,no-any-return"
from __future__ import annotations

import asyncio
import sys

import numpy as np
import uvloop
from mlserver import MLModel, MLServer, ModelSettings, Settings
from mlserver.codecs import NumpyCodec
from mlserver.settings import ModelParameters
from mlserver.types import InferenceRequest, InferenceResponse

from benchmarks.serve.guest import Model, free_port, listening, only_line


class Forest(MLModel):
    async def load(self) -> bool:
        self._model = Model(self.settings.parameters.uri)
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        rows = NumpyCodec.decode_input(payload.inputs[0])
        scores = np.asarray(self._model.scores(rows), np.float32)
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("scores", scores)])


async def serve(path: str) -> None:
    out, ports = only_line(), [free_port() for _ in range(2)]
    settings = Settings(
        host="127.0.0.1",
        http_port=ports[0],
        grpc_port=ports[1],
        parallel_workers=0,
        metrics_endpoint=None,
        debug=False,
        load_models_at_startup=False,
    )
    server = MLServer(settings)
    model = ModelSettings(name="forest", implementation=Forest, parameters=ModelParameters(uri=path))
    serving = asyncio.create_task(server.start([model]))
    while not serving.done() and not await _is_ready(server, ports[1]):
        await asyncio.sleep(0.1)
    listening(ports[1], out)
    await serving


async def _is_ready(server: MLServer, port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    models = await server._model_registry.get_models()
    return any(model.ready for model in models)


if __name__ == "__main__":
    uvloop.run(serve(sys.argv[1]))
