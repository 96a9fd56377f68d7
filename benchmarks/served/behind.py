"""What a request costs the engine's process: servers of several trees in turns, each with an engine that does nothing.

    python -m benchmarks.served.behind TREE [TREE ...] [--frontends 4] [--rounds 8] [--image FILE ...]

Servers run at once, and are asked one at a time, a second each, by wrk on 16 connections: their engines' processes on
the core `--core`, front ends and who asks on `--client-core`. Prints medians of the processor's microseconds a request
and of requests a second, and of their ratios to the first tree's. With `--frontends 0` nothing is decoded either.
"""

import argparse
import os
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from benchmarks.peers.running import Server, saturate
from benchmarks.peers.servers import KINDS

SAMPLES = sorted((Path(__file__).parents[2] / "checkpoints" / "samples").glob("*.jpg"))[:8]
SECONDS = 1.0
PROGRAM = """
import sys
from benchmarks.peers import nothing
from server import service
from server.cli import main
from server.engine import Engine
Engine.run = nothing.run
if sys.argv[sys.argv.index("--frontends") + 1] == "0":
    service.decode, service.is_quick = nothing.decode, lambda _: True
main(["serve", *sys.argv[1:]])
"""


class Tree:
    """A server of one tree."""

    def __init__(self, tree: str, options: argparse.Namespace) -> None:
        self.name, self.costs, self.rates, self._options = tree, list[float](), list[float](), options
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._url = f"http://127.0.0.1:{free.getsockname()[1]}"
        given = ["--port", self._url.rpartition(":")[2], "--slo-ms", "5000", "--frontends", str(options.frontends)]
        environment = os.environ | {"PYTHONPATH": str(Path(tree).resolve())}
        self.process = subprocess.Popen([sys.executable, "-c", PROGRAM, *given], cwd=tree, env=environment)
        kind, images = KINDS["stitchserve"], [image.read_bytes() for image in options.image]
        bodies = [kind.wrap(image, "image/jpeg") for image in images]
        self._server = Server(kind, f"{self._url}/classify", bodies, 0, 0.0)

    def settle(self) -> None:
        """Wait until it is ready, put its processes on their cores, and ask it once."""
        while True:
            try:
                urllib.request.urlopen(f"{self._url}/readyz").close()
            except OSError:
                time.sleep(0.2)
            else:
                break
        time.sleep(0.5)
        own = str(self.process.pid)
        children = Path(f"/proc/{own}/task/{own}/children").read_text().split()
        for process, core in [(own, self._options.core), *((each, self._options.client_core) for each in children)]:
            subprocess.run(["taskset", "-a", "-cp", core, process], check=True, capture_output=True)
        self._asked()

    def measure(self) -> None:
        """One turn."""
        cost, rate = self._asked()
        self.costs.append(cost)
        self.rates.append(rate)

    def _asked(self) -> tuple[float, float]:
        before = self._seconds()
        found = saturate(self._server, 16, SECONDS, self._options.client_core, "?deadline_ms=60000")
        if found.failed:
            raise RuntimeError(f"{self.name}: {found.failed} requests failed")
        return (self._seconds() - before) / (found.rate * SECONDS), found.rate

    def _seconds(self) -> float:
        tasks = Path(f"/proc/{self.process.pid}/task").iterdir()
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def ratio(mine: Sequence[float], first: Sequence[float]) -> float:
    """The median of the ratios of what was measured in turn."""
    return statistics.median(a / b for a, b in zip(mine, first, strict=True))


def main() -> None:
    """All rounds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trees", nargs="+")
    parser.add_argument("--frontends", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--image", nargs="+", type=Path, default=SAMPLES)
    parser.add_argument("--core", default="0")
    parser.add_argument("--client-core", default="1")
    options = parser.parse_args()
    trees = [Tree(tree, options) for tree in options.trees]
    try:
        for each in trees:
            each.settle()
        for _ in range(options.rounds):
            for each in trees:
                each.measure()
    finally:
        for each in trees:
            each.process.terminate()
            each.process.wait()
    first = trees[0]
    for each in trees:
        cost, rate = statistics.median(each.costs) * 1e6, statistics.median(each.rates)
        print(f"{each.name}: {cost:.0f} us ({ratio(each.costs, first.costs):.3f}), ", end="")
        print(f"{rate:.0f}/s ({ratio(each.rates, first.rates):.3f})")


if __name__ == "__main__":
    main()
