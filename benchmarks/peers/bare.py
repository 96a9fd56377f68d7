"""Our engine without a server: images a second that one process decodes and classifies, by PEER_WORK.

    PEER_WORK=deit_ti_s_b:0 PEER_ROWS=16 python -m benchmarks.peers.bare IMAGE ... [--seconds 8] [--decoders 2]

Threads decode, two as in the server, while batches of PEER_ROWS run, as many at once as the engine takes. With --alone
each image is decoded and classified before the next, so that a second divided by the figure is the latency of one.
"""

import argparse
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from benchmarks.peers.work import ROWS, Best, Work, work


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", nargs="+", type=Path)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--decoders", type=int, default=2, help="threads that decode")
    parser.add_argument("--alone", action="store_true", help="one image after the other")
    given = parser.parse_args()
    worker, files = work(), cycle([path.read_bytes() for path in given.images])
    if given.alone:
        print(alone(worker, files, given.seconds))
        return
    with ThreadPoolExecutor(given.decoders) as decoders, ThreadPoolExecutor(worker.lanes) as engine:

        def batch() -> list[Future[Any]]:
            return [decoders.submit(worker.decode, file) for file in islice(files, ROWS)]

        worker.classify([each.result() for each in batch()])
        ahead = deque(batch() for _ in range(worker.lanes))
        running: deque[Future[list[Best]]] = deque()
        done, began = 0, time.perf_counter()
        while time.perf_counter() - began < given.seconds:
            images = [each.result() for each in ahead.popleft()]
            ahead.append(batch())
            running.append(engine.submit(worker.classify, images))
            if len(running) == worker.lanes:
                done += len(running.popleft().result())
        print(done / (time.perf_counter() - began))


def alone(worker: Work, files: Iterator[bytes], seconds: float) -> float:
    """Images a second, one after the other."""
    done, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        done += len(worker.classify([worker.decode(next(files))]))
    return done / (time.perf_counter() - began)


if __name__ == "__main__":
    main()
