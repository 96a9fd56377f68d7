"""Half an hour of chaos on one replica while others ask it properly: python benchmarks/chaos/chaos.py --minutes 30

Takes root, for mounts, and gcc, for the clock. A steady client sends the shipped samples with pinned stitches and
deadlines, and compares each 200 with the answer from before the chaos. Meanwhile at random: clients of attacks.py,
SIGSTOP for 1 to 3 s, steps of the wall clock; the cache's disk is filled, then read-only; more servers start with an
empty read-only cache, and with a full one and a log on /dev/full. Prints a JSON line; exits with 1 if anything failed.
"""

import argparse
import asyncio
import ctypes.util
import email.utils
import json
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Awaitable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from attacks import ATTACKS, Foe, large, other_formats, wrong
from judging import Answer, growth, same
from surroundings import Clock, Server, disk, fill, make_read_only

from server.benching import SAMPLES
from server.listening import bound
from server.replay.client import KEEP_ALIVE

GRACE = 1.0  # seconds after the deadline within which an answer must be there
LEARNT = 5  # every so many stitches
LAGS = 0.2  # seconds that the client itself may be late, until that counts as a stop of its own
GROWTH = 0.02
JUDGED_FROM = 10.0  # minutes: a shorter run is its own warm-up, and its memory is not judged
SERVING = ("--threads", "1", "--profile-s", "5")


