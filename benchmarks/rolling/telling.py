"""What came of a run, as a row of a Markdown table: those of several runs stand side by side."""

from collections.abc import Sequence

from server.replay.report import OK, Outcome, summarise

HEADS = (
    "server",
    "balancer",
    "ended by",
    "load 1, req/s",
    "requests",
    "failed",
    "sent again",
    "exit statuses",
    "back after s",
    "in time %",
    "p50 ms",
    "p99 ms",
    "top-1 %",
    "effective %",
)


def failed(outcomes: Sequence[Outcome]) -> int:
    """How many were not answered by 200."""
    return sum(outcome.status != OK for outcome in outcomes)


def row(
    named: Sequence[str], capacity: float, outcomes: Sequence[Outcome], again: int, ends: Sequence[tuple[int, float]]
) -> str:
    """The table's head and one row: `named` are server, balancer and signal; `ends` exit status and seconds until back.

    Capacity in requests/s.
    """
    summary = summarise(outcomes)
    statuses = ", ".join(sorted({str(status) for status, _ in ends}))
    back = "-" if not ends else f"{min(s for _, s in ends):.1f} to {max(s for _, s in ends):.1f}"
    shares = [summary.attainment, summary.top1, summary.effective]
    in_time, top1, effective = ("-" if each is None else f"{each * 100:.2f}" for each in shares)
    p50, p99 = ("-" if each is None else f"{each * 1e3:.0f}" for each in (summary.p50, summary.p99))
    counts = (f"{capacity:.0f}", str(len(outcomes)), str(failed(outcomes)), str(again))
    cells = (*named, *counts, statuses, back, in_time, p50, p99, top1, effective)
    return "\n".join(f"| {' | '.join(each)} |" for each in (HEADS, ["---"] * len(HEADS), cells))
