"""From an image's bytes and a budget to the answer: decode, wait, run, and count it once."""

import asyncio
import math
import time
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

from server.allowance import Allowed
from server.answered import Answered
from server.batcher import Answer
from server.budget import Budget
from server.connection import CAME
from server.engine import Image, Ranking
from server.errors import DeadlinePassed, Infeasible, Overloaded, ServeError
from server.reading import Reading
from server.schemas import Classification, Problem
from server.service import Service
from server.stages import Stages
from server.tenants import ANYONE, Tenant


class Asked(NamedTuple):
    """What one request asks for, `allowed` being what `budget` admits, and where its time went since it came."""

    budget: Budget
    allowed: Allowed
    tenant: Tenant
    top_k: int
    request_id: str
    stages: Stages


ARRIVED = "arrived"
DUE = "due"
"""In the scope's state: when the request is due, by the service's clock."""
ImageAsked = tuple[bytes, Asked]


def asked(
    serving: Service,
    budget: Budget,
    top_k: int,
    arrived: float,
    request_id: str,
    *,
    tenant: Tenant = ANYONE,
    nearest: bool = False,
    patience: float = math.inf,
) -> Asked:
    """What is asked for; raises Infeasible or UnknownStitch for a budget that cannot be met, unless `nearest`.

    It `arrived` by the service's clock, and its sender waits `patience` seconds at most, whatever the budget allows;
    whoever has received its body ends that stage.
    """
    stages = Stages(serving.clock, arrived, min(patience, time_limit(serving, budget)))
    return Asked(budget, admitted(serving, budget, tenant, nearest=nearest), tenant, top_k, request_id, stages)


def admitted(serving: Service, budget: Budget, tenant: Tenant, *, nearest: bool = False) -> Allowed:
    """What the budget admits, with the tenant's least top-1 where that is more than its own; raises as `allow`."""
    if tenant.min_top1 is None or (budget.min_top1 or 0.0) >= tenant.min_top1:
        return serving.controller.allow(budget, nearest=nearest)
    try:
        return serving.controller.allow(replace(budget, min_top1=tenant.min_top1), nearest=nearest)
    except Infeasible as error:
        error.detail += f"; {tenant.min_top1 * 100:g}% is the least that this API key, {tenant.name!r}, is to have"
        raise


def time_limit(serving: Service, budget: Budget) -> float:
    """Seconds from arrival to answer: the budget's deadline, else the server's SLO."""
    return serving.controller.slo if budget.deadline is None else budget.deadline


def arrival(serving: Service, state: MutableMapping[str, Any]) -> float:
    """When the request whose scope has this state reached the machine, by the service's clock; kept there."""
    if ARRIVED not in state:
        now = time.monotonic()
        state[ARRIVED] = serving.clock() - (now - state.get(CAME, now))
    arrived: float = state[ARRIVED]
    return arrived


def decode_turns(serving: Service) -> asyncio.Semaphore:
    """For the images of one form: they hold half of the threads that decode at most, the others are for others."""
    return asyncio.Semaphore(max(1, serving.settings.decode_threads // 2))


class RefusalsCounted:
    """Counts the images that a block is about, where they are refused for load; one while nobody knows how many."""

    def __init__(self, serving: Service, images: int = 1) -> None:
        self._serving, self._images = serving, images

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, (DeadlinePassed, Overloaded)):
            self._serving.metrics.refuse(error, self._images)


async def answer_image(
    serving: Service, body: bytes, ask: Asked, turns: asyncio.Semaphore | None = None
) -> Classification:
    """The answer to one image; with `turns` it waits for one and decodes in it.

    Raises whatever decoding or the queue refuses with; DeadlinePassed says where the time went. Where this is
    cancelled, or the deadline passes, before the image's turn to be decoded comes, it is not decoded.
    """
    return serving.teller.schema(await run_image(serving, serving.reading(body), ask, turns))


async def run_image(
    serving: Service,
    read: Reading,
    ask: Asked,
    turns: asyncio.Semaphore | None = None,
    when_read: Callable[[], object] = lambda: None,
) -> Answered:
    """As `answer_image`, for an image that `read` gives; it is let go, and `when_read` told, before the image waits."""
    stages = ask.stages
    with serving.front.passing():
        image = await (_in_turn(turns, read, stages) if turns else read(stages))
    del read
    when_read()
    queued = serving.clock()
    answer = await _run(serving, image, ask, ask.stages.deadline - queued)
    now = serving.clock()
    serving.front.answered(now - queued - answer.queue - answer.compute)
    total = now - stages.arrived
    queue = stages.seconds["decode_wait"] + answer.queue
    seconds = {"decode": stages.seconds["decode"], "queue": queue, "compute": answer.compute, "total": total}
    serving.metrics.count_answer(answer.entry, seconds, in_time=total <= stages.limit)
    serving.on_answer(stages, answer)
    return Answered(answer, ask.budget, stages.limit, ask.top_k, ask.request_id, seconds)


@contextmanager
def let_in(serving: Service, asks: Sequence[Asked | None]) -> Iterator[list[ExitStack]]:
    """Lets the images of one request in together -> the place of each, left on its own exit or on the block's.

    None is one that needs no place. Raises Overloaded where one of them cannot be let in.
    """
    with ExitStack() as form:
        places = [form.enter_context(ExitStack()) for _ in asks]
        present = [ask for ask in asks if ask is not None]
        soonest = min((ask.stages.deadline for ask in present), default=0.0)
        alone = serving.plausible(sum(ask.allowed.floor for ask in present), soonest - serving.clock())
        for place, ask in zip(places, asks, strict=True):
            if ask is not None:
                due = ask.stages.deadline
                if alone:
                    serving.limiter.check_room(tenant=ask.tenant)
                else:
                    serving.check(ask.allowed, due - serving.clock(), ask.tenant)
                place.enter_context(serving.limiter.admit(ask.allowed, ask.tenant, due))
        yield places


async def answer_images(serving: Service, images: Sequence[ImageAsked | ServeError]) -> list[Classification | Problem]:
    """The answers to the images of one form, in order, or the problem of each; what cannot be asked has its already.

    All others are let in together. Raises Overloaded where one of them cannot be.
    """
    turns = decode_turns(serving)
    asks = [None if isinstance(image, ServeError) else image[1] for image in images]
    with RefusalsCounted(serving, len(asks)), let_in(serving, asks) as places:
        return await asyncio.gather(*map(partial(_one, serving, turns), places, images))


async def _one(
    serving: Service, turns: asyncio.Semaphore, place: ExitStack, image: ImageAsked | ServeError
) -> Classification | Problem:
    try:
        with RefusalsCounted(serving), place:
            if isinstance(image, ServeError):
                raise image
            return await answer_image(serving, *image, turns)
    except ServeError as error:
        return Problem.model_validate(error.problem())


async def _in_turn(turns: asyncio.Semaphore, read: Reading, stages: Stages) -> Image:
    async with turns:
        return await read(stages)


async def _run(serving: Service, image: Image, ask: Asked, left: float) -> Answer[Ranking]:
    leaves = ask.stages.deadline - serving.front.after(left)
    try:
        return await serving.batcher.submit(image, ask.allowed, leaves, ask.tenant)
    except DeadlinePassed:
        ask.stages.end("queue")  # raises one that knows of the other stages too
        raise