@dataclass
class Chaos:
    """The run: the server, what is known about it, and what has been seen."""

    options: argparse.Namespace
    server: Server
    clock: Clock
    session: aiohttp.ClientSession
    chance: random.Random
    images: list[bytes]
    expected: dict[tuple[int, int], Answer] = field(default_factory=dict)  # by image and stitch
    server_stopped: list[tuple[float, float]] = field(default_factory=list)  # from and to, by the monotonic clock
    client_held: list[tuple[float, float]] = field(default_factory=list)  # when it could not run itself
    asked: Counter[str] = field(default_factory=Counter)
    attacked: Counter[tuple[str, str]] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    latest: float = -float("inf")  # seconds after a deadline, of the latest answer
    resident: list[int] = field(default_factory=list)  # bytes, every 10 s
    client_lag: float = 0.0  # seconds
    began: float = 0.0
    steps: Counter[str] = field(default_factory=Counter)  # of the clock, by whether the server's Date showed them
    beside: dict[str, Any] = field(default_factory=dict)

    @property
    def ends(self) -> float:
        minutes: float = self.options.minutes
        return self.began + minutes * 60

    async def get(self, path: str) -> Any:
        async with self.session.get(f"{self.server.url}{path}") as response:
            return await response.json()

    async def classify(self, url: str, image: int, **query: float) -> tuple[int, Answer]:
        """The status, and the answer if that is 200."""
        headers = {"Content-Type": "image/jpeg"}
        params = {"top_k": 100, **query}
        async with self.session.post(
            f"{url}/classify", data=self.images[image], params=params, headers=headers
        ) as response:
            told = await response.json()
            if response.status != 200:
                return response.status, {}
            assert told["stitch"]["id"] == query["stitch"]
            return 200, {each["label"]: each["probability"] for each in told["predictions"]}

    async def learn(self) -> None:
        """Ask for every image by every stitch, one after the other."""
        for stitch in [each["id"] for each in (await self.get("/stitches"))["stitches"]][::LEARNT]:
            for image in range(len(self.images)):
                status, answer = await self.classify(self.server.url, image, stitch=stitch, deadline_ms=10_000)
                if status != 200:
                    raise RuntimeError(f"{status} before the chaos")
                self.expected[image, stitch] = answer

    async def ask(self, image: int, stitch: int, deadline: float) -> None:
        """One proper request, judged."""
        began = time.monotonic()
        try:
            query = {"stitch": stitch, "deadline_ms": round(deadline * 1e3)}
            status, answer = await self.classify(self.server.url, image, **query)
        except (aiohttp.ClientError, TimeoutError, AssertionError, KeyError, ValueError) as error:
            self.failures[f"asked: {type(error).__name__}"] += 1
            return
        ended = time.monotonic()
        halts = self.server_stopped + self.client_held
        standing = sum(max(0.0, min(ended, until) - max(began, since)) for since, until in halts)
        late = ended - began - standing - deadline
        self.latest = max(self.latest, late)
        self.asked[str(status)] += 1
        self.failures["asked: late"] += late > GRACE
        self.failures[f"asked: {status}"] += status not in {200, 503, 504}
        self.failures["asked: wrong answer"] += status == 200 and not same(answer, self.expected[image, stitch])

    async def ask_steadily(self, tasks: asyncio.TaskGroup) -> None:
        """Proper requests at a steady rate, whether the ones before are answered or not."""
        chance = random.Random(self.options.seed + 1)
        pairs = list(self.expected)
        at = self.began
        while at < self.ends:
            await asyncio.sleep(max(0.0, at - time.monotonic()))
            now = time.monotonic()
            self.client_lag = max(self.client_lag, now - at)
            if now - at > LAGS:
                self.client_held.append((at, now))
            tasks.create_task(self.ask(*chance.choice(pairs), chance.uniform(0.3, 2.0)))
            at = max(at + 1 / self.options.rate, now)  # never a burst of what should have been sent

    def foe(self) -> Foe:
        return Foe(self.server.port, self.images[0], other_formats(self.images[0]), self.chance)

    async def attack_steadily(self, tasks: asyncio.TaskGroup) -> None:
        foe = self.foe()
        while time.monotonic() < self.ends:
            await asyncio.sleep(self.chance.expovariate(self.options.attacks))
            (attack,) = self.chance.choices(list(ATTACKS), list(ATTACKS.values()))
            tasks.create_task(self.watch(attack.__name__, attack(foe)))

    async def watch(self, name: str, attack: Awaitable[str]) -> None:
        try:
            outcome = await attack
        except OSError as error:
            outcome = type(error).__name__
        self.attacked[name, outcome] += 1
        self.failures[f"{name}: {outcome}"] += wrong(name, outcome)

    async def stop_and_go(self) -> None:
        while (pause := self.chance.uniform(20, 60)) + time.monotonic() < self.ends:
            await asyncio.sleep(pause)
            began = time.monotonic()
            self.server.send(signal.SIGSTOP)
            await asyncio.sleep(self.chance.uniform(1, 3))
            self.server.send(signal.SIGCONT)
            self.server_stopped.append((began, time.monotonic()))

    async def step_clock(self) -> None:
        """Step the wall clock, and look at the server's Date, which uvicorn renews each second, whether it was seen."""
        while time.monotonic() + 20 < self.ends:
            await asyncio.sleep(self.chance.uniform(10, 20))
            step = self.chance.choice((-(10**8), -86_400, -3_600, -60, 0, 60, 3_600, 86_400, 10**8))
            self.clock.step(step)
            self.steps["seen" if await self.shows(step) or await self.shows(step) else "not seen"] += 1

    async def shows(self, step: int) -> bool:
        await asyncio.sleep(4)
        async with self.session.get(f"{self.server.url}/livez") as response:
            shown = email.utils.parsedate_to_datetime(response.headers["Date"]).timestamp()
        return abs(shown - time.time() - step) < 5

    async def sample(self) -> None:
        while time.monotonic() + 10 < self.ends:
            await asyncio.sleep(10)
            self.resident.append(self.server.resident())
            at = f"{(time.monotonic() - self.began) / 60:.1f} min"
            print(at, f"{self.server.resident() / 1e6:.1f} MB", dict(self.asked), dict(+self.failures), file=sys.stderr)

    async def spoil_disks(self, folder: Path) -> None:
        """Fill the server's own disk and make it read-only; start others beside, without a place to keep anything."""
        await asyncio.sleep((self.ends - time.monotonic()) / 6)
        fill(folder / "cache")
        make_read_only(folder / "cache")
        for name, log in (("read-only", folder / "read-only.log"), ("full", Path("/dev/full"))):
            await asyncio.sleep((self.ends - time.monotonic()) / 4)
            with disk(folder / name, "64k"):
                fill(folder / name) if name == "full" else make_read_only(folder / name)
                self.beside[name] = await self.start_beside(("--cache", str(folder / name)), log)

    async def start_beside(self, options: tuple[str, ...], log: Path) -> dict[str, Any]:
        """Start one more server, and ask it for every image: what came of it."""
        with bound("127.0.0.1", 0) as sockets:
            port = sockets[0].getsockname()[1]
        server = Server(port, (*SERVING, *options), log, ("nice",))
        try:
            ready = await asyncio.to_thread(server.wait)
            right = 0
            for image in range(len(self.images)):
                _, answer = await self.classify(server.url, image, stitch=LEARNT, deadline_ms=10_000)
                right += same(answer, self.expected[image, LEARNT])
            self.failures["beside: wrong answer"] += right < len(self.images)
        except (RuntimeError, aiohttp.ClientError) as error:
            ready, right = -1.0, 0
            self.failures[f"beside: {error}"] += 1
        status = await asyncio.to_thread(server.stop)
        self.failures["beside: exit status"] += status != 0
        return {"ready_s": round(ready, 1), "right": right, "exit": status}

    async def run(self, folder: Path) -> None:
        """All of it, until the last answer is there."""
        await self.learn()
        # The process stays as large as it ever was (server/process.py): large pictures on all decoding threads at once.
        await asyncio.gather(*(large(self.foe()) for _ in range(4)))
        print(f"{len(self.expected)} answers learnt", file=sys.stderr)
        self.began = time.monotonic()
        async with asyncio.TaskGroup() as tasks:
            for each in (self.ask_steadily(tasks), self.attack_steadily(tasks), self.stop_and_go()):
                tasks.create_task(each)
            for each in (self.step_clock(), self.sample(), self.spoil_disks(folder)):
                tasks.create_task(each)

    async def settle(self) -> dict[str, Any]:
        """How the server is when all have gone."""
        await asyncio.sleep(12)  # the longest that a head or a body may take
        async with self.session.get(f"{self.server.url}/livez") as response:
            alive = response.status
        status = await self.get("/status")
        left = {name: status[name] for name in ("inside", "queued", "arriving")}
        self.failures["end: not alive"] += alive != 200
        self.failures["end: somebody inside"] += any(left.values())
        return {"livez": alive, **left, "gpu": status["gpu"], "open_files": self.server.open_files()}


