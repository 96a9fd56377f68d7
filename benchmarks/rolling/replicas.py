"""Replicas of the server as processes on loopback, that are stopped, killed and started again."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from prometheus_client.parser import text_string_to_metric_families

READY_WITHIN = 120.0  # seconds


def serving(port: int, options: Sequence[str]) -> list[str]:
    """The command that serves on this port of this machine."""
    return [sys.executable, "-m", "server", "serve", "--port", str(port), *options]


class Replica:
    """One replica, started by `command`, which serves on `port` until it ends; what it logs goes to `log`."""

    def __init__(self, command: Sequence[str], port: int, log: Path) -> None:
        self.port, self.log = port, log
        self.url = f"http://127.0.0.1:{port}"
        self._command = command
        self.start()

    def start(self) -> None:
        """Start the process; `wait` tells when it is ready."""
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(self._command, stdout=out, stderr=out)

    def wait(self) -> float:
        """The seconds until /readyz was 200; RuntimeError when the process ends first or takes too long."""
        began = time.monotonic()
        while self.process.poll() is None and time.monotonic() - began < READY_WITHIN:
            try:
                with urlopen(f"{self.url}/readyz", timeout=5):
                    return time.monotonic() - began
            except (URLError, TimeoutError, ConnectionError):
                time.sleep(0.1)
        raise RuntimeError(f"the replica on port {self.port} did not become ready; see {self.log}")

    def stop(self) -> tuple[int, float]:
        """Send SIGTERM: the exit status, and after how many seconds."""
        return self._end(self.process.terminate)

    def kill(self) -> tuple[int, float]:
        """As `stop`, by SIGKILL: the status is -9."""
        return self._end(self.process.kill)

    def _end(self, send: Callable[[], None]) -> tuple[int, float]:
        began = time.monotonic()
        send()
        return self.process.wait(READY_WITHIN), time.monotonic() - began

    def discard(self) -> None:
        """End it at once, if it has not ended: a second signal while it drains makes it leave."""
        for _ in range(2):
            if self.process.poll() is None:
                self.process.send_signal(signal.SIGTERM)
                time.sleep(0.1)
        self.process.wait(READY_WITHIN)

    def answered(self) -> int:
        """How many images it has classified since it was started."""
        samples = scrape(f"{self.url}/metrics", "stitchserve_requests_total")
        wanted = [value for labels, value in samples if labels == {"route": "/classify", "status": "200"}]
        return int(sum(wanted))


def scrape(url: str, name: str) -> list[tuple[dict[str, str], float]]:
    """Labels and values of a series that an address shows in Prometheus' text format."""
    with urlopen(url, timeout=10) as response:
        families = list(text_string_to_metric_families(response.read().decode()))
    return [(each.labels, each.value) for family in families for each in family.samples if each.name == name]
