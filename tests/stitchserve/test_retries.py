"""When a call is sent again, how long it waits, and what for."""

import email.utils
import time

import httpx
import pytest

from stitchserve.budget import Budget
from stitchserve.calls import classify
from stitchserve.errors import Unavailable, refusal
from stitchserve.retries import Retrying, Tries


def busy(retry_after: str | None = None) -> httpx.Response:
    return httpx.Response(503, headers={} if retry_after is None else {"retry-after": retry_after})


def test_it_waits_as_told_and_up_to_half_as_long_more() -> None:
    assert Retrying(random=lambda: 0.0).wait(1, 4.0) == 4.0
    assert Retrying(random=lambda: 1.0).wait(1, 4.0) == 6.0
    assert Retrying(random=lambda: 1.0).wait(1, 0.0) == 0.05


def test_untold_it_waits_twice_as_long_each_time() -> None:
    tries = Tries(classify(b"", Budget(), None, False), Retrying(most=3, random=lambda: 0.0))
    assert [tries.after(busy()) for _ in range(3)] == [0.1, 0.2, 0.4]
    with pytest.raises(Unavailable):
        tries.after(busy())
    assert tries.count == 4


def test_retry_after_may_be_a_date() -> None:
    soon = refusal(busy(email.utils.formatdate(time.time() + 100, usegmt=True))).retry_after
    assert soon is not None
    assert 90 < soon < 101
    assert refusal(busy(email.utils.formatdate(0))).retry_after == 0
    assert refusal(busy("soon")).retry_after is None


def test_cheaper_gives_up_top1_and_half_of_the_flops() -> None:
    budget = Budget.of(["2 GFLOPs,78%", "15ms"], max_flops=3e9, min_top1=70, stitch=4)
    cheaper = budget.cheaper()
    assert cheaper.query() == [
        ("budget", "1.0gflops"), ("budget", "15ms"), ("max_flops", "1500000000.0"), ("stitch", "4"),
    ]  # fmt: skip
    assert cheaper.deadline == 0.015


def test_a_broken_connection_makes_no_budget_cheaper() -> None:
    tries = Tries(classify(b"", Budget.of("78%"), None, False), Retrying(downgrade=True))
    tries.after(httpx.ReadError("reset"))
    assert not tries.call.downgraded
    tries.after(busy())
    assert tries.call.downgraded
    assert tries.call.budget == Budget()


def test_where_there_is_nothing_to_give_up_nothing_is_said_to_be() -> None:
    tries = Tries(classify(b"", Budget.of("15ms", stitch=3), 5, False), Retrying(downgrade=True))
    before = tries.call
    tries.after(busy())
    assert tries.call == before
    assert not tries.call.downgraded


@pytest.mark.parametrize("text", ["fast", "1.2.3ms", "", "2e9", "-5ms"])
def test_what_only_the_server_understands_is_left_to_it(text: str) -> None:
    budget = Budget.of(text)
    assert budget.query() == [("budget", text)]
    assert budget.deadline is None
    assert budget.cheaper() == budget
