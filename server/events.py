"""`GET /events`: load, queue, level and what comes of requests, once a second, for the console."""

import time
from collections.abc import Callable
from contextlib import ExitStack

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from server.feed import EVERY, Feed
from server.metrics import Totals
from server.parameters import only
from server.schemas import Happening, StitchUsed, percent
from server.service import Service

STREAM = "text/event-stream"
UNKEPT = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}  # nginx would hold events back

HEAD_ALONE = "head_alone"
"""In the scope's state: whether the client wants no body, so that no stream is to be kept for it."""
LONG = 3 * EVERY  # seconds after which what came meanwhile says nothing of now

router = APIRouter()


class Happenings:
    """What a server is doing, and what came of its requests since it was asked last."""

    def __init__(self, service: Service, clock: Callable[[], float] = time.monotonic) -> None:
        self._service, self._clock = service, clock
        self._before: tuple[float, Totals] | None = None

    def read(self) -> str:
        """A `Happening` as JSON."""
        return self._happening().model_dump_json()

    def _happening(self) -> Happening:
        serving, now, totals = self._service, self._clock(), self._service.metrics.totals()
        recent = self._before and now - self._before[0] < LONG
        then, before = self._before if self._before and recent else (now, totals)
        self._before = now, totals
        seconds = max(now - then, 1e-3)
        answered, known = totals.answered - before.answered, totals.known - before.known
        load = serving.monitor.load
        return Happening(
            at=round(now, 3),
            ready=serving.ready(),
            queued=serving.batcher.queued,
            inside=serving.limiter.inside,
            level=StitchUsed.of(serving.controller.level),
            answered_per_second=round(answered / seconds, 2),
            refused_per_second=round((totals.refused - before.refused) / seconds, 2),
            top1_served=percent((totals.top1 - before.top1) / known) if known else None,
            slo_met=percent((totals.met - before.met) / answered) if answered else None,
            headroom=round(serving.headroom(), 4),
            cpu_busy=round(load.busy, 4),
            cpu_ours=round(load.ours, 4),
            gpu_busy=load.gpu.busy if load.gpu else None,
        )


def add_events(app: FastAPI, service: Service) -> None:
    """The route, and what it tells; it ends once the service takes no more requests."""
    feed = app.state.feed = Feed(Happenings(service).read)
    service.on_refusing = feed.end
    app.include_router(router)


class _Held(StreamingResponse):
    """A stream that has its place until it ends."""

    def __init__(self, feed: Feed, place: ExitStack) -> None:
        super().__init__(feed.events(), media_type=STREAM, headers=UNKEPT)
        self._place = place

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._place:
            await super().__call__(scope, receive, send)


@router.get("/events", dependencies=[Depends(only())], include_in_schema=False)  # a stream has no end to check
async def events(request: Request) -> Response:
    """First `history`, a list of what was told in the last minutes, as far as anybody looked; then one each second."""
    if request.scope["state"].get(HEAD_ALONE):
        return Response(media_type=STREAM, headers=UNKEPT)
    feed, place = request.app.state.feed, ExitStack()
    place.enter_context(feed.place())
    return _Held(feed, place)
