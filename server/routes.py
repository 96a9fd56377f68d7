"""The HTTP routes: each reads its request, asks the service, and says what came of it. They decide nothing."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Annotated, TypeVar

from fastapi import APIRouter, Depends, Request, Response

from server import budget as budgets
from server.answering import (
    DUE,
    ImageAsked,
    RefusalsCounted,
    admitted,
    answer_images,
    arrival,
    asked,
    run_image,
    time_limit,
)
from server.body import read_image, read_images
from server.budget import Budget
from server.connection import LEFT, UNREAD
from server.errors import BadRequest, ClientGone, Draining, ServeError, Unavailable
from server.form import MOST_IMAGES
from server.metrics import CONTENT_TYPE
from server.openapi import ANYWHERE, FORM_OF_IMAGES, IMAGE_BODY, refusals
from server.parameters import Query, documented, only
from server.rates import Bucket
from server.reading import elsewhere
from server.schemas import (
    Classification,
    Classifications,
    Explanation,
    Status,
    Stitches,
    StitchUsed,
    listed,
)
from server.service import Service
from server.tenants import Tenant, key_in

Result = TypeVar("Result")

router = APIRouter(responses=ANYWHERE)


async def service(request: Request) -> Service:
    """The running service."""
    return request.app.state.service  # type: ignore[no-any-return]


def sender_of(request: Request, serving: Service) -> Tenant:
    """Whose request it is, by its API key; the request's state then holds the bucket that pays for it, if any."""
    client = request.scope.get("client")
    tenant, request.scope["state"]["bucket"] = serving.whose(key_in(request.headers), client[0] if client else None)
    return tenant


def pay(request: Request) -> None:
    """For one request; raises RateLimited."""
    if bucket := request.scope["state"]["bucket"]:
        bucket.take()


async def tenant_of(request: Request) -> Tenant:
    """Whose request it is, which is paid for."""
    tenant = sender_of(request, await service(request))
    pay(request)
    return tenant


def charge(bucket: Bucket | None, images: int) -> None:
    """Have a request that has come, and is paid for, pay for all of its images but the first."""
    if bucket:
        bucket.owe(images - 1)


Serving = Annotated[Service, Depends(service)]
Whose = Annotated[Tenant, Depends(tenant_of)]


@router.post(
    "/classify",
    response_model=Classification,
    responses=refusals(401, 413, 415, 422, 429, 504),
    openapi_extra=documented(**IMAGE_BODY),
    summary="Classify one image within a budget",
)
async def classify(request: Request) -> Response:
    """The likeliest classes, the stitch that found them, why it was chosen and where the time went."""
    serving, query = await service(request), Query.of(request.scope["query_string"])
    budget, tenant = query.asks, sender_of(request, serving)
    state = request.scope["state"]
    arrived = arrival(serving, state)
    refuse_if_stopping(serving)
    ask = asked(serving, budget, query.top_k, arrived, state["request_id"], tenant=tenant, nearest=query.nearest)
    state[DUE] = ask.stages.deadline
    waits = _may_wait(request)
    with RefusalsCounted(serving), serving.bodies.hold() as body:
        ask.stages.end("receive")
        serving.check(ask.allowed, ask.stages.deadline - serving.clock(), tenant)
        pay(request)
        timeout = serving.settings.body_timeout_s if waits else None
        read = serving.reading(await read_image(request, body, serving.settings.max_bytes, timeout))
        if waits:  # for its body; else nothing has happened since
            ask.stages.end("receive")
            serving.check(ask.allowed, ask.stages.deadline - serving.clock(), tenant)
        with serving.limiter.admit(ask.allowed, tenant, ask.stages.deadline):
            running = run_image(serving, read, ask, when_read=body.release)
            del read  # its bytes are not to wait for the engine
            answered = await unless_gone(request, running)
    return serving.teller.response(answered)


@router.post(
    "/classify/batch",
    responses=refusals(401, 413, 415, 422, 429),
    openapi_extra=documented(**FORM_OF_IMAGES),
    summary="Classify several images at once",
)
async def classify_batch(request: Request) -> Classifications:
    """One result per image, in order: an answer, or the problem that this image met.

    The query's budget is for all images. Instead, form fields named `budget`, as many as images, give each its own.
    All of its images are let in together; where there is no room or time for all, the form is refused as a whole.
    """
    serving, query = await service(request), Query.of(request.scope["query_string"])
    budget, tenant = query.asks, await tenant_of(request)
    arrived = arrival(serving, request.scope["state"])
    refuse_if_stopping(serving)
    limits = serving.settings
    with serving.bodies.hold() as body:
        most = min(MOST_IMAGES, limits.max_queue)
        sizes = limits.max_form_bytes, limits.max_bytes
        with RefusalsCounted(serving):
            serving.limiter.check_room(tenant=tenant)
            form = await read_images(request, body, *sizes, limits.body_timeout_s, most=most)
        if form.budgets and (budget != Budget() or len(form.budgets) != len(form.images)):
            raise BadRequest("give one budget for all in the query, or as many budget fields in the form as images")
        charge(request.state.bucket, len(form.images))

        def each(index: int) -> ImageAsked | ServeError:
            image = form.images[index]
            if isinstance(image, ServeError):
                return image
            try:
                mine = budgets.parse([form.budgets[index]]) if form.budgets else budget
                request_id = f"{request.state.request_id}-{index}"
                ask = asked(serving, mine, query.top_k, arrived, request_id, tenant=tenant, nearest=query.nearest)
                ask.stages.end("receive")
            except ServeError as error:
                return error
            return image, ask

        everything = answer_images(serving, [each(index) for index in range(len(form.images))])
        return Classifications(results=await unless_gone(request, everything))


