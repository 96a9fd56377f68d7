"""A server that also answers gRPC, what tests send it, and how they read what it answers."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Running, run, settings
from over_v2 import FILES

from server.app import Beside
from server.listening import bound
from server.service import build

grpc = pytest.importorskip("grpc", reason="gRPC needs the extra grpc")
triton = pytest.importorskip("tritonclient.grpc", reason="gRPC needs the extra grpc")
pb = pytest.importorskip("tritonclient.grpc.service_pb2", reason="gRPC needs the extra grpc")
answering = pytest.importorskip("server.grpc_v2").answering
Refusal = pytest.importorskip("tritonclient.utils").InferenceServerException

INFER = "/inference.GRPCInferenceService/ModelInfer"


@dataclass(frozen=True)
class Both:
    """A server over HTTP, and where it answers gRPC."""

    running: Running
    address: str

    @property
    def client(self) -> Any:
        return triton.InferenceServerClient(self.address)

    def raw(self, body: bytes, **asked: Any) -> Any:
        """What ModelInfer answers to these bytes."""
        with grpc.insecure_channel(self.address) as channel:
            try:
                return channel.unary_unary(INFER)(body, **asked)
            except grpc.RpcError as error:
                return error

    def counted(self, method: str, status: int) -> float:
        labels = {"route": f"grpc {method}", "status": str(status)}
        found = self.running.service.metrics.registry.get_sample_value("stitchserve_requests_total", labels)
        return found or 0.0


@contextmanager
def port() -> Iterator[tuple[Beside, str]]:
    """What answers gRPC, and where."""
    with bound("127.0.0.1", 0) as sockets:
        yield partial(answering, sockets), f"127.0.0.1:{sockets[0].getsockname()[1]}"


@contextmanager
def both(cache: Path, **changes: object) -> Iterator[Both]:
    with port() as (beside, address):
        for running in run(build(settings(cache, **changes)), beside):
            yield Both(running, address)


def given(name: str, values: Any, datatype: str) -> list[Any]:
    tensor = triton.InferInput(name, list(values.shape), datatype)
    tensor.set_data_from_numpy(values)
    return [tensor]


def files(*bodies: bytes) -> list[Any]:
    return given("image", np.array(bodies or FILES, dtype=object), "BYTES")


def message(**changes: Any) -> Any:
    asked = pb.ModelInferRequest(model_name="auto@5", id="mine")
    tensor = {"name": "image", "datatype": "BYTES", "shape": [1], "contents": {"bytes_contents": [FILES[0]]}} | changes
    asked.inputs.add(**tensor)
    return asked
