"""Our engine without a server: images a second that one process decodes and classifies, by PEER_WORK.

    PEER_WORK=deit_ti_s_b:0 python -m benchmarks.peers.bare IMAGE ... [--seconds 8] [--rows 16]

Two threads decode, as in the server, while batches of `rows` run.
"""

import argparse
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle, islice
from pathlib import Path

from benchmarks.peers.work import work


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", nargs="+", type=Path)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--rows", type=int, default=16)
    given = parser.parse_args()
    worker, files = work(), cycle([path.read_bytes() for path in given.images])
    with ThreadPoolExecutor(2) as pool:

        def batch() -> list:
            return [pool.submit(worker.decode, file) for file in islice(files, given.rows)]

        worker.classify([each.result() for each in batch()])
        ahead, done, began = batch(), 0, time.perf_counter()
        while time.perf_counter() - began < given.seconds:
            images = [each.result() for each in ahead]
            ahead = batch()
            done += len(worker.classify(images))
        print(done / (time.perf_counter() - began))


if __name__ == "__main__":
    main()
