"""The command line: stitchserve serve | profile | evaluate | train | stitches."""

import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_settings import CliApp, SettingsConfigDict

from lookup_tables.profile import profile
from lookup_tables.table import Cost, LookupTable, folder
from lookup_tables.writer import latency_path, write_latency
from server.engine import Engine
from server.evaluation import Evaluate
from server.latencies import batches_up_to
from server.schemas import listed
from server.serve import serve
from server.settings import PREFIX, Settings
from stitching.train import TrainConfig, train

CLI = SettingsConfigDict(
    cli_kebab_case=True, cli_implicit_flags=True, cli_hide_none_type=True, cli_avoid_json=True, frozen=True
)


class Serve(Settings):
    """Answer images over HTTP. Every option is also an environment variable: --slo-ms is STITCHSERVE_SLO_MS."""

    def cli_cmd(self) -> None:
        """Serve until told to stop."""
        serve(self)


class Train(TrainConfig):
    """Train a family on a folder of images, or on the built-in task 'digits'. Run again, it resumes."""

    def cli_cmd(self) -> None:
        """Train, then say where the weights are."""
        print(train(self))


class Profile(BaseModel):
    """Measure latency per stitch and batch size on this device, into latency.<device>.csv."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    family: str = Field("digits", description="family to measure")
    checkpoint: Path | None = Field(None, description="its weights; none: those that ship with the family")
    table: Path | None = Field(None, description="folder of its lookup table; none: the one that ships")
    device: str = Field("auto", description="cpu, cuda, cuda:1; auto takes CUDA where there is one")
    threads: int | None = Field(None, ge=1, description="CPU threads")
    stitches: Literal["frontier", "all"] = "frontier"
    max_batch: int = Field(32, ge=1, le=1024, description="largest batch; powers of two up to it are measured")
    rounds: int = Field(30, ge=3, description="measurements of each")
    time_limit_s: float | None = Field(None, gt=0, description="stop after the round that comes nearest to this")
    out: Path | None = Field(None, description="folder for the file; none: the table's")

    def cli_cmd(self) -> None:
        """Measure, write, and say where."""
        source = self.table or folder(self.family)
        table = LookupTable.load(source)
        engine = Engine.load(self.family, self.checkpoint, self.device, self.threads)
        engine.check(table)
        entries = table.frontier() if self.stitches == "frontier" else table.entries
        out = self.out or source
        latency_path(out, engine.device_slug)
        latency = profile(
            engine.run_once,
            [entry.stitch for entry in entries],
            batches_up_to(self.max_batch),
            engine.device_slug,
            details=engine.conditions,
            rounds=self.rounds,
            time_limit=self.time_limit_s,
        )
        out.mkdir(parents=True, exist_ok=True)
        print(write_latency(out, latency))


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
        """Print the table, or write the picture."""
        table = LookupTable.load(self.table or folder(self.family), self.latency)
        if self.plot:
            try:
                from lookup_tables.plot import plot  # noqa: PLC0415 - matplotlib is an extra
            except ImportError as error:
                raise ValueError(f"--plot needs matplotlib: pip install 'stitchserve[plot]' ({error})") from error
            plot(table, self.plot, self.cost)
            print(self.plot)
            return
        shown = listed(table, self.frontier, table.latency.device if table.latency else "")
        print(f"{'id':>4} {'MFLOPs':>10} {'params':>12} {'top-1 %':>8} {'ms':>9}  route (* frontier)")
        for row in shown.stitches:
            top1 = "-" if row.top1 is None else f"{row.top1:.2f}"
            latency = "-" if row.latency_ms is None else f"{row.latency_ms:.3f}"
            mark = " *" if row.frontier else ""
            print(f"{row.id:>4} {row.flops / 1e6:>10.2f} {row.params:>12,} {top1:>8} {latency:>9}  {row.name}{mark}")


COMMANDS: Mapping[str, type[BaseModel]] = {
    "serve": Serve,
    "profile": Profile,
    "evaluate": Evaluate,
    "train": Train,
    "stitches": Stitches,
}


def main(argv: list[str] | None = None) -> None:
    """The entry point. A fault that the user can mend ends with its reason and status 2."""
    arguments = sys.argv[1:] if argv is None else argv
    if not arguments or arguments[0] not in COMMANDS:
        _usage(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        CliApp.run(_with_options(arguments[0]), cli_args=arguments[1:])
    except ValidationError as error:
        _refuse("; ".join(f"{_option(fault['loc'])}: {fault['msg']}" for fault in error.errors()))
    except ValueError as error:
        _refuse(str(error))


def _with_options(name: str) -> type[BaseModel]:
    """The command, its options in kebab case, its name in its help, and no reading of variables such as DATA."""
    prefix = PREFIX if COMMANDS[name] is Serve else f"{PREFIX}{name}_"
    config = CLI | {"cli_prog_name": f"stitchserve {name}", "env_prefix": prefix}
    return type(name, (COMMANDS[name],), {"__doc__": COMMANDS[name].__doc__, "model_config": config})


def _usage(arguments: list[str]) -> None:
    lines = [f"  {name:<10} {(command.__doc__ or '').splitlines()[0]}" for name, command in COMMANDS.items()]
    text = "usage: stitchserve COMMAND [options]\n\n" + "\n".join(lines) + "\n\nstitchserve COMMAND --help tells more."
    asked = not arguments or arguments[0] in ("-h", "--help")
    print(
        text if asked else f"stitchserve: no command {arguments[0]!r}\n{text}", file=sys.stdout if asked else sys.stderr
    )
    sys.exit(0 if asked else 2)


def _option(location: tuple[int | str, ...]) -> str:
    return "--" + ".".join(map(str, location)).replace("_", "-") if location else "settings"


def _refuse(reason: str) -> None:
    print(f"stitchserve: {reason}", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    main()
