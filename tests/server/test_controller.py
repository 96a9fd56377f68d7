"""The controller against small made-up tables: what it admits, what it plans, what it learns."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lookup_tables.records import Entry, Family, FlopsSource, Preprocessing, Top1Source
from lookup_tables.table import Latency, LookupTable, Measurement
from server.budget import Budget, parse
from server.controller import Controller, Waiting
from server.errors import Infeasible, UnknownStitch

MS = 1e-3


def small_table(top1: tuple[float | None, ...] = (0.60, 0.70, 0.50, 0.80)) -> LookupTable:
    """Four stitches of 1, 2, 3 and 4 GFLOPs that take 1, 2, 3 and 4 ms an image; by default stitch 2 is dominated."""
    entries = tuple(Entry(i, f"a[0:{i + 1}]", (i + 1) * 10**9, 100, value) for i, value in enumerate(top1))
    times = tuple(
        Measurement(i, rows, (i + 1) * rows * MS, (i + 1) * rows * MS, 100) for i in range(4) for rows in (1, 8)
    )
    family = Family(
        schema=1,
        name="small",
        anchors=("a",),
        classes=2,
        labels="labels.txt",
        top1=Top1Source("made up"),
        flops=FlopsSource("made up", "made up"),
        preprocessing=Preprocessing(8, 1.0, "bicubic", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
        checkpoint=None,
    )
    return LookupTable(family, ("no", "yes"), entries, Latency("made-up", times, {}))


@pytest.fixture
def controller() -> Controller:
    return Controller(small_table())


def ids(controller: Controller, budget: Budget) -> list[int]:
    return [entry.stitch for entry in controller.allow(budget).entries]


def chosen(controller: Controller, budgets: list[Budget], slack: float, queued: int | None = None) -> list[int]:
    waiting = [Waiting(controller.allow(budget), 100 + slack) for budget in budgets]
    plan = controller.plan(waiting, queued or len(waiting), 100.0)
    return [choice.entry.stitch for choice in plan.choices]


def test_no_budget_admits_the_frontier_without_dominated_stitches(controller: Controller) -> None:
    assert ids(controller, Budget()) == [0, 1, 3]


@pytest.mark.parametrize(
    ("text", "admitted"),
    [("2GFLOPs", [0, 1]), ("1.99GFLOPs", [0]), ("2.5ms", [0, 1]), ("65%", [1, 3]), ("3.9GFLOPs,65%", [1])],
)
def test_each_kind_of_budget_admits_what_keeps_to_it(controller: Controller, text: str, admitted: list[int]) -> None:
    assert ids(controller, parse([text])) == admitted


def test_a_pinned_stitch_is_taken_even_when_dominated(controller: Controller) -> None:
    assert ids(controller, Budget(stitch=2)) == [2]


def test_a_pinned_stitch_must_keep_to_the_rest_of_the_budget(controller: Controller) -> None:
    with pytest.raises(Infeasible, match=r"stitch 3 does not meet 2GFLOPs"):
        controller.allow(Budget(stitch=3, max_flops=2e9))


def test_an_unknown_stitch_is_refused_by_its_name(controller: Controller) -> None:
    with pytest.raises(UnknownStitch, match="no stitch 9"):
        controller.allow(Budget(stitch=9))


@pytest.mark.parametrize(("text", "nearest"), [("0.5GFLOPs", 0), ("90%", 3), ("0.1ms", 0)])
def test_an_impossible_budget_names_the_nearest_stitch(controller: Controller, text: str, nearest: int) -> None:
    with pytest.raises(Infeasible) as refusal:
        controller.allow(parse([text]))
    assert refusal.value.extra["nearest_stitch"] == nearest
    assert [e.stitch for e in controller.allow(parse([text]), nearest=True).entries] == [nearest]


def test_accuracy_is_not_invented_where_none_is_known() -> None:
    controller = Controller(small_table((None, None, None, None)))
    with pytest.raises(Infeasible, match="no top-1 is known"):
        controller.allow(parse(["78%"]))
    assert ids(controller, parse(["2GFLOPs"])) == [0, 1]


def test_alone_with_time_a_request_gets_the_best_it_admits(controller: Controller) -> None:
    assert chosen(controller, [Budget()], slack=50 * MS) == [3]
    assert chosen(controller, [parse(["2GFLOPs"])], slack=50 * MS) == [1]


def test_the_slack_is_shared_over_the_queue(controller: Controller) -> None:
    assert chosen(controller, [Budget()] * 4, slack=16 * MS) == [3] * 4
    assert chosen(controller, [Budget()] * 4, slack=16 * MS, queued=8) == [1] * 4
    assert chosen(controller, [Budget()] * 4, slack=16 * MS, queued=16) == [0] * 4


def test_without_time_everyone_gets_the_cheapest_admitted(controller: Controller) -> None:
    assert chosen(controller, [Budget(), parse(["65%"]), Budget(stitch=3)], slack=0.0) == [0, 1, 3]


def test_requests_of_one_batch_keep_their_own_budgets(controller: Controller) -> None:
    assert chosen(controller, [Budget(), parse(["1GFLOPs"]), parse(["2GFLOPs"])], slack=100 * MS) == [3, 0, 1]


def test_less_headroom_and_more_drift_mean_a_cheaper_level(controller: Controller) -> None:
    waiting = [Waiting(controller.allow(Budget()), 4.5 * MS)]
    assert controller.plan(waiting, 1, 0.0).level.stitch == 3
    assert controller.plan(waiting, 1, 0.0, headroom=0.5).level.stitch == 1
    controller.drift = 3.0
    assert controller.plan(waiting, 1, 0.0).level.stitch == 0


def test_drift_follows_what_is_observed_within_bounds(controller: Controller) -> None:
    plan = controller.plan([Waiting(controller.allow(Budget()), 1.0)], 1, 0.0)
    for _ in range(200):
        controller.observe(plan, plan.predicted * 2)
    assert controller.drift == pytest.approx(2.0, rel=1e-3)
    controller.observe(plan, plan.predicted * 1e6)
    assert controller.drift < 3.0, "one batch that stalled says little"
    for _ in range(200):
        controller.observe(plan, plan.predicted * 1e6)
    assert controller.drift <= 8.0
    assert controller.level is plan.level


@pytest.mark.parametrize(
    ("text", "slack", "queued", "reason"),
    [
        ("2GFLOPs", 50, 1, "best stitch within 2 GFLOPs"),
        ("5ms", 50, 1, "best stitch within 5 ms"),
        ("65%", 1, 1, "cheapest stitch reaching 65%; no time for more in the 1 ms left"),
        ("2.5GFLOPs,9ms", 50, 1, "best stitch within 2.5 GFLOPs and 9 ms"),
        ("9ms", 9, 4, "best stitch that fits 9 ms shared by 4 waiting"),
    ],
)
def test_the_reason_says_what_decided(
    controller: Controller, text: str, slack: float, queued: int, reason: str
) -> None:
    waiting = [Waiting(controller.allow(parse([text])), slack * MS)]
    assert controller.plan(waiting, queued, 0.0).choices[0].reason == reason


def test_draining_takes_as_many_batches_as_it_takes(controller: Controller) -> None:
    assert controller.drain_seconds(0, 8) == 0
    assert controller.drain_seconds(16, 8) == pytest.approx(16 * MS)
    assert controller.drain_seconds(4, 8) == pytest.approx(4 * MS)


budgets = st.builds(
    Budget,
    max_flops=st.none() | st.floats(1e8, 1e10),
    deadline=st.none() | st.floats(1e-4, 1.0),
    min_top1=st.none() | st.floats(0, 1),
    stitch=st.none() | st.integers(0, 3),
)


@given(st.lists(budgets, min_size=1, max_size=8), st.floats(-1, 1), st.integers(0, 100), st.floats(0.01, 1))
def test_whatever_the_load_a_choice_keeps_to_the_budget(
    asked: list[Budget], slack: float, more: int, headroom: float
) -> None:
    controller = Controller(small_table())
    admitted = []
    for budget in asked:
        try:
            admitted.append((budget, controller.allow(budget)))
        except Infeasible as refusal:
            nearest = refusal.extra["nearest_stitch"]
            assert isinstance(nearest, int)
            assert not budget.met_by(*facts(controller, nearest)) or (budget.deadline or 1) < 4 * MS
    if admitted:
        waiting = [Waiting(allowed, slack) for _, allowed in admitted]
        plan = controller.plan(waiting, len(waiting) + more, 0.0, headroom)
        for (budget, allowed), choice in zip(admitted, plan.choices, strict=True):
            assert choice.entry in allowed.entries
            assert budget.met_by(choice.entry.flops, choice.entry.top1)


def facts(controller: Controller, stitch: int) -> tuple[int, float | None]:
    entry = controller.table.entry(stitch)
    return entry.flops, entry.top1


@given(st.floats(0.0, 0.05), st.floats(0.0, 0.05))
def test_more_time_never_gives_a_worse_stitch(one: float, other: float) -> None:
    controller = Controller(small_table())
    allowed = controller.allow(Budget())
    levels = [controller.plan([Waiting(allowed, slack)], 1, 0.0).level.flops for slack in sorted((one, other))]
    assert levels == sorted(levels)
