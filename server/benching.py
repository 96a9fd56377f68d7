"""`stitchserve bench`: replays traces against a server over HTTP and reports what became of every request."""

import mimetypes
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import aiohttp
from pydantic import BaseModel, ConfigDict, Field
from pydantic_settings import CliPositionalArg
from tqdm import tqdm
from yarl import URL

from lookup_tables.plot import picture_format
from server.budget import GRAMMAR as BUDGET
from server.budget import parse
from server.errors import BadBudget
from server.replay import client
from server.replay.bench import Reply, replay, run
from server.replay.plot import plot
from server.replay.report import OK, Outcome, Report, read_json, report, table, write_csv, write_json
from server.replay.traces import GRAMMAR, Trace, specs, trace
from server.schemas import Status, Stitches

LEAST_TIMEOUT = 10.0  # seconds
SAMPLES = Path(__file__).resolve().parents[1] / "checkpoints" / "samples"


class Bench(BaseModel):
    """Replay traces against a server, open loop: requests leave when they are due, and latency counts from then."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: CliPositionalArg[str] = Field(description="stitchserve's address; with --peer the exact URL to POST to")
    trace: str = Field("gamma:cv2=2,load=0.5", description=f"one or more, separated by spaces, or presets; {GRAMMAR}")
    seconds: float | None = Field(None, gt=0, description="length of each; none: 60, or all of a file")
    seed: int = Field(0, ge=0, description="the same seed draws the same arrivals")
    capacity: float | None = Field(
        None, gt=0, description="requests/s that are load 1; none: one image after the other by the cheapest stitch"
    )
    budget: str | None = Field(None, description=f"what every request asks for; {BUDGET}")
    slo_ms: float | None = Field(
        None, gt=0, description="deadline that answers are judged by; none: the budget's, else the server's own"
    )
    peer: bool = Field(False, description="the server is another one: only status and latency count")
    top1: float | None = Field(None, ge=0, le=1, description="what a peer's answers are worth, a share of 1")
    image: list[Path] = Field([], description="files to send in turn, or folders of them; none: the shipped samples")
    content_type: str | None = Field(None, description="type of the files; none: by their suffix")
    header: list[str] = Field([], description="'Name: value' to send along, such as an API key")
    most_in_flight: int = Field(1000, ge=1, description="with so many unanswered, a further request is not sent")
    timeout_s: float | None = Field(
        None,
        gt=0,
        description="when to give up waiting for an answer; none: 10 s, or twice the deadline where that is more",
    )
    name: str | None = Field(None, description="what to call this run; none: the server's policy, or a peer's address")
    beside: list[Path] = Field([], description="JSON of earlier runs, to print and draw beside this one")
    out: Path | None = Field(None, alias="json", description="write everything as JSON")
    csv: Path | None = Field(None, description="write what became of the requests of each second")
    plot: Path | None = Field(None, description="draw load, level and misses over time into this .png or .svg")

    def cli_cmd(self) -> None:
        """Replay, print, write."""
        if self.plot:
            picture_format(self.plot)
        beside = [each for path in self.beside for each in read_json(path)]
        client.allow_connections(self.most_in_flight)
        reports = [*beside, *run(self._replay_all())]
        print(table(reports))
        if self.out:
            write_json(self.out, reports)
        if self.csv:
            write_csv(self.csv, reports)
        if self.plot:
            plot(reports, self.plot)

    async def _replay_all(self) -> list[Report]:
        async with client.session() as session:
            goal = self._peer() if self.peer else await self._ours(session)
            traces = [trace(spec, goal.capacity, self.seconds, self.seed) for spec in specs(self.trace)]
            await client.check(session, goal.target)
            return [await self._replay(session, goal, each) for each in traces]

    def _peer(self) -> "Goal":
        if self.capacity is None or self.slo_ms is None:
            raise ValueError("--peer tells neither its capacity nor its SLO: give --capacity and --slo-ms")
        if self.budget is not None:
            raise ValueError("--budget is for stitchserve: leave it out with --peer, or write it into the URL")
        url, deadline = client.address(self.url), self.slo_ms / 1e3
        target = self._target(url, lambda _: Reply(OK, top1=self.top1), deadline)
        return Goal(self.name or f"{url.host}:{url.port}", self.capacity, deadline, target)

    async def _ours(self, session: aiohttp.ClientSession) -> "Goal":
        if self.top1 is not None:
            raise ValueError("--top1 is for --peer: stitchserve tells the top-1 of every answer")
        url = client.address(self.url)
        status = await client.fetch(session, url / "status", Status)
        budget, deadline = asked(self.budget, self.slo_ms, status.slo_ms)
        capacity = self.capacity or serial_capacity(await client.fetch(session, url / "stitches", Stitches))
        ask = (url / "classify").with_query({"top_k": 1} | ({"budget": budget} if budget else {}))
        target = self._target(ask, client.read_classification, deadline)
        return Goal(self.name or status.policy, capacity, deadline, target)

    def _target(self, url: URL, read: Callable[[bytes], Reply], deadline: float) -> client.Target:
        timeout = self.timeout_s or max(LEAST_TIMEOUT, 2 * deadline)
        return client.Target(url, self._bodies(), read, timeout, self._headers())

    def _bodies(self) -> list[client.Body]:
        files = [file for path in self.image or [SAMPLES] for file in _files(path)]
        return [client.Body(file.read_bytes(), self.content_type or _type_of(file)) for file in files]

    def _headers(self) -> dict[str, str]:
        pairs = [line.partition(":") for line in self.header]
        if not all(colon and name.strip() for name, colon, _ in pairs):
            raise ValueError("--header: write 'Name: value'")
        return {name.strip(): value.strip() for name, _, value in pairs}

    async def _replay(self, session: aiohttp.ClientSession, goal: "Goal", each: Trace) -> Report:
        ask = client.asking(session, goal.target)
        began, worked = time.monotonic(), time.process_time()
        with Progress(each) as progress:
            done = await replay(each, ask, goal.deadline, most=self.most_in_flight, tell=progress.tell)
        busy = (time.process_time() - worked) / (time.monotonic() - began)
        warning = done.bottleneck(goal.deadline)
        if warning:
            print(f"stitchserve: {warning}", file=sys.stderr)
        details: dict[str, str | int | float] = {
            "url": str(goal.target.url),
            "slo_ms": goal.deadline * 1e3,
            "capacity": goal.capacity,
            "seed": self.seed,
            "generator_late_p50_ms": done.late(50) * 1e3,
            "generator_late_p99_ms": done.late(99) * 1e3,
            "generator_busy": busy,
        }
        return report(goal.name, each.name, done.outcomes, each.seconds, details)


@dataclass(frozen=True)
class Goal:
    """What is replayed against: its name, the requests/s of load 1, the deadline in seconds, and where requests go."""

    name: str
    capacity: float
    deadline: float
    target: client.Target


class Progress:
    """A bar on the terminal: requests done, and the share of them in time."""

    def __init__(self, each: Trace) -> None:
        self.bar = tqdm(total=len(each.arrivals), desc=each.name, unit="req", disable=None)
        self.in_time = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def tell(self, outcome: Outcome) -> None:
        """Count one more."""
        self.in_time += outcome.in_time
        if self.bar.update():  # drawn: the next drawing shows this share
            self.bar.set_postfix_str(f"{self.in_time / self.bar.n:.2%} in time", refresh=False)


def asked(budget: str | None, slo_ms: float | None, server_ms: float) -> tuple[str | None, float]:
    """The budget to send, and the deadline in seconds to judge by.

    The SLO is also asked for where the budget sets no deadline; ValueError for a budget that does not parse.
    """
    try:
        deadline = parse([budget]).deadline if budget else None
    except BadBudget as error:
        raise ValueError(f"--{error.detail}") from None
    if slo_ms is None:
        return budget, server_ms / 1e3 if deadline is None else deadline
    if deadline is None:
        budget = f"{budget},{slo_ms}ms" if budget else f"{slo_ms}ms"
    return budget, slo_ms / 1e3


def serial_capacity(listed: Stitches) -> float:
    """Requests/s of the cheapest stitch, one image after the other; ValueError without a profile."""
    fastest = min((row.latency_ms for row in listed.stitches if row.latency_ms is not None), default=None)
    if not fastest:
        raise ValueError("the server knows no latencies: give --capacity in requests/s")
    return 1e3 / fastest


def _files(path: Path) -> list[Path]:
    """The file itself, or those in a folder; ValueError for an empty one."""
    files = sorted(file for file in path.iterdir() if file.is_file()) if path.is_dir() else [path]
    if not files:
        raise ValueError(f"--image {path}: no files in it")
    return files


def _type_of(file: Path) -> str:
    return mimetypes.guess_type(file.name)[0] or "application/octet-stream"
