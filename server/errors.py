"""The one error tree: every refusal a caller can meet, with its HTTP status.

ServeError
├── BadRequest         400  the request itself cannot be read, such as a broken multipart body
├── BadImage           400  not an image, truncated or corrupt
├── Unauthorized       401  an API key that is nobody's, or none where one is needed
├── Forbidden          403  not to be had from this server
├── UnknownModel       404  no model has this name
├── SlowBody           408  the body did not arrive in time
├── TooLarge           413  too many bytes, pixels or decoding steps
├── UnsupportedType    415  not an accepted image format
├── BadBudget          422  a budget that does not parse
├── UnknownStitch      422  no stitch has this id
├── BadControl         422  a change to the running server that cannot be
├── Infeasible         422  no stitch can meet this budget, even on an idle machine
├── RateLimited        429  more requests than this client may send
├── ClientGone         499  the client left first; never sent
├── InternalError      500  running the request failed
├── Unavailable        503  come back later
│   ├── Overloaded          even the cheapest stitch is too much for the load
│   └── Draining            the server is stopping
└── DeadlinePassed     504  the deadline passed before the image could be run
"""

# ruff: noqa: N818 - a class is named after what went wrong, the way the contract does; the base says it is an error

from typing import Literal


class ServeError(Exception):
    """A refusal: `detail` for people, `extra` for programs, `retry_after` in seconds where coming back helps."""

    status = 500
    title = "Error"
    type = "about:blank"

    def __init__(self, detail: str, *, retry_after: float | None = None, **extra: object) -> None:
        super().__init__(detail)
        self.detail = detail
        self.retry_after = retry_after
        self.extra = extra

    @property
    def retry_seconds(self) -> int | None:
        """As `retry_after`, in whole seconds, one at the least."""
        return None if self.retry_after is None else max(1, round(self.retry_after))

    def problem(self) -> dict[str, object]:
        """The members of an `application/problem+json` body (RFC 9457); no `extra` replaces a standard one."""
        standard = {"type": self.type, "title": self.title, "status": self.status, "detail": self.detail}
        return standard | self.extra | standard


class BadRequest(ServeError):
    """The request cannot be read, before any image in it."""

    status = 400
    title = "Bad request"
    type = "/problems/bad-request"


class BadImage(ServeError):
    """The body is not an image, is truncated or is corrupt."""

    status = 400
    title = "Bad image"
    type = "/problems/bad-image"


class Forbidden(ServeError):
    """Not to be had from this server, as it was started."""

    status = 403
    title = "Forbidden"
    type = "/problems/forbidden"


class Unauthorized(ServeError):
    """An API key that is nobody's, or none where one is needed."""

    status = 401
    title = "Unauthorized"
    type = "/problems/unauthorized"


class UnknownModel(ServeError):
    """No model has the asked name."""

    status = 404
    title = "Unknown model"
    type = "/problems/unknown-model"


class SlowBody(ServeError):
    """The body did not arrive in time."""

    status = 408
    title = "Body too slow"
    type = "/problems/slow-body"


class TooLarge(ServeError):
    """The image has more bytes, pixels or decoding steps than the server takes."""

    status = 413
    title = "Image too large"
    type = "/problems/too-large"


class UnsupportedType(ServeError):
    """The body is not in an accepted image format, or is declared as something else."""

    status = 415
    title = "Unsupported type"
    type = "/problems/unsupported-type"


class BadBudget(ServeError):
    """A budget that does not parse."""

    status = 422
    title = "Bad budget"
    type = "/problems/bad-budget"


class BadControl(ServeError):
    """A change to the running server that cannot be."""

    status = 422
    title = "Bad control"
    type = "/problems/bad-control"


class UnknownStitch(ServeError):
    """No stitch of the family has the asked id."""

    status = 422
    title = "Unknown stitch"
    type = "/problems/unknown-stitch"


class Infeasible(ServeError):
    """No stitch can meet the budget even on an idle machine; `nearest_stitch` is the id that comes closest."""

    status = 422
    title = "Infeasible budget"
    type = "/problems/infeasible"

    def __init__(self, detail: str, *, nearest_stitch: int | None = None, **extra: object) -> None:
        super().__init__(detail, retry_after=None, nearest_stitch=nearest_stitch, **extra)


class RateLimited(ServeError):
    """More requests than this client may send; `retry_after` seconds later it may send one."""

    status = 429
    title = "Too many requests"
    type = "/problems/rate-limited"


class ClientGone(ServeError):
    """The client left before its answer; counted in the metrics under nginx's 499, never sent."""

    status = 499
    title = "Client gone"
    type = "/problems/client-gone"


class InternalError(ServeError):
    """Running the request failed. `detail` and `extra` are for the log; the caller is told only that it failed."""

    status = 500
    title = "Internal error"
    type = "/problems/internal-error"

    def problem(self) -> dict[str, object]:
        """The standard members, with nothing of what went wrong inside."""
        detail = "the server failed to run this request"
        return {"type": self.type, "title": self.title, "status": self.status, "detail": detail}


class Unavailable(ServeError):
    """The server cannot take the request now; `retry_after` seconds later it may."""

    status = 503
    title = "Unavailable"
    type = "/problems/unavailable"

    def __init__(self, detail: str, *, retry_after: float = 1.0, **extra: object) -> None:
        super().__init__(detail, retry_after=retry_after, **extra)


class Overloaded(Unavailable):
    """The load is more than even the cheapest stitch within the budget can carry, or than there is room for.

    `reason`: full, the places; memory; bodies, the room for them; share, its tenant's, is exceeded; doomed, to be late
    even at the cheapest stitch.
    """

    title = "Overloaded"
    type = "/problems/overloaded"

    def __init__(
        self,
        detail: str,
        *,
        retry_after: float = 1.0,
        reason: Literal["full", "memory", "bodies", "share", "doomed"] = "doomed",
        stage: Literal["arrival", "receive", "queue"] = "arrival",
        **extra: object,
    ) -> None:
        super().__init__(detail, retry_after=retry_after, **extra)
        self.reason, self.stage = reason, stage


class Draining(Unavailable):
    """The server is stopping and takes no new requests."""

    title = "Draining"
    type = "/problems/draining"


class DeadlinePassed(ServeError):
    """The deadline passed before the image could be run; most of the time went in `stage`."""

    status = 504
    title = "Deadline passed"
    type = "/problems/deadline-passed"
    reason = "late"

    def __init__(self, detail: str, *, stage: str = "queue", **extra: object) -> None:
        super().__init__(detail, retry_after=None, stage=stage, **extra)
        self.stage = stage
