"""`stitchserve simulate`: what policies make of traces, on a virtual clock against a table's latencies."""

import math
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from tqdm import tqdm

from lookup_tables.plot import picture_format
from lookup_tables.table import LookupTable, TableError, folder
from server.admission import Limiter
from server.batch_costs import Costs
from server.controller import MISS_PROBABILITY, POLICIES, POLICY_NAMES, Controller
from server.replay.fluid import fluid_bound
from server.replay.plot import plot
from server.replay.report import Report, report, table, write_csv, write_json
from server.replay.simulator import Noise, simulate
from server.replay.traces import GRAMMAR, Trace, specs, trace


class Simulate(BaseModel):
    """Run the server's controller, limiter and queue on a virtual clock: policies side by side, and their bound."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    family: str = Field("digits", description="family to simulate; its weights are not needed")
    table: Path | None = Field(None, description="folder of its lookup table; none: the one that ships")
    latency: Path | None = Field(None, description="latency file to go by; none: the only one in the table's folder")
    trace: str = Field("presets", description=f"one or more, separated by spaces, or presets; {GRAMMAR}")
    seconds: float | None = Field(None, gt=0, description="length of each; none: 60, or all of a file")
    seed: int = Field(0, ge=0, description="the same seed draws the same arrivals and noise")
    capacity: float | None = Field(
        None, gt=0, description="requests/s that are load 1; none: the cheapest stitch in full batches"
    )
    policy: str = Field(",".join(POLICIES), description=f"one or more, separated by commas: {POLICY_NAMES}")
    slo_ms: float | None = Field(None, gt=0, description="deadline of every request")
    slo_factor: float = Field(
        21.0, gt=0, description="without --slo-ms: times the seconds of the dearest stitch for one image"
    )
    max_batch: int = Field(32, ge=1, le=1024, description="most images in one batch")
    max_queue: int = Field(100_000, ge=1, description="most requests inside at once")
    noise: tuple[float, float] = Field((1.0, 1.0), description="batches take between so many times what the table says")
    front_ms: float = Field(
        0.0,
        ge=0,
        description="what an image takes before it is queued: /metrics has stitchserve_front_seconds; with --one-core "
        "all processor time that a request takes beside the engine's",
    )
    one_core: bool = Field(False, description="what images take before they are queued is the engine's time too")
    miss_probability: float | None = Field(
        MISS_PROBABILITY, gt=0, lt=1, description="share of batches that may take longer than planned; none: no margin"
    )
    out: Path | None = Field(None, alias="json", description="write everything as JSON")
    csv: Path | None = Field(None, description="write what became of the requests of each second")
    plot: Path | None = Field(None, description="draw load, level and misses over time into this .png or .svg")

    def cli_cmd(self) -> None:
        """Simulate, print, write."""
        if self.plot:
            picture_format(self.plot)
        reports = self.reports()
        print(table(reports))
        if self.out:
            write_json(self.out, reports)
        if self.csv:
            write_csv(self.csv, reports)
        if self.plot:
            plot(reports, self.plot)

    def reports(self) -> list[Report]:
        """One report for each trace and policy. Raises ValueError for settings, traces or tables that do not do."""
        low, high = self.noise
        if not 0 < low <= high:
            raise ValueError(f"noise: {low:g},{high:g} are not two factors above zero, the smaller one first")
        known = self._table()
        costs = Costs(known, self.max_batch)
        slo = self.slo_ms / 1e3 if self.slo_ms else self.slo_factor * costs.seconds(costs.frontier[-1].stitch, 1)
        capacity = self.capacity or 1 / costs.cheapest
        traces = [trace(spec, capacity, self.seconds, self.seed) for spec in specs(self.trace)]
        policies = self.policy.split(",")
        runs = [(each, policy) for each in traces for policy in policies]
        bounds = {id(each): fluid_bound(each, costs, slo) for each in traces}
        print(f"{known.family.name}: load 1 is {capacity:.1f} requests/s, the SLO {slo * 1e3:.4g} ms", file=sys.stderr)
        for each in traces:
            rate, most = len(each.arrivals) / each.seconds, 1e3 / self.front_ms if self.front_ms else math.inf
            if rate > most:
                told = f"{each.name}: {rate:.1f} requests/s, of which at most {most:.1f} get past --front-ms"
                print(f"{told}; the bound does not know that", file=sys.stderr)
        return [
            self._run(
                each,
                Controller(
                    known, max_batch=self.max_batch, slo=slo, policy=policy, miss_probability=self.miss_probability
                ),
                {"slo_ms": slo * 1e3, "capacity": capacity, "seed": self.seed, "fluid_bound": bounds[id(each)]},
            )
            for each, policy in tqdm(runs, desc="simulate", unit="run", disable=None)
        ]

    def _run(self, each: Trace, controller: Controller, details: Mapping[str, float]) -> Report:
        outcomes = simulate(
            each,
            controller,
            Limiter(self.max_queue, controller),
            self._noise(),
            front=self.front_ms / 1e3,
            one_core=self.one_core,
        )
        return report(controller.policy.name, each.name, outcomes, each.seconds, details)

    def _noise(self) -> Noise:
        generator, (low, high) = np.random.default_rng(self.seed), self.noise
        return lambda: float(generator.uniform(low, high))

    def _table(self) -> LookupTable:
        source = self.table or folder(self.family)
        if self.latency:
            return LookupTable.load(source, self.latency)
        found = sorted(source.glob("latency.*.csv"))
        if len(found) != 1:
            names = ", ".join(path.name for path in found) or "none"
            raise TableError(
                f"{source} has {len(found)} latency files ({names}): give one as --latency, or make one with "
                "`stitchserve profile`"
            )
        return LookupTable.load(source, found[0])
