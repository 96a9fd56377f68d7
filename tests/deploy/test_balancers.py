"""The real HAProxy and nginx, with the configurations in deploy/, before two made-up replicas."""

import asyncio
import subprocess
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest
from balancers import FILES, balancer, command, configured, free_ports, program
from tiny_server import Answer, Received, serving

PATIENCE = 60
PROBLEM = "application/problem+json"
REQUESTS = 12
IMAGE = bytes(range(256)) * 4000  # 1 MB, far beyond what balancers keep by default
Work = Callable[[httpx.AsyncClient], Awaitable[object]]


@pytest.fixture(params=FILES)
def name(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    if program(found) is None:
        pytest.skip(f"{found} is not installed")
    return found


class Replica:
    """Notes whom it was asked for, and answers as it is told."""

    def __init__(self, status: int | None = 200, ready: int = 200) -> None:
        self.status, self.ready = status, ready
        self.bodies: list[bytes] = []
        self.checked = asyncio.Event()

    async def answer(self, request: Received) -> tuple[int, bytes] | None:
        if "/readyz" in request.line:
            self.checked.set()
            return self.ready, b""
        self.bodies.append(request.body)
        return None if self.status is None else (self.status, b"answered")


def behind(name: str, folder: Path, answers: list[Answer], work: Work) -> None:
    """Runs `work` with a client of the balancer in front of these replicas."""

    async def everything() -> None:
        async with AsyncExitStack() as stack:
            urls = [await stack.enter_async_context(serving(each)) for each in answers]
            ports = [url.port or 0 for url in urls] or free_ports(2)
            front = stack.enter_context(balancer(name, folder, ports))
            async with httpx.AsyncClient(base_url=front.url, timeout=PATIENCE) as client:
                await work(client)

    asyncio.run(asyncio.wait_for(everything(), PATIENCE))


async def classify(client: httpx.AsyncClient) -> Counter[int]:
    """The statuses of some requests, one after the other."""
    return Counter([(await client.post("/classify", content=IMAGE)).status_code for _ in range(REQUESTS)])


def test_the_configuration_is_accepted(name: str, tmp_path: Path) -> None:
    port, metrics_port, *replicas = free_ports(4)
    path = configured(name, tmp_path, (port, metrics_port), replicas)
    done = subprocess.run(command(name, path, only_check=True), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "warn" not in done.stderr.lower()


def test_both_replicas_are_asked_and_get_the_whole_body(name: str, tmp_path: Path) -> None:
    one, other = Replica(), Replica()

    async def work(client: httpx.AsyncClient) -> None:
        assert await classify(client) == {200: REQUESTS}

    behind(name, tmp_path, [one.answer, other.answer], work)
    assert set(one.bodies) == set(other.bodies) == {IMAGE}
    assert len(one.bodies) + len(other.bodies) == REQUESTS


@pytest.mark.parametrize("status", [503, None], ids=["refuses", "hangs up"])
def test_what_one_replica_does_not_answer_the_other_one_does(name: str, tmp_path: Path, status: int | None) -> None:
    bad, good = Replica(status), Replica()

    async def work(client: httpx.AsyncClient) -> None:
        assert await classify(client) == {200: REQUESTS}

    behind(name, tmp_path, [bad.answer, good.answer], work)
    assert bad.bodies
    assert good.bodies == [IMAGE] * REQUESTS


def test_a_refusal_by_both_is_passed_on_after_one_retry(name: str, tmp_path: Path) -> None:
    one, other = Replica(503), Replica(503)

    async def work(client: httpx.AsyncClient) -> None:
        for _ in range(REQUESTS):
            answer = await client.post("/classify", content=IMAGE)
            assert (answer.status_code, answer.text) == (503, "answered")

    behind(name, tmp_path, [one.answer, other.answer], work)
    assert len(one.bodies) == len(other.bodies) == REQUESTS


def test_without_any_replica_the_problem_says_so(name: str, tmp_path: Path) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        answer = await client.post("/classify", content=IMAGE)
        assert (answer.status_code, answer.headers["content-type"]) == (503, PROBLEM)
        assert answer.headers["retry-after"] == "1"
        assert answer.json()["detail"] == "no replica is ready"

    behind(name, tmp_path, [], work)


@pytest.mark.parametrize("path", ["/metrics", "/control"])
def test_what_is_about_one_replica_is_not_passed_on(name: str, tmp_path: Path, path: str) -> None:
    one, other = Replica(), Replica()

    async def work(client: httpx.AsyncClient) -> None:
        assert (await client.get(path)).status_code == 404

    behind(name, tmp_path, [one.answer, other.answer], work)
    assert not one.bodies + other.bodies


def test_haproxy_asks_no_replica_that_says_it_is_not_ready(tmp_path: Path) -> None:
    if program("haproxy") is None:
        pytest.skip("haproxy is not installed")
    stopping, ready = Replica(), Replica()

    async def work(client: httpx.AsyncClient) -> None:
        stopping.ready = 503
        for _ in range(3):  # the checks that it may fail, and one that may have been under way
            stopping.checked.clear()
            await stopping.checked.wait()
        await client.get("/stitches")
        before = len(stopping.bodies)
        assert await classify(client) == {200: REQUESTS}
        assert len(stopping.bodies) == before

    behind("haproxy", tmp_path, [stopping.answer, ready.answer], work)


def test_haproxy_gives_less_to_a_replica_that_says_it_is_slow(tmp_path: Path) -> None:
    if program("haproxy") is None:
        pytest.skip("haproxy is not installed")
    together, came, go = 24, Counter[int](), asyncio.Event()
    asked = {share: asyncio.Semaphore(0) for share in (20, 100)}

    def replica(share: int) -> Answer:
        async def answer(request: Received) -> tuple[int, bytes]:
            if "/classify" in request.line:
                came[share] += 1
                if came.total() == together:
                    go.set()
                await go.wait()
            return 200, b""

        return answer

    def agent(share: int) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], None]:
        def tell(_: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
            client.write(f"ready up {share}%\n".encode())
            client.close()
            asked[share].release()

        return tell

    async def everything() -> None:
        async with AsyncExitStack() as stack:
            ports = [(await stack.enter_async_context(serving(replica(share)))).port or 0 for share in asked]
            listening = [await asyncio.start_server(agent(share), "127.0.0.1", 0) for share in asked]
            agents = [(await stack.enter_async_context(each)).sockets[0].getsockname()[1] for each in listening]
            front = stack.enter_context(balancer("haproxy", tmp_path, ports, agents=agents))
            for each in asked.values():
                await each.acquire()
                await each.acquire()  # a second question: what the first was answered is known
            async with httpx.AsyncClient(base_url=front.url, timeout=PATIENCE) as client:
                await asyncio.gather(*(client.post("/classify", content=b"cat") for _ in range(together)))

    asyncio.run(asyncio.wait_for(everything(), PATIENCE))
    assert 1 <= came[20] <= together / 4
