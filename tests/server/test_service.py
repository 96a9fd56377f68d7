"""Deadlines, overload, callers that leave, and slow bodies, over real HTTP with an engine that waits for the test."""

import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest
from conftest import Running, run, settings
from stage import Gated, Stage, Wide, staged

import stitching
from lookup_tables.table import TableError, folder
from server.front import MOST_UNSEEN
from server.service import QUIET, Service, build
from server.settings import Settings
from server.tenants import digest
from server.threads import most_threads


@pytest.fixture
def stage(cache: Path, running: Running, request: pytest.FixtureRequest) -> Iterator[Stage]:
    small = settings(cache, max_queue=2, body_timeout_s=getattr(request, "param", 60))
    yield from staged(Gated, small, running)


def test_a_deadline_that_passes_in_the_queue_is_504(stage: Stage, sample: bytes) -> None:
    first = stage.occupy(sample)
    late = stage.post(sample, "deadline_ms=5000")
    stage.until(lambda: stage.running.service.batcher.queued == 1)
    stage.clock.by += 6
    stage.engine.gate.set()
    assert late()[0] == 504
    assert first()[0] == 200
    assert stage.engine.batches == [1], "the late request was not run"


@pytest.mark.parametrize(("decode_threads", "frontends", "threads"), [(1, 2, 2), (2, 0, 2), (200, 3, 600)])
def test_as_many_decode_at_once_as_there_are_threads_and_processors(
    running: Running, cache: Path, decode_threads: int, frontends: int, threads: int
) -> None:
    now, given = [0.0], settings(cache, decode_threads=decode_threads, frontends=frontends)
    front = Service(given, running.service.engine, running.service.table, lambda: now[0]).front
    with front.passing():
        now[0] += 0.6
    with ExitStack() as inside:
        for _ in range(most_threads(threads)):
            assert front.wait == pytest.approx(0.6)
            inside.enter_context(front.passing())
        assert front.wait > 0.6


def test_in_the_queue_a_deadline_leaves_time_for_the_way_back(stage: Stage, sample: bytes) -> None:
    first, serving = stage.occupy(sample), stage.running.service
    now = serving.clock()
    second = stage.post(sample, "deadline_ms=40000")
    stage.until(lambda: serving.batcher.queued == 1)
    due = serving.batcher.queue[0].deadline
    assert now + 40 - MOST_UNSEEN - serving.front.reply <= due <= serving.clock() + 40 - MOST_UNSEEN
    stage.engine.gate.set()
    assert (first()[0], second()[0]) == (200, 200)


def test_beyond_the_bound_is_503_with_a_time_to_come_back(stage: Stage, sample: bytes) -> None:
    first = stage.occupy(sample)
    second = stage.post(sample)
    stage.until(lambda: stage.running.service.limiter.inside == 2)
    status, headers = stage.post(b"not even read")()
    assert status == 503
    assert int(headers["retry-after"]) >= 1
    stage.engine.gate.set()
    assert (first()[0], second()[0]) == (200, 200)
    assert stage.post(sample)()[0] == 200, "permits come back"


def test_a_caller_that_leaves_the_queue_is_not_run(stage: Stage, sample: bytes) -> None:
    first = stage.occupy(sample)
    port = int(stage.running.url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port)) as leaving:
        head = (
            f"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\nContent-Length: {len(sample)}\r\n\r\n"
        )
        leaving.sendall(head.encode() + sample)
        stage.until(lambda: stage.running.service.batcher.queued == 1)
    stage.until(lambda: stage.counted(499) == 1)
    stage.engine.gate.set()
    assert first()[0] == 200
    assert stage.post(sample)()[0] == 200
    assert stage.engine.batches == [1, 1]
    assert stage.running.service.limiter.inside == 0


@pytest.mark.parametrize("stage", [0.3], indirect=True)
def test_a_body_that_does_not_arrive_is_408(stage: Stage) -> None:
    with stage.begin(b"abc") as slow:
        assert slow.recv(1000).startswith(b"HTTP/1.1 408 ")
    assert stage.running.service.limiter.inside == 0


def test_a_failing_engine_is_500_and_says_nothing_of_its_inside(stage: Stage, sample: bytes) -> None:
    right_size = stage.engine._scale
    stage.engine._scale = right_size[:, :2]
    with stage.running.client() as client:
        response = client.post("/classify", content=sample)
        assert response.status_code == 500
        assert response.json()["detail"] == "the server failed to run this request"
        stage.engine._scale = right_size
        assert client.post("/classify", content=sample).status_code == 200


