"""The forest behind BentoML: `python -m benchmarks.serve.bentoml_peer MODEL`, in an environment that has it.

HTTP, for its services speak no gRPC any more; arrays in JSON, one worker, no metrics, no access log. The handler is a
coroutine, so that no thread pool stands between.
"""

# The library is in this peer's own environment only.
# mypy: disable-error-code="import-not-found,misc,untyped-decorator,no-any-return"
from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.error
import urllib.request

import bentoml
import numpy as np

from benchmarks.serve.guest import Model, free_port, listening, only_line


@bentoml.service(
    workers=1, traffic={"timeout": 600}, metrics={"enabled": False}, logging={"access": {"enabled": False}}
)
class Forest:
    def __init__(self) -> None:
        self._model = Model(os.environ["FOREST"])

    @bentoml.api(route="/score")
    async def score(self, values: np.ndarray) -> np.ndarray:
        return self._model.scores(values.astype(np.float32))


def serve(path: str) -> None:
    out, port = only_line(), free_port()
    words = ["-m", "bentoml", "serve", "benchmarks.serve.bentoml_peer:Forest", "--host", "127.0.0.1"]
    words += ["--port", str(port), "--timeout-keep-alive", "600"]
    server = subprocess.Popen([sys.executable, *words], env={**os.environ, "FOREST": path, "BENTOML_DO_NOT_TRACK": "1"})
    while server.poll() is None and not _is_ready(port):
        time.sleep(0.1)
    if server.poll() is None:
        listening(port, out)
    sys.exit(server.wait())


def _is_ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


if __name__ == "__main__":
    serve(sys.argv[1])
