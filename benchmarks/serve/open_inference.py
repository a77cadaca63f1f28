"""The Open Inference Protocol, which MLServer speaks: as much of its `ModelInfer` as raw tensors need.

Numbers and names are those of the protocol; the messages are made here because its stubs come with MLServer only.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any

import grpc
import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor_pb2 import FieldDescriptorProto as Field
from wheeltapper_proto import scoring_pb2 as pb

from benchmarks.serve.clients import Ask, Client

_INFER = "/inference.GRPCInferenceService/ModelInfer"
_TENSOR = ("name", 1, Field.TYPE_STRING), ("datatype", 2, Field.TYPE_STRING), ("shape", 3, Field.TYPE_INT64)
_MESSAGES = {
    "Tensor": _TENSOR,
    "ModelInferRequest": (
        ("model_name", 1, Field.TYPE_STRING),
        ("inputs", 5, Field.TYPE_MESSAGE),
        ("raw_input_contents", 7, Field.TYPE_BYTES),
    ),
    "ModelInferResponse": (("outputs", 5, Field.TYPE_MESSAGE), ("raw_output_contents", 6, Field.TYPE_BYTES)),
}
_SEVERAL = {"shape", "inputs", "outputs", "raw_input_contents", "raw_output_contents"}


class OpenInference(Client):
    """One unary call a question, a connection a conversation."""

    def encode(self, block: pb.ReadingBlock) -> bytes:
        rows = len(block.handles)
        tensor = {"name": "values", "datatype": "FP32", "shape": [rows, len(block.values) // rows]}
        raw = np.array(block.values, "<f4").tobytes()
        request = _KINDS["ModelInferRequest"](model_name="forest", inputs=[tensor], raw_input_contents=[raw])
        return bytes(request.SerializeToString())

    def scores(self, answer: bytes) -> Sequence[float]:
        (raw,) = _KINDS["ModelInferResponse"].FromString(answer).raw_output_contents
        return list(np.frombuffer(raw, "<f4").astype(float))

    async def connect(self, stack: AsyncExitStack, address: str, _opens: pb.Open) -> Ask:
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(address))
        call: Any = channel.unary_unary(_INFER)

        async def ask(question: bytes) -> bytes:
            return bytes(await call(question))

        return ask


def _kinds() -> dict[str, Any]:
    schema = descriptor_pb2.FileDescriptorProto(name="open_inference.proto", package="inference", syntax="proto3")
    for name, fields in _MESSAGES.items():
        kind = schema.message_type.add(name=name)
        for field, number, of in fields:
            label = Field.LABEL_REPEATED if field in _SEVERAL else Field.LABEL_OPTIONAL
            inner = ".inference.Tensor" if of == Field.TYPE_MESSAGE else None
            kind.field.add(name=field, number=number, type=of, label=label, type_name=inner)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(schema)
    messages = pool.FindFileByName(schema.name).message_types_by_name
    return {name: message_factory.GetMessageClass(messages[name]) for name in _MESSAGES}


_KINDS = _kinds()
