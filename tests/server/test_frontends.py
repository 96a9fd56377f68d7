"""Front ends: the answers are those of one process, and whoever dies takes nobody else along."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import SAMPLES, Running, settings
from over_frontends import REQUESTS, form, picture
from over_v2 import FILES
from started import Process
from test_relay import given

from server.app import application
from server.frontends import FrontEnds
from server.listening import addresses, bound, listen
from server.service import Service
from server.shared import Shared

OF_ONE_REQUEST = {"timing_ms", "request_id"}
OF_ONE_MOMENT = {"connection"}  # whether a body that nobody wants has come yet


@dataclass(frozen=True)
class Behind:
    """A service in this process, behind two front ends."""

    url: str
    service: Service

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=60)


@pytest.fixture
def behind(running: Running, cache: Path) -> Iterator[Behind]:
    service = Service(
        settings(cache, max_connections=40, header_timeout_s=60), running.service.engine, running.service.table
    )
    app, up = application(service), threading.Event()
    fronts: list[FrontEnds] = []
    loops: list[asyncio.AbstractEventLoop] = []

    async def live(sockets: list[Any]) -> None:
        loops.append(asyncio.get_running_loop())
        fronts.append(FrontEnds(app, service, sockets, 2))
        async with app.router.lifespan_context(app):
            up.set()
            fronts[0].admit()
            await fronts[0].run()

    with bound("127.0.0.1", 0) as sockets:
        (url,) = addresses(sockets)
        listen(sockets)
        thread = threading.Thread(target=lambda: asyncio.run(live(sockets)), daemon=True)
        thread.start()
        assert up.wait(60)
        while len(service.helpers) < 2:
            time.sleep(0.01)
        yield Behind(url, service)
        loops[0].call_soon_threadsafe(fronts[0].stop)
        thread.join(60)
        assert not thread.is_alive()


NEAR = partial(pytest.approx, abs=1e-5)  # products round otherwise where a batch has other rows


def essence(response: httpx.Response, number: Callable[[float], Any]) -> tuple[int, set[str], Any]:
    """What does not differ from one time to the next."""

    def without(value: Any) -> Any:
        if isinstance(value, list):
            return [without(each) for each in value]
        if isinstance(value, dict):
            return {name: without(each) for name, each in value.items() if name not in OF_ONE_REQUEST}
        return number(value) if isinstance(value, float) else value

    is_json = "json" in response.headers.get("content-type", "") and response.content
    said = without(response.json()) if is_json else response.content
    return response.status_code, set(response.headers) - OF_ONE_MOMENT, said


def test_answers_are_those_of_one_process(behind: Behind, client: httpx.Client) -> None:
    with behind.client() as other:
        for name, (method, path, given) in REQUESTS.items():
            theirs = essence(other.request(method, path, **given), float)
            assert theirs == essence(client.request(method, path, **given), NEAR), name


def test_who_asks_and_when_is_known(behind: Behind) -> None:
    with behind.client() as client:
        answer = client.post("/classify", content=FILES[0], headers={"X-Request-Id": "mine"})
        timing = answer.json()["timing_ms"]
    assert answer.headers["x-request-id"] == answer.json()["request_id"] == "mine"
    assert timing["decode"] > 0
    assert timing["total"] >= timing["decode"] + timing["queue"] + timing["compute"]


def test_events_come_as_they_happen(behind: Behind) -> None:
    with behind.client() as client, client.stream("GET", "/events") as stream:
        lines = stream.iter_lines()
        assert sum(line.startswith("data: ") for _, line in zip(range(12), lines, strict=False)) >= 2


def test_a_connection_goes_on_after_quick_answers(behind: Behind) -> None:
    with behind.client() as client:
        for _ in range(40):
            assert "connection" not in client.get("/livez").headers


def metric(client: httpx.Client, name: str) -> float:
    line = next(line for line in client.get("/metrics").text.splitlines() if line.startswith(f"{name} "))
    return float(line.split()[1])


def test_what_the_front_end_refuses_is_counted_by_the_engine(behind: Behind) -> None:
    with behind.client() as client:
        assert client.get("/" + "a" * 17_000).status_code == 414
        told = 'stitchserve_requests_total{route="connection",status="414"} 1.0'
        ends = time.monotonic() + 30  # it may be asked by way of the other one, and not know yet
        while told not in client.get("/metrics").text:
            assert time.monotonic() < ends
        assert metric(client, "stitchserve_frontends") == 2


def test_a_body_that_is_refused_is_not_waited_for(behind: Behind) -> None:
    with behind.client() as client:
        refused = client.post("/classify", content=bytes(11_000_000))
        assert refused.status_code == 413
        assert client.get("/livez").status_code == 200


def test_a_client_that_leaves_gives_its_place_back(behind: Behind) -> None:
    with behind.client() as client:
        with pytest.raises(httpx.TimeoutException):
            client.post("/classify/batch", **form(*[picture("PNG", (3000, 3000))] * 8), timeout=0.05)
        while metric(client, "stitchserve_requests_inside"):
            pass
        assert client.post("/classify", content=FILES[0]).status_code == 200


def test_one_that_dies_is_replaced_and_loses_only_its_own_connections(behind: Behind) -> None:
    killed, *_ = before = sorted(behind.service.helpers)
    with behind.client() as client:
        clients = [behind.client() for _ in range(12)]
        assert all(each.get("/livez").status_code == 200 for each in clients)
        os.kill(killed, signal.SIGKILL)
        while killed in behind.service.helpers or len(behind.service.helpers) < 2:
            time.sleep(0.01)
        kept = 0
        for each in clients:
            try:
                kept += each.get("/livez").status_code == 200
            except httpx.TransportError:  # it was one of the dead one's
                assert each.post("/classify", content=FILES[0]).status_code == 200
            each.close()
        assert kept, "the other one's connections stand"
        assert metric(client, "stitchserve_frontend_deaths_total") == 1
    assert set(before) & behind.service.helpers == {before[1]}


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_one_takes_little_memory_and_knows_no_torch(behind: Behind) -> None:
    with behind.client() as client:
        for path in sorted(SAMPLES.glob("*.jpg"))[:20]:
            assert client.post("/classify", content=path.read_bytes()).status_code == 200
    for process in behind.service.helpers:
        folder = Path(f"/proc/{process}")
        assert "libtorch" not in (folder / "maps").read_text()
        resident = next(line for line in (folder / "status").read_text().splitlines() if line.startswith("VmRSS"))
        assert int(resident.split()[1]) < 80_000


def test_whoever_asks_before_sending_a_body_is_refused_before(behind: Behind) -> None:
    url = httpx.URL(behind.url)
    for query, first in (("budget=lots", b"HTTP/1.1 422 "), ("", b"HTTP/1.1 100 ")):
        head = f"POST /classify?{query} HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\nExpect: 100-continue\r\n"
        with socket.create_connection((url.host, url.port or 0), timeout=60) as client:
            client.sendall(head.encode() + b"Content-Length: %d\r\n\r\n" % len(FILES[0]))
            assert client.recv(10_000).startswith(first)
            if not query:
                client.sendall(FILES[0])
                assert client.recv(10_000).startswith(b"HTTP/1.1 200 ")


def test_a_picture_made_smaller_is_answered_alike_but_for_grey_levels(behind: Behind, client: httpx.Client) -> None:
    large = picture("JPEG", (6000, 4600))
    with behind.client() as other:
        theirs, mine = (each.post("/classify?stitch=20", content=large).json() for each in (other, client))
    for one, another in zip(theirs["predictions"], mine["predictions"], strict=True):
        assert one == another | {"probability": pytest.approx(another["probability"], abs=0.01)}


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_front_end_that_hangs_does_not_keep_the_server_from_stopping(start: Callable[..., Process]) -> None:
    started = start("--frontends", "2", "--drain-timeout-s", "1")
    engine = started.pid
    with httpx.stream("GET", f"{started.url}/events") as events:
        assert next(events.iter_lines())  # and is left
    hung, *_ = Path(f"/proc/{engine}/task/{engine}/children").read_text().split()
    os.kill(int(hung), signal.SIGSTOP)
    assert started.stop() == 0
    assert "Traceback" not in started.log.read_text()


def runs(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"  # nobody may be there to take an orphan's exit status


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_without_the_engine_front_ends_say_so_and_go(start: Callable[..., Process]) -> None:
    started = start("--frontends", "2")
    engine = started.pid
    fronts = [int(child) for child in Path(f"/proc/{engine}/task/{engine}/children").read_text().split()]
    with httpx.Client(base_url=started.url, timeout=60) as client:
        assert client.get("/livez").status_code == 200
        started.send(signal.SIGKILL)
        assert started.exit_status() == -signal.SIGKILL
        gone = client.get("/livez")
    assert gone.status_code == 503
    assert "restart" in gone.json()["detail"]
    while any(map(runs, fronts)):
        time.sleep(0.01)


def test_a_front_end_without_an_engine_exits_with_1() -> None:
    ours, theirs = socket.socketpair()
    memory = Shared.create(64, 1)
    with bound("127.0.0.1", 0) as sockets, theirs:
        listen(sockets)
        told = given(memory, listening=[opened.fileno() for opened in sockets], channel=theirs.fileno())
        files = [*told.listening, told.channel, told.memory]
        process = subprocess.Popen([sys.executable, "-m", "server.frontend", told.said()], pass_fds=files)
    ours.close()
    memory.close()
    assert process.wait(60) == 1
