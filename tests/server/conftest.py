"""The shipped network, and a server around it that is reached over real HTTP."""

import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from attaching import Told
from starlette.types import ASGIApp
from started import Process

from server.app import Beside, application, nothing
from server.attached import Attached
from server.listening import addresses, bound
from server.running import configured
from server.service import Service, build
from server.settings import Settings
from server.shared import Shared

SAMPLES = Path(__file__).parents[2] / "checkpoints" / "samples"


@dataclass(frozen=True)
class Running:
    """A server in this process, on a port of its own."""

    url: str
    service: Service
    server: uvicorn.Server

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=60)


class Listening(uvicorn.Server):
    """Tells when it listens; leaves the process's signals alone."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.up = threading.Event()

    async def startup(self, *args: object, **kwargs: object) -> None:
        await super().startup(*args, **kwargs)  # type: ignore[arg-type]
        self.up.set()


def run(service: Service, beside: Beside = nothing) -> Iterator[Running]:
    """The service behind uvicorn in a thread, until the caller is done."""
    server = Listening(configured(application(service, beside), service.settings))
    with bound("127.0.0.1", 0) as sockets:
        (url,) = addresses(sockets)
        thread = threading.Thread(target=server.run, args=[sockets], daemon=True)
        thread.start()
        assert server.up.wait(60)
        yield Running(url, service, server)
        server.should_exit = True
        thread.join(60)
        assert not thread.is_alive()


def settings(cache: Path, **changes: object) -> Settings:
    """Patient settings: a test machine may be slow, and only some tests are about deadlines."""
    return Settings.model_validate({"slo_ms": 60_000, "cache": cache, "profile_s": 2, "max_batch": 8} | changes)


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def running(cache: Path) -> Iterator[Running]:
    yield from run(build(settings(cache)))


@pytest.fixture
def client(running: Running) -> Iterator[httpx.Client]:
    with running.client() as opened:
        yield opened


@pytest.fixture
def start(cache: Path, tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """Starts `stitchserve serve` with these options -> it, ready; gone when the test has ended, however that was."""
    with ExitStack() as ending:

        def ready(*options: str) -> Process:
            process = Process(cache, tmp_path / "log", *options)
            ending.callback(process.end)
            process.wait_until_ready()
            return process

        yield ready


@pytest.fixture(scope="session")
def sample() -> bytes:
    return sorted(SAMPLES.glob("*.jpg"))[0].read_bytes()


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("needs openssl")
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    command = [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"]
    subprocess.run([*command, *subject, "-keyout", key, "-out", cert], check=True, capture_output=True)
    return cert, key


@pytest.fixture
def attach(running: Running) -> Iterator[Callable[..., tuple[Attached, Told]]]:
    """Makes a front end, as the engine's process sees it, and what it is told."""
    ours, theirs = socket.socketpair()

    def made(app: ASGIApp, *, places: int = 3, **more: Any) -> tuple[Attached, Told]:
        front, told = Attached(app, running.service, Shared.create(64, places), ours, **more), Told()
        front.channel = told
        return front, told

    yield made
    ours.close()
    theirs.close()
