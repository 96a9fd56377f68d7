"""The doorman: while images have to be refused for the load, whoever comes is looked at before anything else is done.

On its way through the application a refusal takes two or three times as long, and that is the engine's time.
"""

from collections.abc import Sequence

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic_core import to_json

from server import logs
from server.answering import asked
from server.app import Accounting
from server.errors import DeadlinePassed, Overloaded, ServeError
from server.gate import CLASSIFY
from server.parameters import Query
from server.refused import Doorman, Header, Refused
from server.service import Service
from server.tenants import key_in


def doorman(app: FastAPI) -> Doorman:
    """Who stands before an application; nobody where others than it are to see every request, or log it."""
    service: Service = app.state.service
    outermost: object = app.user_middleware[0].cls  # CORS and traces would be further out
    if outermost is not Accounting or service.settings.access_log:
        return lambda *_: None
    path = CLASSIFY.path.encode()

    def refuse(url: bytes, headers: Sequence[Header], waiting: float) -> Refused | None:
        where, _, query = url.partition(b"?")
        if where != path:
            return None
        refused = _refused(service, query, headers, waiting) if service.controller.turning_away else None
        service.front.coming += refused is None
        return refused

    return refuse


def _refused(service: Service, query: bytes, headers: Sequence[Header], waiting: float) -> Refused | None:
    """What the route says of the load alone; whatever else there is to say of a request is the route's."""
    now = due = service.clock()
    said = {name.decode("latin-1"): value.decode("latin-1") for name, value in reversed(headers)}
    try:
        wanted = Query.of(query)
        tenant, bucket = service.whose(key_in(said), None)
        if bucket or service.refusing:
            return None
        request_id = logs.named(said.get("x-request-id", ""))
        budget, top_k = wanted.asks, wanted.top_k
        ask = asked(service, budget, top_k, now - waiting, request_id, tenant=tenant, nearest=wanted.nearest)
        due = ask.stages.deadline
        ask.stages.end("receive")
        service.check(ask.allowed, due - now, tenant, behind=service.front.coming)
    except (DeadlinePassed, Overloaded) as error:
        held = service.front.held(due)
        service.metrics.refuse(error)
        service.metrics.count_request(CLASSIFY.path, error.status, service.clock() - now + held)
        told = [(b"x-request-id", request_id.encode())]
        if error.retry_seconds is not None:
            told.append((b"retry-after", b"%d" % error.retry_seconds))
        return Refused(error.status, told, to_json(error.problem()), held)
    except (ServeError, RequestValidationError):
        pass
    return None
