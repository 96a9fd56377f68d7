"""Every policy on the 15 preset traces, simulated: `python -m benchmarks.policies.compare` writes results.md beside it.

The table is DeiT-Ti/S/B's published one with latencies made up from timm's published GPU throughputs (RTX PRO 6000,
bf16, compiled, batch 2048: 35.3, 14.6 and 5.07 thousand images/s) and 1.5 ms that every batch costs, so that the
dearest anchor takes 1.7 ms alone. `--latency` takes a measured file instead.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from lookup_tables.latency import Latency, Measurement
from lookup_tables.writer import write_latency
from server.replay.report import Report
from server.simulating import Simulate

OVERHEAD = 1.5e-3  # seconds
THROUGHPUT = {0: 35_300, 1: 14_600, 2: 5_070}  # images/s by stitch: the anchors
SETTINGS = {  # SLO as a multiple of the dearest stitch alone, noise
    "generous SLO (21 times the dearest stitch alone)": (21.0, (1.0, 1.0)),
    "tight SLO (3 times)": (3.0, (1.0, 1.0)),
    "generous SLO, batches take 0.7 to 1.5 times what the table says": (21.0, (0.7, 1.5)),
    "tight SLO, batches take 0.7 to 1.5 times what the table says": (3.0, (0.7, 1.5)),
}
POLICIES = "pace,slackfit,cheapest,max-accuracy,periodic,fixed:0,fixed:1,fixed:2"


def synthetic(folder: Path) -> Path:
    """A latency file from published throughputs."""
    batches = [2**power for power in range(7)]
    seconds = {(s, rows): OVERHEAD + rows / rate for s, rate in THROUGHPUT.items() for rows in batches}
    measurements = tuple(Measurement(s, rows, took, took, 1) for (s, rows), took in seconds.items())
    return write_latency(folder, Latency("synthetic", measurements, {"source": "timm's published throughputs"}))


def below(report: Report) -> float:
    """Points of effective accuracy below the fluid bound."""
    return 100 * (float(report.details["fluid_bound"]) - (report.summary.effective or 0.0))


def section(title: str, reports: Sequence[Report]) -> str:
    """A table: a line for each trace, a column for each policy, of attainment and points below the bound."""
    policies = list(dict.fromkeys(each.name for each in reports))
    lines = [f"## {title}", "", "In time, % / effective accuracy below the fluid bound, points.", ""]
    lines += ["| trace | bound % | " + " | ".join(policies) + " |", "|---|---|" + "---|" * len(policies)]
    for trace in dict.fromkeys(each.trace for each in reports):
        row = {each.name: each for each in reports if each.trace == trace}
        cells = [f"{100 * row[name].summary.attainment:.2f} / {below(row[name]):.2f}" for name in policies]
        bound = 100 * float(next(iter(row.values())).details["fluid_bound"])
        lines.append(f"| {trace} | {bound:.2f} | " + " | ".join(cells) + " |")
    means = []
    for name in policies:
        own = [each for each in reports if each.name == name]
        attained = [each.summary.attainment for each in own]
        means.append(f"{100 * sum(attained) / len(own):.2f} / {sum(map(below, own)) / len(own):.2f}")
    lines.append("| **mean** | | " + " | ".join(f"**{mean}**" for mean in means) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Simulate and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--latency", type=Path, help="measured latency file of deit_ti_s_b")
    parser.add_argument("--seconds", type=float, default=5.0, help="length of each trace")
    parser.add_argument("--max-batch", type=int, default=64)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("results.md"))
    given = parser.parse_args()
    with TemporaryDirectory() as folder:
        latency = given.latency or synthetic(Path(folder))
        sections = [
            section(
                title,
                Simulate(
                    family="deit_ti_s_b",
                    latency=latency,
                    seconds=given.seconds,
                    policy=POLICIES,
                    slo_factor=factor,
                    noise=noise,
                    max_batch=given.max_batch,
                ).reports(),
            )
            for title, (factor, noise) in SETTINGS.items()
        ]
    source = given.latency.name if given.latency else "synthetic latencies from published throughputs"
    head = (
        "# Policies, simulated\n\nWritten by `python -m benchmarks.policies.compare"
        f"{f' --latency {given.latency.name}' if given.latency else ''} --seconds {given.seconds:g}`: deit_ti_s_b, "
        f"{source}, batches up to {given.max_batch}. Miss probability 0.01.\n\n"
    )
    given.out.write_text(head + "\n".join(sections), encoding="utf-8")


if __name__ == "__main__":
    main()
