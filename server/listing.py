"""`stitchserve stitches`: the lookup table for people."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from lookup_tables.plot import plot
from lookup_tables.table import Cost, LookupTable, folder
from server.schemas import StitchListed, listed


class Stitches(BaseModel):
    """List a family's stitches, or draw them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    family: str = Field("digits", description="family to show")
    table: Path | None = Field(None, description="folder of its lookup table; none: the one that ships")
    latency: Path | None = Field(None, description="a latency.<device>.csv to show with it")
    frontier: bool = Field(False, description="only the stitches that no cheaper one matches")
    plot: Path | None = Field(None, description="draw cost against top-1 into this .png or .svg")
    cost: Cost = Field("flops", description="what the picture's horizontal axis shows")

    def cli_cmd(self) -> None:
        """Print the table, or draw it."""
        table = LookupTable.load(self.table or folder(self.family), self.latency)
        if self.plot:
            plot(table, self.plot, self.cost)
            print(self.plot)
            return
        print(f"{'id':>4} {'MFLOPs':>10} {'params':>12} {'top-1 %':>8} {'ms':>9}  route (* on the frontier)")
        shown = listed(table, self.frontier, table.latency.device if table.latency else "")
        for row in shown.stitches:
            print(_line(row))
        print(f"top-1: {shown.top1_source}")


def _line(row: StitchListed) -> str:
    top1 = "-" if row.top1 is None else f"{row.top1:.2f}"
    latency = "-" if row.latency_ms is None else f"{row.latency_ms:.3f}"
    mark = " *" if row.frontier else ""
    return f"{row.id:>4} {row.flops / 1e6:>10.2f} {row.params:>12,} {top1:>8} {latency:>9}  {row.name}{mark}"
