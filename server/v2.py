"""Open Inference Protocol v2 over HTTP, with Triton's binary tensors, for the clients that people have.

What is asked goes the way of POST /classify: the same permits, deadlines, tenants and statuses.
"""

import asyncio
import math
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from io import BytesIO
from typing import Annotated

from fastapi import APIRouter, Depends, FastAPI, Request, Response

from server.answering import Asked, RefusalsCounted, arrival, asked, decode_turns, let_in, run_image
from server.batcher import Answer
from server.engine import Ranking
from server.errors import BadRequest, ServeError, UnsupportedType
from server.models import PLATFORM, VERSION, budget_of, configuration, metadata, names, outputs, reader
from server.openapi import INFERENCE, REFUSALS_V2
from server.rates import Bucket
from server.reading import Reading
from server.routes import Serving, Whose, charge, livez, readyz, refuse_if_stopping, unless_gone
from server.service import Service
from server.tenants import Tenant
from server.tensors import Inference, header_length, read, write

HEADER_LENGTH = "Inference-Header-Content-Length"
EXTENSIONS = ["binary_tensor_data", "classification", "model_configuration", "model_repository"]

PREFIX = "/v2"

router = APIRouter(prefix=PREFIX, responses=REFUSALS_V2)
models = APIRouter(prefix=PREFIX + "/models/{name}", responses=REFUSALS_V2)
versions = APIRouter(prefix=PREFIX + "/models/{name}/versions/{version}", include_in_schema=False)
"""Of one model, and of the one version that it has: by prefixes of their own, which metrics then name."""


@dataclass(frozen=True)
class Sender:
    """Whose a request is and what pays for it; it `arrived` by the service's clock.

    `patience`: for how many seconds at most an answer is waited for.
    """

    tenant: Tenant
    bucket: Bucket | None
    request_id: str
    arrived: float
    patience: float = math.inf


def add_routes(app: FastAPI) -> None:
    """The protocol's routes."""
    for each in (router, models, versions):
        app.include_router(each)


async def named(request: Request, name: str) -> str:
    """The model's name. Raises UnknownModel, also for a version that there is not."""
    budget_of(name, request.path_params.get("version"))
    return name


Named = Annotated[str, Depends(named)]


@router.get("", summary="The server")
async def server() -> dict[str, object]:
    """Name, version and extensions."""
    return {"name": PLATFORM, "version": version("stitchserve"), "extensions": EXTENSIONS}


@router.get("/health/live", summary="Whether the server is alive")
async def live(serving: Serving) -> dict[str, bool]:
    """As GET /livez."""
    await livez(serving)
    return {"live": True}


@router.get("/health/ready", summary="Whether requests are welcome")
async def ready(serving: Serving) -> dict[str, bool]:
    """As GET /readyz."""
    await readyz(serving)
    return {"ready": True}


@router.post("/repository/index", summary="The models")
async def index(serving: Serving) -> list[dict[str, str]]:
    """`auto` and one for each stitch on the frontier; `auto@` with a budget works as well."""
    try:
        await readyz(serving)
    except ServeError as error:
        state, reason = "UNAVAILABLE", error.detail
    else:
        state, reason = "READY", ""
    return [{"name": name, "version": VERSION, "state": state, "reason": reason} for name in names(serving)]


@models.get("", summary="A model's tensors")
@versions.get("")
async def model(serving: Serving, name: Named) -> dict[str, object]:
    """What it takes, what it gives, and which stitches it may use."""
    return metadata(serving, name)


@models.get("/config", summary="The same as Triton's model configuration")
@versions.get("/config")
async def config(serving: Serving, name: Named) -> dict[str, object]:
    """What perf_analyzer and Triton's clients ask for."""
    return configuration(serving, name)


@models.get("/ready", summary="Whether a model can be asked")
@versions.get("/ready")
async def model_ready(serving: Serving, name: Named) -> dict[str, object]:
    """As GET /readyz, for a model that there is."""
    serving.controller.allow(budget_of(name))
    await readyz(serving)
    return {"name": name, "ready": True}


@models.post("/infer", openapi_extra=INFERENCE, summary="Classify images, given and answered as tensors")
@versions.post("/infer")
async def infer(request: Request, serving: Serving, tenant: Whose, name: Named) -> Response:
    """Images as files or as pixels; the likeliest classes, the stitch and the reason for each."""
    arrived = arrival(serving, request.scope["state"])
    refuse_if_stopping(serving)
    _check_head(request)
    with serving.bodies.hold() as body:
        received = BytesIO()
        limits = serving.settings
        with RefusalsCounted(serving):
            serving.limiter.check_room(tenant=tenant)
            await body.receive(request, limits.max_form_bytes, limits.body_timeout_s, received.write)
        length = header_length(request.headers.get(HEADER_LENGTH))
        inference = read(received.getbuffer(), length, serving.table.family.preprocessing.size)
        del received
        sender = Sender(tenant, request.state.bucket, request.state.request_id, arrived)
        answers = await unless_gone(request, answers_to(serving, sender, name, inference))
    return _response(serving, name, inference, answers)


def _check_head(request: Request) -> None:
    """Raises BadRequest for a query, which would have no effect, UnsupportedType for a body that is compressed."""
    if request.query_params:
        raise BadRequest("this route takes no query; a budget goes into the model's name or the body's parameters")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise UnsupportedType("send the body without Content-Encoding", accepted=["identity"])


async def answers_to(serving: Service, sender: Sender, name: str, inference: Inference) -> list[Answer[Ranking]]:
    """An answer for each image, in order; where one is refused so are all, and those that wait are dropped.

    All are let in together. Raises Overloaded where one of them cannot be, BadRequest where all can never be.
    """
    images, most = len(inference.images), serving.settings.max_queue
    if images > most:
        raise BadRequest(f"{images} images; send 1 to {most} in a request")
    charge(sender.bucket, images)
    budget = budget_of(name, parameters=inference.parameters)
    whose, patience = sender.tenant.asking(inference.parameters.priority), sender.patience
    ask = partial(asked, serving, budget, 0, sender.arrived, sender.request_id, tenant=whose, patience=patience)
    with RefusalsCounted(serving, images):
        return await _run_all(serving, inference, [ask() for _ in range(images)])


async def _run_all(serving: Service, inference: Inference, asks: list[Asked]) -> list[Answer[Ranking]]:
    turns = decode_turns(serving) if len(asks) > 1 else None

    async def one(place: ExitStack, reading: Reading, ask: Asked) -> Answer[Ranking]:
        with place:
            return (await run_image(serving, reading, ask, turns)).answer

    for ask in asks:
        ask.stages.end("receive")
    try:
        with let_in(serving, asks) as places:
            each = [
                one(place, reader(serving, image), ask)
                for place, image, ask in zip(places, inference.images, asks, strict=True)
            ]
            if len(each) == 1:
                return [await each[0]]
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(work) for work in each]
    except BaseExceptionGroup as refused:
        raise refused.exceptions[0] from None
    return [task.result() for task in tasks]


def _response(serving: Service, name: str, inference: Inference, answers: list[Answer[Ranking]]) -> Response:
    head = {"model_name": name, "model_version": VERSION} | ({} if inference.id is None else {"id": inference.id})
    binary = inference.parameters.binary_data_output
    body, length = write(head, list(outputs(serving.table, answers, inference.outputs, binary=binary)))
    if length is None:
        return Response(body, media_type="application/json")
    return Response(body, headers={HEADER_LENGTH: str(length)}, media_type="application/octet-stream")
