"""What users would pick instead, side by side on this machine: python -m benchmarks.peers.compare --python PYTHON

Each server with the same weights and pictures, written as its own documentation would have it, alone on the processors
`--cores`, asked from `--client-core`. Inside the others is timm, as its documentation runs it, or our engine and
decoder. In every round each has its turn, so that a machine whose speed changes meets them all. Writes JSON, and a
table of medians and ranges. PYTHON has requirements.txt beside ours.

noop    nothing to do for a body of 30 kB, 32 connections, closed loop
digits  the most accurate stitch, JPEG: throughput of a closed loop of 16, then latencies at shares of that, open loop
deit    one anchor of DeiT-Ti/S/B at 224 px, JPEG of 500 x 375: closed loop of 16, beside the engine without a server
burst   gamma arrivals, CV2 8, mean load 0.8 of what DeiT-B can, SLO three times what it takes for one image: what came
        in time, and top-1 with 0 for what did not; peers serve one anchor, ours chooses
"""

import argparse
import io
import json
import os
import platform
import random
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image

from benchmarks.peers.running import ROOT, Place, Server, paced, saturate, server
from benchmarks.peers.servers import KINDS
from lookup_tables.table import Entry, LookupTable, folder
from server.replay.report import OK, summarise
from server.replay.traces import Trace, trace

