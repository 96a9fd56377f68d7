"""What a server does under a trace, beside what the simulator says it does.

    python benchmarks/served/served.py [--family digits] [--checkpoint FILE] [--repeats 5] [--cores 0:1]

Measures this machine's latencies, starts `stitchserve serve` with them on a free port, replays each trace against it
with `stitchserve bench`, and asks `stitchserve simulate` about the same arrivals with the same latencies. Loads are
shares of what the cheapest stitch can do in its best batch size by those latencies; decoding and HTTP come on top, and
on a small machine share the engine's cores: choose loads that leave them room. The simulator is told what they took of
each request, the processor time of all threads but the engine's, which is the busiest beside the event loop's; and, as
the machine's speed changes, by how much the engine's own time differed from the table's; seconds with much to do count
for more. That holds for a CPU engine of one thread (`--threads 1`, or one core). The SLO is `slo` times the
latency of one image of the dearest stitch. Every repeat draws other arrivals. Everything lies in `out` afterwards.
"""

import argparse
import json
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass, replace
from itertools import pairwise
from pathlib import Path
from statistics import median
from urllib.error import URLError
from urllib.request import urlopen

import psutil

from lookup_tables.table import LookupTable, folder
from server.replay.plot import plot
from server.replay.report import Report, read_json, table, write_json
from server.replay.traces import specs

TRACES = "gamma:cv2=2,load=0.3 gamma:cv2=8,load=0.3 ramp:to=0.5,tau=500 step:base=0.2,peak=3,for=10"
ATTAINMENT, TOP1 = 2.0, 1.0  # points that a prediction may be off
PREDICTED = re.compile(r"^stitchserve_predicted_seconds_total (\S+)$", re.MULTILINE)
ASKED = re.compile(r'^stitchserve_requests_total{route="/classify",status="\d+"} (\S+)$', re.MULTILINE)
EVERY = 1.0  # seconds
READY_WITHIN = 300.0  # seconds


@dataclass(frozen=True)
class Scene:
    """What served and predicted share. `capacity` in requests/s, `slo_ms` in milliseconds."""

    options: argparse.Namespace
    table: Path
    latency: Path
    capacity: float
    slo_ms: float

    @property
    def rules(self) -> tuple[str, ...]:
        """The options of serve and simulate that say how requests are treated."""
        batch, queue = str(self.options.max_batch), str(self.options.max_queue)
        limits = ("--slo-ms", str(self.slo_ms), "--max-batch", batch, "--max-queue", queue)
        return (*limits, "--policy", self.options.policy)

    def replay(self, trace: str, seed: int) -> tuple[str, ...]:
        """The options of bench and simulate that describe one replay."""
        drawn = ("--trace", trace, "--seed", str(seed), "--seconds", str(self.options.seconds))
        return (*drawn, "--capacity", str(self.capacity))


def stitchserve(*arguments: str, cores: str = "") -> list[str]:
    """The command, on these cores alone."""
    return [*(("taskset", "-c", cores) if cores else ()), sys.executable, "-m", "server", *arguments]


def given(**named: object) -> tuple[str, ...]:
    """Command-line options, without those that are None."""
    return tuple(word for key, value in named.items() if value is not None for word in (f"--{key}", str(value)))


def weights(options: argparse.Namespace) -> tuple[str, ...]:
    """The options of profile and serve that say what runs and how."""
    return given(family=options.family, checkpoint=options.checkpoint, threads=options.threads)


def measure(options: argparse.Namespace) -> Scene:
    """Profile into a copy of the family's table, unless that was done already."""
    own = options.out / options.family
    if not own.is_dir():
        shipped = folder(options.family)
        shutil.copytree(shipped, own, ignore=shutil.ignore_patterns("latency.*"))
        for labels in shipped.parent.glob("*.txt"):  # which several families share
            shutil.copy(labels, options.out)
    if not list(own.glob("latency.*.csv")):
        limit = ("--max-batch", str(options.max_batch), "--time-limit-s", str(options.profile_s))
        command = ("profile", *weights(options), "--table", str(own), "--out", str(own), *limit)
        subprocess.run(stitchserve(*command, cores=options.cores[0]), check=True)
    (latency,) = own.glob("latency.*.csv")
    known = LookupTable.load(own, latency)
    frontier = known.frontier()
    row = min(known.seconds(frontier[0].stitch, rows) / rows for rows in range(1, options.max_batch + 1))
    slo_ms = options.slo_ms or options.slo * known.seconds(frontier[-1].stitch) * 1e3
    return Scene(options, own, latency, options.capacity or 1 / row, round(slo_ms, 3))


