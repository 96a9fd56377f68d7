"""The objects of a running server, built once and in order, and how they stop."""

import asyncio
import logging
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from lookup_tables.table import Entry, LookupTable, TableError, folder
from server.admission import Limiter
from server.allowance import Allowed
from server.answered import Teller
from server.batcher import Answer, Batcher
from server.body import Bodies
from server.controller import POLICIES, Controller, Plan
from server.decoding import Decoding, as_set, choose
from server.engine import Engine, Image, Ranking
from server.front import Front
from server.images import Limits, is_quick
from server.latencies import table_for
from server.matching import check
from server.metrics import Metrics
from server.monitor import Machine, Monitor
from server.nvml import Gpu, GpuWatch
from server.pixels import decode
from server.rates import Bucket, Rate, Rates
from server.reading import Reading, elsewhere, here, timed
from server.scheduling import take_turns
from server.settings import Settings
from server.stages import Stages
from server.tenants import ANYONE, Tenant, Tenants
from server.threads import most_threads
from stitching.checkpoint import sha256, shipped

log = logging.getLogger(__name__)

SAMPLE_EVERY = 0.25  # seconds between two looks at the machine's load
ENDED = (
    "the loop that runs batches has died; restart the server",
    "nobody looks at the machine's load any more; restart the server",
    "no more is recorded while it is quiet",
)
"""What it means where one of the service's tasks ends by an error."""
QUIET = 1.0  # seconds without a batch: what is recorded then is in nobody's way
HUNG_AFTER, HUNG_FACTOR = 10.0, 20.0  # a batch that takes longer than these seconds and times the predicted ones hangs
MOST_FAILURES, RETRY_AFTER = 5, 10.0  # so many batches failed in a row: not ready, for so many seconds


@dataclass(frozen=True)
class Asking:
    """A request that only asks."""

    allowed: Allowed
    deadline: float
    tenant: Tenant = ANYONE