def test_bodies_on_their_way_in_take_no_permits(stage: Stage, sample: bytes) -> None:
    slow = [stage.begin(b"half of it") for _ in range(10)]
    stage.until(lambda: len(stage.running.service.bodies.arriving) == 10)
    assert stage.running.service.limiter.inside == 0
    assert stage.post(sample)()[0] == 200
    for client in slow:
        client.close()
    stage.until(lambda: stage.running.service.bodies.held == 0)


def test_when_all_permits_are_taken_a_body_is_refused_unread(stage: Stage, sample: bytes) -> None:
    first, second = stage.occupy(sample), stage.post(sample)
    stage.until(lambda: stage.running.service.limiter.inside == 2)
    with stage.begin(b"") as refused:
        assert refused.recv(1000).startswith(b"HTTP/1.1 503 ")
    stage.engine.gate.set()
    assert (first()[0], second()[0]) == (200, 200)


def test_all_images_of_a_form_come_in_or_none(stage: Stage, sample: bytes) -> None:
    files = [("image", ("a.jpg", sample, "image/jpeg"))] * 2
    broken = [("image", ("b.svg", sample, "image/svg+xml"))]
    limiter = stage.running.service.limiter
    with stage.running.client() as client:
        first = stage.occupy(sample)
        assert client.post("/classify/batch", files=files).status_code == 503, "one place is free, but not two"
        assert limiter.inside == 1
        one = stage.pool.submit(client.post, "/classify/batch", files=files[:1] + broken)
        stage.until(lambda: limiter.inside == 2)
        assert stage.post(sample)()[0] == 503, "the form holds the other place"
        stage.engine.gate.set()
        assert first()[0] == 200
        assert ["predictions" in result for result in one.result().json()["results"]] == [True, False]
        assert limiter.inside == 0
        stage.engine.gate.clear()
        both = stage.pool.submit(client.post, "/classify/batch", files=files)
        stage.until(lambda: limiter.inside == 2)
        stage.engine.gate.set()
        assert [len(result["predictions"]) for result in both.result().json()["results"]] == [5] * 2
        assert (limiter.inside, limiter.floor) == (0, 0.0)


def test_a_form_of_more_images_than_there_is_room_for_is_refused(stage: Stage, sample: bytes) -> None:
    with stage.running.client() as client:
        refused = client.post("/classify/batch", files=[("image", ("a.jpg", sample, "image/jpeg"))] * 3)
    assert (refused.status_code, refused.json()["detail"]) == (400, "the form has more than 2 files")


@pytest.fixture
def shop(cache: Path, running: Running, tmp_path: Path) -> Iterator[Stage]:
    """With two places, and one tenant beside whoever sends no key."""
    keys = tmp_path / "keys.toml"
    keys.write_text(f'[[tenants]]\nname = "shop"\nkey_sha256 = "{digest("shopkey")}"\n')
    yield from staged(Gated, settings(cache, max_queue=2, tenants=keys), running)


def test_when_others_hold_all_places_a_tenant_still_finds_its_share(shop: Stage, sample: bytes) -> None:
    limiter = shop.running.service.limiter
    anybody = [shop.occupy(sample), shop.post(sample)]
    shop.until(lambda: limiter.inside == 2)
    assert shop.post(sample)()[0] == 503
    with shop.running.client() as client:
        mine = shop.pool.submit(client.post, "/classify", content=sample, headers={"x-api-key": "shopkey"})
        shop.until(lambda: limiter.inside == 3)
        shop.engine.gate.set()
        assert mine.result().status_code == 200
    assert [answer()[0] for answer in anybody] == [200, 200]
    assert limiter.inside == 0


def test_a_batch_that_hangs_is_told_to_whoever_restarts(stage: Stage, sample: bytes) -> None:
    assert (stage.health("livez"), stage.health("readyz")) == (200, 200)
    hanging = stage.occupy(sample)
    stage.clock.by += 5
    assert (stage.health("livez"), stage.health("readyz")) == (200, 200), "slow is not dead"
    stage.clock.by += 3600
    assert (stage.health("livez"), stage.health("readyz")) == (503, 503)
    stage.engine.gate.set()
    assert hanging()[0] == 200
    assert (stage.health("livez"), stage.health("readyz")) == (200, 200)


