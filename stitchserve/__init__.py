"""The client: `Client` and `AsyncClient` ask a stitchserve server to classify images within a budget.

It is told how to reach the server, and shares no code with it: `pip install --no-deps stitchserve` and the packages of
the extra `client` are enough.
"""

from stitchserve.client import AsyncClient, Client
from stitchserve.errors import (
    DeadlinePassed,
    Forbidden,
    RateLimited,
    Refused,
    StitchserveError,
    TimedOut,
    Unavailable,
    Unreachable,
)
from stitchserve.results import Classification, Explanation, Prediction, Status, Stitches
from stitchserve.retries import Retrying

__all__ = [
    "AsyncClient",
    "Classification",
    "Client",
    "DeadlinePassed",
    "Explanation",
    "Forbidden",
    "Prediction",
    "RateLimited",
    "Refused",
    "Retrying",
    "Status",
    "Stitches",
    "StitchserveError",
    "TimedOut",
    "Unavailable",
    "Unreachable",
]
