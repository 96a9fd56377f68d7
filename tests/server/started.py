"""`stitchserve serve` in a process of its own, forked from one that has loaded torch, for that takes seconds."""

import multiprocessing
import os
import re
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import httpx

from server.__main__ import main

_LOADED = multiprocessing.get_context("forkserver")
_LOADED.set_forkserver_preload(["server.running"])


def _serve(arguments: list[str], environment: Mapping[str, str], log: Path) -> None:
    os.dup2(os.open(log, os.O_WRONLY), sys.stderr.fileno())
    os.environ.clear()
    os.environ.update(environment)
    sys.argv[1:] = arguments
    main()


class Process:
    """The server; `log` is a file of what it says. It is to be ended, or the tests would wait for it at their end."""

    def __init__(self, cache: Path, log: Path, *options: str) -> None:
        self.log = log
        environment = os.environ | {"STITCHSERVE_CACHE": str(cache), "STITCHSERVE_SLO_MS": "60000"}
        arguments = ["serve", "--port", "0", "--profile-s", "2", "--max-batch", "8", *options]
        self._process = _LOADED.Process(target=_serve, args=[arguments, environment, log])
        log.touch()
        self._process.start()
        assert self._process.pid
        self.pid = self._process.pid

    def wait_until_ready(self) -> None:
        ends = time.monotonic() + 120
        while not (told := re.search(r"serving on (http://127\.0\.0\.1:(\d+))\n", self.log.read_text())):
            self._process.join(0.02)
            assert self._process.is_alive(), self.log.read_text()
            assert time.monotonic() < ends
        self.url, self.port = told[1], int(told[2])
        assert self.answers("/readyz")

    def answers(self, path: str) -> bool:
        try:
            return httpx.get(self.url + path, timeout=5).status_code == 200
        except httpx.TransportError:
            return False

    def send(self, told: signal.Signals) -> None:
        os.kill(self.pid, told)

    def exit_status(self) -> int | None:
        """Once it has ended; None where it has not after a minute."""
        self._process.join(60)
        return self._process.exitcode

    def stop(self) -> int | None:
        self.send(signal.SIGTERM)
        return self.exit_status()

    def end(self) -> None:
        """Whatever became of it, it is gone."""
        self._process.kill()
        self._process.join()
