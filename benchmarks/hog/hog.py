"""A hog takes a core from a server at work: within 2 s the level falls and the SLO holds, and it rises after the hog.

    python benchmarks/hog/hog.py [--share 0.3] [--slo-ms 50] [--seconds 15] [--rounds 3] [--hogs 1] [--threads 2]

Starts `stitchserve serve` for digits on a free port of this machine, measures what the dearest stitch can do over HTTP
(closed loop), then sends images open-loop at `share` of that with Poisson gaps. `hogs` processes that burn a core each
come and go: `seconds` without them and `seconds` with them make a round, so that a machine whose speed changes by
itself is compared with itself. Per second of arrivals it prints what became of them (decode, queue and run in ms) and
the server's own headroom, drift, processors' busy share and longest queue. `in time` is by the server's clock (from
arrival to answer), `client` by the sender's, from when a request was due.
Run it on a machine that is otherwise idle: the sender itself takes some of it, and counts as a stranger to the server.
"""

import argparse
import asyncio
import contextlib
import random
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, quantiles
from typing import Any

import aiohttp

ROOT = Path(__file__).parents[2]
POLL_EVERY = 0.25
GRACE = 2.0  # seconds that the server has to react
PROMISE = 0.99
READY_WITHIN = 180.0  # seconds; profiling included


@dataclass(frozen=True)
class Answer:
    """One request: due at `due` seconds; `status` 0 when no answer came; top-1 in percent, its stages in ms."""

    due: float
    status: int
    latency: float
    in_time: bool = False
    top1: float = 0.0
    flops: float = 0.0
    decode: float = 0.0
    queue: float = 0.0
    compute: float = 0.0


@dataclass(frozen=True)
class Look:
    """A look at /status."""

    at: float
    headroom: float
    drift: float
    busy: float
    queued: int


@contextlib.contextmanager
def server(port: int, arguments: argparse.Namespace) -> Iterator[subprocess.Popen[bytes]]:
    """The server as a process of its own."""
    command = [sys.executable, "-m", "server", "serve", "--family", "digits", "--device", "cpu"]
    command += ["--port", str(port), "--slo-ms", str(arguments.slo_ms), *arguments.serve]
    if arguments.threads:
        command += ["--threads", str(arguments.threads)]
    with subprocess.Popen(command, cwd=ROOT) as process:
        try:
            yield process
        finally:
            process.terminate()


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def until_ready(client: aiohttp.ClientSession, process: subprocess.Popen[bytes]) -> None:
    """Returns when the server is ready; RuntimeError when it ended, or after a while."""
    end = time.monotonic() + READY_WITHIN
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(aiohttp.ClientError):
            async with client.get("/readyz") as response:
                if response.ok:
                    return
        await asyncio.sleep(POLL_EVERY)
    raise RuntimeError("the server did not become ready")


async def classify(client: aiohttp.ClientSession, image: bytes, query: str = "") -> tuple[int, dict[str, Any]]:
    """Status and content of one answer."""
    try:
        async with client.post(
            f"/classify?top_k=1{query}", data=image, headers={"Content-Type": "image/jpeg"}
        ) as response:
            return response.status, await response.json(content_type=None)
    except (aiohttp.ClientError, TimeoutError):
        return 0, {}


async def capacity(
    client: aiohttp.ClientSession, images: list[bytes], seconds: float = 4.0, senders: int = 32
) -> float:
    """Answers per second of the dearest stitch on the frontier, with `senders` requests always in flight."""
    async with client.get("/stitches?frontier=true") as response:
        stitches = (await response.json())["stitches"]
    dearest = max(stitches, key=lambda stitch: stitch["flops"])["id"]
    answered, end = 0, time.monotonic() + seconds

    async def send() -> None:
        nonlocal answered
        while time.monotonic() < end:
            status, _ = await classify(client, random.choice(images), f"&stitch={dearest}&deadline_ms=60000")
            answered += status == 200

    await asyncio.gather(*(send() for _ in range(senders)))
    return answered / seconds


