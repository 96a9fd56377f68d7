"""The part of chaos.py that any server can be put through: others.py --server litserve --python PATH --minutes 2

The same steady client, attacks and SIGSTOPs (of all the server's processes), the same rules; each 200 is compared with
the answer from before. Left out: the clock, disks and logs, servers beside it, and what /status tells. Deadlines are
told to stitchserve alone, which is asked for its most accurate stitch; by them all are judged. Prints a JSON line and a
row of a Markdown table, exits with 1 if anything failed.
"""

import argparse
import asyncio
import json
import os
import random
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import aiohttp
import psutil
from attacks import Foe, large, other_formats
from chaos import GRACE, SERVING, Chaos
from judging import Answer, growth

from benchmarks.peers.servers import KINDS, STITCHSERVE
from benchmarks.rolling.balancers import free_ports
from benchmarks.rolling.replicas import Replica
from lookup_tables.table import LookupTable, folder
from server.benching import SAMPLES
from server.replay.client import KEEP_ALIVE

FAMILY = "digits"


class Group(Replica):
    """A server and all its processes; memory that they share counts for each."""

    def send(self, which: signal.Signals) -> None:
        """Send a signal to all of them."""
        os.killpg(self.process.pid, which)

    def resident(self) -> int:
        """Their resident memory, in bytes; 0 once they have ended."""
        try:
            first = psutil.Process(self.process.pid)
            return sum(each.memory_info().rss for each in (first, *first.children(recursive=True)))
        except psutil.NoSuchProcess:
            return 0


class Other(Chaos):
    """The run, on any kind of server; `ended` is after how many seconds it had died, if it had."""

    ended = 0.0

    async def classify(self, url: str, image: int, **query: float) -> tuple[int, Answer]:
        """The status, and the answer if that is 200."""
        kind = KINDS[self.options.server]
        if kind is STITCHSERVE:
            return await super().classify(url, image, **query)
        body = kind.wrap(self.images[image], "image/jpeg")
        headers = {**kind.headers, "Content-Type": body.content_type}
        async with self.session.post(f"{url}{kind.path}", data=body.content, headers=headers) as response:
            content = await response.read()
            return response.status, kind.read(content) if response.status == 200 else {}

    async def learn(self) -> None:
        """Ask for every image, one after the other."""
        best = max(LookupTable.load(folder(FAMILY)).entries, key=lambda entry: entry.top1 or 0).stitch
        for image in range(len(self.images)):
            status, answer = await self.classify(self.server.url, image, stitch=best, deadline_ms=10_000)
            if status != 200:
                raise RuntimeError(f"{status} before the chaos")
            self.expected[image, best] = answer

    def foe(self) -> Foe:
        jpeg = self.images[0]
        return Foe(self.server.port, jpeg, other_formats(jpeg), self.chance, KINDS[self.options.server])

    async def sample(self) -> None:
        while time.monotonic() + 5 < self.ends:
            await asyncio.sleep(5)
            if resident := self.server.resident():
                self.resident.append(resident)
            elif not self.ended:
                self.ended = time.monotonic() - self.began
                self.failures["ended"] += 1

    async def run(self, _: Path) -> None:
        """All of it, until the last answer is there."""
        await self.learn()
        await asyncio.gather(*(large(self.foe()) for _ in range(4)))
        self.began = time.monotonic()
        async with asyncio.TaskGroup() as tasks:
            for each in (self.ask_steadily(tasks), self.attack_steadily(tasks), self.stop_and_go(), self.sample()):
                tasks.create_task(each)

    async def settle(self) -> dict[str, Any]:
        """How the server is when all have gone: ready, and of how many images it says what it said before."""
        await asyncio.sleep(12)
        try:
            async with self.session.get(f"{self.server.url}{KINDS[self.options.server].ready}") as response:
                ready = response.status
        except aiohttp.ClientError:
            ready = 0
        before = self.asked.total()
        for image, stitch in self.expected:
            await self.ask(image, stitch, 10.0)
        self.failures["end: not ready"] += ready != 200
        return {"ready": ready, "asked": self.asked.total() - before}


