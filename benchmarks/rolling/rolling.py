"""Two replicas behind a balancer under load: rolling restarts, or one of them killed; no request may fail.

    python benchmarks/rolling/rolling.py haproxy|nginx [--restarts 5] [--kill] [--load 0.6] [--seconds 150]
        [--server stitchserve|litserve|triton] [--python PATH] [--stop-by SIGTERM]

Starts the replicas and the balancer (with deploy/haproxy.cfg or deploy/nginx.conf) on loopback, measures what both do
by the family's most accurate stitch alone, and sends `load` times that, open loop, with the controller free to choose.
Meanwhile one replica after the other gets SIGTERM, exits, is started again and becomes ready, `restarts` times over.
With --kill it is SIGKILL, once for each. While one is away the other one has twice `load` and takes cheaper stitches.
Everything shares the machine's cores, so that starting a replica slows down the one that serves: hence the long SLO.
Exits with 1 if any request failed, or a replica that was stopped did not exit with 0. Logs lie in `out` afterwards.

With --server another server takes stitchserve's place, whose interpreter, with its packages, is --python: the same
balancer with its checks on that server's path, the same load of what both do, the same verdict (benchmarks/peers). It
has that one stitch alone. The last lines are a row of a Markdown table.
"""

import argparse
import asyncio
import signal
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import aiohttp
from balancers import FILES, Balancer, balancer, free_ports
from replicas import Replica, scrape
from telling import failed, row
from yarl import URL

from benchmarks.peers.servers import KINDS, STITCHSERVE, Kind
from lookup_tables.records import Entry
from lookup_tables.table import LookupTable, folder
from server.benching import SAMPLES
from server.replay import client
from server.replay.bench import Replayed, Reply, replay, run
from server.replay.report import OK, report, table
from server.replay.traces import trace

FAMILY = "digits"
IN_FLIGHT, MEASURED_FOR = 8, 8.0  # of the closed loop that measures the capacity; seconds
SETTLES = 3.0  # seconds of load before the first replica goes, and with both before the next
TIMEOUT = 30.0  # seconds


@dataclass(frozen=True)
class Fleet:
    """What runs: two replicas, one after the other ended and started again, behind a balancer."""

    options: argparse.Namespace
    replicas: list[Replica]
    front: Balancer
    ends: list[tuple[int, float]] = field(default_factory=list)  # exit status, and seconds from the signal until ready

    @property
    def kind(self) -> Kind:
        """What is served by."""
        return KINDS[self.options.server]

    def renew_all(self) -> None:
        """End and start again every replica in turn, as often as was asked."""
        began = time.monotonic()
        for turn in range(1 if self.options.kill else self.options.restarts):
            for number, replica in enumerate(self.replicas, 1):
                time.sleep(SETTLES)
                at = time.monotonic() - began
                status, took = replica.kill() if self.options.kill else replica.stop(self.options.stop_by)
                replica.start()
                ready = replica.wait()
                self.ends.append((status, took + ready))
                told = f"ended with {status} after {took:.1f} s, ready {ready:.1f} s later"
                print(f"{at:6.1f} s  round {turn + 1}, replica {number} {told}", flush=True)
        time.sleep(SETTLES)

    def unclean(self) -> int:
        """How many ended otherwise than they were asked to."""
        return sum(status != (-signal.SIGKILL if self.options.kill else 0) for status, _ in self.ends)

    def retried(self) -> int:
        """How many requests the balancer has sent to a second replica."""
        if self.options.balancer == "haproxy":
            found = scrape(self.front.metrics, "haproxy_backend_redispatch_warnings_total")
            return int(sum(value for labels, value in found if labels["proxy"] == "replicas"))
        lines = self.front.log.read_text(encoding="utf-8").splitlines()
        return sum(", " in line.partition('replicas="')[2].partition('"')[0] for line in lines)


def most_accurate() -> Entry:
    """The stitch that peers serve, and that the capacity is measured by."""
    return max(LookupTable.load(folder(FAMILY)).entries, key=lambda entry: entry.top1 or 0)


def read(kind: Kind, by: Entry, content: bytes) -> Reply:
    """A peer's answer, which is always this stitch's."""
    try:
        kind.read(content)
    except (ValueError, LookupError, TypeError):
        return Reply("unreadable")
    return Reply(OK, by.stitch, by.top1, by.flops)


