"""What many small operations take beside a thread of Python that never rests, by how soon that has to give way.

    python -m benchmarks.engine.lock [--operations 240] [--rounds 5]

Every operation of torch lets go of Python's lock, and then has to get it back.
"""

import argparse
import sys
import threading
import time

import torch

from server.recording import SOON


def main() -> None:
    """Print milliseconds, in turns."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--operations", type=int, default=240)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    x, resting = torch.zeros(64, 64), threading.Event()

    def never_rest() -> None:
        while not resting.is_set():
            sum(range(200))

    beside = threading.Thread(target=never_rest)
    beside.start()
    usual = sys.getswitchinterval()
    for _ in range(options.rounds):
        for interval in (usual, 20 * SOON, SOON):
            sys.setswitchinterval(interval)
            began = time.perf_counter()
            for _ in range(options.operations):
                x.add_(1)
            print(f"{interval * 1e3:g} ms: {(time.perf_counter() - began) * 1e3:.1f} ms", end="   ", flush=True)
        print()
    resting.set()
    beside.join()


if __name__ == "__main__":
    main()
