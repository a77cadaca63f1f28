"""The forest behind FastAPI. A module of its own: FastAPI looks up a handler's annotations where it stands."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import orjson
from fastapi import FastAPI, Request, Response


def app_of(scores: Callable[[Any], Any]) -> FastAPI:
    """POST /score with {"sequence", "values": rows of 16} answers {"sequence", "values": one per row}."""
    app = FastAPI()

    @app.post("/score")
    async def score(request: Request) -> Response:
        body = orjson.loads(await request.body())
        answer = {"sequence": body["sequence"], "values": scores(np.array(body["values"], np.float32))}
        return Response(orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY), media_type="application/json")

    return app
