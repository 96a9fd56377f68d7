"""Open Inference Protocol v2 over gRPC, on HTTP's event loop: the same models, admission, deadlines, keys and refusals.

Its messages are those of `tritonclient[grpc]`. Loaded only where a port is given: nobody else needs the extra `grpc`.
"""

import json
import logging
import math
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import unquote

import grpc
import numpy as np
from google.protobuf.json_format import ParseDict
from google.protobuf.message import DecodeError, Message
from grpc import StatusCode as Code
from tritonclient.grpc import service_pb2 as pb

from server import logs, v2
from server.answering import RefusalsCounted
from server.body import Body
from server.errors import BadRequest, ClientGone, InternalError, ServeError
from server.listening import addresses
from server.models import VERSION, budget_of, outputs
from server.rates import Bucket
from server.routes import refuse_if_stopping
from server.service import Service
from server.settings import Settings
from server.tenants import key_in
from server.tensors import BINARY, MOST_JSON, MOST_VALUES, Inference, encode, framed, read_fields

log = logging.getLogger(__name__)
CODES: Mapping[int, Code] = {
    401: Code.UNAUTHENTICATED, 404: Code.NOT_FOUND, 408: Code.DEADLINE_EXCEEDED, 429: Code.RESOURCE_EXHAUSTED,
    500: Code.INTERNAL, 503: Code.UNAVAILABLE, 504: Code.DEADLINE_EXCEEDED,
}  # fmt: skip
"""For the statuses of the error tree; all others are faults of what was sent."""

MOST_QUESTION = 64 * 1024  # bytes of a message that holds no image
MOST_PARTS = 1000  # of a request for inference: tensors, outputs, parameters
UNREADABLE = "the message is not what this method takes"
_RAW = 7 << 3 | 2  # the tag of raw_input_contents


@dataclass
class Call:
    """One RPC, whose message arrives as a body does over HTTP; `bucket` is what pays for it."""

    serving: Service
    context: Any
    headers: Mapping[str, str]
    request_id: str
    arrived: float
    bucket: Bucket | None = None

    async def receive(self) -> dict[str, object]:
        """The message, as ASGI has a whole body."""
        body = await self.context.read()
        if body is grpc.aio.EOF:
            raise BadRequest("the call ended before its message")
        return {"type": "http.request", "body": body}

    async def message(self, body: Body, limit: int) -> bytes:
        """The message's bytes; raises as `Body.receive`."""
        received: list[bytes] = []
        await body.receive(self, limit, self.serving.settings.body_timeout_s, received.append)
        return received[0]

    def trailing(self) -> list[tuple[str, str]]:
        """The metadata that every answer ends with."""
        left = self.bucket.headers() if self.bucket else []
        return [("x-request-id", self.request_id), *((name.decode(), value.decode()) for name, value in left)]

    async def refuse(self, error: ServeError) -> None:
        """Ends the RPC with the refusal's status; in the trailing metadata its members, and when to come back."""
        problem, wait, trailing = error.problem(), error.retry_seconds, self.trailing()
        trailing.append(("problem", json.dumps(problem)))
        if wait is not None:
            trailing += [("retry-after", str(wait)), ("grpc-retry-pushback-ms", str(wait * 1000))]
        await self.context.abort(CODES.get(error.status, Code.INVALID_ARGUMENT), problem["detail"], tuple(trailing))


Method = Callable[[Call, Body], Awaitable[Message]]
Reply = Callable[[Service, Any], Awaitable[dict[str, object]]]


@asynccontextmanager
async def answering(sockets: list[socket.socket], service: Service) -> AsyncIterator[None]:
    """Answers RPCs where these sockets, which do not listen, hold the port; leaving the block finishes those inside."""
    settings = service.settings
    options = [
        ("grpc.so_reuseport", 0),  # else a second server would share the port unseen
        ("grpc.max_receive_message_length", settings.max_form_bytes),
        ("grpc.max_connection_idle_ms", round(settings.header_timeout_s * 1e3)),
        ("grpc.max_allowed_incoming_connections", settings.max_connections),
        ("grpc.compression_enabled_algorithms_bitset", 1),  # none, as over HTTP: a few bytes may become very many
    ]
    server = grpc.aio.server(options=options, maximum_concurrent_rpcs=settings.max_connections)
    server.add_generic_rpc_handlers([_handler(service)])
    where = [address.partition("//")[2] for address in addresses(sockets)]
    for address in where:
        _listen(server, address, settings)
    await server.start()
    log.info("serving gRPC on %s", " ".join(where))
    try:
        yield
    finally:
        await server.stop(max(0.0, min(settings.drain_timeout_s, service.gone_by - service.clock())))


