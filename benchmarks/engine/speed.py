"""The engine as it serves by default against eager float32 timm, and OpenVINO where it is installed.

    python -m benchmarks.engine.speed                                  # DeiT-Ti, -S and -B, then the digits
    python -m benchmarks.engine.speed --threads 1 --clock cpu          # where others are at work: processor time
    PYTHONPATH=/where/openvino/is python -m benchmarks.engine.speed --openvino

Every round runs each once, in turns. "same process" is timm inside the engine's process, which keeps freed memory;
"plain process" is timm in a process of its own where nothing is set, as a user would meet it. Ratios are of each round.
"""

import argparse
import os
from statistics import median

import torch

from benchmarks.engine.worker import Worker
from lookup_tables.table import LookupTable, folder
from server.device import product_rate
from server.process import spin_briefly

CASES = {"deit_ti_s_b": (0, 1, 2), "digits": (0, 1, 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default="4,8,16")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    parser.add_argument("--openvino", action="store_true")
    parser.add_argument("--families", default=",".join(CASES))
    arguments = parser.parse_args()
    options = ["--threads", str(arguments.threads)] if arguments.threads else []
    prepared = dict(os.environ)
    spin_briefly(prepared, {})
    ours, plain = Worker("--keep", *options, env=prepared), Worker(*options, env=os.environ)
    rate = product_rate(torch.device("cpu"), torch.float32)
    print(f"{torch.get_num_threads()} threads, products in float32 {rate / 1e9:.0f} GFLOP/s; {arguments.clock} time")
    print(f"{'anchor':<20} {'rows':>4} {'engine':>10} {'of bound':>8}  times as fast as, median (range)")
    for name in arguments.families.split(","):
        table = LookupTable.load(folder(name))
        for stitch in CASES[name]:
            for rows in map(int, arguments.rows.split(",")):
                what = {"family": name, "stitch": stitch, "rows": rows, "dtype": arguments.dtype}
                sides = {"timm, same process": (ours, "timm"), "timm, plain process": (plain, "timm")}
                if arguments.openvino:
                    sides["OpenVINO bf16"] = (plain, "openvino")
                took: dict[str, list[float]] = {side: [] for side in ("engine", *sides)}
                for _ in range(arguments.rounds):
                    took["engine"].append(ours.ask(run="engine", **what)[arguments.clock])
                    for side, (worker, kind) in sides.items():
                        took[side].append(worker.ask(run=kind, **what)[arguments.clock])
                bound = 2 * table.entry(stitch).flops * rows / median(took["engine"]) / rate
                ratios = [
                    f"{side} {spread([a / b for a, b in zip(took[side], took['engine'], strict=True)])}"
                    for side in sides
                ]
                start = (
                    f"{table.entry(stitch).route:<20} {rows:>4} {median(took['engine']) * 1e3:>7.1f} ms {bound:>8.0%}"
                )
                print(f"{start}  {'; '.join(ratios)}", flush=True)
    ours.close()
    plain.close()


def spread(ratios: list[float]) -> str:
    return f"{median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"


if __name__ == "__main__":
    main()
