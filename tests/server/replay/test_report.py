"""The figures of hand-made outcomes, counted by hand, and files that give them back."""

import csv
from dataclasses import replace
from pathlib import Path

import pytest

from server.replay.report import (
    Outcome,
    per_second,
    read_json,
    report,
    summarise,
    table,
    write_csv,
    write_json,
)

SLO = 0.05
OUTCOMES = (
    Outcome(0.0, 0.010, SLO, stitch=2, top1=0.9, flops=4e9),
    Outcome(0.5, 0.050, SLO, stitch=1, top1=0.6, flops=2e9),  # on the deadline is in time
    Outcome(0.9, 0.051, SLO, stitch=2, top1=0.9, flops=4e9),
    Outcome(2.1, None, SLO, status="503"),
    Outcome(2.2, None, SLO, status="timeout"),
    Outcome(2.3, 0.020, SLO, stitch=1, top1=0.6, flops=2e9),
    Outcome(2.4, None, SLO, status="503"),
    Outcome(2.5, 0.030, SLO, stitch=1, top1=0.6, flops=2e9),
)


def test_the_figures_are_those_counted_by_hand() -> None:
    figures = summarise(OUTCOMES, seconds=4)
    assert figures.requests == 8
    assert figures.attainment == pytest.approx(4 / 8)
    assert figures.top1 == pytest.approx((0.9 + 3 * 0.6) / 4)
    assert figures.effective == pytest.approx((0.9 + 3 * 0.6) / 8)
    assert figures.p50 == pytest.approx(0.030)
    assert figures.p99 == pytest.approx(0.050 + 0.96 * 0.001)
    assert figures.late == 1
    assert figures.unanswered == {"503": 2, "timeout": 1}
    assert figures.rate == pytest.approx(2)
    assert figures.goodput == pytest.approx(1)


def test_the_order_of_outcomes_does_not_matter() -> None:
    assert summarise(OUTCOMES[::-1], 4) == summarise(OUTCOMES, 4)


def test_without_a_length_the_rates_are_over_the_time_up_to_the_last_arrival() -> None:
    assert summarise(OUTCOMES).rate == pytest.approx(8 / 2.5)


def test_each_request_is_judged_by_its_own_deadline() -> None:
    hasty, patient = Outcome(0, 0.010, deadline=0.009, top1=0.5), Outcome(1, 0.5, deadline=1, top1=0.7)
    figures = summarise([hasty, patient])
    assert figures.attainment == 0.5
    assert figures.top1 == pytest.approx(0.7)


def test_nothing_in_time_is_worth_nothing() -> None:
    figures = summarise([Outcome(1, None, SLO, status="503"), Outcome(2, 0.06, SLO, top1=0.9)])
    assert (figures.attainment, figures.top1, figures.effective, figures.goodput) == (0, None, 0, 0)


def test_an_accuracy_that_is_not_known_makes_no_mean() -> None:
    figures = summarise([*OUTCOMES, Outcome(3, 0.01, SLO)])
    assert figures.top1 is None
    assert figures.effective is None
    late = summarise([*OUTCOMES, Outcome(3, 0.06, SLO)])  # a late answer is a miss, whatever it is worth
    assert late.effective == pytest.approx((0.9 + 3 * 0.6) / 9)


def test_without_answers_there_are_no_latencies() -> None:
    figures = summarise([Outcome(1, None, SLO, status="not sent")])
    assert (figures.p50, figures.p99) == (None, None)
    assert figures.unanswered == {"not sent": 1}


def test_no_outcomes_and_no_time_are_refused() -> None:
    with pytest.raises(ValueError, match="no outcomes"):
        summarise([])
    with pytest.raises(ValueError, match="give the trace's seconds"):
        summarise([Outcome(0, 0.01, SLO)])


def test_a_second_counts_those_that_arrived_in_it() -> None:
    series = per_second(OUTCOMES, seconds=3.5)
    assert [row.second for row in series] == [0, 1, 2, 3]
    assert [row.requests for row in series] == [3, 0, 5, 0]
    assert [row.in_time for row in series] == [2, 0, 2, 0]
    assert [row.late for row in series] == [1, 0, 0, 0]
    assert [row.unanswered for row in series] == [0, 0, 3, 0]
    assert series[0].top1 == pytest.approx(0.75)
    assert series[0].flops == pytest.approx(3e9)
    assert series[1].top1 is series[1].flops is None


REPORTS = (
    report("ours", "gamma:cv2=8,load=0.3", OUTCOMES, 4, {"slo_ms": 50.0, "url": "http://x"}),
    report("peer", "gamma:cv2=8,load=0.3", [replace(o, top1=None, flops=None) for o in OUTCOMES], 4),
)


def test_json_gives_back_what_was_written(tmp_path: Path) -> None:
    write_json(tmp_path / "out.json", REPORTS)
    assert read_json(tmp_path / "out.json") == REPORTS


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"runs": [{"name": "x"}]}', '{"runs": 3}', "\x00"])
def test_another_file_is_refused_by_name(tmp_path: Path, content: str) -> None:
    (tmp_path / "out.json").write_text(content)
    with pytest.raises(ValueError, match=r"out\.json is not a report"):
        read_json(tmp_path / "out.json")


def test_csv_has_a_row_for_every_second_of_every_run(tmp_path: Path) -> None:
    write_csv(tmp_path / "out.csv", REPORTS)
    with (tmp_path / "out.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["name"], row["second"]) for row in rows] == [(n, str(s)) for n in ("ours", "peer") for s in range(4)]
    assert rows[0]["trace"] == "gamma:cv2=8,load=0.3"
    assert float(rows[0]["top1"]) == pytest.approx(75)
    assert float(rows[0]["gflops"]) == pytest.approx(3)
    assert rows[1]["top1"] == rows[4]["top1"] == ""


def test_the_table_shows_percent_and_milliseconds() -> None:
    head, ours, peer = table(REPORTS).splitlines()
    assert head.split()[:3] == ["run", "trace", "req/s"]
    assert ours.split()[:10] == [
        "ours",
        "gamma:cv2=8,load=0.3",
        "2.0",
        "50.000",
        "67.50",
        "33.75",
        "-",
        "30.00",
        "50.96",
        "1.0",
    ]
    assert ours.endswith("503: 2, timeout: 1")
    assert peer.split()[4:7] == ["-", "-", "-"]