def told(chaos: Other, end: dict[str, Any]) -> dict[str, Any]:
    """All figures, and the verdict."""
    chaos.failures["traceback"] += chaos.server.log.read_text(errors="replace").count("Traceback")
    chaos.failures["end: exit status"] += end["exit"] != 0
    attacks: dict[str, Counter[str]] = {}
    for (name, outcome), count in sorted(chaos.attacked.items()):
        attacks.setdefault(name, Counter())[outcome] += count
    return {
        "server": chaos.options.server,
        "asked": chaos.asked,
        "latest_after_deadline_s": round(chaos.latest, 3),
        "client_held_s": round(sum(until - since for since, until in chaos.client_held), 1),
        "attacks": attacks,
        "stops": len(chaos.server_stopped),
        "resident_mb": [round(each / 1e6) for each in chaos.resident],
        "memory_growth": round(growth(chaos.resident), 4),
        "end": end,
        "ended_after_s": round(chaos.ended),
        "failures": +chaos.failures,
        "verdict": "failed" if +chaos.failures else "passed",
    }


def row(chaos: Other, end: dict[str, Any]) -> str:
    """The same for people, as a Markdown table of one row."""
    others = sum(count for status, count in chaos.asked.items() if status not in {"200", "503", "504"})
    lost = sum(count for what, count in chaos.failures.items() if what.startswith("asked: ") and what[7:8].isupper())
    wrongly = sum(count for what, count in chaos.failures.items() if what.partition(":")[0] in _names(chaos))
    cells = {
        "server": chaos.options.server,
        "proper requests": chaos.asked.total() + lost,
        "200": chaos.asked["200"],
        "503 or 504": chaos.asked["503"] + chaos.asked["504"],
        "other or no answer": others + lost,
        "wrong": chaos.failures["asked: wrong answer"],
        f"over {GRACE:g} s late": chaos.failures["asked: late"],
        "stops": len(chaos.server_stopped),
        "attacks": chaos.attacked.total(),
        "of them 500, stuck or believed": wrongly,
        "tracebacks": chaos.failures["traceback"],
        "exit status": end["exit"],
        "verdict": "failed" if +chaos.failures else "passed",
    }
    return "\n".join(f"| {' | '.join(map(str, each))} |" for each in (cells, ["---"] * len(cells), cells.values()))


def _names(chaos: Other) -> set[str]:
    return {name for name, _ in chaos.attacked}


async def main(options: argparse.Namespace) -> int:
    """The whole run; the exit status."""
    options.out.mkdir(parents=True, exist_ok=True)
    images = [each.read_bytes() for each in sorted(SAMPLES.glob("*.jpg"))]
    kind, log = KINDS[options.server], options.out / f"{options.server}.log"
    log.unlink(missing_ok=True)
    own = (*SERVING, "--cache", str(options.out.resolve() / "cache")) if kind is STITCHSERVE else ()
    (port,) = free_ports(1)
    server = Group(port, [options.python, *kind.program, *own, "--port", str(port)], kind.ready, log)
    try:
        await asyncio.to_thread(server.wait)
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE / 2)
        async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(60)) as session:
            chaos = Other(options, server, None, session, random.Random(options.seed), images)
            await chaos.run(options.out)
            end = await chaos.settle()
        end["exit"], _ = await asyncio.to_thread(server.stop)
    finally:
        server.discard()
    print(json.dumps(told(chaos, end)))
    print(row(chaos, end))
    return int(bool(+chaos.failures))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", choices=KINDS, default="stitchserve")
    parser.add_argument("--python", default=sys.executable, help="interpreter that has the server's packages")
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--rate", type=float, default=20.0, help="proper requests/s")
    parser.add_argument("--attacks", type=float, default=3.0, help="others/s")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/chaos"), help="folder for logs")
    sys.exit(asyncio.run(main(parser.parse_args())))