def target(kind: Kind, url: URL, query: Mapping[str, int]) -> client.Target:
    """The sample pictures, to be classified at this address; `query` is for stitchserve alone."""
    bodies = [kind.wrap(each.read_bytes(), "image/jpeg") for each in sorted(SAMPLES.glob("*.jpg"))]
    own = kind is STITCHSERVE
    address = (url / kind.path.lstrip("/")).with_query(query if own else {})
    reads = client.read_classification if own else partial(read, kind, most_accurate())
    return client.Target(address, bodies, reads, TIMEOUT, kind.headers)


async def capacity(session: aiohttp.ClientSession, kind: Kind, url: URL) -> float:
    """Requests/s that both replicas answer by the most accurate stitch alone."""
    ask = client.asking(session, target(kind, url, {"stitch": most_accurate().stitch, "top_k": 1}))
    ends = asyncio.get_running_loop().time() + MEASURED_FOR
    answers = 0

    async def worker() -> None:
        nonlocal answers
        while asyncio.get_running_loop().time() < ends:
            reply = await ask(answers)
            answers += reply.status == OK

    await asyncio.gather(*(worker() for _ in range(IN_FLIGHT)))
    return answers / MEASURED_FOR


async def under_load(fleet: Fleet) -> tuple[Replayed, float, bool]:
    """What became of the requests sent meanwhile, the capacity, and whether the load outlasted the restarts."""
    options, kind, url = fleet.options, fleet.kind, URL(fleet.front.url)
    async with client.session() as session:
        most = options.capacity or await capacity(session, kind, url)
        drawn = trace(f"gamma:cv2=1,load={options.load}", most, options.seconds, options.seed)
        print(f"load 1 is {most:.1f} requests/s; {len(drawn.arrivals)} requests in {options.seconds:g} s", flush=True)
        renewal = asyncio.create_task(asyncio.to_thread(fleet.renew_all))
        ask = client.asking(session, target(kind, url, {"top_k": 1}))
        done = await replay(drawn, ask, options.slo_ms / 1e3)
        outlasted = renewal.done()
        await renewal
        print(table([report(f"{options.server}, {options.balancer}", drawn.name, done.outcomes, drawn.seconds)]))
        return done, most, outlasted


def command(options: argparse.Namespace) -> list[str]:
    """What starts a replica, but for its port."""
    serving = ["--cache", str(options.out.resolve() / "cache"), "--profile-s", "10", "--threads", "1"]
    serving += ["--slo-ms", str(options.slo_ms), "--drain-delay-s", str(options.drain_delay_s)]
    return [options.python, *KINDS[options.server].program, *(serving if options.server == "stitchserve" else [])]


def main(options: argparse.Namespace) -> int:
    """The whole run; the exit status."""
    options.out.mkdir(parents=True, exist_ok=True)
    ready = KINDS[options.server].ready
    with ExitStack() as stack:
        replicas = []
        for number, port in enumerate(free_ports(2), 1):
            replica = Replica(
                port, [*command(options), "--port", str(port)], ready, options.out / f"{options.server}{number}.log"
            )
            stack.callback(replica.discard)
            replica.wait()  # the first one measures latencies, which the second one then finds in the cache
            replicas.append(replica)
        ports = [each.port for each in replicas]
        front = stack.enter_context(balancer(options.balancer, options.out.resolve(), ports, ready=ready))
        fleet = Fleet(options, replicas, front)
        done, most, outlasted = run(under_load(fleet))
        again = fleet.retried()
    lost, unclean = failed(done.outcomes), fleet.unclean()
    print(f"sent to a second replica by {options.balancer}: {again}; ended otherwise than asked: {unclean}")
    print(f"failed requests: {lost} of {len(done.outcomes)}")
    if not outlasted:
        print("the load ended before the last replica was back: give more --seconds", file=sys.stderr)
    by = "SIGKILL" if options.kill else options.stop_by.name
    print(row((options.server, options.balancer, by), most, done.outcomes, again, fleet.ends))
    return int(lost > 0 or unclean > 0 or not outlasted)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("balancer", choices=FILES)
    parser.add_argument("--server", choices=KINDS, default="stitchserve")
    parser.add_argument("--python", default=sys.executable, help="interpreter that has the server's packages")
    parser.add_argument("--restarts", type=int, default=5)
    parser.add_argument("--kill", action="store_true")
    parser.add_argument("--stop-by", type=signal.Signals.__getitem__, default="SIGTERM", help="for example SIGINT")
    parser.add_argument("--load", type=float, default=0.6)
    parser.add_argument("--capacity", type=float, help="requests/s that are load 1; default: measured")
    parser.add_argument("--seconds", type=float, default=150.0)
    parser.add_argument("--slo-ms", type=float, default=1000.0)
    parser.add_argument("--drain-delay-s", type=float, default=2.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/rolling"))
    sys.exit(main(parser.parse_args()))
