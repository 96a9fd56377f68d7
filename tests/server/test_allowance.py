"""What a budget admits, and what is said of it."""

import pytest
from made_up import MS, small_table

from server.allowance import allow
from server.batch_costs import Costs
from server.budget import Budget, parse
from server.errors import Infeasible, UnknownStitch


@pytest.fixture
def costs() -> Costs:
    return Costs(small_table(), max_batch=8)


def ids(costs: Costs, budget: Budget) -> list[int]:
    return [entry.stitch for entry in allow(costs, budget).entries]


def test_no_budget_admits_the_frontier_without_dominated_stitches(costs: Costs) -> None:
    assert ids(costs, Budget()) == [0, 1, 3]


@pytest.mark.parametrize(
    ("text", "admitted"),
    [("2GFLOPs", [0, 1]), ("1.99GFLOPs", [0]), ("2.5ms", [0, 1]), ("65%", [1, 3]), ("3.9GFLOPs,65%", [1])],
)
def test_each_kind_of_budget_admits_what_keeps_to_it(costs: Costs, text: str, admitted: list[int]) -> None:
    assert ids(costs, parse([text])) == admitted


def test_a_pinned_stitch_is_taken_even_when_dominated(costs: Costs) -> None:
    allowed = allow(costs, Budget(stitch=2))
    assert [entry.stitch for entry in allowed.entries] == [2]
    assert allowed.ranks == (), "it has no place on the frontier"


def test_a_pinned_stitch_must_keep_to_the_rest_of_the_budget(costs: Costs) -> None:
    with pytest.raises(Infeasible, match=r"stitch 3 does not meet 2GFLOPs: .*; relax .* on_infeasible=nearest"):
        allow(costs, Budget(stitch=3, max_flops=2e9))


def test_an_unknown_stitch_is_refused_by_its_name(costs: Costs) -> None:
    with pytest.raises(UnknownStitch, match="no stitch 9"):
        allow(costs, Budget(stitch=9))


@pytest.mark.parametrize(("text", "nearest"), [("0.5GFLOPs", 0), ("90%", 3), ("0.1ms", 0)])
def test_an_impossible_budget_names_the_nearest_stitch(costs: Costs, text: str, nearest: int) -> None:
    with pytest.raises(Infeasible) as refusal:
        allow(costs, parse([text]))
    assert refusal.value.extra["nearest_stitch"] == nearest
    remedy = "allow more time" if text.endswith("ms") else "on_infeasible=nearest"
    assert refusal.value.detail.endswith(remedy)
    assert [e.stitch for e in allow(costs, parse([text]), nearest=True).entries] == [nearest]


def test_accuracy_is_not_invented_where_none_is_known() -> None:
    costs = Costs(small_table((None, None, None, None)), max_batch=8)
    with pytest.raises(Infeasible, match="no top-1 is known"):
        allow(costs, parse(["78%"]))
    assert ids(costs, parse(["2GFLOPs"])) == [0, 1]
    assert allow(costs, Budget()).reason == "dearest stitch; no top-1 is known"


def test_the_floor_is_a_row_of_the_cheapest_that_is_admitted(costs: Costs) -> None:
    assert allow(costs, Budget()).floor == pytest.approx(1 * MS)
    assert allow(costs, parse(["65%"])).floor == pytest.approx(2 * MS)
    assert allow(costs, Budget(stitch=2)).floor == pytest.approx(3 * MS)


@pytest.mark.parametrize(
    ("text", "stitch", "reason"),
    [
        ("2GFLOPs", 1, "best stitch within 2 GFLOPs"),
        ("5ms", 3, "best stitch within 5 ms"),
        ("65%", 1, "cheapest stitch reaching 65%; no time for more in the 1 ms left"),
        ("2.5GFLOPs,9ms", 1, "best stitch within 2.5 GFLOPs and 9 ms"),
        ("9ms", 1, "best stitch that fits the 1 ms left"),
    ],
)
def test_the_reason_says_what_decided(costs: Costs, text: str, stitch: int, reason: str) -> None:
    assert allow(costs, parse([text])).why(costs.table.entry(stitch), "the 1 ms left") == reason
