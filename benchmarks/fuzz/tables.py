"""Fuzz target: lookup tables, the files of a folder one after the other, each after a line `=== name`."""

import json
import math
import re
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.fuzz.target import Target
from lookup_tables.table import LookupTable, TableError

FAMILY = {
    **{"schema": 1, "family": "small", "anchors": ["a", "b"], "classes": 2, "labels": "labels.txt"},
    **{"top1": {"source": "made up", "images": 100}, "flops": {"source": "made up", "convention": "multiply-adds"}},
    "preprocessing": {
        **{"size": 64, "crop": 1.0, "interpolation": "bicubic"},
        **{"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.25, 1]},
    },
    "checkpoint": {"name": "small.safetensors", "sha256": "0" * 64},
}
STITCHES = "stitch,route,flops,params,top1\n0,a[0:2],100,10,60\n1,b[0:2],400,40,75.5\n3,a[0:1]>b[1:2],250,30,\n"
MODULES = """step,module,joins
a.stem,a.stem,
a.blocks.0,a.block,
a.blocks.1,a.block,
a.head,a.head,
b.stem,b.stem,
b.blocks.0,b.block,
b.blocks.1,b.block,
b.head,b.head,
stitch_layers.0.0,a>b,a[:1]>b[1:]
"""
OF_STITCHES = """# schema: 1
# device: cpu-test
# threads: 2
stitch,batch,p50_ms,p99_ms,runs
0,1,10,12,30
0,4,16,20,30
1,1,12,1.8e1,30
3,8,30.5,33,30
"""
KINDS = ("input", "output", "a.stem", "a.block", "a.head", "b.stem", "b.block", "b.head", "a>b")
OF_MODULES = "# schema: 1\n# device: cpu-modules\nmodule,stitch,batch,p50_ms,p99_ms,runs\n" + "".join(
    f"{kind},,{batch},{batch}.5,{batch + 1},30\n" for kind in KINDS for batch in (1, 4)
)
NAMES = ("family.json", "labels.txt", "stitches.csv", "modules.csv", "latency.csv")
_MARK = re.compile(rb"^=== ([a-z.]{1,20})\n", re.MULTILINE)


def table(**changed: str) -> bytes:
    """A folder's files in one."""
    files = {"family": json.dumps(FAMILY) + "\n", "labels": "zero\none\n", "stitches": STITCHES} | changed
    return "".join(f"=== {name}\n{files[name.split('.')[0]]}" for name in NAMES if name.split(".")[0] in files).encode()


SEEDS = (
    table(),
    table(latency=OF_STITCHES),
    table(modules=MODULES, latency=OF_MODULES),
    table(modules=MODULES, latency=OF_MODULES + ",3,8,30.5,33,30\n"),
    table(stitches="\ufeff" + STITCHES.replace("\n", "\r\n")),
    table(stitches='stitch,route,flops,params,top1,more\n0,"a[0:2]",100,10,,"x, ""y"""\n'),
    table(stitches=STITCHES.replace("60", "").replace("75.5", ""), latency=OF_STITCHES),
)


class Tables:
    """Writes the files into a folder of its own, and reads them."""

    def __init__(self) -> None:
        self._kept = TemporaryDirectory()
        self._folder = Path(self._kept.name, "tables", "small")
        self._folder.mkdir(parents=True)

    def run(self, data: bytes) -> LookupTable:
        """Loads a table and asks it, asserting that every number it gives is one."""
        pieces = _MARK.split(data)[1:]
        files = dict(zip(pieces[::2], pieces[1::2], strict=True))
        for name in NAMES:
            path = self._folder / name
            if name.encode() in files:
                path.write_bytes(files[name.encode()])
            else:
                path.unlink(missing_ok=True)
        latency = self._folder / "latency.csv"
        table = LookupTable.load(self._folder, latency if latency.exists() else None)
        ask(table)
        return table


def ask(table: LookupTable) -> None:
    """What a server asks of a table before it serves."""
    assert table.hull(), table
    assert set(table.hull()) <= set(table.frontier())
    assert table.nearest(max_flops=1.0, min_top1=0.5)
    if table.latency is None:
        return
    for rows in (1, 2, 1000):
        seconds = [table.seconds(entry.stitch, rows) for entry in table.entries[:8]]
        assert all(0 < of_one < math.inf for of_one in seconds), seconds
        assert table.hull("latency", rows)
    mixture = {entry.stitch: 2 for entry in table.entries[:3]}
    assert 0 < table.batch_seconds(mixture) < math.inf, mixture


TARGET = Target(Tables().run, (TableError,), SEEDS)