class Service:
    """One family on one device. Told to stop it is `draining`, no longer ready; then `refusing` new requests."""

    def __init__(
        self,
        settings: Settings,
        engine: Engine,
        table: LookupTable,
        clock: Callable[[], float] = time.monotonic,
        decoding: Decoding | None = None,
    ) -> None:
        self.settings, self.engine, self.table, self.clock = settings, engine, table, clock
        self.decoding = decoding or as_set(settings.decode)
        limits, exact = Limits(settings.max_bytes, settings.max_pixels), self.decoding.name == "exact"
        self._decode = partial(decode, preprocessing=table.family.preprocessing, limits=limits, exact=exact)
        self.controller = Controller(
            table,
            max_batch=settings.max_batch,
            slo=settings.slo,
            policy=settings.policy,
            miss_probability=settings.miss_probability,
        )
        engine.costs = table
        self.tenants = Tenants.load(settings.tenants) if settings.tenants else Tenants()
        self.teller = Teller(table)
        self.rates = Rates(Rate.of(settings.anonymous_rate, settings.anonymous_burst))
        self.bodies = Bodies(settings.max_body_bytes_in_flight)
        self._gpu = GpuWatch(partial(Gpu, engine.gpu_uuid)) if engine.gpu_uuid else None
        self.helpers: set[int] = set()
        """Processes that work for this one, by their ids."""
        gpu, machine = self._gpu.latest if self._gpu else None, Machine(self.helpers)
        self.monitor = Monitor(settings.min_memory_bytes, gpu, machine.read)
        self.limiter = Limiter(settings.max_queue, self.controller, lambda: self.monitor.load.memory_short)
        self.metrics = Metrics()
        decoders = settings.decode_threads * max(1, settings.frontends)
        self.front = Front(clock, lanes=most_threads(decoders))
        self._schedule = take_turns if engine.device.type == "cpu" and not settings.frontends else None
        self.decode_pool = ThreadPoolExecutor(settings.decode_threads, "decode", self._schedule)
        self._engine_threads = ThreadPoolExecutor(engine.lanes, "engine", self._schedule)
        self.batcher: Batcher[Image, Ranking] = Batcher(
            engine,
            self.controller,
            self._engine_threads,
            lanes=engine.lanes,
            headroom=self.headroom,
            crowded=lambda: self.front.inside > decoders,
            on_batch=self._count,
            clock=self.clock,
        )
        self.draining = self.refusing = False
        self.on_refusing: Callable[[], object] = lambda: None
        """Told, perhaps twice, that no more requests are taken."""
        self.gone_by = math.inf
        """When requests in flight are given up, by the clock, once no others are taken."""
        self.on_answer: Callable[[Stages, Answer[Ranking]], object] = lambda *_: None
        """Told of each image that is answered."""
        self._tasks: list[asyncio.Task[None]] = []

    def reading(self, body: bytes) -> Reading:
        """How the image in a file's bytes is read for the request that is being answered."""
        other = elsewhere.get()
        if other:
            return partial(other.read, body)
        if is_quick(body):
            return partial(here, partial(self._decode, body))
        return partial(self.on_thread, partial(self._decode, body, other=self.decoding.nvjpeg))

    async def on_thread(self, read: Callable[[], Image], stages: Stages) -> Image:
        """What `read` gives on a thread that decodes; where the deadline passes before its turn comes, it has none."""
        return await asyncio.get_running_loop().run_in_executor(self.decode_pool, timed, read, stages)

    def headroom(self) -> float:
        """The share of the device that others leave to us."""
        return self.monitor.load.headroom

    def speed(self) -> float:
        """How fast batches run now, a share of what was profiled, in (0, 1]; others' load and throttling lower it."""
        return min(1.0, 1.0 / self.controller.drift.expected(1.0, self.headroom()))

    def plausible(self, floor: float, slack: float) -> bool:
        """Whether images with this sum of floors could be in time, by the table alone, while nobody else is here.

        If they are not, it is drift that says so, and only a batch can teach it better: where all come in forms, and
        each form is refused, it would say so for ever.
        """
        return not self.limiter.inside and self.controller.costs.drain(floor) <= slack

    def check(self, allowed: Allowed, slack: float, tenant: Tenant = ANYONE, *, behind: int = 0) -> None:
        """Raises Overloaded for a request, due in `slack` seconds, that is better refused now.

        It is `behind` so many others, taken for alike, that are not inside yet.
        """
        if slack <= 0:
            return  # what comes next says where its time went
        queue, due, headroom = self.batcher.queue, self.clock() + slack, self.headroom()
        running = ahead = 0.0
        if self.limiter.inside or behind:
            in_batches = self.batcher.running_floor
            decoding = max(0.0, self.limiter.floor - queue.floor - in_batches)
            ahead = decoding + queue.floor_before(due) + behind * allowed.floor
            # Through the front, it finds a batch like this one running, and is then in one itself.
            batch = self.controller.drain_seconds(in_batches, headroom)
            engine = self.controller.drain_seconds(ahead, headroom)
            running = max(self.batcher.running, self.front.wait + batch - engine)
            slack -= self.front.after(slack) + batch
        self.limiter.check(allowed, slack, ahead, running, headroom, tenant=tenant, due=due)

    def explain(self, allowed: Allowed, slack: float, tenant: Tenant = ANYONE) -> tuple[Entry, Plan]:
        """The stitch that a request, due in `slack` seconds, would get now, and the plan for its batch."""
        now, queue = self.clock(), self.batcher.queue
        asking = Asking(allowed, now + slack - self.front.after(slack), tenant)
        return self.controller.explain(queue, asking, now, self.headroom())

    def _count(self, plan: Plan) -> None:
        self.metrics.batch_rows.observe(len(plan.entries))
        self.metrics.dispatches.labels(plan.reason).inc()

    def healthy(self) -> bool:
        """Whether batches run: False once one hangs, the device breaks or the loop dies, which only a restart cures."""
        since = self.batcher.running_since
        allowed = max(HUNG_AFTER, HUNG_FACTOR * self.batcher.predicted)
        hung = since is not None and self.clock() - since > allowed
        return not self.engine.broken and not hung and not any(task.done() for task in self._tasks[:1])

    def failing(self) -> bool:
        """Whether the last batches all failed; after a while without any it is worth another try."""
        recent = self.clock() - self.batcher.failed_at < RETRY_AFTER
        return self.batcher.failed_in_a_row >= MOST_FAILURES and recent

    def ready(self) -> bool:
        """Whether requests are welcome."""
        return not (self.draining or self.failing() or self.monitor.load.memory_short) and self.healthy()

    def whose(self, key: str | None, address: str | None) -> tuple[Tenant, Bucket | None]:
        """Whose a request with this API key from this address is, and what pays for it; raises Unauthorized."""
        tenant = self.tenants.of(key)
        if tenant is ANYONE:
            return tenant, self.rates.of_address(address)
        return tenant, self.rates.of_tenant(tenant.name, tenant.rate)

    async def start(self) -> None:
        """Start the dispatch loop and the monitor, and warm the engine on a thread of its own."""
        if self._gpu:
            self._gpu.start()
        dearest_first = [entry.stitch for entry in reversed(self.controller.frontier)]
        await asyncio.get_running_loop().run_in_executor(self._engine_threads, self.engine.warm_up, dearest_first)
        if self._schedule:
            self._schedule(interrupting=False)
        self._tasks = list(map(asyncio.create_task, (self.batcher.run(), self._watch(), self._record(dearest_first))))
        for task, told in zip(self._tasks, ENDED, strict=True):
            task.add_done_callback(partial(_tell_of_end, told))

    def refuse(self) -> None:
        """Take no more requests."""
        self.refusing = True
        self.on_refusing()

    async def stop(self) -> None:
        """Answer what is queued, then let everything go."""
        self.draining = True
        self.refuse()
        self.batcher.stop()
        dispatch, *beside = self._tasks
        await asyncio.wait([dispatch])
        for task in beside:
            task.cancel()
        if self._gpu:
            self._gpu.stop()
        self.decode_pool.shutdown(wait=False, cancel_futures=True)
        self._engine_threads.shutdown()

    async def _watch(self) -> None:
        while True:
            self.monitor.sample()
            await asyncio.sleep(SAMPLE_EVERY)

    async def _record(self, stitches: Sequence[int]) -> None:
        """Have the engine record what it can do without, one after the other, while nobody has come for a while."""
        run = asyncio.get_running_loop().run_in_executor
        for record in self.engine.recordings(stitches):
            while self.limiter.inside or self.batcher.idle < QUIET or not await run(self._engine_threads, record):
                await asyncio.sleep(SAMPLE_EVERY)

    def drain(self) -> float:
        """Seconds until all inside could be answered, by the cheapest stitches that their budgets admit."""
        waiting = self.limiter.floor - self.batcher.running_floor
        return self.batcher.running + self.controller.drain_seconds(waiting, self.headroom())


