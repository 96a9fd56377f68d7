"""Kills one of two replicas on Ray Serve while clients ask, until there is another one; fails if a client noticed.

Starts a Ray of two nodes on this machine, and takes 3 GB and about a minute: python benchmarks/ray/kill.py
`--update` then replaces both replicas by a new version; `--plain` leaves Ray's proxy as it is, for comparison.
"""

import argparse
import asyncio
import json
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil
import ray
from ray import serve
from ray.cluster_utils import Cluster

from server.listening import bound
from server.ray_serve import NAME, app

ROOT = Path(__file__).resolve().parents[2]
SAMPLES = sorted((ROOT / "checkpoints/samples").glob("*.jpg"))
HOOK = "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"
NODE = {"num_cpus": 1, "object_store_memory": 100_000_000, "include_dashboard": False}
CLIENTS = 12
SETTLES = 100  # answers before something happens, and after it
THINKS = 0.25  # seconds between two requests of a client after the kill: new replicas need processor time to start
PATIENCE = 120.0  # seconds for anything
# Patient: the machine may be slow, and this is not about deadlines.
SETTINGS = {"threads": "1", "max_batch": "8", "profile_s": "2", "slo_ms": "60000"}


@contextmanager
def cluster(*, plain: bool) -> Iterator[tuple[str, Path]]:
    """Where clients find the proxy of a Ray of two nodes, and the folder of Ray's logs."""
    os.environ |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}
    if not plain:
        os.environ[HOOK] = "server.resending:middlewares"
    nodes = Cluster(initialize_head=True, head_node_args=NODE)
    try:
        nodes.add_node(**NODE)
        nodes.wait_for_nodes()
        ray.init(address=nodes.address)
        with bound("127.0.0.1", 0) as sockets:
            port = sockets[0].getsockname()[1]
        serve.start(proxy_location="HeadOnly", http_options={"host": "127.0.0.1", "port": port})
        yield f"http://127.0.0.1:{port}", Path(nodes.head_node.get_logs_dir_path())
        serve.shutdown()
    finally:
        ray.shutdown()
        nodes.shutdown()


def replicas() -> dict[int, int]:
    """The processes of this Ray's replicas, and for each the one that is its node."""
    found = {}
    for process in psutil.Process().children(recursive=True):
        try:
            if "".join(process.cmdline()[:1]).startswith(f"ray::ServeReplica:{NAME}:{NAME}"):  # and what it runs now
                found[process.pid] = process.ppid()
        except psutil.NoSuchProcess:  # it ended meanwhile
            continue
    return found


def kill_a_busy_one() -> int:
    """Kill a replica that answers somebody: its process, which Ray names by what it runs."""
    while True:
        for pid in replicas():
            os.kill(pid, signal.SIGSTOP)
            if "handle_request" in psutil.Process(pid).cmdline()[0]:
                os.kill(pid, signal.SIGKILL)
                return pid
            os.kill(pid, signal.SIGCONT)
        time.sleep(0.01)


def running() -> int:
    """How many replicas Ray says may be asked."""
    return serve.status().applications[NAME].deployments[NAME].replica_states.get("RUNNING", 0)


@dataclass
class Clients:
    """What came of requests, by status and whether the answer is the one that each picture had at first."""

    url: str
    seen: Counter[str] = field(default_factory=Counter)
    thinks: float = 0.0
    stopping: bool = False

    async def ask_until_stopped(self, http: httpx.AsyncClient, expected: list[object], first: int) -> None:
        """One client, that asks for the next picture when it has its answer."""
        turn = first
        while not self.stopping:
            turn = (turn + 1) % len(SAMPLES)
            await asyncio.sleep(self.thinks)
            try:
                reply = await http.post("/classify", content=SAMPLES[turn].read_bytes(), params=self.query)
            except httpx.HTTPError as error:
                self.seen[type(error).__name__] += 1
                continue
            right = reply.status_code == httpx.codes.OK and answer(reply) == expected[turn]
            self.seen["right" if right else f"wrong, with status {reply.status_code}"] += 1

    async def run(self, work: Callable[[], None]) -> None:
        """Ask while the work is done, on a thread of its own."""
        async with httpx.AsyncClient(base_url=self.url, timeout=PATIENCE) as http:
            stitches = (await http.get("/stitches")).json()["stitches"]
            self.query = {"stitch": max(stitches, key=lambda row: row["top1"])["id"], "top_k": 1}
            first = [await http.post("/classify", content=each.read_bytes(), params=self.query) for each in SAMPLES]
            expected = [answer(each.raise_for_status()) for each in first]
            asking = [asyncio.create_task(self.ask_until_stopped(http, expected, each)) for each in range(CLIENTS)]
            try:
                await asyncio.to_thread(work)
            finally:
                self.stopping = True
                await asyncio.gather(*asking)

    def settle(self) -> None:
        """Wait for some more answers."""
        goal = self.seen.total() + SETTLES
        wait_until(lambda: self.seen.total() >= goal, "answers")


def answer(reply: httpx.Response) -> object:
    """What is the same in every answer to one picture."""
    told = reply.json()
    return told["stitch"]["id"], [each["index"] for each in told["predictions"]]


def wait_until(true: Callable[[], bool], what: str) -> None:
    """RuntimeError where it takes too long."""
    ends = time.monotonic() + PATIENCE
    while not true():
        if time.monotonic() > ends:
            raise RuntimeError(f"no {what} within {PATIENCE:g} s")
        time.sleep(0.1)


def main(options: argparse.Namespace) -> int:
    """The whole run; the exit status."""
    settings = {**SETTINGS, "cache": options.cache or tempfile.mkdtemp()}
    with cluster(plain=options.plain) as (url, logs):
        serve.run(app(settings), name=NAME)
        clients, told = Clients(url), {}

        def work() -> None:
            before = replicas()
            clients.settle()
            victim = kill_a_busy_one()
            clients.thinks = THINKS
            wait_until(lambda: len(replicas().keys() - {victim}) == len(before) == running(), "replacement")
            clients.settle()
            replaced = replicas()
            told["nodes"], told["replaced"] = len(set(before.values())), len(replaced.keys() - before)
            if options.update:
                serve.run(app({**settings, "slo_ms": "50000"}), name=NAME)
                clients.settle()
                told["updated"] = len(replicas().keys() - replaced)

        asyncio.run(clients.run(work))
        told["sent again"] = sum(each.read_text().count("no answer to POST") for each in logs.glob("worker-*"))
    print(json.dumps(told | {"answers": clients.seen}))
    return int(set(clients.seen) != {"right"})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--update", action="store_true")
    parser.add_argument("--plain", action="store_true")
    parser.add_argument("--cache")
    sys.exit(main(parser.parse_args()))
