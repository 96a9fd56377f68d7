"""FastAPI and uvicorn by hand, as most would write it: by_fastapi.py --port 8000

One process. An image is a request's body; it is decoded and classified on the thread pool that FastAPI has, one image
at a time: nobody batches, refuses or counts.
"""

import argparse
from threading import Lock

import uvicorn
from fastapi import FastAPI, HTTPException, Request
from starlette.concurrency import run_in_threadpool

from benchmarks.peers.work import Best, Nothing, work
from server.errors import ServeError

app = FastAPI()
worker, alone = work(), Lock()


def classify(body: bytes) -> Best:
    """On a thread."""
    try:
        image = worker.decode(body)
    except ServeError as error:
        raise HTTPException(error.status, error.detail) from error
    with alone:
        return worker.classify([image])[0]


@app.post("/classify")
async def answer(request: Request) -> dict[str, object]:
    """The likeliest class. Where there is nothing to do, no thread does it."""
    body = await request.body()
    best = classify(body) if isinstance(worker, Nothing) else await run_in_threadpool(classify, body)
    return best._asdict()


@app.get("/ready")
async def ready() -> None:
    """It is."""


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8000)
    uvicorn.run(app, port=parser.parse_args().port, access_log=False, log_level="warning")
