"""What can go wrong with a call.

StitchserveError
├── Unreachable        no connection, or it broke before the answer
├── TimedOut           no answer in the time there was for it
└── Refused            the server, or a balancer before it, said no
    ├── Forbidden      401, 403: the key is missing, wrong, or not enough
    ├── RateLimited    429: more requests than this client may send
    ├── Unavailable    503: overloaded or stopping
    └── DeadlinePassed 504: the deadline passed before the image could be run
"""

# ruff: noqa: N818 - a class is named after what went wrong; the base says it is an error

import email.utils
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import httpx


class StitchserveError(Exception):
    """A call that gave no answer."""


class Unreachable(StitchserveError):
    """No connection to the server, or it broke before the answer came."""


class TimedOut(StitchserveError):
    """The server did not answer in the time there was for it."""


class Refused(StitchserveError):
    """The server's problem (RFC 9457): `status`, `type`, `title`, `detail`, and all of its members in `problem`.

    `retry_after` is in seconds, where the server gave it; `request_id` is what its log knows the request by.
    """

    def __init__(self, problem: Mapping[str, Any], retry_after: float | None, request_id: str | None) -> None:
        self.status, self.problem = int(problem["status"]), problem
        self.type = str(problem.get("type", "about:blank"))
        self.title = str(problem.get("title", ""))
        self.detail = str(problem.get("detail", ""))
        self.retry_after, self.request_id = retry_after, request_id
        super().__init__(f"{self.status} {self.title}: {self.detail}")


class Forbidden(Refused):
    """The API key is missing, wrong, or not enough for this."""


class RateLimited(Refused):
    """More requests than this client may send; not sent again, so that a client in a hurry learns of it."""


class Unavailable(Refused):
    """Overloaded or stopping, also after the tries that there were."""


class DeadlinePassed(Refused):
    """The deadline passed before the image could be run."""


_BY_STATUS: Mapping[int, type[Refused]] = {
    401: Forbidden,
    403: Forbidden,
    429: RateLimited,
    503: Unavailable,
    504: DeadlinePassed,
}


def refusal(response: httpx.Response) -> Refused:
    """What a response that is no success says; a balancer's page of HTML has a status and a title alone."""
    problem: dict[str, Any] = {"title": response.reason_phrase}
    if response.headers.get("content-type", "").startswith("application/problem+json"):
        with suppress(ValueError, TypeError):
            problem |= response.json()
    return refused(
        problem | {"status": response.status_code},
        retry_after=_seconds(response.headers.get("retry-after")),
        request_id=response.headers.get("x-request-id"),
    )


def refused(problem: Mapping[str, Any], *, retry_after: float | None = None, request_id: str | None = None) -> Refused:
    """The exception for a problem, by its `status`."""
    return _BY_STATUS.get(int(problem["status"]), Refused)(problem, retry_after, request_id)


def _seconds(retry_after: str | None) -> float | None:
    """Retry-After, which is a number of seconds or a date."""
    if retry_after is None:
        return None
    if retry_after.isdecimal():
        return float(retry_after[:9])
    try:
        return max(0.0, email.utils.parsedate_to_datetime(retry_after).timestamp() - time.time())
    except ValueError:
        return None
