"""Replicas of a server as processes on loopback, that are stopped, killed and started again.

A replica is a container to those around it: a signal reaches its first process, and when that ends so do all others.
"""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from prometheus_client.parser import text_string_to_metric_families

READY_WITHIN = 120.0  # seconds
ROOT = Path(__file__).resolve().parents[2]


class Replica:
    """One replica by a command that serves on `port`, ready when the path `ready` is 200; its log goes to `log`."""

    def __init__(self, port: int, command: Sequence[str], ready: str, log: Path) -> None:
        self.port, self.log = port, log
        self.url = f"http://127.0.0.1:{port}"
        self._command, self._ready = command, ready
        self.start()

    def start(self) -> None:
        """Start the process; `wait` tells when it is ready."""
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(
                self._command, stdout=out, stderr=out, env=environment, start_new_session=True
            )

    def wait(self) -> float:
        """The seconds until it was ready; RuntimeError when the process ends first or takes too long."""
        began = time.monotonic()
        while self.process.poll() is None and time.monotonic() - began < READY_WITHIN:
            try:
                with urlopen(f"{self.url}{self._ready}", timeout=5):
                    return time.monotonic() - began
            except (URLError, TimeoutError, ConnectionError):
                time.sleep(0.1)
        raise RuntimeError(f"the replica on port {self.port} did not become ready; see {self.log}")

    def stop(self, by: signal.Signals = signal.SIGTERM) -> tuple[int, float]:
        """Send a signal to the first process: the exit status, and after how many seconds."""
        began = time.monotonic()
        self.process.send_signal(by)
        status = self.process.wait(READY_WITHIN)
        took = time.monotonic() - began
        self._end_all()
        return status, took

    def kill(self) -> tuple[int, float]:
        """As `stop`, by SIGKILL to every process: the status is -9."""
        began = time.monotonic()
        self._end_all()
        return self.process.wait(READY_WITHIN), time.monotonic() - began

    def discard(self) -> None:
        """End it at once, if it has not ended: a second signal while it drains makes it leave."""
        for _ in range(2):
            if self.process.poll() is None:
                self.process.send_signal(signal.SIGTERM)
                time.sleep(0.1)
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(READY_WITHIN)
        self._end_all()

    def _end_all(self) -> None:
        """Kill what is left of it, and wait until nobody listens on its port."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        ends = time.monotonic() + READY_WITHIN
        while time.monotonic() < ends:
            with closing(socket.socket()) as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) != 0:
                    return
            time.sleep(0.02)


def scrape(url: str, name: str) -> list[tuple[dict[str, str], float]]:
    """Labels and values of a series that an address shows in Prometheus' text format."""
    with urlopen(url, timeout=10) as response:
        families = list(text_string_to_metric_families(response.read().decode()))
    return [(each.labels, each.value) for family in families for each in family.samples if each.name == name]
