"""stitchserve: by_stitchserve.py --port 8000 [options of `stitchserve serve`]; nothing.py where PEER_WORK is `noop`."""

import os
import sys

from benchmarks.peers.work import NOOP

if __name__ == "__main__":
    program = ["benchmarks.peers.nothing"] if os.environ.get("PEER_WORK") == NOOP else ["server", "serve"]
    os.execv(sys.executable, [sys.executable, "-m", *program, *sys.argv[1:]])
