"""Priorities of the Open Inference Protocol, at a server whose engine is busy."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import tritonclient.http as triton
from conftest import Running, settings
from over_v2 import FILES, files
from stage import Gated, Stage, staged

from server.tenants import ANYONE


@pytest.fixture
def stage(cache: Path, running: Running) -> Iterator[Stage]:
    yield from staged(Gated, settings(cache), running)


def test_what_can_wait_waits_as_another_with_a_smaller_share(stage: Stage) -> None:
    batcher = stage.running.service.batcher

    def infer(priority: int) -> object:
        client = triton.InferenceServerClient(stage.running.url.removeprefix("http://"))
        return client.infer("auto", files(FILES[0]), priority=priority).as_numpy("stitch")

    first = stage.occupy(FILES[0])
    answers = [stage.pool.submit(infer, priority) for priority in (1, 2, 7)]
    stage.until(lambda: batcher.queued == 3)
    assert batcher.queue.tenants == {ANYONE: 1, ANYONE.asking(2): 2}
    stage.engine.gate.set()
    assert first()[0] == 200
    assert all(answer.result() is not None for answer in answers)
