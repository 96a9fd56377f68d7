"""The HTTP routes: each reads its request, asks the service, and says what came of it. They decide nothing."""

import asyncio
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request, Response

from lookup_tables.table import LookupTable
from server import budget as budgets
from server.batcher import Answer
from server.body import read_image
from server.budget import Budget
from server.controller import Allowed, Waiting
from server.engine import MOST_CLASSES, Ranking
from server.errors import ClientGone, Draining
from server.images import ACCEPTED, decode
from server.metrics import CONTENT_TYPE
from server.schemas import (
    BudgetUsed,
    Classification,
    Explanation,
    Prediction,
    Problem,
    Status,
    Stitches,
    StitchUsed,
    Timing,
    listed,
    percent,
)
from server.service import Service

router = APIRouter()

IMAGE_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "the image: JPEG, PNG, WebP, BMP or GIF, raw or as the one file of a form",
        "content": {kind: {"schema": {"type": "string", "format": "binary"}} for kind in ACCEPTED}
        | {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
        | {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["image"],
                    "properties": {"image": {"type": "string", "format": "binary"}},
                }
            }
        },
    }
}
REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "description": text}
    for status, text in {
        400: "not an image, truncated or unreadable",
        408: "the body took too long",
        413: "too many bytes or pixels",
        415: "not an accepted type",
        422: "a bad budget, an unknown stitch, or a budget no stitch can meet",
        503: "overloaded or stopping; see Retry-After",
        504: "the deadline passed before the image could be run",
    }.items()
}


def service(request: Request) -> Service:
    """The running service."""
    return request.app.state.service  # type: ignore[no-any-return]


def asked_budget(
    budget: Annotated[
        list[str] | None,
        Query(description=budgets.GRAMMAR, examples=[["2GFLOPs"]]),
    ] = None,
    max_flops: Annotated[str | None, Query(description="FLOPs cap, a plain number")] = None,
    deadline_ms: Annotated[str | None, Query(description="deadline in ms for the whole request")] = None,
    min_top1: Annotated[str | None, Query(description="least top-1 in percent")] = None,
    stitch: Annotated[str | None, Query(description="pin one stitch id")] = None,
) -> Budget:
    """The budget in the query."""
    return budgets.parse(
        budget or (), max_flops=max_flops, deadline_ms=deadline_ms, min_top1=min_top1, stitch=stitch
    )


Serving = Annotated[Service, Depends(service)]
Asked = Annotated[Budget, Depends(asked_budget)]
OnInfeasible = Annotated[
    Literal["reject", "nearest"], Query(description="when no stitch can meet the budget: refuse, or take the nearest")
]


@router.post("/classify", responses=REFUSALS, openapi_extra=IMAGE_BODY, summary="Classify one image within a budget")
async def classify(
    request: Request,
    response: Response,
    serving: Serving,
    budget: Asked,
    top_k: Annotated[int, Query(ge=1, le=MOST_CLASSES, description="how many classes")] = 5,
    on_infeasible: OnInfeasible = "reject",
) -> Classification:
    """The likeliest classes, the stitch that found them, why it was chosen and where the time went."""
    arrived = serving.clock()
    if serving.refusing:
        raise Draining("the server is stopping; send the request to another replica")
    allowed = serving.controller.allow(budget, nearest=on_infeasible == "nearest")
    limit = serving.settings.slo if budget.deadline is None else budget.deadline
    with serving.limiter.admit():
        body = await read_image(request, serving.limits.max_bytes, serving.settings.body_timeout_s)
        decoding = serving.clock()
        work = asyncio.ensure_future(_run(serving, body, allowed, arrived + limit))
        answer, decoded = await _unless_gone(request, work)
    total = serving.clock() - arrived
    met = total <= limit and _kept(budget, answer)
    timing = {"decode": decoded - decoding, "queue": answer.queue, "compute": answer.compute, "total": total}
    _record(serving, answer, timing, total <= limit)
    _describe(response, answer, timing)
    return Classification(
        predictions=_predictions(serving.table, answer.result, top_k),
        stitch=StitchUsed.of(answer.choice.entry),
        reason=answer.choice.reason,
        budget=BudgetUsed(
            max_flops=budget.max_flops, deadline_ms=limit * 1e3, min_top1=percent(budget.min_top1), met=met
        ),
        timing_ms=Timing(**{stage: round(seconds * 1e3, 3) for stage, seconds in timing.items()}),
        model=serving.table.family.name,
        request_id=request.state.request_id,
    )


async def _run(serving: Service, body: bytes, allowed: Allowed, deadline: float) -> tuple[Answer[Ranking], float]:
    """The answer, and when decoding was done."""
    loop = asyncio.get_running_loop()
    preprocessing = serving.table.family.preprocessing
    image = await loop.run_in_executor(serving.decode_pool, decode, body, preprocessing, serving.limits)
    decoded = serving.clock()
    return await serving.batcher.submit(image, allowed, deadline), decoded


async def _unless_gone(request: Request, work: "asyncio.Future[Any]") -> Any:
    """What the work gives; cancels it and raises ClientGone when the client leaves first."""
    gone = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            raise ClientGone("the client left before its answer")
        return await work
    finally:
        gone.cancel()
        work.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _kept(budget: Budget, answer: Answer[Ranking]) -> bool:
    entry = answer.choice.entry
    flops_kept = budget.max_flops is None or entry.flops <= budget.max_flops
    return flops_kept and (budget.min_top1 is None or (entry.top1 is not None and entry.top1 >= budget.min_top1))


def _predictions(table: LookupTable, ranking: Ranking, top_k: int) -> list[Prediction]:
    rows = list(zip(ranking.indices, ranking.probabilities, strict=True))[:top_k]
    return [Prediction(label=table.labels[i], index=i, probability=round(p, 6)) for i, p in rows]


def _record(serving: Service, answer: Answer[Ranking], timing: dict[str, float], in_time: bool) -> None:
    metrics, entry = serving.metrics, answer.choice.entry
    metrics.flops.observe(entry.flops)
    if entry.top1 is not None:
        metrics.top1.observe(entry.top1)
    metrics.deadlines.labels("true" if in_time else "false").inc()
    for stage in ("decode", "queue", "compute"):
        metrics.stage_seconds.labels(stage).observe(timing[stage])


def _describe(response: Response, answer: Answer[Ranking], timing: dict[str, float]) -> None:
    response.headers["X-Stitch-Id"] = str(answer.choice.entry.stitch)
    response.headers["Server-Timing"] = ", ".join(f"{stage};dur={s * 1e3:.3f}" for stage, s in timing.items())


@router.get("/explain", responses={422: REFUSALS[422]}, summary="Which stitch a budget would get now")
async def explain(serving: Serving, budget: Asked, on_infeasible: OnInfeasible = "reject") -> Explanation:
    """The choice and its reason, with nothing run."""
    allowed = serving.controller.allow(budget, nearest=on_infeasible == "nearest")
    now = serving.clock()
    limit = serving.settings.slo if budget.deadline is None else budget.deadline
    waiting = [Waiting(allowed, now + limit)]
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
        policy="shared-slack",
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