def _listen(server: Any, address: str, settings: Settings) -> None:
    if settings.tls_cert and settings.tls_key:
        pair = settings.tls_key.read_bytes(), settings.tls_cert.read_bytes()
        server.add_secure_port(address, grpc.ssl_server_credentials([pair]))
    else:
        server.add_insecure_port(address)


def _handler(serving: Service) -> Any:
    methods = {name: _question(name, reply) for name, reply in QUESTIONS.items()} | {"ModelInfer": _infer}
    # As streams of one message, which looks the same to a client, so that a method decides whether and when to read it.
    stream = grpc.stream_unary_rpc_method_handler
    handlers = {name: stream(_answered(serving, f"grpc {name}", method)) for name, method in methods.items()}
    return grpc.method_handlers_generic_handler("inference.GRPCInferenceService", handlers)


def _answered(serving: Service, route: str, method: Method) -> Callable[[object, Any], Awaitable[bytes]]:
    """The one boundary: what a method gives, or refuses with, counted once under HTTP's statuses."""

    async def answer(_: object, context: Any) -> bytes:
        started, status, message = time.perf_counter(), ClientGone.status, b""  # until it is answered: cancelled
        headers = {name: value for name, value in context.invocation_metadata() or () if isinstance(value, str)}
        call = Call(serving, context, headers, logs.begin(headers.get("x-request-id", "")), serving.clock())
        refusal: ServeError | None = None
        try:
            with serving.bodies.hold() as body:
                message = (await method(call, body)).SerializeToString()
            status = 200
        except ServeError as error:
            refusal, status = error, error.status
        except Exception:
            log.exception("a request failed")
            refusal, status = InternalError(""), InternalError.status
        finally:
            seconds = time.perf_counter() - started
            serving.metrics.count_request(route, status, seconds)
            if serving.settings.access_log:
                logs.log_access(route, _address(context), status, seconds)
        if refusal:
            await call.refuse(refusal)
        context.set_trailing_metadata(tuple(call.trailing()))
        return message

    return answer


def _address(context: Any) -> str:
    return unquote(context.peer()).partition(":")[2].rpartition(":")[0].strip("[]")  # ipv6:%5B::1%5D:50000


def _question(name: str, reply: Reply) -> Method:
    kind, answer = getattr(pb, f"{name}Request"), getattr(pb, f"{name}Response")

    async def method(call: Call, body: Body) -> Message:
        values = await reply(call.serving, _parsed(kind, await call.message(body, MOST_QUESTION)))
        return ParseDict(values, answer(), ignore_unknown_fields=True)

    return method


def _parsed(kind: Any, message: bytes) -> Any:
    try:
        return kind.FromString(message)
    except DecodeError:
        raise BadRequest(UNREADABLE) from None


async def _whether(name: str, ask: Callable[[], Awaitable[object]]) -> dict[str, object]:
    try:
        await ask()
    except ServeError:
        return {name: False}
    return {name: True}


async def _within(name: str, asking: Awaitable[object]) -> dict[str, object]:
    return {name: await asking}


def _named(asked: Any) -> str:
    """The model's name. Raises UnknownModel, also for a version that there is not."""
    budget_of(asked.name, asked.version or None)
    return str(asked.name)


QUESTIONS: Mapping[str, Reply] = {
    "ServerLive": lambda serving, _: _whether("live", partial(v2.live, serving)),
    "ServerReady": lambda serving, _: _whether("ready", partial(v2.ready, serving)),
    "ModelReady": lambda serving, asked: _whether("ready", lambda: v2.model_ready(serving, _named(asked))),
    "ServerMetadata": lambda *_: v2.server(),
    "ModelMetadata": lambda serving, asked: v2.model(serving, _named(asked)),
    "ModelConfig": lambda serving, asked: _within("config", v2.config(serving, _named(asked))),
    "RepositoryIndex": lambda serving, _: _within("models", v2.index(serving)),
}
"""The methods that run nothing: HTTP's answer, of which is left out what the protocol has no field for."""


