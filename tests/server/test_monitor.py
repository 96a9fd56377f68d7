"""Load from made-up readings, and from this machine's own."""

import psutil
import pytest

from server.cgroups import Quota, cpus
from server.monitor import LEAST_HEADROOM, Load, Machine, Monitor, Reading
from server.nvml import GpuLoad

START = Reading(moment=0, ours=0, busy=0, processors=2, memory=1000)


def monitor(*readings: Reading, min_memory: int = 0) -> Monitor:
    left = iter((START, *readings))
    return Monitor(min_memory, read=lambda: next(left))


def after_a_second(
    busy: float, ours: float, processors: int = 2, quota: Quota | None = None, used: float = 0.0
) -> Load:
    """The load when this much was used within a second, `used` of it inside the quota's cgroup."""
    before = START._replace(processors=processors, quotas=(quota,) if quota else ())
    after = (quota._replace(used=quota.used + used),) if quota else ()
    readings = iter((before, before._replace(moment=1, busy=busy, ours=ours, quotas=after)))
    return Monitor(0, read=lambda: next(readings)).sample()


def test_others_lower_the_headroom_and_we_do_not() -> None:
    assert after_a_second(busy=2.0, ours=2.0) == Load(1.0, 1.0, 2.0, headroom=1.0, memory_available=1000)
    assert after_a_second(busy=2.0, ours=1.5).headroom == 0.75
    assert after_a_second(busy=1.0, ours=0.0) == Load(0.5, 0.0, 2.0, headroom=0.5, memory_available=1000)


def test_headroom_stays_positive_and_at_most_one() -> None:
    assert after_a_second(busy=2.0, ours=0.0).headroom == LEAST_HEADROOM
    assert after_a_second(busy=0.4, ours=0.6).headroom == 1.0  # the clocks tick apart


def test_a_quota_is_all_ours_while_the_host_has_idle_processors() -> None:
    load = after_a_second(busy=40.0, ours=1.0, processors=64, quota=Quota(2.0, 300.0), used=1.0)
    assert (load.cpus, load.headroom) == (2.0, 1.0)
    load = after_a_second(busy=63.75, ours=1.0, processors=64, quota=Quota(2.0, 300.0), used=1.0)
    assert load.headroom == 0.625  # the others take 62.75 of 64: 1.25 are left


def test_who_shares_our_quota_takes_of_it() -> None:
    load = after_a_second(busy=2.0, ours=1.5, processors=64, quota=Quota(2.0, 300.0), used=2.0)
    assert (load.cpus, load.headroom) == (2.0, 0.75)


def test_a_quota_that_we_spend_ourselves_leaves_the_headroom_and_says_so() -> None:
    before = START._replace(quotas=(Quota(0.5, 300.0, 10, 1),))
    spent = START._replace(moment=1, busy=0.5, ours=0.5, quotas=(Quota(0.5, 300.5, 20, 9),))
    readings = iter((before, spent))
    load = Monitor(0, read=lambda: next(readings)).sample()
    assert (load.cpus, load.headroom, load.throttled) == (0.5, 1.0, 0.8)


def test_a_quota_that_comes_or_goes_is_not_compared() -> None:
    watched = monitor(START._replace(moment=1), START._replace(moment=2, quotas=(Quota(1.0, used=900.0),)))
    watched.sample()
    assert watched.sample() == Load(cpus=1.0, headroom=1.0, memory_available=1000)


def test_memory_is_short_below_the_floor() -> None:
    watched = monitor(START._replace(moment=1, memory=99), START._replace(moment=2, memory=100), min_memory=100)
    assert watched.sample().memory_short
    assert not watched.sample().memory_short


def test_the_load_before_the_first_sample_is_none_but_memory_is_known() -> None:
    assert Monitor(2000, read=lambda: START).load == Load(cpus=2.0, memory_available=1000, memory_short=True)


def test_a_clock_that_stands_still_changes_nothing() -> None:
    watched = monitor(START._replace(moment=1, busy=1.0), START._replace(moment=1, busy=1.0))
    before = watched.sample()
    assert watched.sample() is before


def test_what_cannot_be_read_stays_and_the_next_reading_counts() -> None:
    readings = iter((START, None, START._replace(moment=2, busy=2.0)))

    def read() -> Reading:
        reading = next(readings)
        if reading is None:
            raise OSError(24, "Too many open files")
        return reading

    watched = Monitor(0, read=read)
    assert watched.sample() is watched.load
    assert watched.sample().headroom == 0.5


@pytest.mark.parametrize(
    ("gpu", "headroom"),
    [
        (GpuLoad(busy=0.9, others=0.25), 0.75),
        (GpuLoad(busy=0.9, others=0.9), LEAST_HEADROOM),
        (GpuLoad(busy=0.9, others=0.0), 1.0),
        (GpuLoad(), 1.0),
        (None, 1.0),
    ],
)
def test_beside_a_gpu_the_headroom_is_the_gpus(gpu: GpuLoad | None, headroom: float) -> None:
    busy = START._replace(moment=1, busy=2.0)
    readings = iter((START, busy))
    load = Monitor(0, lambda: gpu, read=lambda: next(readings)).sample()
    assert (load.headroom, load.gpu, load.busy) == (headroom, gpu, 1.0)


def test_real_processor_times_grow_with_our_work() -> None:
    machine = Machine()
    before = machine.read()
    while machine.read().ours - before.ours < 0.05:
        sum(range(10_000))
    after = machine.read()
    assert after.busy > before.busy
    assert after.moment - before.moment >= (after.ours - before.ours) / after.processors
    assert after.cpus == cpus()
    assert 0 < after.memory <= psutil.virtual_memory().total
