"""stitchserve whose decoder and engine only wait: python -m benchmarks.served.waiting --decode-ms 20 [options of serve]

As if each thread that decodes had a core of its own and the engine a device: HTTP, admission and the queue can be
looked at with more of them than this machine has. A batch takes what this device's table says of it.
"""

import argparse
import time
from collections import Counter

from benchmarks.peers.nothing import IMAGE, RANKING
from lookup_tables.costs import Way
from lookup_tables.table import LookupTable
from server import service
from server.cli import main
from server.engine import Engine, Image, Ranking

computing = Engine.run


def waiting(engine: Engine, images: list[Image], stitches: list[int], way: Way | None = None) -> list[Ranking]:
    """An answer for each, after as long as the table says; while there is none, the engine computes."""
    if not isinstance(engine.costs, LookupTable):
        return computing(engine, images, stitches, way)
    time.sleep(engine.costs.batch_seconds(Counter(stitches)))
    return [RANKING] * len(images)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--decode-ms", type=float, required=True)
    given, options = parser.parse_known_args()

    def decode(_: bytes, **__: object) -> Image:
        """Always alike."""
        time.sleep(given.decode_ms / 1e3)
        return IMAGE

    Engine.run = waiting
    service.decode = decode
    service.is_quick = lambda _: False
    service.most_threads = lambda count: count  # those that wait need no core
    main(["serve", *options])
