"""mosec, written as its documentation does it: by_mosec.py --port 8000

An image is a request's body, decoded in the worker; batches of up to PEER_ROWS after 10 ms, PEER_COPIES workers.
"""

import mosec
from mosec.errors import ValidationError

from benchmarks.peers.work import COPIES, ROWS, Best, work
from server.errors import ServeError


class Classifier(mosec.Worker):
    """Its answers become JSON by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.work = work()

    def deserialize(self, data: bytes) -> object:
        """A body -> an image."""
        try:
            return self.work.decode(data)
        except ServeError as error:
            raise ValidationError(error.detail) from error

    def forward(self, data: list) -> list[dict[str, object]]:
        """A batch."""
        best: list[Best] = self.work.classify(data)
        return [each._asdict() for each in best]


if __name__ == "__main__":
    server = mosec.Server()
    server.append_worker(Classifier, num=COPIES, max_batch_size=ROWS, max_wait_time=10)
    server.run()
