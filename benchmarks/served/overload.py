"""What an overload did: goodput while it lasted, latencies, and how soon all were answered as well as before.

    stitchserve simulate --trace step:base=0.2,peak=3,for=10 --json FILE
    python -m benchmarks.served.overload FILE

Reads reports of step traces, from `stitchserve simulate` or `stitchserve bench --capacity ...`.
"""

import math
import re
import sys
from pathlib import Path
from statistics import mean

from server.replay.report import Report, Second, read_json

LENGTH = re.compile(r"for=([\d.]+)")
SAME = 0.005  # top-1, a fraction, that counts as what it was


def is_step(report: Report) -> bool:
    """Whether that is the report of a step trace with a length."""
    return bool(LENGTH.search(report.trace))


def overload(report: Report, capacity: float) -> str:
    """One line on a step trace; `capacity` in requests/s is what the server can do at most."""
    found = LENGTH.search(report.trace)
    if not found:
        raise ValueError(f"{report.trace}: not a step trace with for=SECONDS")
    length, seconds = float(found[1]), len(report.series)
    begins = (seconds - length) / 2
    ends = begins + length
    before = [one for one in report.series if one.second + 1 <= begins]
    inside = [one for one in report.series if begins <= one.second and one.second + 1 <= ends]
    after = [one for one in report.series if one.second >= ends]
    goodput = sum(one.in_time for one in inside) / len(inside)
    full, p99 = top1(before), (report.summary.p99 or math.nan) * 1e3
    back = next((one.second - math.ceil(ends) for one in after if top1([one]) >= full - SAME), None)
    answered = sum(one.in_time + one.late for one in inside)
    late = sum(one.late for one in inside) / max(1, answered)
    return (
        f"{report.name}, {report.trace}: {goodput:.1f}/s in time of {mean(one.requests for one in inside):.0f}/s, "
        f"{goodput / capacity:.1%} of {capacity:.1f}/s; {late:.2%} of the answers late, p99 {p99:.0f} ms; "
        f"top-1 {full:.2%} before, {top1(inside):.2%} inside, {top1(after[1:]):.2%} later, "
        f"as before from second {'never' if back is None else back} after it"
    )


def top1(seconds: list[Second]) -> float:
    """Mean over the answers in time; NaN without any."""
    weighed = [(one.in_time, one.top1) for one in seconds if one.in_time and one.top1 is not None]
    return sum(n * value for n, value in weighed) / sum(n for n, _ in weighed) if weighed else math.nan


if __name__ == "__main__":
    for file in sys.argv[1:]:
        for each in filter(is_step, read_json(Path(file))):
            print(overload(each, float(each.details["capacity"])))
