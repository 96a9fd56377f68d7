"""The HTTP routes: each reads its request, asks the service, and says what came of it. They decide nothing."""

import asyncio
from collections.abc import Awaitable
from typing import Annotated, Literal, TypeVar

from fastapi import APIRouter, Depends, Query, Request, Response

from server import budget as budgets
from server.answering import answer_image, asked, decode_turns, time_limit
from server.body import read_image, read_images
from server.budget import Budget
from server.controller import Waiting
from server.engine import MOST_CLASSES
from server.errors import BadRequest, ClientGone, Draining, ServeError
from server.metrics import CONTENT_TYPE
from server.openapi import FORM_OF_IMAGES, IMAGE_BODY, REFUSALS
from server.schemas import (
    Classification,
    Classifications,
    Explanation,
    Problem,
    Status,
    Stitches,
    StitchUsed,
    listed,
)
from server.service import Service

Result = TypeVar("Result")

router = APIRouter()


async def service(request: Request) -> Service:
    """The running service."""
    return request.app.state.service  # type: ignore[no-any-return]


async def asked_budget(
    budget: Annotated[list[str] | None, Query(description=budgets.GRAMMAR, examples=[["2GFLOPs"]])] = None,
    max_flops: Annotated[str | None, Query(description="FLOPs cap, a plain number")] = None,
    deadline_ms: Annotated[str | None, Query(description="deadline in ms for the whole request")] = None,
    min_top1: Annotated[str | None, Query(description="least top-1 in percent")] = None,
    stitch: Annotated[str | None, Query(description="pin one stitch id")] = None,
) -> Budget:
    """The budget in the query."""
    return budgets.parse(budget or (), max_flops=max_flops, deadline_ms=deadline_ms, min_top1=min_top1, stitch=stitch)


Serving = Annotated[Service, Depends(service)]
Asked = Annotated[Budget, Depends(asked_budget)]
TopK = Annotated[int, Query(ge=1, le=MOST_CLASSES, description="how many classes")]
OnInfeasible = Annotated[
    Literal["reject", "nearest"], Query(description="when no stitch can meet the budget: refuse, or take the nearest")
]


@router.post("/classify", responses=REFUSALS, openapi_extra=IMAGE_BODY, summary="Classify one image within a budget")
async def classify(  # noqa: PLR0917 - FastAPI passes them by name
    request: Request,
    response: Response,
    serving: Serving,
    budget: Asked,
    top_k: TopK = 5,
    on_infeasible: OnInfeasible = "reject",
) -> Classification:
    """The likeliest classes, the stitch that found them, why it was chosen and where the time went."""
    arrived = serving.clock()
    _refuse_if_stopping(serving)
    nearest = on_infeasible == "nearest"
    ask = asked(serving, budget, top_k, arrived, request.state.request_id, nearest=nearest)
    with serving.limiter.admit():
        body = await read_image(request, serving.limits.max_bytes, serving.settings.body_timeout_s)
        answer = await _unless_gone(request, answer_image(serving, body, ask))
    response.headers["X-Stitch-Id"] = str(answer.stitch.id)
    response.headers["Server-Timing"] = ", ".join(f"{stage};dur={ms}" for stage, ms in answer.timing_ms)
    return answer


@router.post(
    "/classify/batch", responses=REFUSALS, openapi_extra=FORM_OF_IMAGES, summary="Classify several images at once"
)
async def classify_batch(
    request: Request, serving: Serving, budget: Asked, top_k: TopK = 5, on_infeasible: OnInfeasible = "reject"
) -> Classifications:
    """One result per image, in order: an answer, or the problem that this image met.

    The query's budget is for all images. Instead, form fields named `budget`, as many as images, give each its own.
    """
    arrived = serving.clock()
    _refuse_if_stopping(serving)
    with serving.limiter.admit():
        form = await read_images(request, serving.settings.max_form_bytes, serving.settings.body_timeout_s)
    if form.budgets and (budget != Budget() or len(form.budgets) != len(form.images)):
        raise BadRequest("give one budget for all in the query, or as many budget fields in the form as images")

    turns = decode_turns(serving)

    async def one(index: int) -> Classification | Problem:
        try:
            mine = budgets.parse([form.budgets[index]]) if form.budgets else budget
            request_id = f"{request.state.request_id}-{index}"
            ask = asked(serving, mine, top_k, arrived, request_id, nearest=on_infeasible == "nearest")
            with serving.limiter.admit():
                return await answer_image(serving, form.images[index], ask, turns)
        except ServeError as error:
            return Problem.model_validate(error.problem())

    everything = asyncio.gather(*(one(index) for index in range(len(form.images))))
    return Classifications(results=await _unless_gone(request, everything))


def _refuse_if_stopping(serving: Service) -> None:
    if serving.refusing:
        raise Draining("the server is stopping; send the request to another replica")


async def _unless_gone(request: Request, work: Awaitable[Result]) -> Result:
    """What the work gives; cancels it and raises ClientGone when the client leaves first."""
    running, gone = asyncio.ensure_future(work), asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait((running, gone), return_when=asyncio.FIRST_COMPLETED)
        if not running.done():
            raise ClientGone("the client left before its answer")
        return await running
    finally:
        gone.cancel()
        running.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


@router.get("/explain", responses={422: REFUSALS[422]}, summary="Which stitch a budget would get now")
async def explain(serving: Serving, budget: Asked, on_infeasible: OnInfeasible = "reject") -> Explanation:
    """The choice and its reason, with nothing run."""
    allowed = serving.controller.allow(budget, nearest=on_infeasible == "nearest")
    now = serving.clock()
    waiting = [Waiting(allowed, now + time_limit(serving, budget))]
    plan = serving.controller.plan(waiting, 1 + serving.batcher.queued, now, serving.headroom())
    return Explanation(
        stitch=StitchUsed.of(plan.choices[0].entry),
        reason=plan.choices[0].reason,
        predicted_ms=round(plan.predicted * 1e3, 4),
        admitted=len(allowed.entries),
    )


@router.get("/stitches", summary="The lookup table")
async def stitches(serving: Serving, frontier: bool = False) -> Stitches:
    """Every stitch with its route, FLOPs, parameters, top-1 and latency on this device."""
    return listed(serving.table, frontier, serving.engine.device_slug)


@router.get("/status", summary="What the server is doing")
async def status(serving: Serving) -> Status:
    """Load, headroom, drift, queue and the current level."""
    controller, load = serving.controller, serving.monitor.load
    return Status(
        model=serving.table.family.name,
        device=serving.engine.device_slug,
        policy=controller.policy,
        ready=not serving.draining,
        queued=serving.batcher.queued,
        inside=serving.limiter.inside,
        level=StitchUsed.of(controller.level),
        drift=round(controller.drift, 4),
        headroom=round(serving.headroom(), 4),
        cpu_busy=round(load.busy, 4),
        cpu_ours=round(load.ours, 4),
        slo_ms=serving.settings.slo_ms,
    )


@router.get("/livez", summary="Whether the process is alive")
async def livez() -> dict[str, str]:
    """Alive."""
    return {"status": "alive"}


@router.get("/readyz", responses={503: REFUSALS[503]}, summary="Whether requests are welcome")
async def readyz(serving: Serving) -> dict[str, str]:
    """200 once warm, 503 from the moment the server is told to stop."""
    if serving.draining:
        raise Draining("the server is stopping")
    return {"status": "ready"}


@router.get("/metrics", summary="Prometheus metrics", response_class=Response)
async def metrics(serving: Serving) -> Response:
    """Prometheus' text format."""
    return Response(serving.metrics.exposition(), media_type=CONTENT_TYPE)