def _tell_of_end(told: str, task: asyncio.Task[None]) -> None:
    if not task.cancelled() and task.exception():
        log.critical(told, exc_info=task.exception())


def build(settings: Settings) -> Service:
    """Table, model, engine and the rest, by the settings. Raises ValueError, saying what to mend, where one is bad."""
    unmeasured = LookupTable.load(source := settings.table or folder(settings.family))
    _check_policy(settings, unmeasured)
    _check_tenants(settings, unmeasured)
    _check_weights(unmeasured, settings.checkpoint or shipped(settings.family))
    engine = Engine.load(
        settings.family, settings.checkpoint, settings.device, settings.threads,
        dtype=settings.dtype, max_batch=settings.max_batch, cache=settings.cache,
    )  # fmt: skip
    check(engine.model, unmeasured)
    table = table_for(engine, source, settings.cache, settings.max_batch, settings.profile_s)
    log.info("%s on %s, %d stitches", table.family.name, engine.device_slug, len(table.entries))
    log.info("weights in %s: %s", engine.precision.variant.name, engine.precision.reason)
    decoding = choose(
        settings.decode, engine.device, settings.decode_threads, table.family.preprocessing,
        frontends=settings.frontends,
    )  # fmt: skip
    log.info("JPEGs decoded by %s: %s", decoding.name, decoding.reason)
    return Service(settings, engine, table, decoding=decoding)


def _check_policy(settings: Settings, table: LookupTable) -> None:
    """ValueError for a policy that does not exist, before anything is loaded and measured."""
    if settings.policy not in POLICIES:
        Controller(table, max_batch=settings.max_batch, slo=settings.slo, policy=settings.policy)


def _check_tenants(settings: Settings, table: LookupTable) -> None:
    """ValueError for tenants that cannot be, or who are to have more than the family can."""
    best = max((entry.top1 for entry in table.entries if entry.top1 is not None), default=None)
    for tenant in Tenants.load(settings.tenants) if settings.tenants else ():
        if tenant.min_top1 is not None and (best is None or tenant.min_top1 > best):
            most = "knows no top-1" if best is None else f"reaches {best:.2%} top-1 at most"
            raise ValueError(f"{settings.tenants}: min_top1 of {tenant.name!r}: {table.family.name} {most}; lower it")


def _check_weights(table: LookupTable, path: Path) -> None:
    """TableError when the table says which weights it was measured on and these are others."""
    measured_on = table.family.checkpoint
    if measured_on and measured_on.sha256 and path.is_file() and sha256(path) != measured_on.sha256:
        raise TableError(
            f"{path}: not the weights that the table of {table.family.name!r} was measured on (sha256 differs); "
            "measure them with `stitchserve evaluate` and pass that table's folder as --table"
        )
