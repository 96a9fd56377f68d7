"""What users would pick instead, side by side on this machine: python -m benchmarks.peers.compare --python PYTHON

Each server with the same weights and pictures, written as its own documentation would have it, alone on the processors
`--cores`, asked from `--client-core`. Inside the others is timm, as its documentation runs it, or our engine and
decoder. In every round each has its turn, so that a machine whose speed changes meets them all. Writes JSON, and a
table of medians and ranges. PYTHON has requirements.txt beside ours.

noop    nothing to do for a body of 30 kB, 32 connections, closed loop
digits  the most accurate stitch, JPEG: throughput of a closed loop of 16, and just after it latencies of an open loop,
        at a share of that or at a rate that is told
deit    one anchor of DeiT-Ti/S/B at 224 px, JPEG of 500 x 375: closed loop of 16, beside the engine without a server
burst   gamma arrivals, CV2 8, mean load 0.8 of what DeiT-B can, SLO three times what it takes for one image: what came
        in time, and top-1 with 0 for what did not; peers serve one anchor, ours chooses

With --device cuda there are three seconds of load before each that counts, batches are larger and timm computes in
float16.
"""

import argparse
import io
import json
import os
import platform
import random
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image

from benchmarks.peers.contestants import Contestant, contestants
from benchmarks.peers.pacing import paced
from benchmarks.peers.running import ROOT, Place, Saturated, Server, processors, saturate, server
from benchmarks.peers.servers import KINDS
from benchmarks.peers.told import Row, tables, versions
from lookup_tables.table import Entry, LookupTable, folder
from server.replay.report import OK, summarise
from server.replay.traces import Trace, trace

SHARES = (0.3, 0.6, 0.9)
BURST = "gamma:cv2=8,load=0.8"
WARM = 3.0  # seconds
ANCHORS = {"ti": "deit_ti", "s": "deit_s", "b": "deit_b"}