Row = dict[str, float | str]
NAMES = {"fastapi": "fastapi", "litserve": "litserve", "mosec": "mosec", "bentoml": "bentoml", "ray": "ray"}
NAMES |= {"triton": "nvidia-pytriton", "stitchserve": "stitchserve"}
SHARES = (0.3, 0.6, 0.9)
BURST = "gamma:cv2=8,load=0.8"
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
        Image.fromarray(np.mean(layers, axis=0).astype(np.uint8)).save(file, "JPEG", quality=90)
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
        self._photographs = photographs(8)
        self._samples = [path.read_bytes() for path in sorted((ROOT / "checkpoints/samples").glob("*.jpg"))[:16]]

    def _serving(
        self, name: str, inside: str, images: Sequence[bytes], work: str, *own: str
    ) -> AbstractContextManager[Server]:
        environment = {"PEER_WORK": work, "PEER_THREADS": "1", "PEER_INSIDE": inside}
        mine = ["--threads", "1", *own]
        if work.startswith("deit"):
            environment["PEER_CHECKPOINT"] = str(self._options.checkpoint)
            mine += ["--family", "deit_ti_s_b", "--checkpoint", str(self._options.checkpoint)]
        return server(name, images, self._place, environment, mine if name == "stitchserve" else [])

    def noop(self, name: str, inside: str) -> Iterator[Row]:
        """The server itself."""
        body = b"\xff\xd8\xff" + random.Random(0).randbytes(30_000)
        with self._serving(name, inside, [body], "noop", "--slo-ms", "2000") as running:
            found = saturate(running, 32, self._options.seconds, self._options.client_core)
            yield {"rate": found.rate, "p50": found.p50, "p99": found.p99, "failed": found.failed}

    def digits(self, name: str, inside: str) -> Iterator[Row]:
        """A small network."""
        table = LookupTable.load(folder("digits"))
        best = max(table.entries, key=lambda entry: entry.top1 or 0).stitch
        query = f"?stitch={best}&deadline_ms=60000" if name == "stitchserve" else ""
        with self._serving(name, inside, self._samples, f"digits:{best}") as running:
            found = saturate(running, 16, self._options.seconds, self._options.client_core, query)
            row: Row = {
                "rate": found.rate,
                "failed": found.failed,
                "memory": running.memory,
                "start": running.started_s,
            }
            for share in SHARES:
                each = trace(f"poisson:load={share}", found.rate, self._options.seconds)
                outcomes = paced(running, each, 60.0, query)
                told = summarise(outcomes)
                row |= {f"p50 at {share:.0%}": told.p50 or np.nan, f"p99 at {share:.0%}": told.p99 or np.nan}
                row[f"failed at {share:.0%}"] = sum(each.status != OK for each in outcomes)
            yield row

    def deit(self, name: str, inside: str) -> Iterator[Row]:
        """Large networks."""
        for key in ("ti", "b"):
            stitch = anchor(key).stitch
            work, query = (
                f"deit_ti_s_b:{stitch}",
                f"?stitch={stitch}&deadline_ms=60000" if name == "stitchserve" else "",
            )
            seconds = self._options.seconds * (1 if key == "ti" else 2)
            if name == "bare":
                yield {"anchor": key, "rate": self._bare(work, seconds)}
                continue
            with self._serving(name, inside, self._photographs, work) as running:
                found = saturate(running, 16, seconds, self._options.client_core, query)
                yield {"anchor": key, "rate": found.rate, "p99": found.p99, "failed": found.failed}

    def _bare(self, work: str, seconds: float, rows: int = 16) -> float:
        options = self._options
        files = []
        for number, image in enumerate(self._photographs):
            files.append(options.out.parent / f"photograph-{number}.jpg")
            files[-1].write_bytes(image)
        command = ["taskset", "-c", options.cores, sys.executable, "-m", "benchmarks.peers.bare", *map(str, files)]
        environment = os.environ | {"PEER_WORK": work, "PEER_CHECKPOINT": str(options.checkpoint), "PEER_THREADS": "1"}
        said = subprocess.run(
            [*command, "--seconds", str(seconds), "--rows", str(rows)],
            env=environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        return float(said.stdout)

    @cached_property
    def _bursts(self) -> tuple[Trace, float]:
        """The arrivals, and the SLO in seconds, by what DeiT-B can do just now."""
        work, seconds = f"deit_ti_s_b:{anchor('b').stitch}", self._options.seconds
        slo, capacity = 3 / self._bare(work, seconds, rows=1), self._bare(work, 2 * seconds)
        print(json.dumps({"DeiT-B images/s": capacity, "SLO ms": slo * 1e3}), flush=True)
        return trace(BURST, capacity, self._options.burst_seconds, self._round), slo

    def burst(self, name: str, inside: str) -> Iterator[Row]:
        """Bursts that the largest network cannot carry."""
        each, slo = self._bursts
        if name == "stitchserve":
            with self._serving(name, inside, self._photographs, "deit", "--slo-ms", str(slo * 1e3)) as running:
                outcomes = paced(running, each, slo)
                told = summarise(outcomes)
                yield {
                    "serves": "all",
                    "in time": told.attainment,
                    "effective": told.effective,
                    "top1": told.top1 or 0.0,
                }
            return
        for key in ANCHORS:
            entry = anchor(key)
            with self._serving(name, inside, self._photographs, f"deit_ti_s_b:{entry.stitch}") as running:
                outcomes = paced(running, each, slo)
                share, top1 = summarise(outcomes).attainment, entry.top1 or 0.0
                yield {"serves": key, "in time": share, "effective": share * top1, "top1": top1}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", default=sys.executable, help="interpreter that has the peers' packages")
    parser.add_argument("--tasks", nargs="+", default=["noop", "digits", "deit", "burst"])
    parser.add_argument("--servers", nargs="+", default=list(KINDS), choices=list(KINDS))
    parser.add_argument("--inside", nargs="+", default=["timm", "engine"], choices=["timm", "engine"], help="of peers")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    parser.add_argument("--cores", default="0", help="of the server")
    parser.add_argument("--client-core", default="1")
    parser.add_argument("--checkpoint", type=Path, help="of deit_ti_s_b, for deit and burst")
    parser.add_argument("--burst-seconds", type=float, default=40.0)
    parser.add_argument("--out", type=Path, default=Path("runs/peers.json"))
    options = parser.parse_args()
    if options.checkpoint is None and {"deit", "burst"} & set(options.tasks):
        parser.error("--checkpoint: deit and burst need the weights of deit_ti_s_b")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    os.sched_setaffinity(0, {int(options.client_core)})
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
            measure: Callable[[str], Iterator[Row]] = getattr(comparison, task)
            for name, inside in contestants(task, options.servers, options.inside):
                try:
                    rows = list(measure(name, inside))
                except RuntimeError as error:
                    rows = [{"error": str(error)}]
                for row in rows:
                    found.append({"task": task, "server": name, "inside": inside, "round": number} | row)
                    print(json.dumps(found[-1]), flush=True)
                options.out.write_text(json.dumps({"about": about, "rows": found}, indent=1))
    print(tables(found))


def contestants(task: str, servers: Sequence[str], inside: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Who is measured, and what is inside."""
    for name in servers:
        for each in inside if name != "stitchserve" and task != "noop" else ["engine"]:
            yield name, each
    if task == "deit":
        yield "bare", "engine"


def versions(python: str) -> dict[str, str]:
    """What was compared."""
    code = f"import json, importlib.metadata as m; print(json.dumps({{k: m.version(p) for k, p in {NAMES}.items()}}))"
    said = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
    return json.loads(said.stdout) if said.returncode == 0 else {"stitchserve": version("stitchserve")}


def tables(rows: Sequence[Row]) -> str:
    """Markdown: for each task a row for each server and what it serves, medians with ranges."""
    said = []
    for task in dict.fromkeys(str(row["task"]) for row in rows):
        mine = [row for row in rows if row["task"] == task and "error" not in row]
        names = list(dict.fromkeys(name for row in mine for name in row if isinstance(row[name], float | int)))
        names = [name for name in names if name != "round"]
        said.append(f"\n{task}\n\n| server | {' | '.join(names)} |\n| --- |{' --- |' * len(names)}")
        for key in dict.fromkeys(map(_key, mine)):
            of = [row for row in mine if _key(row) == key]
            cells = [_cell([float(row[name]) for row in of if name in row]) for name in names]
            said.append(f"| {key} | {' | '.join(cells)} |")
    return "\n".join(said)


def _key(row: Row) -> str:
    what = (row["server"], row["inside"], row.get("anchor", row.get("serves")))
    return ", ".join(str(each) for each in what if each is not None)


def _cell(values: Sequence[float]) -> str:
    if not values:
        return ""
    return f"{median(values):.4g} ({min(values):.4g} to {max(values):.4g})"


if __name__ == "__main__":
    main()