async def _infer(call: Call, body: Body) -> Message:
    """Whoever may not ask, or cannot be let in, is refused before the message is read."""
    serving, remaining = call.serving, call.context.time_remaining()
    tenant, call.bucket = serving.whose(key_in(call.headers), _address(call.context))
    if call.bucket:
        call.bucket.take()
    refuse_if_stopping(serving)
    with RefusalsCounted(serving):
        serving.limiter.check_room(tenant=tenant)
        message = await call.message(body, serving.settings.max_form_bytes)
    _check_parts(message)
    request = _parsed(pb.ModelInferRequest, message)
    del message
    budget_of(request.model_name, request.model_version or None)
    inference = _inference(request, serving.table.family.preprocessing.size)
    sender = v2.Sender(tenant, call.bucket, call.request_id, call.arrived, math.inf if remaining is None else remaining)
    answers = await v2.answers_to(serving, sender, request.model_name, inference)
    response = pb.ModelInferResponse(model_name=request.model_name, model_version=VERSION, id=request.id)
    for output in outputs(serving.table, answers, inference.outputs, binary=True):
        response.outputs.add(name=output.name, datatype=output.datatype, shape=output.shape)
        response.raw_output_contents.append(encode(output))
    return response


def _check_parts(message: bytes) -> None:
    """Raises BadRequest for what would take long to be parsed, or become many objects: anything but raw tensors."""
    at = parts = other = 0
    while at < len(message) and parts < MOST_PARTS and other <= MOST_JSON:
        tag, start = _varint(message, at)
        length, start = _varint(message, start)
        other += 0 if tag == _RAW else start + length - at
        at, parts = start + length, parts + 1
    if at < len(message) or other > MOST_JSON:
        raise BadRequest(
            f"the message has more than {MOST_PARTS} parts, or {MOST_JSON} bytes beside raw_input_contents; "
            "send tensors in raw_input_contents"
        )


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """A number as protobuf has it, 7 bits a byte, and where it ends."""
    value = 0
    for place, byte in enumerate(message[at : at + 10]):
        value |= (byte & 127) << 7 * place
        if byte < 128:
            return value, at + place + 1
    raise BadRequest(UNREADABLE)


def _inference(request: Any, size: int) -> Inference:
    """What a message asks; raises BadRequest."""
    raw = _raw(request) if len(request.inputs) == 1 else b""
    inputs = [
        {"name": one.name, "datatype": one.datatype, "shape": list(one.shape), "parameters": {BINARY: len(raw)}}
        for one in request.inputs
    ]
    wanted = [{"name": one.name, "parameters": _values(one.parameters)} for one in request.outputs]
    fields = {"id": request.id or None, "parameters": _values(request.parameters), "inputs": inputs, "outputs": wanted}
    return read_fields(fields, raw, size)


def _values(parameters: Mapping[str, Any]) -> dict[str, object]:
    # One without a value counts as an empty text.
    found = {name: value.WhichOneof("parameter_choice") or "string_param" for name, value in parameters.items()}
    return {name: getattr(parameters[name], choice) for name, choice in found.items()}


def _raw(request: Any) -> bytes:
    """The one input in binary form, wherever the message has it."""
    (given,), contents = request.inputs, request.inputs[0].contents
    if "shared_memory_region" in given.parameters:
        raise BadRequest(f"input {given.name[:40]!r}: there is no shared memory")
    if request.raw_input_contents:
        if given.HasField("contents") or len(request.raw_input_contents) > 1:
            raise BadRequest(f"input {given.name[:40]!r}: give it once, in raw_input_contents or in contents")
        return bytes(request.raw_input_contents[0])
    if max(len(contents.fp32_contents), len(contents.uint_contents)) > MOST_VALUES:
        raise BadRequest(f"contents: there are more than {MOST_VALUES} values; send them in raw_input_contents")
    if given.datatype == "FP32":
        return np.array(contents.fp32_contents, "<f4").tobytes()
    if given.datatype == "BYTES":
        return framed(contents.bytes_contents)
    try:
        return bytes(contents.uint_contents)
    except ValueError:
        raise BadRequest(f"input {given.name[:40]!r}: its values are not all in 0 to 255") from None
