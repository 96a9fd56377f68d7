"""Two replicas behind a balancer under load: rolling restarts, or one of them killed; no request may fail.

    python benchmarks/rolling/rolling.py haproxy|nginx [--restarts 5] [--kill] [--load 0.6] [--seconds 150]

Starts the replicas and the balancer (with deploy/haproxy.cfg or deploy/nginx.conf) on loopback, measures what both do
by the family's most accurate stitch alone, and sends `load` times that, open loop, with the controller free to choose.
Meanwhile one replica after the other gets SIGTERM, exits, is started again and becomes ready, `restarts` times over.
With --kill it is SIGKILL, once for each. While one is away the other one has twice `load` and takes cheaper stitches.
Everything shares the machine's cores, so that starting a replica slows down the one that serves: hence the long SLO.
Exits with 1 if any request failed. Logs lie in `out` afterwards.
"""

import argparse
import asyncio
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from balancers import FILES, Balancer, balancer, free_ports
from replicas import Replica, scrape, serving
from yarl import URL

from server.benching import SAMPLES
from server.replay import client
from server.replay.bench import Replayed, replay, run
from server.replay.report import OK, report, table
from server.replay.traces import trace
from server.schemas import Stitches

IN_FLIGHT, MEASURED_FOR = 8, 8.0  # of the closed loop that measures the capacity; seconds
SETTLES = 3.0  # seconds of load before the first replica goes, and with both before the next
TIMEOUT = 30.0  # seconds


@dataclass(frozen=True)
class Fleet:
    """What runs: two replicas, one after the other ended and started again, behind a balancer."""

    options: argparse.Namespace
    replicas: list[Replica]
    front: Balancer

    def renew_all(self) -> None:
        """End and start again every replica in turn, as often as was asked."""
        began = time.monotonic()
        for turn in range(1 if self.options.kill else self.options.restarts):
            for number, replica in enumerate(self.replicas, 1):
                time.sleep(SETTLES)
                at = time.monotonic() - began
                before = replica.answered()
                status, took = replica.kill() if self.options.kill else replica.stop()
                replica.start()
                ready = replica.wait()
                told = f"ended with {status} after {took:.1f} s, ready {ready:.1f} s later"
                print(f"{at:6.1f} s  round {turn + 1}, replica {number}: {before} answers, {told}", flush=True)
                if status != (-9 if self.options.kill else 0):
                    raise RuntimeError(f"replica {number} ended with {status}")
        time.sleep(SETTLES)

    def retried(self) -> int:
        """How many requests the balancer has sent to a second replica."""
        if self.options.balancer == "haproxy":
            found = scrape(self.front.metrics, "haproxy_backend_redispatch_warnings_total")
            return int(sum(value for labels, value in found if labels["proxy"] == "replicas"))
        lines = self.front.log.read_text(encoding="utf-8").splitlines()
        return sum(", " in line.partition('replicas="')[2].partition('"')[0] for line in lines)


def target(url: URL) -> client.Target:
    """The sample pictures, to be classified at this address."""
    bodies = [client.Body(each.read_bytes(), "image/jpeg") for each in sorted(SAMPLES.glob("*.jpg"))]
    return client.Target(url, bodies, client.read_classification, TIMEOUT)


async def capacity(session: aiohttp.ClientSession, url: URL) -> float:
    """Requests/s that both replicas answer by the most accurate stitch alone."""
    listed = await client.fetch(session, url / "stitches", Stitches)
    best = max(listed.stitches, key=lambda row: row.top1 or 0)
    ask = client.asking(session, target((url / "classify").with_query(stitch=best.id, top_k=1)))
    ends = asyncio.get_running_loop().time() + MEASURED_FOR
    answers = 0

    async def worker() -> None:
        nonlocal answers
        while asyncio.get_running_loop().time() < ends:
            reply = await ask(answers)
            answers += reply.status == OK

    await asyncio.gather(*(worker() for _ in range(IN_FLIGHT)))
    return answers / MEASURED_FOR


async def under_load(fleet: Fleet) -> tuple[Replayed, str, bool]:
    """What became of the requests sent meanwhile, in words and whether the load outlasted the restarts."""
    options, url = fleet.options, URL(fleet.front.url)
    async with client.session() as session:
        most = options.capacity or await capacity(session, url)
        drawn = trace(f"gamma:cv2=1,load={options.load}", most, options.seconds, options.seed)
        print(f"load 1 is {most:.1f} requests/s; {len(drawn.arrivals)} requests in {options.seconds:g} s", flush=True)
        renewal = asyncio.create_task(asyncio.to_thread(fleet.renew_all))
        ask = client.asking(session, target((url / "classify").with_query(top_k=1)))
        done = await replay(drawn, ask, options.slo_ms / 1e3)
        outlasted = renewal.done()
        await renewal
        return done, table([report(options.balancer, drawn.name, done.outcomes, drawn.seconds)]), outlasted


def main(options: argparse.Namespace) -> int:
    """The whole run; the exit status."""
    options.out.mkdir(parents=True, exist_ok=True)
    settings = ("--cache", str(options.out / "cache"), "--profile-s", "10", "--threads", "1")
    settings += ("--slo-ms", str(options.slo_ms), "--drain-delay-s", str(options.drain_delay_s))
    with ExitStack() as stack:
        replicas = []
        for number, port in enumerate(free_ports(2), 1):
            replica = Replica(serving(port, settings), port, options.out / f"replica{number}.log")
            stack.callback(replica.discard)
            replica.wait()  # the first one measures latencies, which the second one then finds in the cache
            replicas.append(replica)
        front = stack.enter_context(balancer(options.balancer, options.out.resolve(), [each.port for each in replicas]))
        fleet = Fleet(options, replicas, front)
        done, told, outlasted = run(under_load(fleet))
        print(told)
        since = ", ".join(f"{each.answered()} by replica {number}" for number, each in enumerate(replicas, 1))
        print(
            f"answers since the last start: {since}; sent to a second replica by {options.balancer}: {fleet.retried()}"
        )
    failed = sum(outcome.status != OK for outcome in done.outcomes)
    print(f"failed requests: {failed} of {len(done.outcomes)}")
    if not outlasted:
        print("the load ended before the last replica was back: give more --seconds", file=sys.stderr)
    return int(failed > 0 or not outlasted)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("balancer", choices=FILES)
    parser.add_argument("--restarts", type=int, default=5)
    parser.add_argument("--kill", action="store_true")
    parser.add_argument("--load", type=float, default=0.6)
    parser.add_argument("--capacity", type=float, help="requests/s that are load 1; default: measured")
    parser.add_argument("--seconds", type=float, default=150.0)
    parser.add_argument("--slo-ms", type=float, default=1000.0)
    parser.add_argument("--drain-delay-s", type=float, default=2.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/rolling"))
    sys.exit(main(parser.parse_args()))
