"""An open loop of one or more processes: each sends its share of a trace, all from the same moment on."""

import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial

from benchmarks.peers.running import Server
from benchmarks.peers.servers import KINDS
from server.replay import client
from server.replay.bench import Replayed, Reply, replay, run
from server.replay.report import OK
from server.replay.traces import Trace

MOST = 1000  # requests unanswered at once, of all processes: what stitchserve takes connections for
AHEAD = 1.0  # seconds in which processes start

Read = Callable[[bytes], Reply]


def answered(_: bytes) -> Reply:
    """Where the server does not tell a top-1, there is none."""
    return Reply(OK)


def paced(running: Server, each: Trace, slo: float, query: str = "", clients: int = 1) -> Replayed:
    """What became of the requests of a trace that so many processes sent, and how late each left."""
    read = client.read_classification if running.kind is KINDS["stitchserve"] else answered
    if clients == 1:
        return _sent(running, each, slo=slo, query=query, read=read)
    clients = min(clients, len(each.arrivals))
    parts = [replace(each, arrivals=each.arrivals[first::clients]) for first in range(clients)]
    begins = time.monotonic() + AHEAD
    send = partial(_sent, running, slo=slo, query=query, read=read, most=MOST // clients, begins=begins)
    with ProcessPoolExecutor(clients, multiprocessing.get_context("fork")) as pool:
        found = list(pool.map(send, parts))
    return Replayed([o for of in found for o in of.outcomes], [late for of in found for late in of.lateness])


def _sent(
    running: Server, each: Trace, *, slo: float, query: str, read: Read, most: int = MOST, begins: float | None = None
) -> Replayed:
    target = client.Target(
        client.address(running.url + query), running.bodies, read, max(30.0, 4 * slo), running.kind.headers
    )

    async def all_of_it() -> Replayed:
        async with client.session() as session:
            if begins is not None:
                time.sleep(max(0.0, begins - time.monotonic()))  # nothing else is to do until then
            return await replay(each, client.asking(session, target), slo, most=most)

    return run(all_of_it())
