"""The wall clock may be stepped at any time: nothing may read it but what shows or is shown it."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WALL = {"time.time", "time.time_ns", "datetime.now", "datetime.utcnow", "datetime.today", "date.today"}
STAMPED = {Path(f"server/{name}.py") for name in ("nvml", "tracing", "engine", "latencies", "threads")}
"""The driver's samples and spans carry wall time; a profile tells its day, the metrics its age, and threads theirs."""


def wall_clocks(tree: ast.AST) -> Iterator[str]:
    """The uses of the wall clock in a module, however its modules are called there."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            name = ".".join(ast.unparse(node).split(".")[-2:])
            if name in WALL:
                yield name
        elif isinstance(node, ast.ImportFrom) and node.module == "time":
            yield from (f"time.{each.name}" for each in node.names if f"time.{each.name}" in WALL)


@pytest.mark.parametrize("package", ["server", "lookup_tables", "stitching"])
def test_no_module_reads_the_wall_clock(package: str) -> None:
    modules = {path.relative_to(ROOT): path.read_text("utf-8") for path in (ROOT / package).rglob("*.py")}
    found = {path for path, text in modules.items() if list(wall_clocks(ast.parse(text)))}
    assert modules
    assert found - STAMPED == set()


@pytest.mark.parametrize("text", ["import time; time.time()", "from time import time", "datetime.datetime.now(utc)"])
def test_the_wall_clock_is_found(text: str) -> None:
    assert list(wall_clocks(ast.parse(text)))