@contextmanager
def server(scene: Scene) -> Iterator[tuple[str, psutil.Process]]:
    """The address of a server with the scene's latencies, and its process."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = scene.options
    command = ("serve", *weights(options), "--table", str(scene.table), "--port", str(port), *options.serve)
    with subprocess.Popen(stitchserve(*command, *scene.rules, cores=options.cores[0])) as process:
        try:
            url = f"http://127.0.0.1:{port}"
            wait(f"{url}/readyz", process)
            same_device(scene.latency, url)
            yield url, psutil.Process(process.pid)
        finally:
            process.terminate()


def wait(url: str, process: subprocess.Popen[bytes]) -> None:
    """Returns when the address answers; RuntimeError when the process ends or takes too long."""
    ends = time.monotonic() + READY_WITHIN
    while process.poll() is None and time.monotonic() < ends:
        try:
            with urlopen(url, timeout=5):
                return
        except (URLError, TimeoutError):
            time.sleep(0.2)
    raise RuntimeError("the server did not become ready")


def same_device(latency: Path, url: str) -> None:
    """RuntimeError where the server goes by other latencies than these."""
    with urlopen(f"{url}/status", timeout=5) as response:
        device = json.load(response)["device"]
    if latency.name != f"latency.{device}.csv":
        raise RuntimeError(f"{latency} is not of {device}, on which the server runs; give an empty folder as --out")


@dataclass(frozen=True)
class Spent:
    """Seconds of processor time that the engine's thread and all others took, of batches by the table; and requests."""

    engine: float
    others: float
    predicted: float
    requests: float

    @classmethod
    def by(cls, process: psutil.Process, url: str) -> "Spent":
        """Up to now."""
        with urlopen(f"{url}/metrics", timeout=5) as response:
            told = response.read().decode()
        took = {thread.id: thread.user_time + thread.system_time for thread in process.threads()}
        others = took.pop(process.pid)
        engine = max(took.values())
        predicted, asked = PREDICTED.search(told), ASKED.findall(told)
        return cls(
            engine,
            others + sum(took.values()) - engine,
            float(predicted[1] if predicted else 0),
            sum(map(float, asked)),
        )

    def since(self, before: "Spent") -> "Spent":
        """What has come to it."""
        mine, theirs = astuple(self), astuple(before)
        return Spent(*(now - then for now, then in zip(mine, theirs, strict=True)))


@dataclass(frozen=True)
class Run:
    """What a server did; milliseconds that a request took beside the engine, and the engine over the table."""

    report: Report
    front_ms: float
    slower: float


def served(scene: Scene, trace: str, seed: int) -> Run:
    """One replay against a server that has seen nothing before, as the simulator's has not."""
    out = scene.options.out / "served.json"
    with server(scene) as (url, process):
        command = ("bench", url, *scene.replay(trace, seed), "--name", "served", "--json", str(out))
        spent = [Spent.by(process, url)]
        with subprocess.Popen(stitchserve(*command, cores=scene.options.cores[1]), stdout=subprocess.DEVNULL) as bench:
            while bench.poll() is None:
                time.sleep(EVERY)
                spent.append(Spent.by(process, url))
        if bench.returncode:
            raise RuntimeError("the replay failed")
    steps = [after.since(before) for before, after in pairwise(spent)]
    front = each([(step.requests, step.others) for step in steps])
    return Run(read_json(out)[0], front * 1e3, each([(step.predicted, step.engine) for step in steps]) or 1.0)


