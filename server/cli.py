"""The command line: `stitchserve COMMAND`, one module for each command."""

import logging
import os
import sys
from collections.abc import Mapping
from pkgutil import resolve_name

from pydantic import BaseModel, ValidationError
from pydantic_settings import CliApp, SettingsConfigDict

from server.process import prepare
from server.settings import PREFIX

# By name, so that a command loads what it needs alone: listing stitches takes no torch.
COMMANDS: Mapping[str, str] = {
    "serve": "server.serve:Serve",
    "profile": "server.profiling:Profile",
    "evaluate": "server.evaluation:Evaluate",
    "train": "server.training:Train",
    "build": "server.building:Build",
    "pull": "server.pulling:Pull",
    "simulate": "server.simulating:Simulate",
    "stitches": "server.listing:Stitches",
    "bench": "server.benching:Bench",
    "doctor": "server.doctor:Doctor",
}
COMPUTING = {"serve", "profile", "evaluate", "doctor"}
OPTIONAL: Mapping[str, str] = {
    "sklearn": "train",
    "aiohttp": "bench",
    "opentelemetry": "otel",
    "grpc": "grpc",
    "google": "grpc",
    "tritonclient": "grpc",
}
"""Modules that may be missing, and the extra that brings them."""

USAGE = """usage: stitchserve COMMAND [options]

  serve      answer images over HTTP
  profile    measure latency per stitch and batch size on this device
  evaluate   measure top-1 of every stitch and write the lookup table
  train      train a family on a folder of images
  build      join trained anchors by least squares, without training
  pull       download a family's released checkpoint
  simulate   compare policies on traces, on a virtual clock
  stitches   list a family's stitches, or draw them
  bench      replay a trace against a server, ours or another
  doctor     say what would serve here, how fast, and what limits it

stitchserve COMMAND --help tells more."""


def main(argv: list[str] | None = None) -> None:
    """The command line. A fault that the user can mend ends with its reason and status 2."""
    arguments = sys.argv[1:] if argv is None else argv
    if not arguments or arguments[0] in {"-h", "--help"}:
        print(USAGE)
        sys.exit(0)
    if arguments[0] not in COMMANDS:
        _refuse(f"no command {arguments[0]!r}\n{USAGE}")
    if arguments[0] in COMPUTING:
        prepare()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        CliApp.run(_command(arguments[0]), cli_args=arguments[1:])
        sys.stdout.flush()
    except ValidationError as error:
        _refuse("; ".join(f"{_option(fault['loc'])}: {fault['msg']}" for fault in error.errors()))
    except BrokenPipeError:  # whoever reads it has seen enough, as `head` has
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (ValueError, OSError) as error:
        _refuse(str(error))
    except ModuleNotFoundError as error:
        module = (error.name or "").partition(".")[0]
        if module not in OPTIONAL:
            raise
        _refuse(f"{module} is not installed: pip install 'stitchserve[{OPTIONAL[module]}]'")


def _command(name: str) -> type[BaseModel]:
    """The command, its options in kebab case; only serve reads STITCHSERVE_*, and none a variable such as DATA."""
    command: type[BaseModel] = resolve_name(COMMANDS[name])
    config = SettingsConfigDict(
        cli_prog_name=f"stitchserve {name}",
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_hide_none_type=True,
        cli_avoid_json=True,
        env_prefix=PREFIX if name == "serve" else f"{PREFIX}{name}_",
    )
    return type(name, (command,), {"__doc__": command.__doc__, "model_config": config})


def _option(location: tuple[int | str, ...]) -> str:
    return "--" + ".".join(map(str, location)).replace("_", "-") if location else "settings"


def _refuse(reason: str) -> None:
    print(f"stitchserve: {reason}", file=sys.stderr)
    sys.exit(2)
