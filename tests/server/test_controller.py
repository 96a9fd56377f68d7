"""The controller against a small made-up table: what it plans, what it learns, under every policy."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up import MS, Waiting, queued, small_table

from server.budget import Budget, parse
from server.controller import POLICIES, Controller, Time
from server.errors import Infeasible
from server.queue import DeadlineQueue

EVERY_POLICY = [*POLICIES, "fixed:1", "fixed:2"]


def made(policy: str = "pace", slo: float = 1.0) -> Controller:
    return Controller(small_table(), max_batch=8, slo=slo, policy=policy)


@pytest.fixture
def controller() -> Controller:
    return made()


def waiting(controller: Controller, budgets: Sequence[Budget], *deadlines: float) -> DeadlineQueue[Waiting]:
    allowed = [controller.allow(budget) for budget in budgets]
    times = deadlines if len(deadlines) == len(budgets) else deadlines * len(budgets)
    return queued(Waiting(a, time) for a, time in zip(allowed, times, strict=True))


def chosen(controller: Controller, budgets: Sequence[Budget], *deadlines: float) -> list[int]:
    queue = waiting(controller, budgets, *deadlines)
    plan = controller.plan(queue, 0.0)
    assert plan.doomed == 0
    return [entry.stitch for entry in plan.entries]


def test_equal_budgets_are_decided_once(controller: Controller) -> None:
    assert controller.allow(parse(["2GFLOPs"])) is controller.allow(Budget(max_flops=2e9))


def test_alone_with_time_a_request_gets_the_best_it_admits(controller: Controller) -> None:
    assert chosen(controller, [Budget()], 50 * MS) == [3]
    assert chosen(controller, [parse(["2GFLOPs"])], 50 * MS) == [1]


def test_a_batch_spends_the_time_there_is_on_a_mixture_of_two_levels(controller: Controller) -> None:
    # 4 rows in 0.95 * 12 ms: all at stitch 1 take 8 ms, all at stitch 3 take 16 ms.
    stitches = chosen(controller, [Budget()] * 4, 12 * MS)
    assert sorted(stitches) == [1, 1, 1, 3]


def test_the_slack_is_shared_by_all_who_wait(controller: Controller) -> None:
    # 16 rows, all due in 26 ms: the first 8 get half of 0.95 * 26 ms, which takes 8 rows at 1.5 ms.
    stitches = chosen(controller, [Budget()] * 16, 26 * MS)
    assert len(stitches) == 8
    assert set(stitches) == {0, 1}
    assert sum(stitch == 1 for stitch in stitches) in {4, 5}


def test_those_due_later_leave_their_time_to_those_due_now(controller: Controller) -> None:
    patient = [Budget()] * 8
    assert set(chosen(controller, [Budget()] * 8 + patient, *[17 * MS] * 8, *[17 * MS] * 8)) == {0}
    assert set(chosen(controller, [Budget()] * 8 + patient, *[17 * MS] * 8, *[80 * MS] * 8)) == {1}


def test_without_time_everyone_gets_the_cheapest_admitted(controller: Controller) -> None:
    assert chosen(controller, [Budget(), parse(["65%"]), Budget(stitch=3)], 8 * MS) == [0, 1, 3]


def test_requests_of_one_batch_keep_their_own_budgets(controller: Controller) -> None:
    assert chosen(controller, [Budget(), parse(["1GFLOPs"]), parse(["2GFLOPs"])], 100 * MS) == [3, 0, 1]


def test_a_batch_takes_at_most_half_of_the_slo() -> None:
    controller = made(slo=20 * MS)
    controller.forecast.observe(arrived=10, seconds=1.0, slo=controller.slo)
    assert set(chosen(controller, [Budget()] * 5, 19.9 * MS)) == {1}, "5 rows at 2 ms, not at 4 ms"


def test_where_nobody_else_is_expected_a_patient_request_gets_its_time() -> None:
    assert chosen(made(slo=2 * MS), [Budget()], 500 * MS) == [3]


def test_a_batch_is_cut_where_waiting_for_the_rest_would_cost_the_first_its_deadline(controller: Controller) -> None:
    queue = waiting(controller, [Budget()] * 6, *[3.5 * MS] * 2, *[50 * MS] * 4)
    plan = controller.plan(queue, 0.0)
    assert (plan.doomed, len(plan.entries), plan.reason) == (0, 3, "deadline")


def test_in_overload_those_who_cannot_be_in_time_make_room_for_those_who_can(controller: Controller) -> None:
    queue = waiting(controller, [Budget()] * 10, *[2.5 * MS] * 4, *[6.5 * MS] * 6)
    plan = controller.plan(queue, 0.0)
    assert plan.doomed == 4
    assert [entry.stitch for entry in plan.entries] == [0] * 6


def test_in_overload_those_who_might_be_late_make_room_for_those_who_surely_are_not(controller: Controller) -> None:
    queue = waiting(controller, [Budget()] * 40, *[2.5 * MS] * 4, *[8.5 * MS] * 6, *[12 * MS] * 30)
    sure = controller.plan(queue, 0.0)
    assert sure.doomed == 4
    controller.drift.margin.pad = 2 * MS
    unsure = controller.plan(queue, 0.0)
    assert unsure.doomed == 10
    assert len(unsure.entries) >= len(sure.entries)


def test_why_a_batch_holds_no_more_is_said(controller: Controller) -> None:
    queue = waiting(controller, [Budget()] * 9, 500 * MS)
    assert controller.plan(queue, 0.0).reason == "full"
    assert controller.plan(queued(queue[:3]), 0.0).reason == "drained"


def test_a_burst_that_is_to_be_expected_finds_room() -> None:
    """Eight come in every 10 ms: a batch may not take so long that the next eight are late at the cheapest stitch."""
    calm, busy = made(slo=24 * MS), made(slo=24 * MS)
    queue = waiting(calm, [Budget()] * 3, 23 * MS)
    for number in range(100):
        crowd = waiting(busy, [Budget()] * 8, number * 10 * MS + 23 * MS)
        busy.plan(crowd, number * 10 * MS)
    lone = waiting(busy, [Budget()] * 3, 1000 * MS + 23 * MS)
    rushed = busy.plan(lone, 1000 * MS)
    assert rushed.predicted < calm.plan(queue, 0.0).predicted


def test_those_who_are_turned_away_are_expected_as_well() -> None:
    calm, besieged = made(slo=50 * MS), made(slo=50 * MS)
    for number in range(100):
        for controller in (calm, besieged):
            controller.plan(waiting(controller, [Budget()], number * 10 * MS + 40 * MS), number * 10 * MS)
        for _ in range(20):  # two for each that the cheapest stitch can answer in that time
            besieged.turn_away()
    levels = [c.plan(waiting(c, [Budget()] * 8, 1040 * MS), 1000 * MS).level.stitch for c in (calm, besieged)]
    assert levels == [3, 1], "there is less time for accuracy"


def test_less_headroom_and_more_drift_mean_a_cheaper_level(controller: Controller) -> None:
    queue = waiting(controller, [Budget()], 4.5 * MS)
    assert controller.plan(queue, 0.0).level.stitch == 3
    assert controller.plan(queue, 0.0, headroom=0.5).level.stitch == 1
    for _ in range(100):
        controller.drift.observe(1.0, 3.0)
    assert controller.plan(queue, 0.0).level.stitch == 0


@pytest.mark.parametrize("policy", POLICIES)
def test_where_a_batch_may_lose_more_than_the_slack_there_still_is_a_plan(controller: Controller, policy: str) -> None:
    controller.use(policy)
    for number in range(100):  # arrivals to expect
        controller.plan(waiting(controller, [Budget()] * 4, number * 10 * MS + 23 * MS), number * 10 * MS)
    for pad in (20 * MS, 1000 * MS):  # more than the slack, more than the SLO
        controller.drift.margin.pad = pad
        for slack in (4 * MS, -1 * MS):
            assert controller.plan(waiting(controller, [Budget()] * 4, 1000 * MS + slack), 1000 * MS).entries


def test_a_hog_is_counted_by_headroom_and_then_by_drift_but_not_twice(controller: Controller) -> None:
    queue = waiting(controller, [Budget()], 4.5 * MS)
    drained = controller.drain_seconds(10 * MS)
    for _ in range(100):
        plan = controller.plan(queue, 0.0, headroom=0.5)
        assert plan.level.stitch == 1
        assert plan.expected == pytest.approx(2 * plan.predicted, rel=0.01)
        assert controller.drain_seconds(10 * MS, 0.5) == pytest.approx(2 * drained, rel=0.01)
        controller.observe(plan, plan.predicted * 2)


def test_what_a_batch_took_is_learned(controller: Controller) -> None:
    queue = waiting(controller, [Budget()], 500 * MS)
    plan = controller.plan(queue, 0.0)
    for _ in range(200):
        controller.observe(plan, plan.predicted * 2)
    assert controller.drift.center == pytest.approx(2.0, rel=1e-3)
    assert controller.level is plan.level
    assert (controller.predicted, controller.observed) == pytest.approx((200 * plan.predicted, 400 * plan.predicted))
    assert controller.plan(queue, 0.0).expected == pytest.approx(plan.predicted * 2, rel=1e-3)


def test_a_crowd_beside_the_engine_is_learned_apart_and_forgotten_with_it(controller: Controller) -> None:
    queue = waiting(controller, [Budget()], 4.5 * MS)
    calm = controller.plan(queue, 0.0)
    for _ in range(200):
        crowded = controller.plan(queue, 0.0, crowded=True)
        controller.observe(crowded, crowded.predicted * 3)
    assert crowded.level.stitch == 0
    assert controller.drift.center == pytest.approx(3.0, rel=1e-3)
    again = controller.plan(queue, 0.0)
    assert again == calm, "at once"
    assert controller.drift.center == pytest.approx(1.0)
    controller.observe(crowded, crowded.predicted * 3)
    assert controller.drift.center == pytest.approx(1.0), "a batch teaches about its like, whenever it ends"


def test_explaining_teaches_nothing_and_agrees_with_the_plan(controller: Controller) -> None:
    queue = waiting(controller, [Budget()] * 3, 20 * MS)
    asked = Waiting(controller.allow(parse(["2GFLOPs"])), 10 * MS)
    rate = controller.forecast.rate
    entry, plan = controller.explain(queue, asked, 0.0)
    assert controller.forecast.rate == rate
    together = controller.plan(queued([asked, *queue]), 0.0)
    assert entry == together.entries[0]
    assert plan.entries == together.entries


def test_a_request_behind_the_batch_is_explained_by_its_level(controller: Controller) -> None:
    queue = waiting(controller, [Budget()] * 8, 17 * MS)
    entry, _ = controller.explain(queue, Waiting(controller.allow(parse(["65%"])), 500 * MS), 0.0)
    assert entry.stitch == 1


@pytest.mark.parametrize(
    ("budgets", "reason"),
    [
        ([Budget()], "cheapest stitch; no time for more in the 1 ms left of the SLO of 4 ms"),
        ([parse(["9ms"])], "cheapest stitch; no time for more in the 1 ms left of the deadline of 9 ms"),
        ([parse(["9ms"]), Budget()], "cheapest stitch; no time for more in 1 ms shared by 2 waiting"),
    ],
)
def test_the_reason_tells_what_the_time_was_up_to(budgets: Sequence[Budget], reason: str) -> None:
    controller = made(slo=4 * MS)
    queue = waiting(controller, budgets, 1.2 * MS)
    plan = controller.plan(queue, 0.0)
    assert plan.why(queue[0].allowed, plan.entries[0]) == reason


def test_where_the_deadline_is_far_it_is_others_who_may_come_that_leave_no_time() -> None:
    assert str(Time(slack=60.0, queued=1, deadline=60.0, slo=0.05)) == "an SLO of 50 ms, with others expected"
    assert str(Time(slack=0.04, queued=1, deadline=60.0, slo=0.05)) == "the 40 ms left of the deadline of 60000 ms"


def test_policies_are_changed_by_name(controller: Controller) -> None:
    queue = waiting(controller, [Budget()] * 2, 100 * MS)
    for policy, stitch in (("cheapest", 0), ("fixed:1", 1), ("max-accuracy", 3), ("periodic", 0), ("pace", 3)):
        controller.use(policy)
        assert controller.policy.name == policy
        plan = controller.plan(queue, 0.0)
        assert {entry.stitch for entry in plan.entries} == {stitch}
        best = stitch == 3
        why = "most accurate stitch" if best else f"stitch {stitch} by the policy {policy}"
        assert plan.why(queue[0].allowed, plan.entries[0]) == why


@pytest.mark.parametrize("policy", ["", "greedy", "fixed:", "fixed:x", "Pace"])
def test_an_unknown_policy_is_refused_with_those_that_exist(policy: str) -> None:
    with pytest.raises(ValueError, match=r"slackfit.*fixed:<stitch>"):
        made(policy)


def test_a_fixed_stitch_must_exist_but_may_be_dominated() -> None:
    with pytest.raises(ValueError, match="no stitch 99"):
        made("fixed:99")
    controller = made("fixed:2")
    assert chosen(controller, [Budget(), parse(["2GFLOPs"]), Budget(stitch=0)], 100 * MS) == [2, 1, 0]


budgets = st.builds(
    Budget,
    max_flops=st.none() | st.floats(1e8, 1e10),
    deadline=st.none() | st.floats(1e-4, 1.0),
    min_top1=st.none() | st.floats(0, 1),
    stitch=st.none() | st.integers(0, 3),
)
asked = st.lists(st.tuples(budgets, st.floats(-0.01, 0.2)), min_size=1, max_size=20)


@pytest.mark.parametrize("policy", EVERY_POLICY)
@given(asked=asked, headroom=st.floats(0.01, 1))
def test_whatever_the_load_every_choice_keeps_to_its_budget(
    policy: str, asked: list[tuple[Budget, float]], headroom: float
) -> None:
    controller, admitted = made(policy), []
    for budget, deadline in asked:
        try:
            admitted.append((budget, Waiting(controller.allow(budget), deadline)))
        except Infeasible as refusal:
            nearest = controller.table.entry(refusal.extra["nearest_stitch"])  # type: ignore[arg-type]
            assert not budget.met_by(nearest.flops, nearest.top1) or (budget.deadline or 1) < 4 * MS
    if not admitted:
        return
    admitted.sort(key=lambda pair: pair[1].deadline)
    queue = queued(request for _, request in admitted)
    plan = controller.plan(queue, 0.0, headroom)
    assert 1 <= len(plan.entries) <= 8
    assert plan.doomed + len(plan.entries) <= len(queue)
    for (budget, request), entry in zip(admitted[plan.doomed :], plan.entries, strict=False):
        assert entry in request.allowed.entries or (policy == "fixed:2" and entry.stitch == 2)
        assert budget.met_by(entry.flops, entry.top1)


@given(st.floats(0.0, 0.05), st.floats(0.0, 0.05))
def test_more_time_never_gives_a_worse_stitch(one: float, other: float) -> None:
    levels = []
    for slack in sorted((one, other)):
        controller = made()
        queue = waiting(controller, [Budget()], slack)
        levels.append(controller.plan(queue, 0.0).level.flops)
    assert levels == sorted(levels)
