"""Load from made-up processor times."""

from server.monitor import LEAST_HEADROOM, Load, Monitor, Reading, read_processors


def monitor(*readings: Reading) -> Monitor:
    left = iter(readings)
    return Monitor(lambda: next(left))


def test_others_lower_the_headroom_and_we_do_not() -> None:
    watched = monitor(Reading(0, 0, 0), Reading(10, 10, 10), Reading(20, 20, 15))
    assert watched.sample() == Load(busy=1.0, ours=1.0)
    assert watched.load.headroom == 1.0
    assert watched.sample() == Load(busy=1.0, ours=0.5)
    assert watched.load.headroom == 0.5


def test_headroom_stays_positive_and_at_most_one() -> None:
    assert Load(busy=1.0, ours=0.0).headroom == LEAST_HEADROOM
    assert Load(busy=0.2, ours=0.3).headroom == 1.0  # the two clocks tick apart


def test_a_clock_that_stands_still_changes_nothing() -> None:
    watched = monitor(Reading(0, 0, 0), Reading(10, 5, 0), Reading(10, 5, 0))
    before = watched.sample()
    assert watched.sample() is before


def test_real_processor_times_grow_with_our_work() -> None:
    before = read_processors()
    while read_processors().ours - before.ours < 0.02:
        sum(range(10_000))
    after = read_processors()
    assert after.total > before.total
    assert after.busy - before.busy <= after.total - before.total
