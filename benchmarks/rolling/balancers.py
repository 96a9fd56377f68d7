"""HAProxy and nginx on loopback, with the configurations in deploy/."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
FILES = {"haproxy": "haproxy.cfg", "nginx": "nginx.conf"}
STARTS_WITHIN = 20.0  # seconds


@dataclass(frozen=True)
class Balancer:
    """A running balancer: where clients find it, its own metrics (HAProxy's alone), and what it logs of requests."""

    url: str
    metrics: str
    log: Path


def free_ports(count: int) -> list[int]:
    """Different ports that nobody listens on at the moment."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(closing(socket.socket())) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def program(name: str) -> str | None:
    """Where the program is; Debian keeps servers in a folder that is on root's path alone."""
    return shutil.which(name) or shutil.which(name, path="/usr/sbin")


def configured(
    name: str,
    folder: Path,
    own: tuple[int, int],
    replicas: Sequence[int],
    *,
    agents: Sequence[int] = (),
    ready: str = "/readyz",
) -> Path:
    """A copy of the balancer's configuration in `folder`, with these ports of 127.0.0.1 and this path of checks.

    `own`: its clients' port and its metrics'. Without `agents` none is asked.
    """
    port, metrics_port = own
    text = (DEPLOY / FILES[name]).read_text(encoding="utf-8")
    if not agents:
        text = text.replace(" agent-check", "").replace(" agent-inter 1s", "").replace(" agent-port 8002", "")
    changes = {f"{n}:8000 agent-port 8002": f"{n}:8000 agent-port {each}" for n, each in enumerate(agents, 1)}
    changes |= {f"replica{number}:8000": f"127.0.0.1:{each}" for number, each in enumerate(replicas, 1)}
    changes |= {"bind :8080": f"bind 127.0.0.1:{port}", "bind :8404": f"bind 127.0.0.1:{metrics_port}"}
    changes |= {
        "GET /readyz": f"GET {ready}",
        "listen 8080": f"listen 127.0.0.1:{port}",
        "/tmp/nginx": f"{folder}/nginx",
    }
    for old, new in changes.items():
        text = text.replace(old, new)
    path = folder / FILES[name]
    path.write_text(text, encoding="utf-8")
    return path


def command(name: str, path: Path, *, only_check: bool = False) -> list[str]:
    """What starts the balancer in the foreground, or only checks its configuration."""
    found = program(name) or name
    if name == "haproxy":
        return [found, "-c", "-f", str(path)] if only_check else [found, "-db", "-f", str(path)]
    # Workers of a nginx that root starts are another user, who may not enter the folder.
    also = "daemon off;" + (" user root;" if os.geteuid() == 0 else "")
    return [found, *(["-t"] if only_check else []), "-e", "stderr", "-c", str(path), "-g", also]


@contextmanager
def balancer(
    name: str, folder: Path, replicas: Sequence[int], *, agents: Sequence[int] = (), ready: str = "/readyz"
) -> Iterator[Balancer]:
    """The balancer in front of the replicas on these ports, until the block is left; HAProxy asks for `ready`.

    With `agents` it asks those, on these ports, too.
    """
    port, metrics_port = free_ports(2)
    path = configured(name, folder, (port, metrics_port), replicas, agents=agents, ready=ready)
    log = folder / f"{name}.log"
    log.unlink(missing_ok=True)
    with log.open("ab") as out, subprocess.Popen(command(name, path), stdout=out, stderr=out) as process:
        try:
            _wait(port, process, log)
            yield Balancer(f"http://127.0.0.1:{port}", f"http://127.0.0.1:{metrics_port}/metrics", log)
        finally:
            process.terminate()


def _wait(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    ends = time.monotonic() + STARTS_WITHIN
    while process.poll() is None and time.monotonic() < ends:
        with closing(socket.socket()) as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise RuntimeError(f"the balancer did not start: {log.read_text(encoding='utf-8')}")
