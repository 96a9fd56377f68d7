"""The short way of an image to its answer: past ASGI and FastAPI, with all that is done for it there."""

import asyncio
import logging

from fastapi import FastAPI, Request, Response
from starlette.types import Receive, Scope

from server.accounting import STOPPED, Account, others_see
from server.app import on_failure, on_refusal
from server.gate import CLASSIFY, Gate
from server.metrics import Metrics

log = logging.getLogger(__name__)


class Shortcut:
    """Answers whole requests to an application's `POST /classify`, each in a task of its own."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app
        self._gate: Gate = app.state.gate
        self._metrics: Metrics = app.state.service.metrics

    async def answer(self, scope: Scope, receive: Receive) -> Response:
        """The response to one, with all of its headers."""
        scope["app"] = self._app
        said: dict[bytes, bytes] = dict(scope["headers"])
        account = Account(self._metrics, scope["state"], said.get(b"x-request-id", b"").decode("latin-1"))
        try:
            response = await self._gate.answer(scope, receive)
        except asyncio.CancelledError:  # the server's time to finish is over
            response = await on_refusal(Request(scope), STOPPED)
        except Exception as error:
            log.exception("a request failed")
            response = await on_failure(Request(scope), error)
        response.raw_headers.extend(account.headers())
        account.end(CLASSIFY.path, response.status_code)
        return response


def shortcut(app: FastAPI) -> Shortcut | None:
    """That of an application; None where others are to see every request."""
    return None if others_see(app) else Shortcut(app)
