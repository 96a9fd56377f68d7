"""deploy/compose.yaml for real: its replicas as containers by podman, with all that the file says of them.

TEST_IMAGE names the image to try, which was built before. The balancer and Prometheus are programs of this machine.
"""

import os
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from balancers import Balancer, balancer, free_ports, program
from conftest import SAMPLES
from replicas import Replica, scrape
from test_compose import services
from test_monitoring import Prometheus, scraping

PATIENCE = 60.0  # seconds
IMAGE = os.environ.get("TEST_IMAGE", "")
SAMPLE = min(SAMPLES.glob("*.jpg")).read_bytes()
ASKED = "/classify?budget=30s"  # patient, and within the balancer's timeouts
CLIENTS, ANSWERS = 4, 20
PREFIX = f"stitchserve-test-{os.getpid()}"
NAMES = sorted(name for name in services() if name.startswith("replica"))

# The keys of a service that are said otherwise here, and podman's options for all others.
PLACED = {"build", "command", "depends_on", "image"}
OPTIONS = {
    "cap_drop": "cap-drop",
    "cpus": "cpus",
    "environment": "env",
    "init": "init",
    "mem_limit": "memory",
    "read_only": "read-only",
    "restart": "restart",
    "security_opt": "security-opt",
    "stop_grace_period": "stop-timeout",
    "tmpfs": "tmpfs",
    "user": "user",
    "volumes": "volume",
}


def said(key: str, value: Any) -> list[str]:
    """What podman is told for one key of a service; KeyError for a key that nobody has translated."""
    match key, value:
        case "environment", dict():
            values = [f"{name}={each}" for name, each in value.items()]
        case "volumes", list():
            values = [f"{PREFIX}-{each}" for each in value]
        case "stop_grace_period", _:
            values = [value.removesuffix("s")]
        case _, bool():
            values = [str(value).lower()]
        case _:
            values = value if isinstance(value, list) else [value]
    return [f"--{OPTIONS[key]}={each}" for each in values]


def command(name: str, port: int) -> list[str]:
    """Runs this service in the foreground, to be asked on this port of loopback."""
    service = services()[name]
    options = [each for key in service.keys() - PLACED for each in said(key, service[key])]
    options += ["--env=STITCHSERVE_PROFILE_S=2", f"--publish=127.0.0.1:{port}:8000"]
    where = ["--pull=never", "--replace", f"--name={PREFIX}-{name}"]
    return ["podman", "run", *where, *options, IMAGE, *service["command"]]


def podman(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["podman", *arguments], capture_output=True, text=True, check=False, timeout=PATIENCE)


@dataclass(frozen=True)
class Fleet:
    """Both replicas, ready, and the balancer in front of them."""

    replicas: dict[str, Replica]
    front: Balancer

    def ask_until(self, done: threading.Event, answered: threading.Semaphore) -> Counter[int]:
        """The statuses of requests through the balancer, one after the other."""
        statuses: Counter[int] = Counter()
        with httpx.Client(base_url=self.front.url, timeout=PATIENCE) as client:
            while not done.is_set():
                statuses[client.post(ASKED, content=SAMPLE).status_code] += 1
                answered.release()
        return statuses


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    for each in ("podman", "haproxy"):
        if program(each) is None:
            pytest.skip(f"{each} is not installed")
    if not IMAGE:
        pytest.skip("TEST_IMAGE names no image to try")
    folder, replicas = tmp_path_factory.mktemp("containers"), {}
    with ExitStack() as stack:
        stack.callback(podman, "volume", "rm", "--force", f"{PREFIX}-cache")
        for name, port in zip(NAMES, free_ports(len(NAMES)), strict=True):
            replicas[name] = Replica(port, command(name, port), "/readyz", folder / f"{name}.log")
            stack.callback(replicas[name].discard)
            stack.callback(podman, "rm", "--force", "--time=0", f"{PREFIX}-{name}")
            replicas[name].wait()
        front = stack.enter_context(balancer("haproxy", folder, [each.port for each in replicas.values()]))
        yield Fleet(replicas, front)


