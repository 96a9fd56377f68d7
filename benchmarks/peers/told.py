"""What the comparison tells: the versions that were compared, and tables of what was found."""

import json
import subprocess
from collections.abc import Sequence
from importlib.metadata import version
from statistics import median

Row = dict[str, float | str]
NAMES = {"fastapi": "fastapi", "litserve": "litserve", "mosec": "mosec", "bentoml": "bentoml", "ray": "ray"}
NAMES |= {"triton": "nvidia-pytriton", "stitchserve": "stitchserve"}


def versions(python: str) -> dict[str, str]:
    """What was compared."""
    there = f"{{k: m.version(p) for k, p in {NAMES}.items() if any(m.distributions(name=p))}}"
    code = f"import json, importlib.metadata as m; print(json.dumps({there}))"
    said = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
    return json.loads(said.stdout) if said.returncode == 0 else {"stitchserve": version("stitchserve")}


def tables(rows: Sequence[Row]) -> str:
    """Markdown: for each task a row for each server and what it serves, medians with ranges."""
    said = []
    for task in dict.fromkeys(str(row["task"]) for row in rows):
        mine = [row for row in rows if row["task"] == task and "error" not in row]
        names = list(dict.fromkeys(name for row in mine for name in row if isinstance(row[name], float | int)))
        names = [name for name in names if name != "round"]
        said.append(f"\n{task}\n\n| server | {' | '.join(names)} |\n| --- |{' --- |' * len(names)}")
        for key in dict.fromkeys(map(_key, mine)):
            of = [row for row in mine if _key(row) == key]
            cells = [_cell([float(row[name]) for row in of if name in row]) for name in names]
            said.append(f"| {key} | {' | '.join(cells)} |")
    return "\n".join(said)


def _key(row: Row) -> str:
    what = (row["server"], row["inside"], row.get("anchor", row.get("serves")))
    return ", ".join(str(each) for each in what if each is not None)


def _cell(values: Sequence[float]) -> str:
    if not values:
        return ""
    return f"{median(values):.4g} ({min(values):.4g} to {max(values):.4g})"
