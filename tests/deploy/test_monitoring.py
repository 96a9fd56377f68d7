"""A real Prometheus before two replicas and HAProxy: rules and dashboard ask for nothing that is not there."""

import json
import math
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from balancers import DEPLOY, balancer, free_ports, program
from conftest import SAMPLES, run, settings

from server.service import build

PATIENCE = 60.0  # seconds
ON_A_GPU = re.compile(r"stitchserve_(gpu|graphs|eager)_")
SERIES = re.compile(r"\b(?:stitchserve|haproxy)_\w+")

needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")


@dataclass(frozen=True)
class Prometheus:
    """A running Prometheus, and the addresses of the replicas that it scrapes."""

    client: httpx.Client
    replicas: list[str]

    def query(self, expression: str) -> list[float]:
        """The values that an expression has now."""
        answer = self.client.get("/api/v1/query", params={"query": expression}).json()
        assert answer["status"] == "success", f"{expression}: {answer}"
        return [float(sample["value"][1]) for sample in answer["data"]["result"]]

    def wait_for(self, expressions: list[str]) -> list[str]:
        """Classifies images until all expressions have a value; those that have none in the end."""
        ends, missing = time.monotonic() + PATIENCE, expressions
        images = sorted(SAMPLES.glob("*.jpg"))
        form = [("image", each.read_bytes()) for each in images[:3]] + [("budget", b"10MFLOPs"), ("budget", b"60%")]
        while missing and time.monotonic() < ends:
            for replica in self.replicas:
                with httpx.Client(base_url=replica, timeout=PATIENCE) as client:
                    client.post("/classify", content=images[0].read_bytes())
                    client.post("/classify/batch", files=[*form, ("budget", b"90%")])
            time.sleep(0.3)  # the least that brings another scrape
            missing = [each for each in missing if not any(math.isfinite(value) for value in self.query(each))]
        return missing


@contextmanager
def scraping(folder: Path, replicas: list[str], balancer_url: str) -> Iterator[httpx.Client]:
    """Prometheus with the configuration in deploy/, scraping often, and these targets."""
    (port,) = free_ports(1)
    text = (DEPLOY / "prometheus.yml").read_text().replace("interval: 5s", "interval: 200ms")
    places = {f"replica{number}:8000": each for number, each in enumerate(replicas, 1)}
    for name, url in (places | {"balancer:8404": balancer_url}).items():
        text = text.replace(name, url.removeprefix("http://").removesuffix("/metrics"))
    (folder / "prometheus.yml").write_text(text)
    shutil.copy(DEPLOY / "rules.yml", folder)
    where = (f"--web.listen-address=127.0.0.1:{port}", f"--storage.tsdb.path={folder / 'data'}")
    command = ["prometheus", f"--config.file={folder / 'prometheus.yml'}", *where]
    with (folder / "prometheus.log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE) as client:
                wait(client, process)
                yield client
        finally:
            process.terminate()


def wait(client: httpx.Client, process: subprocess.Popen[bytes]) -> None:
    ends = time.monotonic() + PATIENCE
    while process.poll() is None and time.monotonic() < ends:
        try:
            if client.get("/-/ready").is_success:
                return
        except httpx.TransportError:
            time.sleep(0.1)
    raise RuntimeError("Prometheus did not start")


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    for name in ("prometheus", "haproxy"):
        if program(name) is None:
            pytest.skip(f"{name} is not installed")
    folder, cache = tmp_path_factory.mktemp("prometheus"), tmp_path_factory.mktemp("cache")
    with ExitStack() as stack:
        replicas = [stack.enter_context(contextmanager(run)(build(settings(cache)))).url for _ in range(2)]
        ports = [int(each.rpartition(":")[2]) for each in replicas]
        front = stack.enter_context(balancer("haproxy", folder, ports))
        client = stack.enter_context(scraping(folder, replicas, front.metrics))
        yield Prometheus(client, replicas)


def dashboard() -> list[dict[str, Any]]:
    panels: list[dict[str, Any]] = json.loads((DEPLOY / "grafana" / "dashboard.json").read_text())["panels"]
    return [panel for panel in panels if panel["type"] != "row"]


def dashboard_queries() -> list[str]:
    asked = [target["expr"] for panel in dashboard() for target in panel["targets"]]
    return [each.replace("$instance", ".*").replace("$__rate_interval", "1m") for each in asked]


def test_panels_lie_beside_each_other() -> None:
    places = [panel["gridPos"] for panel in dashboard()]
    cells = [(x, y) for p in places for x in range(p["x"], p["x"] + p["w"]) for y in range(p["y"], p["y"] + p["h"])]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24


def test_every_query_of_the_dashboard_returns_data(prometheus: Prometheus) -> None:
    queries = [each for each in dashboard_queries() if not ON_A_GPU.search(each)]
    assert len(queries) > 30
    assert prometheus.wait_for(queries) == []


def test_every_rule_is_evaluated_and_those_that_record_return_data(prometheus: Prometheus) -> None:
    recorded = re.findall(r"record: (\S+)", (DEPLOY / "rules.yml").read_text())
    assert prometheus.wait_for(recorded) == []
    groups = prometheus.client.get("/api/v1/rules").json()["data"]["groups"]
    assert {rule["health"] for group in groups for rule in group["rules"]} == {"ok"}


def test_rules_ask_for_series_that_both_replicas_show(prometheus: Prometheus) -> None:
    asked = set(SERIES.findall((DEPLOY / "rules.yml").read_text()))
    assert prometheus.wait_for([f"count({name}) > 1" for name in asked]) == []
    assert prometheus.query('sum(up{job="stitchserve"})') == [2]


@needs_promtool
@pytest.mark.parametrize(
    "command",
    [("test", "rules", "rules_test.yml"), ("check", "rules", "rules.yml"), ("check", "config", "prometheus.yml")],
)
def test_promtool_finds_no_fault(command: tuple[str, ...]) -> None:
    done = subprocess.run(["promtool", *command], cwd=DEPLOY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
