"""Whether a thread interrupts others, and how long it has the processor."""

import asyncio
import copy
import ctypes
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from conftest import Running, settings

from server.scheduling import ATTRIBUTES, SET_ATTRIBUTES, TURN, take_turns
from server.service import Service


class Schedule(NamedTuple):
    """A thread's policy, its nice value, and the nanoseconds of a turn, 0 where the kernel does not tell."""

    policy: int
    nice: int
    turn: int


def schedule() -> Schedule:
    """Of the thread that calls."""
    turn, found = 0, ctypes.create_string_buffer(ATTRIBUTES.size)
    if SET_ATTRIBUTES and ctypes.CDLL(None).syscall(SET_ATTRIBUTES + 1, 0, found, ATTRIBUTES.size, 0) == 0:
        turn = ATTRIBUTES.unpack(found.raw)[5]
    return Schedule(os.sched_getscheduler(0), os.getpriority(os.PRIO_PROCESS, 0), turn)


def after(*calls: Callable[[], object]) -> Schedule:
    """That of a thread which did this."""
    with ThreadPoolExecutor(1) as thread:
        for call in calls:
            thread.submit(call).result()
        return thread.submit(schedule).result()


def told() -> int:
    """The nanoseconds that a thread is to have, where the kernel tells."""
    return round(TURN * 1e9) if schedule().turn else 0


@pytest.fixture(autouse=True)
def free_to_choose() -> None:
    if not hasattr(os, "SCHED_BATCH"):
        pytest.skip("the system has no such policies")
    try:
        if os.sched_getscheduler(0) != os.SCHED_OTHER:
            pytest.skip("these tests run with another policy than the usual one")
        after(partial(os.sched_setscheduler, 0, os.SCHED_BATCH, os.sched_param(0)))
    except OSError:
        pytest.skip("the system does not let a thread choose")


@pytest.mark.parametrize(("interrupting", "policy"), [(True, "SCHED_OTHER"), (False, "SCHED_BATCH")])
def test_a_thread_keeps_the_processor_for_its_turn(interrupting: bool, policy: str) -> None:
    found = after(partial(take_turns, interrupting=interrupting))
    assert found == (getattr(os, policy), schedule().nice, told())


def test_it_may_change_its_mind_and_stays_as_nice_as_it_was() -> None:
    nicer = min(19, schedule().nice + 7)
    found = after(
        partial(os.setpriority, os.PRIO_PROCESS, 0, nicer), partial(take_turns, interrupting=False), take_turns
    )
    assert found == (os.SCHED_OTHER, nicer, told())


def test_without_the_call_it_chooses_whether_to_interrupt_alone() -> None:
    found = after(partial(take_turns, interrupting=False, call=None))
    assert found == schedule()._replace(policy=os.SCHED_BATCH)


@pytest.mark.parametrize("policy", ["SCHED_BATCH", "SCHED_IDLE"])
def test_a_process_that_was_started_to_interrupt_nobody_does_not(policy: str) -> None:
    program = f"""
import os
os.sched_setscheduler(0, os.{policy}, os.sched_param(0))
from server.scheduling import take_turns
take_turns()
assert os.sched_getscheduler(0) == os.{policy}
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_thread_with_another_policy_keeps_that() -> None:
    stay_behind = partial(os.sched_setscheduler, 0, os.SCHED_IDLE, os.sched_param(0))
    before = after(stay_behind)
    assert before.policy == os.SCHED_IDLE
    assert after(stay_behind, take_turns) == before


async def schedules(service: Service) -> tuple[Schedule, Schedule, Schedule]:
    """Of the event loop, of a thread that decodes, and of the engine's."""
    await service.start()
    decoding = await asyncio.wrap_future(service.decode_pool.submit(schedule))
    computing = await asyncio.wrap_future(service._engine_threads.submit(schedule))
    waiting = schedule()
    await service.stop()
    return waiting, decoding, computing


def run(service: Service) -> tuple[Schedule, Schedule, Schedule]:
    with ThreadPoolExecutor(1) as thread:  # which then is as it has become
        return thread.submit(asyncio.run, schedules(service)).result()


def test_the_event_loop_alone_does_not_interrupt(running: Running, cache: Path) -> None:
    service = Service(settings(cache), running.service.engine, running.service.table)
    nice = schedule().nice
    busy = (os.SCHED_OTHER, nice, told())
    assert run(service) == ((os.SCHED_BATCH, nice, told()), busy, busy)


def test_behind_front_ends_nothing_changes(running: Running, cache: Path) -> None:
    service = Service(settings(cache, frontends=2), running.service.engine, running.service.table)
    assert run(service) == (schedule(),) * 3


def test_beside_a_device_that_computes_by_itself_nothing_changes(running: Running, cache: Path) -> None:
    elsewhere = copy.copy(running.service.engine)
    elsewhere.device = torch.device("meta")
    assert run(Service(settings(cache), elsewhere, running.service.table)) == (schedule(),) * 3
