"""Whose turn it is to be decoded, and who is not decoded at all."""

import asyncio
import io
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from threading import Event, Lock, Semaphore

import pytest
from conftest import Running, run, settings
from PIL import Image

from server.answering import ImageAsked, answer_image, answer_images, asked, decode_turns
from server.body import Bodies, Body
from server.budget import Budget
from server.errors import BadImage, DeadlinePassed, Overloaded, ServeError
from server.schemas import Classification
from server.service import Service


class Clock:
    """Stands still until told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def move(self, seconds: float) -> None:
        self.now += seconds


class TellingBodies(Bodies):
    """Tells when the first body is to come."""

    def __init__(self, most: int) -> None:
        super().__init__(most)
        self.held_one = Event()

    def hold(self) -> Body:
        self.held_one.set()
        return super().hold()


class Told(bytes):
    """A body that tells when its decoding begins: its length is what is asked for first."""

    tell: Callable[[], object]
    told = False

    def __len__(self) -> int:
        if not self.told:
            self.told = True
            self.tell()
        return super().__len__()


def told(body: bytes, tell: Callable[[], object]) -> Told:
    image = Told(body)
    image.tell = tell
    return image


class Decoding:
    """Images whose decoding does not end before the gate opens; `most` is how many were in it at once."""

    def __init__(self) -> None:
        self.gate, self.begun, self.lock = Event(), Semaphore(0), Lock()
        self.inside = self.most = 0

    def image(self, body: bytes) -> Told:
        return told(body, self._hold)

    def _hold(self) -> None:
        with self.lock:
            self.inside += 1
            self.most = max(self.most, self.inside)
        self.begun.release()
        assert self.gate.wait(30)
        with self.lock:
            self.inside -= 1

    async def until_begun(self, count: int = 1) -> None:
        for _ in range(count):
            assert await asyncio.get_running_loop().run_in_executor(None, self.begun.acquire, True, 30)


class House:
    """A running service with a clock of the test's own."""

    def __init__(self, service: Service, clock: Clock) -> None:
        self.service, self.clock = service, clock

    def answer(
        self, body: bytes, deadline: float = 10.0, turns: asyncio.Semaphore | None = None
    ) -> asyncio.Task[Classification]:
        ask = asked(self.service, Budget(deadline=deadline), 1, self.clock.now, "a-request")
        ask.stages.end("receive")
        return asyncio.create_task(answer_image(self.service, body, ask, turns))


Open = Callable[[int], AbstractAsyncContextManager[House]]