def _may_wait(request: Request) -> bool:
    """Whether the request's body may not have come yet."""
    if other := elsewhere.get():
        return other.unread
    unread: Callable[[], bool] | None = request.scope["state"].get(UNREAD)
    return unread is None or unread()


def refuse_if_stopping(serving: Service) -> None:
    """Raises Draining."""
    if serving.refusing:
        raise Draining("the server is stopping; send the request to another replica")


async def unless_gone(request: Request, work: Awaitable[Result]) -> Result:
    """What the work gives; cancels it and raises ClientGone when the client leaves first.

    The work is the caller's own: were it another task, its result would come a turn or two of the event loop later.
    """
    mine = asyncio.current_task()
    left = working = False

    def leave() -> None:
        nonlocal left
        if working and mine:
            left = mine.cancel()

    forget = _when_left(request, leave)
    working = True
    try:
        return await work
    except asyncio.CancelledError:
        if left and mine and not mine.uncancel():
            raise ClientGone("the client left before its answer") from None
        raise
    finally:
        working = False
        forget()


def _when_left(request: Request, tell: Callable[[], object]) -> Callable[[], object]:
    """Has something called when the client leaves -> what takes that back."""
    told: set[Callable[[], object]] | None = request.scope.get("state", {}).get(LEFT)
    if told is not None:
        told.add(tell)
        return partial(told.discard, tell)

    async def wait() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    waiting = asyncio.ensure_future(wait())
    waiting.add_done_callback(lambda _: waiting.cancelled() or tell())
    return waiting.cancel


@router.get(
    "/explain",
    responses=refusals(401, 422, 429),
    openapi_extra=documented(),
    summary="Which stitch a budget would get now",
)
async def explain(request: Request) -> Explanation:
    """The choice and its reason, with nothing run."""
    serving, query = await service(request), Query.of(request.scope["query_string"])
    budget, tenant = query.asks, await tenant_of(request)
    allowed = admitted(serving, budget, tenant, nearest=query.nearest)
    entry, plan = serving.explain(allowed, time_limit(serving, budget), tenant)
    return Explanation(
        stitch=StitchUsed.of(entry),
        reason=plan.why(allowed, entry),
        predicted_ms=round(plan.expected * 1e3, 4),
        admitted=len(allowed.entries),
    )


@router.get("/stitches", dependencies=[Depends(only("frontier"))], responses=refusals(422), summary="The lookup table")
async def stitches(serving: Serving, frontier: bool = False) -> Stitches:
    """Every stitch with its route, FLOPs, parameters, top-1 and latency on this device."""
    return listed(serving.table, frontier, serving.engine.device_slug)


@router.get("/status", dependencies=[Depends(only())], responses=refusals(422), summary="What the server is doing")
async def status(serving: Serving) -> Status:
    """Load, headroom, drift, queue and the current level."""
    controller, load = serving.controller, serving.monitor.load
    return Status(
        model=serving.table.family.name,
        device=serving.engine.device_slug,
        policy=controller.policy.name,
        decoder=serving.decoding.used,
        ready=serving.ready(),
        queued=serving.batcher.queued,
        arriving=len(serving.bodies.arriving),
        inside=serving.limiter.inside,
        level=StitchUsed.of(controller.level),
        drift=round(controller.drift.center, 4),
        drift_upper=round(controller.drift.upper, 4),
        pad_ms=round(controller.drift.margin.pad * 1e3, 3),
        headroom=round(serving.headroom(), 4),
        cpu_busy=round(load.busy, 4),
        cpu_ours=round(load.ours, 4),
        memory_available=load.memory_available,
        gpu=load.gpu,
        slo_ms=round(controller.slo * 1e3, 6),
    )


@router.get("/livez", summary="Whether the server is alive")
async def livez(serving: Serving) -> dict[str, str]:
    """503 when only a restart helps: a batch hangs, or the loop that runs them has died."""
    _refuse_if_unhealthy(serving)
    return {"status": "alive"}


@router.get("/readyz", summary="Whether requests are welcome")
async def readyz(serving: Serving) -> dict[str, str]:
    """200 once warm, 503 from when the server is told to stop on, and while no batch can be run or memory is short."""
    if serving.draining:
        raise Draining("the server is stopping")
    _refuse_if_unhealthy(serving)
    if serving.failing():
        raise Unavailable(f"the last {serving.batcher.failed_in_a_row} batches failed; the server's log says why")
    if serving.monitor.load.memory_short:
        raise Unavailable("the machine is short of memory")
    return {"status": "ready"}


def _refuse_if_unhealthy(serving: Service) -> None:
    if not serving.healthy():
        raise Unavailable("a batch hangs, or the loop that runs batches has died; restart the server")


@router.get("/metrics", summary="Prometheus metrics", response_class=Response)
async def metrics(serving: Serving) -> Response:
    """Prometheus' text format."""
    return Response(serving.metrics.exposition(), media_type=CONTENT_TYPE)
