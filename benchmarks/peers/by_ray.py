"""Ray Serve, written as its documentation does it: by_ray.py --port 8000

One replica. An image is a request's body, decoded there; batches of up to PEER_ROWS after 10 ms. Every replica may
have as many requests as Ray lets it.
"""

import argparse
import signal

import ray
from ray import serve
from starlette.requests import Request
from starlette.responses import JSONResponse

from benchmarks.peers.work import ROWS, Best, work
from server.errors import ServeError


@serve.deployment(max_ongoing_requests=64)
class Classifier:
    """One copy of the network."""

    def __init__(self) -> None:
        self.work = work()

    @serve.batch(max_batch_size=ROWS, batch_wait_timeout_s=0.01)
    async def classify(self, images: list) -> list[Best]:
        """A batch."""
        return self.work.classify(images)

    async def __call__(self, request: Request) -> JSONResponse:
        """One request."""
        try:
            image = self.work.decode(await request.body())
        except ServeError as error:
            return JSONResponse({"detail": error.detail}, error.status)
        return JSONResponse((await self.classify(image))._asdict())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8000)
    ray.init(include_dashboard=False, logging_level="warning", log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": parser.parse_args().port})
    serve.run(Classifier.bind(), route_prefix="/classify")
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    ray.shutdown()