@pytest.fixture
def sample(sample: bytes) -> bytes:
    """As PNG: a small JPEG is read at once, on no other thread."""
    file = io.BytesIO()
    Image.open(io.BytesIO(sample)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def house(running: Running, cache: Path) -> Open:
    @asynccontextmanager
    async def opened(decode_threads: int) -> AsyncIterator[House]:
        clock = Clock()
        engine, table = running.service.engine, running.service.table
        service = Service(settings(cache, decode_threads=decode_threads), engine, table, clock)
        await service.start()
        yield House(service, clock)
        await service.stop()

    return opened


def test_decoding_and_waiting_are_told_apart(house: Open, sample: bytes) -> None:
    async def scenario() -> None:
        async with house(1) as home:
            decoding = Decoding()
            slow = home.answer(decoding.image(sample))
            await decoding.until_begun()
            after = home.answer(sample)
            await asyncio.sleep(0)  # it has asked for its turn
            home.clock.move(2)
            decoding.gate.set()
            assert ((await slow).timing_ms.decode, (await slow).timing_ms.queue) == (2000, 0)
            assert ((await after).timing_ms.decode, (await after).timing_ms.queue) == (0, 2000)

    asyncio.run(scenario())


def test_whoever_is_almost_late_on_an_idle_server_is_answered(house: Open, sample: bytes) -> None:
    async def scenario() -> None:
        async with house(1) as home:
            answer = await home.answer(told(sample, lambda: home.clock.move(9.99)))
            assert answer.budget.met
            assert answer.timing_ms.total == pytest.approx(9990)

    asyncio.run(scenario())


def test_a_deadline_that_passes_while_decoding_says_so(house: Open, sample: bytes) -> None:
    async def scenario() -> None:
        async with house(1) as home:
            with pytest.raises(DeadlinePassed, match=r"mostly decoding.*a smaller picture") as refusal:
                await home.answer(told(sample, lambda: home.clock.move(12)))
            assert refusal.value.extra == {"stage": "decode", "receive_ms": 0, "decode_ms": 12_000, "queue_ms": 0}
            assert home.service.batcher.queued == 0

    asyncio.run(scenario())


def test_what_was_late_before_its_turn_is_not_decoded(house: Open, sample: bytes) -> None:
    async def scenario() -> None:
        async with house(1) as home:
            decoding = Decoding()
            first = home.answer(decoding.image(sample), deadline=100)
            await decoding.until_begun()
            late = told(sample, lambda: None)
            refused = home.answer(late)
            await asyncio.sleep(0)  # it has asked for its turn
            home.clock.move(11)
            decoding.gate.set()
            with pytest.raises(DeadlinePassed, match="waiting for a thread that decodes") as refusal:
                await refused
            assert refusal.value.extra == {"stage": "queue", "receive_ms": 0, "decode_ms": 0, "queue_ms": 11_000}
            assert not late.told
            assert (await first).timing_ms.decode == 11_000

    asyncio.run(scenario())


@pytest.mark.parametrize("with_turns", [False, True])
def test_whose_caller_left_before_its_turn_is_not_decoded(house: Open, sample: bytes, with_turns: bool) -> None:
    async def scenario() -> None:
        async with house(1) as home:
            turns = decode_turns(home.service) if with_turns else None
            decoding = Decoding()
            first = home.answer(decoding.image(sample))
            await decoding.until_begun()
            gone = [told(sample, lambda: None) for _ in range(3)]
            leaving = [home.answer(image, turns=turns) for image in gone]
            await asyncio.sleep(0)  # they have asked for their turns
            for task in leaving:
                task.cancel()
            await asyncio.wait(leaving)
            last = home.answer(sample)
            decoding.gate.set()
            await asyncio.gather(first, last)
            assert not any(image.told for image in gone)

    asyncio.run(scenario())


@pytest.mark.parametrize(("threads", "share"), [(1, 1), (2, 1), (4, 2), (5, 2)])
def test_a_form_leaves_half_of_the_threads_to_others(house: Open, sample: bytes, threads: int, share: int) -> None:
    async def scenario() -> None:
        async with house(threads) as home:
            turns, decoding = decode_turns(home.service), Decoding()
            form = [home.answer(decoding.image(sample), turns=turns) for _ in range(6)]
            await decoding.until_begun(share)
            others = [home.answer(sample) for _ in range(3)]
            if threads > share:
                await asyncio.gather(*others)
            decoding.gate.set()
            await asyncio.gather(*form, *others)
            assert decoding.most == share

    asyncio.run(scenario())


def test_a_late_form_is_not_decoded_further(house: Open, sample: bytes) -> None:
    async def scenario() -> None:
        async with house(2) as home:
            turns = decode_turns(home.service)
            decoding = Decoding()
            rest = [told(sample, lambda: None) for _ in range(7)]
            answers = [home.answer(image, turns=turns) for image in (decoding.image(sample), *rest)]
            await decoding.until_begun()
            home.clock.move(11)
            decoding.gate.set()
            results = await asyncio.gather(*answers, return_exceptions=True)
            assert all(isinstance(result, DeadlinePassed) for result in results)
            assert not any(image.told for image in rest)

    asyncio.run(scenario())


def test_a_form_that_cannot_be_in_time_is_refused_as_a_whole(house: Open, sample: bytes) -> None:
    async def scenario() -> None:
        async with house(2) as home:
            service = home.service
            deadline = 2 * service.controller.costs.least(1)
            form: list[ImageAsked | ServeError] = [BadImage("one more")]
            for _ in range(64):
                ask = asked(service, Budget(deadline=deadline), 1, home.clock.now, "a-request")
                form.append((told(sample, lambda: None), ask))
            with pytest.raises(Overloaded, match="or allow more time"):
                await answer_images(service, form)
            assert (service.limiter.inside, service.limiter.floor) == (0, 0.0)
            assert not any(isinstance(image, tuple) and image[0].told for image in form)  # type: ignore[attr-defined]

    asyncio.run(scenario())


def test_a_body_that_arrives_late_is_not_decoded(running: Running, cache: Path) -> None:
    clock = Clock()
    service = Service(settings(cache), running.service.engine, running.service.table, clock)
    service.bodies = bodies = TellingBodies(1_000_000)

    def body() -> Iterator[bytes]:
        yield b"what would be no image"
        assert bodies.held_one.wait(30)  # its arrival has been noted
        clock.move(100)
        yield b", were it looked at"

    for home in run(service):
        with home.client() as client:
            response = client.post("/classify", content=body())
    assert (response.status_code, response.json()["stage"]) == (504, "receive")
    assert response.json()["receive_ms"] == pytest.approx(100_000, rel=0.01), "and what it waited for the event loop"


def test_after_a_stall_requests_are_answered_and_tell_that_it_is_over(
    running: Running, cache: Path, sample: bytes
) -> None:
    service = Service(settings(cache, slo_ms=10_000), running.service.engine, running.service.table)
    for _ in range(100):
        service.front.answered(60.0)
    stalled = service.front.reply
    for home in run(service):
        with home.client() as client:
            assert [client.post("/classify", content=sample).status_code for _ in range(5)] == [200] * 5
    assert service.front.reply < stalled