def told(chaos: Chaos, end: dict[str, Any]) -> dict[str, Any]:
    """All figures, and the verdict."""
    log = chaos.server.log.read_text(errors="replace")
    grown = growth(chaos.resident)
    chaos.failures["memory"] += chaos.options.minutes >= JUDGED_FROM and grown > GROWTH
    chaos.failures["traceback"] += log.count("Traceback")
    chaos.failures["end: exit status"] += end["exit"] != 0
    chaos.failures["clock: step not seen"] += chaos.steps["not seen"]
    attacks: dict[str, dict[str, int]] = {}
    for (name, outcome), count in sorted(chaos.attacked.items()):
        attacks.setdefault(name, {})[outcome] = count
    return {
        "minutes": chaos.options.minutes,
        "seed": chaos.options.seed,
        "asked": chaos.asked,
        "latest_after_deadline_s": round(chaos.latest, 3),
        "client_lag_s": round(chaos.client_lag, 3),
        "client_held_s": round(sum(until - since for since, until in chaos.client_held), 1),
        "attacks": attacks,
        "stops": len(chaos.server_stopped),
        "stopped_s": round(sum(until - since for since, until in chaos.server_stopped), 1),
        "clock_steps": chaos.steps,
        "nvml": "found" if ctypes.util.find_library("nvidia-ml") else "missing",
        "servers_beside": chaos.beside,
        "resident_mb": [round(each / 1e6, 1) for each in chaos.resident[:: max(1, len(chaos.resident) // 20)]],
        "memory_growth": round(grown, 4),
        "end": end,
        "failures": +chaos.failures,
        "verdict": "failed" if +chaos.failures else "passed",
    }


async def main(options: argparse.Namespace) -> int:
    """The whole run; the exit status."""
    folder: Path = options.out.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    if task := asyncio.current_task():  # so that servers and mounts go with it
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    images = [each.read_bytes() for each in sorted(SAMPLES.glob("*.jpg"))]
    clock = Clock(folder)
    pin = ["taskset", "-c", options.server_cores] if options.server_cores else []
    with ExitStack() as stack:
        with bound("127.0.0.1", 0) as sockets:
            port = sockets[0].getsockname()[1]
        cache = stack.enter_context(disk(folder / "cache", "1m"))
        server = Server(port, (*SERVING, "--cache", str(cache)), folder / "server.log", [*pin, *clock.before()])
        stack.callback(server.process.kill)
        await asyncio.to_thread(server.wait)
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE / 2)
        async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(60)) as session:
            chaos = Chaos(options, server, clock, session, random.Random(options.seed), images)
            before = server.open_files(), server.threads()
            await chaos.run(folder)
            end = await chaos.settle()
        end |= {"open_files_before": before[0], "threads": server.threads(), "threads_before": before[1]}
        end["exit"] = await asyncio.to_thread(server.stop)
        print(json.dumps(told(chaos, end)))
    return int(bool(+chaos.failures))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--rate", type=float, default=20.0, help="proper requests/s")
    parser.add_argument("--attacks", type=float, default=3.0, help="others/s")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--server-cores", help="cores of the server, as for taskset; none: any")
    parser.add_argument("--out", type=Path, default=Path("/tmp/chaos"), help="folder for logs")
    sys.exit(asyncio.run(main(parser.parse_args())))
