"""What became of a trace's requests: the figures that compare policies and servers, and their files.

Attainment and mean top-1 of answers in time are SuperServe's (NSDI'25) figures. Effective accuracy is their product: a
miss counts as a wrong answer, so that a policy cannot gain by shedding.
"""

import csv
import io
import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from pydantic import TypeAdapter, ValidationError

OK = "200"
UNITS = "seconds; shares of 1; FLOPs are multiply-adds; requests are counted in the second they arrived"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one request. All times in seconds.

    `arrival` counts from the trace's start; `latency` from there to the answer, None when refused or failed; the answer
    is in time when `latency <= deadline`. `stitch`, `top1` (a fraction) and `flops` are those that answered, None where
    not known. `status` is the HTTP status, or a word where there is none: `timeout`, `not sent`.
    """

    arrival: float
    latency: float | None
    deadline: float
    stitch: int | None = None
    top1: float | None = None
    status: str = OK
    flops: float | None = None

    @property
    def in_time(self) -> bool:
        """Whether it was answered within its deadline."""
        return self.latency is not None and self.latency <= self.deadline


@dataclass(frozen=True)
class Summary:
    """The figures of one replay.

    `attainment` is the share of requests answered in time. `top1` is the mean over answers in time, None where there is
    none or one's top-1 is not known; `effective` the mean over all requests where a miss counts 0, None where one's is
    not known. `p50` and `p99` are latencies in seconds over all answers, also late ones, None without answers.
    `unanswered` counts requests without an answer by status. `rate` and `goodput` are requests and answers in time per
    second of the trace.
    """

    requests: int
    attainment: float
    top1: float | None
    effective: float | None
    p50: float | None
    p99: float | None
    late: int
    unanswered: Mapping[str, int]
    rate: float
    goodput: float


@dataclass(frozen=True)
class Second:
    """The requests that arrived within one second: how many, and what became of them; see Summary.

    `unanswered` were refused or failed; `top1` and `flops` are means over answers in time, None where not known.
    """

    second: int
    requests: int
    in_time: int
    late: int
    unanswered: int
    top1: float | None
    flops: float | None


@dataclass(frozen=True)
class Report:
    """One replay: of which `trace`, by what `name` (policy or server), its figures whole and per second.

    `details` are further figures and settings that explain it.
    """

    name: str
    trace: str
    summary: Summary
    series: tuple[Second, ...]
    details: Mapping[str, str | int | float] = field(default_factory=dict)


_REPORTS = TypeAdapter(tuple[Report, ...])
SERIES_COLUMNS = ("name", "trace", "second", "requests", "in_time", "late", "unanswered", "top1", "gflops")


def report(
    name: str,
    trace: str,
    outcomes: Sequence[Outcome],
    seconds: float,
    details: Mapping[str, str | int | float] | None = None,
) -> Report:
    """The report of one replay of a trace of `seconds`."""
    return Report(name, trace, summarise(outcomes, seconds), per_second(outcomes, seconds), details or {})


def summarise(outcomes: Sequence[Outcome], seconds: float | None = None) -> Summary:
    """The figures of outcomes in any order over a trace of `seconds` (None: up to the last arrival).

    ValueError without outcomes, or where they span no time.
    """
    if not outcomes:
        raise ValueError("no outcomes to summarise")
    span = max(o.arrival for o in outcomes) if seconds is None else seconds
    if span <= 0:
        raise ValueError("the outcomes span no time; give the trace's seconds")
    met = [o for o in outcomes if o.in_time]
    top1 = _mean(o.top1 for o in met)
    latencies = [o.latency for o in outcomes if o.latency is not None]
    p50, p99 = np.percentile(latencies, (50, 99)).tolist() if latencies else (None, None)
    return Summary(
        requests=len(outcomes),
        attainment=len(met) / len(outcomes),
        top1=top1,
        effective=0.0 if not met else None if top1 is None else top1 * len(met) / len(outcomes),
        p50=p50,
        p99=p99,
        late=len(latencies) - len(met),
        unanswered=dict(sorted(Counter(o.status for o in outcomes if o.latency is None).items())),
        rate=len(outcomes) / span,
        goodput=len(met) / span,
    )


def per_second(outcomes: Iterable[Outcome], seconds: float) -> tuple[Second, ...]:
    """One row for each second of a trace of `seconds`, those without requests too."""
    arrived = defaultdict[int, list[Outcome]](list)
    for outcome in outcomes:
        arrived[int(outcome.arrival)].append(outcome)
    last = max([math.ceil(seconds) - 1, *arrived])
    return tuple(_second(second, arrived.get(second, ())) for second in range(last + 1))


def _second(second: int, arrived: Sequence[Outcome]) -> Second:
    met = [o for o in arrived if o.in_time]
    answered = sum(o.latency is not None for o in arrived)
    return Second(
        second=second,
        requests=len(arrived),
        in_time=len(met),
        late=answered - len(met),
        unanswered=len(arrived) - answered,
        top1=_mean(o.top1 for o in met),
        flops=_mean(o.flops for o in met),
    )


def _mean(values: Iterable[float | None]) -> float | None:
    """None where there are no values, or one of them is not known."""
    known: list[float] = []
    for value in values:
        if value is None:
            return None
        known.append(value)
    return math.fsum(known) / len(known) if known else None


def write_json(path: Path, reports: Sequence[Report]) -> None:
    """Everything, to be read by programs and by `read_json`; units are those of UNITS."""
    content = {"units": UNITS, "runs": [asdict(each) for each in reports]}
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def read_json(path: Path) -> tuple[Report, ...]:
    """The reports of a file that `write_json` wrote; ValueError if it is not one."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return _REPORTS.validate_python(content["runs"])
    except (ValueError, ValidationError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not a report of stitchserve bench or simulate: {error}") from None


def write_csv(path: Path, reports: Sequence[Report]) -> None:
    """The seconds of every report, one a row; top-1 in percent as in lookup tables."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(SERIES_COLUMNS)
    for each in reports:
        for row in each.series:
            counts = (row.second, row.requests, row.in_time, row.late, row.unanswered)
            writer.writerow((each.name, each.trace, *counts, _scaled(row.top1, 100), _scaled(row.flops, 1e-9)))
    path.write_text(file.getvalue(), encoding="utf-8")


def table(reports: Sequence[Report]) -> str:
    """The summaries for people, one a line."""
    heads = (
        "run",
        "trace",
        "req/s",
        "in time %",
        "top-1 %",
        "effective %",
        "bound %",
        "p50 ms",
        "p99 ms",
        "good/s",
        "unanswered",
    )
    rows = [heads, *(_cells(each) for each in reports)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(_padded, row, widths, range(len(row)))).rstrip() for row in rows)


def _cells(each: Report) -> tuple[str, ...]:
    s = each.summary
    unanswered = ", ".join(f"{status}: {count}" for status, count in s.unanswered.items()) or "-"
    shares = (f"{100 * s.attainment:.3f}", _scaled(s.top1, 100) or "-", _scaled(s.effective, 100) or "-", _bound(each))
    times = (_scaled(s.p50, 1e3) or "-", _scaled(s.p99, 1e3) or "-")
    return (each.name, each.trace, f"{s.rate:.1f}", *shares, *times, f"{s.goodput:.1f}", unanswered)


def _bound(each: Report) -> str:
    """The most that any scheduler could have reached with these arrivals, where a simulation told it."""
    bound = each.details.get("fluid_bound")
    return f"{100 * bound:.2f}" if isinstance(bound, float) else "-"


def _padded(cell: str, width: int, column: int) -> str:
    return cell.ljust(width) if column in {0, 1, 10} else cell.rjust(width)


def _scaled(value: float | None, by: float) -> str:
    return "" if value is None else f"{value * by:.2f}" if by >= 1 else f"{value * by:.6g}"
