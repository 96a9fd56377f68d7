"""What stands before the engine: counted and learned by a clock that the test moves."""

from asyncio import CancelledError
from contextlib import ExitStack, suppress

import pytest

from server.errors import DeadlinePassed
from server.front import LARGEST, MOST_AFTER, MOST_UNSEEN, UNSEEN, Front


class Clock:
    """Stands until it is moved."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def front(clock: Clock) -> Front:
    return Front(clock)


def through(front: Front, clock: Clock, seconds: float, images: int) -> None:
    """So many come at once and get through one after the other."""
    places = [ExitStack() for _ in range(images)]
    for place in places:
        place.enter_context(front.passing())
    for place in places:
        clock.now += seconds
        place.close()


def test_untried_it_takes_no_time(front: Front) -> None:
    assert (front.wait, front.inside) == (0.0, 0)


def test_who_comes_waits_for_those_before(front: Front, clock: Clock) -> None:
    through(front, clock, 0.003, images=8)
    assert front.wait == pytest.approx(0.003)
    with front.passing(), front.passing():
        assert front.inside == 2
        assert front.wait == pytest.approx(0.009)
    assert front.inside == 0


def test_lanes_take_one_each(clock: Clock) -> None:
    front = Front(clock, lanes=4)
    for _ in range(50):  # one at a time, which says what four lanes could do
        through(front, clock, 0.008, images=1)
    assert front.seconds == pytest.approx(0.002)
    with ExitStack() as inside:
        for before in range(8):
            assert front.wait == pytest.approx(0.008 if before < 4 else (before + 1) * 0.002)
            inside.enter_context(front.passing())


def test_those_that_end_together_count_as_many(clock: Clock) -> None:
    front = Front(clock, lanes=4)
    through(front, clock, 0.008, images=1)
    for _ in range(50):
        with ExitStack() as four:
            for _ in range(4):
                four.enter_context(front.passing())
            clock.now += 0.008
    assert front.seconds == pytest.approx(0.002, rel=0.15)


@pytest.mark.parametrize("error", [DeadlinePassed("too late"), CancelledError()])
def test_what_was_given_up_says_nothing_of_the_time_others_take(
    front: Front, clock: Clock, error: BaseException
) -> None:
    through(front, clock, 0.003, images=1)
    for _ in range(50):
        with suppress(type(error)), front.passing():
            raise error
    assert front.seconds == pytest.approx(0.003)


def test_time_with_nobody_inside_does_not_count(front: Front, clock: Clock) -> None:
    through(front, clock, 0.003, images=2)
    clock.now += 60
    through(front, clock, 0.003, images=2)
    assert front.seconds == pytest.approx(0.003)


def test_it_follows_what_it_sees_but_one_image_says_little(front: Front, clock: Clock) -> None:
    through(front, clock, 0.003, images=1)
    through(front, clock, 3.0, images=1)
    assert front.seconds < 0.003 * LARGEST / 2
    through(front, clock, 0.006, images=200)
    assert front.seconds == pytest.approx(0.006, rel=0.01)


def test_an_image_that_fails_leaves_too(front: Front, clock: Clock) -> None:
    def fail() -> None:
        with front.passing():
            clock.now += 0.002
            raise ValueError("no image")

    with pytest.raises(ValueError, match="no image"):
        fail()
    assert front.inside == 0
    assert front.seconds == pytest.approx(0.002)


def test_what_an_answer_takes_is_learned_and_more_where_it_varies(front: Front) -> None:
    for _ in range(200):
        front.answered(0.004)
    assert front.reply == pytest.approx(0.004, rel=0.01)
    for _ in range(200):
        front.answered(0.002)
        front.answered(0.006)
    assert 0.005 < front.reply < 0.008


def test_a_client_waits_for_the_reply_and_for_what_is_not_seen_of_its_way(front: Front) -> None:
    assert front.after(0.05) == pytest.approx(UNSEEN * 0.05)
    assert front.after(60) == MOST_UNSEEN
    for _ in range(200):
        front.answered(0.004)
    assert front.after(60) == pytest.approx(MOST_UNSEEN + 0.004, rel=0.01)


def test_some_of_the_time_is_left_to_the_engine_however_long_replies_were(front: Front) -> None:
    for _ in range(200):
        front.answered(10.0)
    assert front.after(0.05) == pytest.approx(MOST_AFTER * 0.05)