def each(pairs: Sequence[tuple[float, float]]) -> float:
    """What one costs: pairs of how many there were and what they took, by least squares, so that busy times count."""
    squares = sum(count**2 for count, _ in pairs)
    return sum(count * took for count, took in pairs) / squares if squares else 0.0


def predicted(scene: Scene, trace: str, seed: int, run: Run) -> Report:
    """What the simulator says."""
    out = scene.options.out / "predicted.json"
    where = ("--table", str(scene.table), "--latency", str(scene.latency), "--front-ms", f"{run.front_ms:.3f}")
    where += ("--noise", f"[{run.slower:.3f},{run.slower:.3f}]")
    where += ("--one-core",) if scene.options.cores[0].isdecimal() else ()
    command = ("simulate", *where, *scene.rules, *scene.replay(trace, seed), "--json", str(out))
    subprocess.run(stitchserve(*command), check=True, stdout=subprocess.DEVNULL)
    return replace(read_json(out)[0], name="predicted")


def verdict(pairs: Sequence[tuple[Report, Report]]) -> str:
    """By how many points the predictions of one trace are off, in the median and at worst."""
    attainment = [100 * (said.summary.attainment - was.summary.attainment) for said, was in pairs]
    top1 = [100 * ((said.summary.top1 or 0) - (was.summary.top1 or 0)) for said, was in pairs]
    good = abs(median(attainment)) <= ATTAINMENT and abs(median(top1)) <= TOP1
    spans = (f"{median(off):+.2f} ({min(off):+.2f} to {max(off):+.2f})" for off in (attainment, top1))
    return "predicted - served, points: attainment {}, top-1 {}: {}".format(*spans, "good" if good else "NOT good")


def main(options: argparse.Namespace) -> None:
    """The whole run."""
    options.out.mkdir(parents=True, exist_ok=True)
    scene = measure(options)
    print(f"load 1 is {scene.capacity:.1f} requests/s, the SLO {scene.slo_ms:.1f} ms", flush=True)
    everything: list[Report] = []
    for trace in specs(options.trace):
        runs = [served(scene, trace, seed) for seed in range(options.repeats)]
        measured = [run.report for run in runs]
        seeds = [] if options.no_prediction else list(enumerate(runs))
        said = [predicted(scene, trace, seed, run) for seed, run in seeds]
        print("a request beside the engine, ms:", *(f"{run.front_ms:.2f}" for run in runs))
        print("the engine's time over the table's:", *(f"{run.slower:.2f}" for run in runs))
        print(table([*measured, *said]))
        print("generator late, p99, ms:", *(f"{each.details['generator_late_p99_ms']:.1f}" for each in measured))
        if said:
            print(verdict(list(zip(said, measured, strict=True))))
        print(flush=True)
        everything += [*measured, *said]
    write_json(options.out / "reports.json", everything)
    first = {(each.name, each.trace): each for each in reversed(everything)}
    plot(list(first.values())[::-1], options.out / "served.png")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", default="digits")
    parser.add_argument("--checkpoint", type=Path, help="its weights; none: those that ship")
    parser.add_argument("--trace", default=TRACES, help="separated by spaces, or presets")
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--capacity", type=float, help="requests/s of load 1; none: the cheapest stitch's")
    parser.add_argument("--slo", type=float, default=21, help="in latencies of the dearest stitch for one image")
    parser.add_argument("--slo-ms", type=float, help="instead of --slo")
    parser.add_argument("--policy", default="pace")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--max-batch", type=int, default=32)
    parser.add_argument("--max-queue", type=int, default=1000)
    parser.add_argument("--profile-s", type=float, default=60)
    parser.add_argument("--cores", type=lambda text: text.split(":"), default=["", ""], help="server's:generator's")
    parser.add_argument("--no-prediction", action="store_true", help="serve alone")
    parser.add_argument("--out", type=Path, default=Path("runs/served"))
    parser.add_argument("serve", nargs="*", help="further options of `stitchserve serve`, after --")
    main(parser.parse_args())
