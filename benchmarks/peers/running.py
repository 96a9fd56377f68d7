"""One server at a time, on processors of its own, and what wrk and the open-loop replay find out about it."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.peers.servers import HERE, KINDS, Kind
from server.replay import client

ROOT = HERE.parents[1]
READY_WITHIN, GONE_WITHIN = 120.0, 15.0  # seconds
SCRIPT = """
local files, bodies = {files}, {{}}
for i, name in ipairs(files) do local f = io.open(name, "rb"); bodies[i] = f:read("*all"); f:close() end
wrk.method = "POST"
{headers}
local turn = 0
request = function() turn = turn % #bodies + 1; return wrk.format(nil, nil, nil, bodies[turn]) end
"""


@dataclass(frozen=True)
class Server:
    """One that runs: where images go, `query` being its own, and memory of all its processes in bytes when ready."""

    kind: Kind
    url: str
    bodies: Sequence[client.Body]
    memory: int
    started_s: float


@dataclass(frozen=True)
class Place:
    """The peers' interpreter, and processors by taskset's words: of the server and of who asks it."""

    python: str
    cores: str
    client_core: str


def processors(told: str) -> set[int]:
    """Those of a list as taskset takes it: `0-2,8`."""
    spans = [part.partition("-") for part in told.split(",")]
    return {each for first, _, last in spans for each in range(int(first), int(last or first) + 1)}


@contextmanager
def server(
    name: str, images: Sequence[bytes], place: Place, work: Mapping[str, str], options: Sequence[str] = ()
) -> Iterator[Server]:
    """The server of this name, which does this `work`, ready, until the block is left."""
    kind = KINDS[name]
    program = (str(HERE / "by_stitchserve.py"),) if name == "stitchserve" else kind.program
    interpreter = sys.executable if name == "stitchserve" else place.python
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    packages = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": packages, "OMP_NUM_THREADS": "1", **work}
    environment |= {"BENTOML_HOME": tempfile.gettempdir(), "BENTOML_DO_NOT_TRACK": "1", "RAY_USAGE_STATS_ENABLED": "0"}
    command = ["taskset", "-c", place.cores, interpreter, *program, "--port", str(port), *options]
    began = time.monotonic()
    with (Path(tempfile.gettempdir()) / f"peer-{name}.log").open("w") as log:
        process = subprocess.Popen(command, env=environment, cwd=ROOT, stdout=log, stderr=log, start_new_session=True)
    bodies = [kind.wrap(image, "image/jpeg") for image in images]
    url = f"http://127.0.0.1:{port}{kind.path}"
    try:
        _wait(process, name, url, bodies[0], kind)
        taken = time.monotonic() - began
        yield Server(kind, url, bodies, _memory(process.pid), taken)
    finally:
        _end(process)


def _wait(process: "subprocess.Popen[bytes]", name: str, url: str, body: client.Body, kind: Kind) -> None:
    ends = time.monotonic() + READY_WITHIN
    headers = {**kind.headers, "Content-Type": body.content_type}
    while time.monotonic() < ends and process.poll() is None:
        with suppress(OSError, urllib.error.URLError):
            asked = urllib.request.Request(url, body.content, headers)
            with urllib.request.urlopen(asked, timeout=20) as answer:
                kind.read(answer.read())
                return
        time.sleep(0.1)
    raise RuntimeError(f"{name} did not become ready; see {tempfile.gettempdir()}/peer-{name}.log")


def _memory(process: int) -> int:
    """Proportional set size of a process and all below it: what they share counts once."""
    family = [psutil.Process(process), *psutil.Process(process).children(recursive=True)]
    return sum(each.memory_full_info().pss for each in family)


def _end(process: "subprocess.Popen[bytes]") -> None:
    family = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    process.send_signal(signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(GONE_WITHIN)
    for each in family:  # those that a server leaves behind
        with suppress(psutil.Error):
            each.kill()
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@dataclass(frozen=True)
class Saturated:
    """A closed loop: requests a second that were answered, percentiles of latency in seconds, and what failed."""

    rate: float
    p50: float
    p99: float
    failed: int


def saturate(running: Server, connections: int, seconds: float, core: str, query: str = "") -> Saturated:
    """As many requests as `connections` get answered, by wrk."""
    wrk = shutil.which("wrk")
    if not wrk:
        raise RuntimeError("needs wrk: apt-get install wrk")
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for number, body in enumerate(running.bodies):
            files.append(Path(folder) / str(number))
            files[-1].write_bytes(body.content)
        headers = {**running.kind.headers, "Content-Type": running.bodies[0].content_type}
        lines = "\n".join(f'wrk.headers["{name}"] = "{value}"' for name, value in headers.items())
        listed = "{" + ", ".join(f'"{file}"' for file in files) + "}"
        script = Path(folder) / "post.lua"
        script.write_text(SCRIPT.format(files=listed, headers=lines))
        command = [
            "taskset",
            "-c",
            core,
            wrk,
            f"-t{len(processors(core))}",
            f"-c{connections}",
            f"-d{seconds:g}s",
            "--timeout",
            "30s",
        ]
        command += ["--latency", "-s", str(script), running.url + query]
        said = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    failed = sum(map(int, re.findall(r"Non-2xx or 3xx responses: (\d+)", said)))
    failed += sum(map(int, re.findall(r"(?:connect|read|write|timeout) (\d+)", said)))
    requests, rate = re.search(r"(\d+) requests in", said), re.search(r"Requests/sec:\s+([\d.]+)", said)
    if not requests or not rate:
        raise RuntimeError(f"wrk said {said!r}")
    good = 1 - failed / max(1, int(requests[1]))
    return Saturated(float(rate[1]) * good, _percentile(said, "50"), _percentile(said, "99"), failed)


def _percentile(said: str, which: str) -> float:
    found = re.search(rf"{which}%\s+([\d.]+)(us|ms|s|m)\b", said)
    assert found, said
    return float(found[1]) * {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0}[found[2]]