def test_all_that_the_file_says_of_the_replicas_is_tried() -> None:
    hardened = {"--cap-drop=ALL", "--read-only=true", "--security-opt=no-new-privileges:true", "--tmpfs=/tmp"}
    assert NAMES == ["replica1", "replica2"]
    assert all(hardened | {"--stop-timeout=40"} <= set(command(name, 8000)) for name in NAMES)


def test_both_answer_through_the_balancer(fleet: Fleet) -> None:
    with httpx.Client(base_url=fleet.front.url, timeout=PATIENCE) as client:
        answers = [client.post(ASKED, content=SAMPLE) for _ in range(ANSWERS)]
    assert {each.status_code for each in answers} == {200}
    assert all(each.json()["predictions"] for each in answers)
    for each in fleet.replicas.values():
        counted = scrape(f"{each.url}/metrics", "stitchserve_requests_total")
        assert any(labels["route"] == "/classify" and value > 0 for labels, value in counted)


@pytest.mark.parametrize("name", NAMES)
def test_its_processes_are_an_ordinary_user_who_may_nothing(fleet: Fleet, name: str) -> None:
    ask = "grep -hE '^(Uid|Gid|CapEff|CapBnd|NoNewPrivs)' /proc/[0-9]*/status"
    shown = podman("exec", f"{PREFIX}-{name}", "sh", "-c", ask)
    ids, none = "\t10001" * 4, "\t" + "0" * 16
    expected = {f"Uid:{ids}", f"Gid:{ids}", f"CapEff:{none}", f"CapBnd:{none}", "NoNewPrivs:\t1"}
    assert set(shown.stdout.splitlines()) == expected, shown.stderr


@pytest.mark.parametrize("name", NAMES)
def test_its_root_cannot_be_written_even_by_root(fleet: Fleet, name: str) -> None:
    tried = podman("exec", "--user=0", f"{PREFIX}-{name}", "touch", "/written", "/opt/stitchserve/written")
    assert tried.returncode != 0
    assert tried.stderr.count("Read-only file system") == 2, tried.stderr


@pytest.mark.parametrize("name", NAMES)
def test_the_health_check_of_the_image_says_that_it_is_well(fleet: Fleet, name: str) -> None:
    done = podman("healthcheck", "run", f"{PREFIX}-{name}")
    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_scrapes_both(fleet: Fleet, tmp_path: Path) -> None:
    if program("prometheus") is None:
        pytest.skip("prometheus is not installed")
    urls = [each.url for each in fleet.replicas.values()]
    with scraping(tmp_path, urls, fleet.front.metrics) as client:
        asked = ['sum(up{job="stitchserve"}) == 2', 'count(stitchserve_requests_total{route="/classify"}) > 1']
        assert Prometheus(client, urls).wait_for(asked) == []


def test_stopping_one_under_requests_loses_none(fleet: Fleet) -> None:
    name, replica = next(iter(fleet.replicas.items()))
    done, answered = threading.Event(), threading.Semaphore(0)
    with ThreadPoolExecutor() as pool, ExitStack() as stack:
        stack.callback(done.set)
        asking = [pool.submit(fleet.ask_until, done, answered) for _ in range(CLIENTS)]
        assert all(answered.acquire(timeout=PATIENCE) for _ in range(ANSWERS))
        stopped = podman("stop", f"{PREFIX}-{name}")
        while answered.acquire(blocking=False):
            """Those are from before."""
        assert all(answered.acquire(timeout=PATIENCE) for _ in range(ANSWERS))
        done.set()
        statuses = sum((each.result(PATIENCE) for each in asking), Counter[int]())
    assert stopped.returncode == 0, stopped.stderr
    assert replica.process.wait(PATIENCE) == 0, replica.log.read_text()
    assert set(statuses) == {200}
    replica.start()
    replica.wait()
