import math
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from server.budget import GRAMMAR, LONGEST_DEADLINE, PATTERN, WANTED, Budget, parse
from server.errors import BadBudget


@pytest.mark.parametrize(
    ("term", "flops"),
    [
        ("2GFLOPs", 2e9),
        ("2gflops", 2e9),
        ("2GFLOPS", 2e9),
        ("2GFLOP", 2e9),
        ("2GMACs", 2e9),
        ("900MFLOPs", 9e8),
        ("900 kmac", 9e5),
        ("1.5TFLOPs", 1.5e12),
        ("2000000000FLOPs", 2e9),
        ("2e9FLOPs", 2e9),
        ("2E+9FLOPs", 2e9),
        ("2e 9FLOPs", 2e9),  # an unescaped '+' of a URL
        ("20e-1GFLOPs", 2e9),
        ("2 GFLOPs", 2e9),
        ("  2  GFLOPs ", 2e9),
        (".5GFLOPs", 5e8),
        ("1.GFLOPs", 1e9),
    ],
)
def test_a_flops_cap(term: str, flops: float) -> None:
    assert parse([term]) == Budget(max_flops=flops)


@pytest.mark.parametrize(
    ("term", "seconds"), [("15ms", 0.015), ("15 MS", 0.015), ("0.2s", 0.2), ("200us", 2e-4), ("1e3ms", 1.0)]
)
def test_a_deadline_is_in_seconds_inside(term: str, seconds: float) -> None:
    assert parse([term]) == Budget(deadline=seconds)


@pytest.mark.parametrize(("term", "fraction"), [("78%", 0.78), ("75.63 %", 0.7563), ("0%", 0.0), ("100%", 1.0)])
def test_a_least_top1_is_a_fraction_inside(term: str, fraction: float) -> None:
    assert parse([term]) == Budget(min_top1=fraction)


def test_terms_may_be_separated_by_commas_or_repeated() -> None:
    expected = Budget(max_flops=2e9, deadline=0.015, min_top1=0.7)
    assert parse(["2GFLOPs,15ms,70%"]) == expected
    assert parse(["70%", "2GFLOPs, 15ms"]) == expected


def test_plain_numbers_are_flops_milliseconds_and_percent() -> None:
    budget = parse(max_flops="2e9", deadline_ms="15", min_top1="75.63", stitch="24")
    assert budget == Budget(max_flops=2e9, deadline=0.015, min_top1=0.7563, stitch=24)


def test_terms_and_plain_numbers_together() -> None:
    assert parse(["15ms"], max_flops="1000") == Budget(max_flops=1000.0, deadline=0.015)


def test_nothing_asked_is_no_limit() -> None:
    assert parse() == Budget(None, None, None, None)


@pytest.mark.parametrize(
    ("first", "second", "limit"),
    [("2GFLOPs", "900MFLOPs", "max_flops"), ("15ms", "0.2s", "deadline"), ("78%", "78%", "min_top1")],
)
def test_the_same_limit_twice_is_refused_and_both_are_named(first: str, second: str, limit: str) -> None:
    for budgets in ([first, second], [f"{first},{second}"]):
        with pytest.raises(BadBudget) as refusal:
            parse(budgets)
        assert f"'{first}' and '{second}' both set {limit}" in refusal.value.detail


def test_a_term_and_a_plain_number_for_the_same_limit_are_refused() -> None:
    with pytest.raises(BadBudget, match="'15ms' and 'deadline_ms=15' both set deadline"):
        parse(["15ms"], deadline_ms="15")


@pytest.mark.parametrize(
    "term",
    [
        *("", " ", ",", "15ms,", ",15ms", "15ms,,2GFLOPs"),
        *("%", "ms", "GFLOPs", "15", "1e3", "2G", "2GFLOPs/s", "15m", "15min", "2 G FLOPs", "15ms 2GFLOPs", "78%%"),
        *("nan%", "NaNms", "infGFLOPs", "-infms", "Infinity s", "0x10ms", "1_000ms", "1,5s", "1e2.5ms", "1.2.3s"),
        *("-15ms", "-0ms", "0ms", "0.0GFLOPs", "0e5s", "1e-999ms", "-1%", "100.001%", "101%"),
        *("1e999GFLOPs", "1e308GFLOPs", "9e9999s", "1e99999s", "3601s", "1e9s"),
        *("१५ms", "\uff11\uff15ms", "15µs", "²s", "15ms\n", "15\tms", "15ms\x00", "\u200b15ms", "7️⃣%", "\ud800"),
        *("9" * 41 + "FLOPs", "1" * 100_000 + "ms", "1 " * 50_000, " " * 100_000 + "ms", "," * 100_000),
    ],
)
def test_hostile_terms_are_refused(term: str) -> None:
    with pytest.raises(BadBudget) as refusal:
        parse([term])
    assert refusal.value.extra == {"field": "budget", "grammar": GRAMMAR}


