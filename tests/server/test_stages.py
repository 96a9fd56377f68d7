"""Where the time went, by a clock that the test moves."""

import pytest

from server.errors import DeadlinePassed
from server.stages import Stage, Stages


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def spend(stages: Stages, clock: Clock, *spent: tuple[Stage, float]) -> None:
    for stage, seconds in spent:
        clock.now += seconds
        stages.end(stage)


def test_seconds_are_counted_from_arrival_to_the_end_of_each_stage() -> None:
    clock = Clock()
    stages = Stages(clock, 99.5, 10.0)
    spend(stages, clock, ("receive", 0.25), ("decode_wait", 0.5), ("decode", 1.0), ("decode_wait", 2.0))
    assert stages.seconds == {"receive": 0.75, "decode_wait": 2.5, "decode": 1.0, "queue": 0.0}
    assert stages.deadline == 109.5


@pytest.mark.parametrize(
    ("spent", "stage", "says", "remedy"),
    [
        ([("receive", 3.0)], "receive", "mostly receiving the body", "a smaller file"),
        ([("decode_wait", 3.0)], "queue", "mostly waiting for a thread that decodes", "less busy"),
        ([("receive", 0.5), ("decode", 2.5)], "decode", "mostly decoding", "a smaller picture"),
        (
            [("decode", 0.5), ("decode_wait", 0.5), ("queue", 2.0)],
            "queue",
            "mostly waiting for the engine",
            "less busy",
        ),
    ],
)
def test_a_deadline_that_has_passed_names_the_longest_stage_and_what_helps(
    spent: list[tuple[Stage, float]], stage: str, says: str, remedy: str
) -> None:
    clock = Clock()
    with pytest.raises(DeadlinePassed) as refusal:
        spend(Stages(clock, clock.now, 3.0), clock, *spent)
    took = dict(spent)
    assert refusal.value.extra == {
        "stage": stage,
        "receive_ms": took.get("receive", 0) * 1e3,
        "decode_ms": took.get("decode", 0) * 1e3,
        "queue_ms": (took.get("queue", 0) + took.get("decode_wait", 0)) * 1e3,
    }
    assert "the deadline of 3000 ms passed" in refusal.value.detail
    assert says in refusal.value.detail
    assert "`deadline_ms`" in refusal.value.detail
    assert remedy in refusal.value.detail


def test_until_the_deadline_nothing_is_refused() -> None:
    clock = Clock()
    spend(Stages(clock, clock.now, 3.0), clock, ("receive", 1.0), ("decode", 1.999))