def test_an_engine_of_two_lanes_gets_a_full_batch_while_one_runs(cache: Path, running: Running, sample: bytes) -> None:
    for stage in staged(Wide, settings(cache, max_batch=1), running):
        first = stage.occupy(sample)
        stage.engine.entered.clear()
        second = stage.post(sample)
        assert stage.engine.entered.wait(60)
        assert stage.engine.batches == [1, 1]
        stage.clock.by += 3600
        assert stage.health("livez") == 503, "the first one hangs"
        stage.engine.gate.set()
        assert (first()[0], second()[0]) == (200, 200)
        assert stage.health("livez") == 200


class Recording(Wide):
    """Has two things to do when it is quiet: the first waits for the test, the second calls it until it is done."""

    ready, done = threading.Event(), threading.Event()
    look: Callable[[], bool]

    def recordings(self, stitches: Sequence[int]) -> Iterator[Callable[[], bool]]:
        assert stitches[-1] == 0, "the dearest come first"
        yield partial(self.ready.wait, 60)
        yield self.look
        self.done.set()


def test_what_can_wait_is_recorded_after_a_second_without_anybody(cache: Path, running: Running, sample: bytes) -> None:
    for stage in staged(Recording, settings(cache), running):
        engine, serving = stage.engine, stage.running.service
        seen: list[tuple[int, bool]] = []

        def look(serving: Service = serving, seen: list[tuple[int, bool]] = seen) -> bool:
            seen.append((serving.limiter.inside, serving.batcher.idle >= QUIET))
            return len(seen) == 2

        assert isinstance(engine, Recording)
        engine.look = look
        first = stage.occupy(sample)
        engine.ready.set()
        assert stage.health("livez") == 200
        engine.gate.set()
        assert first()[0] == 200
        assert engine.done.wait(60)
        assert seen == [(0, True)] * 2, "what was left undone is tried again"


def test_a_dispatch_loop_that_has_died_is_told_to_whoever_restarts(
    stage: Stage, sample: bytes, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = stage.occupy(sample)
    monkeypatch.setattr(stage.running.service.batcher, "_refuse_late", None)
    stage.engine.gate.set()
    assert first()[0] == 200
    stage.until(lambda: stage.health("livez") == 503)
    assert stage.health("readyz") == 503
    assert "has died" in caplog.text


def test_batches_that_all_fail_make_it_not_ready_until_it_is_tried_again(stage: Stage, sample: bytes) -> None:
    right_size = stage.engine._scale
    stage.engine._scale = right_size[:, :2]
    for _ in range(5):
        assert stage.health("readyz") == 200
        assert stage.post(sample)()[0] == 500
    assert (stage.health("livez"), stage.health("readyz")) == (200, 503)
    stage.clock.by += 11
    assert stage.health("readyz") == 200, "without requests it would never learn that it works again"
    assert stage.post(sample)()[0] == 500
    assert stage.health("readyz") == 503
    stage.engine._scale = right_size
    assert stage.post(sample)()[0] == 200
    assert stage.health("readyz") == 200


def test_weights_that_the_table_was_not_measured_on_are_refused(tmp_path: Path) -> None:
    model = stitching.load("digits")
    next(model.parameters()).data.add_(1)
    other = tmp_path / "other.safetensors"
    stitching.save(model, other)
    with pytest.raises(TableError, match=r"other\.safetensors: not the weights that .* `stitchserve evaluate`"):
        build(Settings(checkpoint=other, cache=tmp_path))


def test_a_table_of_another_family_is_refused_before_it_is_measured(tmp_path: Path) -> None:
    with pytest.raises(TableError, match=r"table 'deit_ti_s_b': stitch 0 is .* use the table of this family"):
        build(Settings(table=folder("deit_ti_s_b"), cache=tmp_path))
    assert not list(tmp_path.iterdir())


def test_a_server_short_of_memory_asks_for_nothing_more(cache: Path, running: Running, sample: bytes) -> None:
    short = settings(cache, min_memory_bytes=2**60)
    for served in run(Service(short, running.service.engine, running.service.table)):
        with served.client() as client:
            for refused in (client.get("/readyz"), client.post("/classify", content=sample)):
                assert refused.status_code == 503
                assert "short of memory" in refused.json()["detail"]
            assert client.get("/livez").status_code == 200
        assert not served.service.ready()
