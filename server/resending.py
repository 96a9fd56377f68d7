"""Ray Serve's proxy sends a request again whose replica died over it: ASGI around the proxy, which knows no Ray.

Ray's own proxy does not: the client gets a 500. Ray takes this from the environment of every node, as
`RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH=server.resending:middlewares`.
"""

import logging
import re

from starlette.middleware import Middleware
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.errors import Unavailable
from server.refused import PROBLEM

log = logging.getLogger(__name__)

MOST_TRIES = 3
READS = {"GET", "HEAD"}
CLASSIFIES = re.compile(r".*/(classify|classify/batch|infer)")
"""POSTs that change nothing, and so may be sent again; the proxy serves other applications too."""


def middlewares() -> list[Middleware]:
    """What Ray Serve puts around its proxy."""
    return [Middleware(Resending)]


class Resending:
    """Gives a request to the proxy again that it returned from without a whole answer; the router knows by then.

    An answer is held back until it is whole, since a replica may die over it too.
    """

    def __init__(self, app: ASGIApp, most_tries: int = MOST_TRIES) -> None:
        self.app, self.most_tries = app, most_tries

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request; what may not be sent twice passes through."""
        if scope["type"] != "http" or not _repeatable(scope):
            await self.app(scope, receive, send)
            return
        body = _Body(receive)
        for _ in range(self.most_tries):
            answer = _Answer()
            await self.app({**scope}, body.from_its_start(), answer.hold)
            if answer.whole:
                for message in answer.messages:
                    await send(message)
                return
            if body.client_gone:
                return
            log.warning("no answer to %s %s: its replica died", scope["method"], scope["path"])
        refusal = Unavailable(f"{self.most_tries} replicas did not live to answer")
        headers = {"Retry-After": "1"}
        response = JSONResponse(refusal.problem(), refusal.status, headers, PROBLEM)
        await response(scope, receive, send)


def _repeatable(scope: Scope) -> bool:
    return scope["method"] in READS or (scope["method"] == "POST" and bool(CLASSIFIES.fullmatch(scope["path"])))


class _Body:
    """A request's body, kept as it comes."""

    def __init__(self, receive: Receive) -> None:
        self._receive, self._kept = receive, list[Message]()

    @property
    def client_gone(self) -> bool:
        """Whether nobody waits for an answer."""
        return any(message["type"] == "http.disconnect" for message in self._kept)

    def from_its_start(self) -> Receive:
        """Gives what came already, then what comes."""
        read = 0

        async def receive() -> Message:
            nonlocal read
            if read == len(self._kept):
                self._kept.append(await self._receive())
            read += 1
            return self._kept[read - 1]

        return receive


class _Answer:
    """An answer's messages."""

    def __init__(self) -> None:
        self.messages, self.whole = list[Message](), False

    async def hold(self, message: Message) -> None:
        """Keep one; a header that both the application and the proxy give, as X-Request-Id, is kept once."""
        if message["type"] == "http.response.start":
            message = {**message, "headers": list(dict.fromkeys(map(tuple, message["headers"])))}
        self.messages.append(message)
        self.whole = message["type"] == "http.response.body" and not message.get("more_body", False)
