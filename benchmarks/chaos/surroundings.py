"""What is around a server and may go wrong: its process, clock, disk and log."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

READY_WITHIN = 180.0  # seconds
SOURCE = Path(__file__).with_name("clock.c")


class Server:
    """`stitchserve serve` as a process of its own on a port of loopback; it logs to `log`."""

    def __init__(self, port: int, options: Sequence[str], log: Path, before: Sequence[str] = ()) -> None:
        self.port, self.log, self.url = port, log, f"http://127.0.0.1:{port}"
        command = [*before, sys.executable, "-m", "server", "serve", "--port", str(port), *options]
        with log.open("wb") as out:
            self.process = subprocess.Popen(command, stdout=out, stderr=out)
        self.pid = self.process.pid

    def wait(self) -> float:
        """The seconds until /readyz was 200; RuntimeError when the process ends first or takes too long."""
        began = time.monotonic()
        while self.process.poll() is None and time.monotonic() - began < READY_WITHIN:
            try:
                with urlopen(f"{self.url}/readyz", timeout=5):
                    return time.monotonic() - began
            except (URLError, TimeoutError, ConnectionError):
                time.sleep(0.1)
        raise RuntimeError(f"the server on port {self.port} did not become ready; see {self.log}")

    def send(self, which: signal.Signals) -> None:
        """Send a signal to it."""
        self.process.send_signal(which)

    def stop(self) -> int:
        """Send SIGTERM; the exit status."""
        self.process.terminate()
        return self.process.wait(60)

    def resident(self) -> int:
        """Its resident memory, in bytes."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def open_files(self) -> int:
        """How many files and sockets it has open."""
        return len(list(Path(f"/proc/{self.pid}/fd").iterdir()))

    def threads(self) -> int:
        """How many threads it has."""
        return len(list(Path(f"/proc/{self.pid}/task").iterdir()))


class Clock:
    """The server's wall clock, off by what `file` holds; clock.c, compiled into `folder`, shows it to the server."""

    def __init__(self, folder: Path) -> None:
        self.file, self.shown = folder / "clock", folder / "clock.so"
        self.file.write_bytes(bytes(8))
        subprocess.run(["gcc", "-O2", "-shared", "-fPIC", "-o", str(self.shown), str(SOURCE)], check=True)

    def step(self, seconds: int) -> None:
        """Set the clock to so many seconds beside the true one, at once."""
        with self.file.open("r+b") as file:  # in place: the server has it mapped
            file.write(seconds.to_bytes(8, sys.byteorder, signed=True))

    def before(self) -> list[str]:
        """What runs a command with this clock."""
        return ["env", f"LD_PRELOAD={self.shown}", f"CHAOS_CLOCK={self.file}"]


@contextmanager
def disk(folder: Path, size: str) -> Iterator[Path]:
    """A file system in memory of its own in this folder, until the block is left; takes root."""
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path) -> None:
    """Write into the folder until there is no room for another byte."""
    try:
        with (folder / "filler").open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
    except OSError:
        left = shutil.disk_usage(folder).free
        if left:
            raise RuntimeError(f"{left} bytes are left in {folder}") from None


def make_read_only(folder: Path) -> None:
    """Let nobody write into this file system any more, not even root."""
    subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