def photographs(count: int, size: tuple[int, int] = (500, 375)) -> list[bytes]:
    """JPEGs with as much detail as a photograph has: noise at all scales."""
    chance, made = np.random.default_rng(0), []
    for _ in range(count):
        layers = [
            Image.fromarray(
                chance.integers(0, 256, (max(2, size[1] // step), max(2, size[0] // step), 3), np.uint8)
            ).resize(size, Image.Resampling.BICUBIC)
            for step in (4, 16, 64)
        ]
        file = io.BytesIO()
        Image.fromarray(np.mean([np.asarray(layer) for layer in layers], axis=0).astype(np.uint8)).save(
            file, "JPEG", quality=90
        )
        made.append(file.getvalue())
    return made


def anchor(key: str) -> Entry:
    """One of DeiT-Ti/S/B alone."""
    return next(entry for entry in LookupTable.load(folder("deit_ti_s_b")).entries if entry.anchor == ANCHORS[key])


class Comparison:
    """The measurements, one method a task: rows, each of a server in a round."""

    def __init__(self, options: argparse.Namespace, number: int) -> None:
        self._options, self._round = options, number
        self._place = Place(options.python, options.cores, options.client_core)
        self._clients = len(processors(options.client_core))
        self._photographs = photographs(8)
        self._samples = [path.read_bytes() for path in sorted((ROOT / "checkpoints/samples").glob("*.jpg"))[:16]]

    def _serving(
        self, who: Contestant, images: Sequence[bytes], work: str, *own: str
    ) -> AbstractContextManager[Server]:
        environment = {**self._environment(work), "PEER_INSIDE": who.inside}
        if not who.ours:
            copies = {} if who.processes is None else {"PEER_COPIES": str(who.processes)}
            return server(who.name, images, self._place, environment | copies)
        mine = ["--threads", "1", *own, *shlex.split(self._options.ours)]
        if work.startswith("deit"):
            mine += ["--family", "deit_ti_s_b", "--checkpoint", str(self._options.checkpoint)]
        if who.processes is not None:
            mine += ["--frontends", str(who.processes)]
        if self._options.device:
            decoders = max(2, len(processors(self._options.cores)) // max(1, who.processes or 0))
            mine += ["--device", self._options.device, "--max-batch", str(self._options.rows)]
            mine += ["--decode-threads", str(decoders)]
        return server(who.name, images, self._place, environment, mine)

    def _environment(self, work: str, rows: int | None = None) -> dict[str, str]:
        options = self._options
        told = {"PEER_WORK": work, "PEER_THREADS": "1", "PEER_ROWS": str(rows or options.rows)}
        told |= {"PEER_CHECKPOINT": str(options.checkpoint)} if work.startswith("deit") else {}
        return told | ({"PEER_DEVICE": options.device} if options.device else {})

    def _saturated(self, running: Server, seconds: float, query: str) -> Saturated:
        return saturate(running, self._options.connections, seconds, self._options.client_core, query)

    def _warm(self, running: Server, query: str) -> None:
        """Every copy's first batches of a size take long on a GPU, as do ours of a stitch that only a query names."""
        if self._options.device:
            self._saturated(running, WARM, query)

    def noop(self, who: Contestant) -> Iterator[Row]:
        """The server itself."""
        body = b"\xff\xd8\xff" + random.Random(0).randbytes(30_000)
        with self._serving(who, [body], "noop", "--slo-ms", "2000") as running:
            found = saturate(running, 32, self._options.seconds, self._options.client_core)
            yield {"rate": found.rate, "p50": found.p50, "p99": found.p99, "failed": found.failed}

    def digits(self, who: Contestant) -> Iterator[Row]:
        """A small network."""
        table = LookupTable.load(folder("digits"))
        best = max(table.entries, key=lambda entry: entry.top1 or 0).stitch
        query = f"?stitch={best}&deadline_ms=60000" if who.ours else ""
        with self._serving(who, self._samples, f"digits:{best}") as running:
            self._warm(running, query)
            closed: list[Saturated] = []
            at: Row = {}
            for level in self._options.rates or SHARES:
                closed.append(self._saturated(running, self._options.seconds, query))  # as fast as it is just now
                name, of = (f"{level:g}/s", 1.0) if self._options.rates else (f"{level:.0%}", closed[-1].rate)
                each = trace(f"poisson:load={level}", of, self._options.seconds, self._round)
                sent = paced(running, each, 60.0, query, self._clients)
                told = summarise(sent.outcomes)
                at |= {f"p50 at {name}": told.p50 or np.nan, f"p99 at {name}": told.p99 or np.nan}
                at |= {f"failed at {name}": sum(each.status != OK for each in sent.outcomes)}
                at |= {f"sent late at {name}": sent.late(99)}
            found: Row = {"rate": median(each.rate for each in closed), "failed": sum(each.failed for each in closed)}
            yield found | {"memory": running.memory, "start": running.started_s} | at

    def deit(self, who: Contestant) -> Iterator[Row]:
        """Large networks."""
        stitches = {key: anchor(key).stitch for key in ("ti", "b")}
        longer = {"ti": 1, "b": 1 if self._options.device else 2}
        if who.name == "bare":
            for key, stitch in stitches.items():
                rate = self._bare(f"deit_ti_s_b:{stitch}", self._options.seconds * longer[key])
                yield {"anchor": key, "rate": rate}
            return
        # On a GPU stitchserve takes long to start, and one of it serves all.
        together = who.ours and self._options.device is not None
        for keys in [tuple(stitches)] if together else [(key,) for key in stitches]:
            with self._serving(who, self._photographs, f"deit_ti_s_b:{stitches[keys[0]]}") as running:
                for key in keys:
                    query = f"?stitch={stitches[key]}&deadline_ms=60000" if who.ours else ""
                    self._warm(running, query)
                    found = self._saturated(running, self._options.seconds * longer[key], query)
                    yield {"anchor": key, "rate": found.rate, "p99": found.p99, "failed": found.failed}

    def _bare(self, work: str, seconds: float, rows: int | None = None, *own: str) -> float:
        options = self._options
        files = []
        for number, image in enumerate(self._photographs):
            files.append(options.out.parent / f"photograph-{number}.jpg")
            files[-1].write_bytes(image)
        command = ["taskset", "-c", options.cores, sys.executable, "-m", "benchmarks.peers.bare", *map(str, files)]
        command += ["--seconds", str(seconds), "--decoders", str(options.decoders), *own]
        threads = {"OMP_NUM_THREADS": "1"} if options.device else {}
        environment = os.environ | self._environment(work, rows) | threads
        said = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
        if said.returncode:
            raise RuntimeError(said.stderr[-2000:])
        return float(said.stdout)

    @cached_property
    def _bursts(self) -> tuple[Trace, float]:
        """The arrivals, and the SLO in seconds, by what DeiT-B can do just now."""
        work, seconds = f"deit_ti_s_b:{anchor('b').stitch}", self._options.seconds
        # Where other cores decode meanwhile, an image takes longer than the time until the next.
        alone = ["--alone"] if self._options.device else []
        slo, capacity = 3 / self._bare(work, seconds, 1, *alone), self._bare(work, 2 * seconds)
        print(json.dumps({"DeiT-B images/s": capacity, "SLO ms": slo * 1e3}), flush=True)
        return trace(BURST, capacity, self._options.burst_seconds, self._round), slo

    def burst(self, who: Contestant) -> Iterator[Row]:
        """Bursts that the largest network cannot carry."""
        each, slo = self._bursts
        if who.ours:
            with self._serving(who, self._photographs, "deit", "--slo-ms", str(slo * 1e3)) as running:
                self._warm(running, "?deadline_ms=60000")
                sent = paced(running, each, slo, clients=self._clients)
                told, late = summarise(sent.outcomes), sent.late(99)
                row: Row = {"serves": "all", "in time": told.attainment, "top1": told.top1 or 0.0, "sent late": late}
                yield row | {"effective": told.effective or 0.0}
            return
        for key in ANCHORS:
            entry = anchor(key)
            with self._serving(who, self._photographs, f"deit_ti_s_b:{entry.stitch}") as running:
                self._warm(running, "")
                sent = paced(running, each, slo, clients=self._clients)
                share, top1, late = summarise(sent.outcomes).attainment, entry.top1 or 0.0, sent.late(99)
                row = {"serves": key, "in time": share, "top1": top1, "sent late": late}
                yield row | {"effective": share * top1}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", default=sys.executable, help="interpreter that has the peers' packages")
    parser.add_argument("--tasks", nargs="+", default=["noop", "digits", "deit", "burst"])
    parser.add_argument("--servers", nargs="+", default=list(KINDS), choices=list(KINDS))
    parser.add_argument("--inside", nargs="+", default=["timm", "engine"], choices=["timm", "engine"], help="of peers")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    parser.add_argument("--cores", default="0", help="of the server, as taskset takes them")
    parser.add_argument("--client-core", default="1", help="of who asks: a thread or a process each")
    parser.add_argument("--connections", type=int, default=16, help="of the closed loop, but for noop")
    parser.add_argument("--rates", type=float, nargs="+", help="of digits' open loop; none: shares of each one's own")
    parser.add_argument("--device", help="cuda, where the engine and timm compute; none: they on a CPU, ours by itself")
    parser.add_argument("--rows", type=int, help="most images of a batch; none: 16, and what is ours; on a device 64")
    parser.add_argument("--decoders", type=int, help="threads of bare; none: 2, on a device as many as --cores")
    parser.add_argument("--frontends", type=int, nargs="+", help="of stitchserve, one after the other")
    parser.add_argument("--copies", type=int, nargs="+", help="of mosec and triton, one after the other")
    parser.add_argument("--ours", default="", help="further options of `stitchserve serve`, in one word")
    parser.add_argument("--checkpoint", type=Path, help="of deit_ti_s_b, for deit and burst")
    parser.add_argument("--burst-seconds", type=float, default=40.0)
    parser.add_argument("--out", type=Path, default=Path("runs/peers.json"))
    options = parser.parse_args()
    if min(options.rates or [1.0]) <= 0:
        parser.error("--rates: requests a second, more than 0")
    if options.checkpoint is None and {"deit", "burst"} & set(options.tasks):
        parser.error("--checkpoint: deit and burst need the weights of deit_ti_s_b")
    options.rows = options.rows or (64 if options.device else 16)
    options.decoders = options.decoders or (len(processors(options.cores)) if options.device else 2)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    os.sched_setaffinity(0, processors(options.client_core))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("told to end"))  # and the server that runs ends too
    found: list[Row] = []
    about = {
        "processor": platform.processor(),
        "python": platform.python_version(),
        "versions": versions(options.python),
    }
    about["command"] = " ".join(sys.argv)
    for task in options.tasks:
        for number in range(options.rounds):
            comparison = Comparison(options, number)
            measure: Callable[[Contestant], Iterator[Row]] = getattr(comparison, task)
            for who in contestants(task, options):
                for row in salvaged(measure(who)):
                    found.append({"task": task, "server": who.label, "inside": who.inside, "round": number} | row)
                    print(json.dumps(found[-1]), flush=True)
                    options.out.write_text(json.dumps({"about": about, "rows": found}, indent=1))
    print(tables(found))


def salvaged(rows: Iterator[Row]) -> Iterator[Row]:
    """The rows, and at last what went wrong."""
    try:
        yield from rows
    except RuntimeError as error:
        yield {"error": str(error)}


if __name__ == "__main__":
    main()
