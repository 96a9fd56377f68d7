"""BentoML, written as its documentation does it: by_bentoml.py --port 8000

An image is a form's file, which BentoML keeps and hands over as a path; batches of up to PEER_ROWS, one worker.
"""

import argparse
import os
import sys
from pathlib import Path

import bentoml
from bentoml.exceptions import InvalidArgument

from benchmarks.peers.work import ROWS, work
from server.errors import ServeError

HERE = Path(__file__).resolve()


@bentoml.service(workers=1, traffic={"timeout": 30})
class Classifier:
    """One copy of the network."""

    def __init__(self) -> None:
        self.work = work()

    @bentoml.api(batchable=True, max_batch_size=ROWS, max_latency_ms=30_000)
    def classify(self, image: list[Path]) -> list[dict]:
        """A batch."""
        try:
            images = [self.work.decode(each.read_bytes()) for each in image]
        except ServeError as error:
            raise InvalidArgument(error.detail) from error
        return [each._asdict() for each in self.work.classify(images)]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8000)
    port = str(parser.parse_args().port)
    command = [sys.executable, "-m", "bentoml", "serve", f"{HERE.stem}:Classifier", "--working-dir", str(HERE.parent)]
    os.execv(sys.executable, [*command, "--host", "127.0.0.1", "--port", port])