@pytest.mark.parametrize(
    "number", ["", " ", "ten", "nan", "inf", "-1", "1e999", "0x1", "1e9GFLOPs", "1" * 100_000, "१"]
)
@pytest.mark.parametrize("field", ["max_flops", "deadline_ms", "min_top1"])
def test_hostile_plain_numbers_are_refused_under_their_own_name(field: str, number: str) -> None:
    with pytest.raises(BadBudget, match=f"^{field}: .* a plain number as in ") as refusal:
        parse(**{field: number})
    assert refusal.value.extra == {"field": field, "grammar": WANTED[field]}


@pytest.mark.parametrize("field", ["max_flops", "deadline_ms"])
def test_a_plain_zero_is_refused_where_nothing_could_meet_it(field: str) -> None:
    with pytest.raises(BadBudget, match="must be more than zero"):
        parse(**{field: "0"})


@pytest.mark.parametrize("text", ["", "-1", "1.0", "1e1", " 1", "१", "0x1", "1" * 100_000, "deit_s"])
def test_a_stitch_is_a_whole_number(text: str) -> None:
    with pytest.raises(BadBudget, match=r"^stitch: .* id of one stitch, a whole number; GET /stitches") as refusal:
        parse(stitch=text)
    assert "GFLOPs" not in refusal.value.detail + str(refusal.value.extra)


def test_the_longest_deadline_is_accepted_and_a_longer_one_is_not() -> None:
    assert parse(deadline_ms=str(LONGEST_DEADLINE * 1000)).deadline == LONGEST_DEADLINE
    with pytest.raises(BadBudget, match="more than 3600s"):
        parse(deadline_ms="3600001")


def test_an_error_quotes_the_text_short_and_escaped_and_gives_the_grammar() -> None:
    with pytest.raises(BadBudget) as refusal:
        parse(["\x1b[31m\n" + "é" * 150])
    assert refusal.value.detail.isascii()
    assert refusal.value.detail.isprintable()
    assert refusal.value.detail.startswith(r"budget: '\x1b[31m\n\xe9")
    assert refusal.value.detail.count(r"\xe9") < 40
    assert refusal.value.detail.endswith(GRAMMAR)


grammatical = st.from_regex(r"[-+ 0-9.eE]{0,12} ?[kmgtKMGT]?(flops|MACS|ms|s|us|%)?,?", fullmatch=True)
positive = st.floats(min_value=0, exclude_min=True, allow_infinity=False)


@given(st.lists(st.text() | grammatical, max_size=4), st.none() | st.text() | grammatical)
def test_any_text_parses_to_a_sound_budget_or_is_refused(budgets: list[str], number: str | None) -> None:
    try:
        budget = parse(budgets, max_flops=number, deadline_ms=number, min_top1=number, stitch=number)
    except BadBudget:
        return
    assert budget.max_flops is None or (budget.max_flops > 0 and math.isfinite(budget.max_flops))
    assert budget.deadline is None or 0 < budget.deadline <= LONGEST_DEADLINE
    assert budget.min_top1 is None or 0 <= budget.min_top1 <= 1
    assert budget.stitch is None or budget.stitch >= 0


@given(st.text() | grammatical | st.from_regex(PATTERN))
@example("2E+9Gflops, 15 MS,.5 %")
@example("15ms\n")
def test_the_pattern_is_that_of_what_parses(text: str) -> None:
    matches = re.search(PATTERN.replace("$", r"\Z"), text) is not None  # JSON Schema's $ is only the very end
    try:
        parse([text])
    except BadBudget as refusal:
        out_of_bounds = re.search("too large|more than|both set|longer", refusal.detail)
        assert not matches or out_of_bounds
    else:
        assert matches


@given(
    st.builds(
        Budget,
        max_flops=st.none() | positive,
        deadline=st.none() | st.floats(min_value=0, exclude_min=True, max_value=LONGEST_DEADLINE),
        min_top1=st.none() | st.floats(min_value=0, max_value=1),
        stitch=st.none() | st.integers(min_value=0, max_value=999_999_999),
    )
)
def test_what_a_budget_writes_reads_back_to_the_same_budget(budget: Budget) -> None:
    stitch = None if budget.stitch is None else str(budget.stitch)
    assert parse(budget.terms(), stitch=stitch) == budget
    assert parse([",".join(budget.terms())] if budget.terms() else [], stitch=stitch) == budget


def test_terms_are_written_as_people_write_them() -> None:
    assert Budget(2e9, 0.05, 0.7563).terms() == ("2GFLOPs", "50ms", "75.63%")
    assert Budget(9e8, 1.5, 1.0).terms() == ("900MFLOPs", "1500ms", "100%")
    assert Budget().terms() == ()
