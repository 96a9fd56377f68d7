"""The names of models, and what they allow with a request's parameters."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.budget import Budget
from server.errors import BadBudget, UnknownModel
from server.models import budget_of
from server.tensors import Parameters


@pytest.mark.parametrize(
    ("name", "budget"),
    [
        ("auto", Budget()),
        ("auto@24", Budget(stitch=24)),
        ("auto@78%", Budget(min_top1=0.78)),
        ("auto@2GFLOPs", Budget(max_flops=2e9)),
        ("auto@15ms", Budget(deadline=0.015)),
        ("auto@2gflops,15ms", Budget(max_flops=2e9, deadline=0.015)),
    ],
)
def test_a_name_is_a_budget(name: str, budget: Budget) -> None:
    assert budget_of(name) == budget_of(name, "1") == budget


def test_parameters_add_to_it() -> None:
    asked = Parameters(timeout=15_000, budget="2GFLOPs")
    assert budget_of("auto@78%", parameters=asked) == Budget(2e9, 0.015, 0.78)
    assert budget_of("auto", parameters=Parameters(stitch=3)) == Budget(stitch=3)
    assert budget_of("auto@24", parameters=Parameters(timeout=0, priority=9)) == Budget(stitch=24)


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("auto@24", Parameters(stitch=24)),
        ("auto@15ms", Parameters(timeout=15_000)),
        ("auto@15ms", Parameters(budget="15ms")),
        ("auto@", Parameters()),
        ("auto@-1", Parameters()),
        ("auto@24,15ms", Parameters()),
        ("auto@" + "9" * 50, Parameters()),
    ],
)
def test_what_is_said_twice_or_does_not_parse_is_refused(name: str, asked: Parameters) -> None:
    with pytest.raises(BadBudget):
        budget_of(name, parameters=asked)


@pytest.mark.parametrize(("name", "version"), [("Auto", None), ("resnet@24", None), ("auto", "2"), ("auto", "x" * 99)])
def test_other_names_and_versions_are_unknown(name: str, version: str | None) -> None:
    with pytest.raises(UnknownModel, match="auto@2GFLOPs"):
        budget_of(name, version)


@given(st.text(max_size=30))
def test_any_budget_in_a_name_is_read_or_refused(text: str) -> None:
    with suppress(BadBudget):
        assert budget_of(f"auto@{text}") != Budget()
