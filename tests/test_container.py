"""The container's files against what they name: the wheel's parts, the command, the settings. No image is built."""

import json
import os
import re
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from server.settings import Settings, check_environment

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
DOCKERFILE = (ROOT / "Dockerfile").read_text().replace("\\\n", "")
SERVING = DOCKERFILE[DOCKERFILE.rindex("\nFROM ") :]  # the stage that becomes the image


def last(instruction: str) -> str:
    """The arguments of the instruction that holds: the last of its kind in the stage that serves."""
    return str(re.findall(rf"^{instruction} (.+)$", SERVING, re.MULTILINE)[-1])


def test_the_build_sees_all_that_the_wheel_is_made_of() -> None:
    wheel = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]
    project = PROJECT["project"]
    needed = {"pyproject.toml", "requirements.lock", project["readme"], *project["license-files"], *wheel["packages"]}
    needed |= {Path(source).parts[0] for source in wheel.get("force-include", {})}
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in lines
    assert {line[1:] for line in lines if line.startswith("!")} == needed


def test_it_serves_as_an_ordinary_user_whose_number_is_known() -> None:
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", last("USER"))


def test_it_starts_a_command_that_the_wheel_brings() -> None:
    entry, *arguments = json.loads(last("ENTRYPOINT"))
    assert entry in PROJECT["project"]["scripts"]
    assert not arguments
    assert json.loads(last("CMD")) == ["serve"]


def test_its_variables_are_settings() -> None:
    names = set(re.findall(r"STITCHSERVE_[A-Z_]+", SERVING))
    assert "STITCHSERVE_PORT" in names
    check_environment(dict.fromkeys(names, ""), Settings.model_fields)


@contextmanager
def ready(status: int) -> Iterator[int]:
    """A server that says `status` to /readyz; its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/readyz" else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def healthy(port: int) -> bool:
    command = json.loads(last("HEALTHCHECK").partition(" CMD ")[2])
    assert command[0] == "python"
    environment = os.environ | {"STITCHSERVE_PORT": str(port), "http_proxy": "http://127.0.0.1:9"}
    environment.pop("no_proxy", None)
    done = subprocess.run([sys.executable, *command[1:]], check=False, env=environment, capture_output=True, timeout=60)
    return done.returncode == 0


@pytest.mark.parametrize(("status", "expected"), [(200, True), (503, False)])
def test_its_health_check_asks_whether_the_server_is_ready(status: int, expected: bool) -> None:
    with ready(status) as port:
        assert healthy(port) is expected
    assert not healthy(port)