class Run:
    """One replay: what was answered and what the server said of itself."""

    def __init__(self, client: aiohttp.ClientSession, images: list[bytes]) -> None:
        self.client, self.images = client, images
        self.start = time.monotonic()
        self.answers: list[Answer] = []
        self.looks: list[Look] = []

    async def replay(self, rate: float, seconds: float, seed: int) -> None:
        """Send at this rate for so long, whatever becomes of the answers."""
        chance, due = random.Random(seed), 0.0
        async with asyncio.TaskGroup() as group:
            watch = group.create_task(self._watch())
            sent = []
            while (due := due + chance.expovariate(rate)) < seconds:
                await asyncio.sleep(self.start + due - time.monotonic())
                sent.append(group.create_task(self._send(due, chance.choice(self.images))))
            await asyncio.gather(*sent)
            watch.cancel()

    async def _send(self, due: float, image: bytes) -> None:
        status, content = await classify(self.client, image)
        latency = time.monotonic() - self.start - due
        if status != 200:
            self.answers.append(Answer(due, status, latency))
            return
        stitch, met = content["stitch"], bool(content["budget"]["met"])
        stages = [content["timing_ms"][stage] for stage in ("decode", "queue", "compute")]
        self.answers.append(Answer(due, status, latency, met, stitch["top1"], stitch["flops"], *stages))

    async def _watch(self) -> None:
        while True:
            with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                async with self.client.get("/status") as response:
                    said = await response.json()
                at = time.monotonic() - self.start
                self.looks.append(Look(at, said["headroom"], said["drift"], said["cpu_busy"], said["queued"]))
            await asyncio.sleep(POLL_EVERY)


async def hogs(count: int, seconds: float, rounds: int) -> None:
    """Processes that burn a core each: `seconds` without them, `seconds` with them, in turns."""
    for _ in range(rounds):
        await asyncio.sleep(seconds)
        burning = [await asyncio.create_subprocess_exec(sys.executable, "-c", "while True: pass") for _ in range(count)]
        try:
            await asyncio.sleep(seconds)
        finally:
            for process in burning:
                process.kill()
                await process.wait()


def line(name: str, answers: list[Answer], looks: list[Look], slo: float) -> str:
    """A row of the table."""
    if not answers:
        return f"{name:>14}  -"
    good = [answer for answer in answers if answer.status == 200]
    late = quantiles([answer.latency for answer in answers], n=100)[98] if len(answers) > 1 else 0.0
    cells = [
        f"{name:>14} {len(answers):6}",
        f"{mean(a.in_time for a in answers) * 100:8.2f}",
        f"{mean(a.status == 200 and a.latency <= slo for a in answers) * 100:7.2f}",
        f"{late * 1e3:7.1f}",
    ]
    if good:
        cells.append(f"{mean(a.top1 for a in good):6.2f} {mean(a.flops for a in good) / 1e6:7.1f}")
        cells.append(" ".join(f"{mean(stage):6.1f}" for stage in zip(*map(_stages, good), strict=True)))
    if looks:
        cells.append(f"{mean(o.headroom for o in looks):6.2f} {mean(o.drift for o in looks):6.2f}")
        cells.append(f"{mean(o.busy for o in looks):5.2f} {max(o.queued for o in looks):4}")
    return " ".join(cells)


def _stages(answer: Answer) -> tuple[float, float, float]:
    return answer.decode, answer.queue, answer.compute


@dataclass(frozen=True)
class Phase:
    """Parts of the run that belong together: from `starts` on, `length` seconds each."""

    name: str
    starts: list[float]
    length: float

    def of(self, at: float) -> bool:
        """Whether that moment belongs to it."""
        return any(start <= at < start + self.length for start in self.starts)


