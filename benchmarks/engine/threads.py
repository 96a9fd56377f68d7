"""Threads of the engine, how long idle ones spin, and a decoding thread beside them: images a second of each.

    python -m benchmarks.engine.threads --family deit_ti_s_b --stitch 1 --rows 4

Every setting is a process of its own, since OpenMP reads its settings once. They take turns, round after round; the
others sleep meanwhile.
"""

import argparse
import os
from statistics import median

from benchmarks.engine.worker import Worker
from server.process import SPIN

SPINS = (None, "2000", "0")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", default="digits")
    parser.add_argument("--stitch", type=int, default=2)
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--times", type=int, default=10, help="batches a turn")
    parser.add_argument("--threads", default="1,2")
    arguments = parser.parse_args()
    what = {"run": "engine", "family": arguments.family, "stitch": arguments.stitch, "rows": arguments.rows}
    settings = [(n, spin) for n in arguments.threads.split(",") for spin in (SPINS if n != "1" else SPINS[:1])]
    workers = {(n, spin, decode): worker(n, spin, decode) for n, spin in settings for decode in (False, True)}
    speeds: dict[tuple[str, str | None, bool], list[tuple[float, float]]] = {key: [] for key in workers}
    for _ in range(arguments.rounds):
        for key, process in workers.items():
            answer = process.ask(**what, times=arguments.times)
            rows = arguments.rows * arguments.times
            speeds[key].append((rows / answer["wall"], answer["units"] / answer["wall"]))
    print(f"{arguments.family}, stitch {arguments.stitch}, {arguments.rows} rows: images/s, median (range)")
    for (n, spin, decode), found in speeds.items():
        engine, decoded = zip(*found, strict=True)
        images = f"{median(engine):.0f} ({min(engine):.0f}-{max(engine):.0f})"
        beside = f"beside {median(decoded):.0f} JPEG/s" if decode else "alone"
        print(f"threads {n}, spin {spin or 'default':>7}: engine {images}, {beside}")
    for process in workers.values():
        process.close()


def worker(threads: str, spin: str | None, decode: bool) -> Worker:
    env = {name: value for name, value in os.environ.items() if name != SPIN}
    options = ["--keep", "--threads", threads, *(["--decode"] if decode else [])]
    return Worker(*options, env=env | ({SPIN: spin} if spin else {}))


if __name__ == "__main__":
    main()