def report(run: Run, seconds: float, rounds: int, slo: float) -> bool:
    """Prints the seconds, the phases and the verdict; whether all of it is as promised."""
    comes = [(2 * number + 1) * seconds for number in range(rounds)]
    leaves = [start + seconds for start in comes]
    begins, rest = [0.0, *leaves], seconds - GRACE
    print(f"{'second':>14}   sent in time%  client  p99 ms   top1  MFLOPs decode  queue    run  headr drift  busy wait")
    for second in range(int(2 * rounds * seconds + seconds)):
        mark = " hog" if any(start <= second < start + seconds for start in comes) else ""
        print(_row(run, Phase(f"{second}{mark}", [second], 1), slo))
    without = Phase("without", [start + GRACE for start in begins], rest)
    hog = Phase("hog, the rest", [start + GRACE for start in comes], rest)
    print()
    for phase in (without, Phase("hog, first 2 s", comes, GRACE), hog, Phase("after, 2 s", leaves, GRACE)):
        print(_row(run, phase, slo))
    high, low = _flops(run, without), _flops(run, hog)
    steps = [step / 4 for step in range(int(4 * seconds))]
    fell = next((at for at in steps if _flops(run, _quarter(comes, at)) < (high + low) / 2), None)
    rose = next((at for at in steps if _flops(run, _quarter(leaves, at)) > (high + low) / 2), None)
    held = mean(answer.in_time for answer in run.answers if hog.of(answer.due))
    print(f"\nlevel {high / 1e6:.1f} MFLOPs without and {low / 1e6:.1f} with the hog: {low / high:.2f}")
    print(f"half of its fall was there {fell} s after the hog came, half of its rise {rose} s after it left")
    print(f"in time after the hog's first {GRACE:.0f} s: {held * 100:.2f} %")
    good = held >= PROMISE and low < high and all(at is not None and at <= GRACE for at in (fell, rose))
    print("as promised" if good else "NOT as promised")
    return good


def _quarter(starts: list[float], at: float) -> Phase:
    return Phase("", [start + at for start in starts], 0.25)


def _row(run: Run, phase: Phase, slo: float) -> str:
    answers = [answer for answer in run.answers if phase.of(answer.due)]
    return line(phase.name, answers, [look for look in run.looks if phase.of(look.at)], slo)


def _flops(run: Run, phase: Phase) -> float:
    return mean([answer.flops for answer in run.answers if phase.of(answer.due) and answer.status == 200] or [0.0])


async def main(arguments: argparse.Namespace) -> bool:
    """The whole run."""
    images = [path.read_bytes() for path in sorted((ROOT / "checkpoints/samples").glob("*.jpg"))]
    port, slo, seconds = free_port(), arguments.slo_ms / 1e3, arguments.seconds
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=4)
    timeout = aiohttp.ClientTimeout(total=30)
    with server(port, arguments) as process:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}", connector=connector, timeout=timeout) as client:
            await until_ready(client, process)
            most = await capacity(client, images)
            rate = arguments.rate or arguments.share * most
            print(
                f"the dearest stitch answers {most:.0f} requests/s; sending {rate:.0f}/s, SLO {arguments.slo_ms:g} ms\n"
            )
            await asyncio.sleep(2)  # drift settles
            run = Run(client, images)
            async with asyncio.TaskGroup() as group:
                group.create_task(hogs(arguments.hogs, seconds, arguments.rounds))
                await run.replay(rate, (2 * arguments.rounds + 1) * seconds, arguments.seed)
    return report(run, seconds, arguments.rounds, slo)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--share", type=float, default=0.3, help="of the dearest stitch's capacity")
    parser.add_argument("--rate", type=float, help="requests/s, instead of a share")
    parser.add_argument("--slo-ms", type=float, default=50)
    parser.add_argument("--seconds", type=float, default=15, help="with and without the hog, each")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--hogs", type=int, default=1)
    parser.add_argument("--threads", type=int, help="CPU threads of the engine")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("serve", nargs="*", help="further options of `stitchserve serve`, after --")
    sys.exit(not asyncio.run(main(parser.parse_args())))
