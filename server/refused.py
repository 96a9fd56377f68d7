"""A refusal that needs no application."""

from collections.abc import Callable, Iterable, Sequence
from http import HTTPStatus
from typing import NamedTuple

PROBLEM = "application/problem+json"
Header = tuple[bytes, bytes]


class Refused(NamedTuple):
    """An answer whose body is a problem as RFC 9457 has it, in JSON; to be `held` back for so many seconds."""

    status: int
    headers: Sequence[Header]
    body: bytes
    held: float = 0.0

    @property
    def whole_headers(self) -> Sequence[Header]:
        """With those that tell of the body."""
        return *self.headers, (b"content-type", PROBLEM.encode()), (b"content-length", b"%d" % len(self.body))

    def rendered(self, more: Iterable[Header]) -> bytes:
        """As HTTP/1.1 has it, with more headers."""
        first = f"HTTP/1.1 {self.status} {HTTPStatus(self.status).phrase}".encode()
        lines = (name + b": " + value for name, value in (*more, *self.whole_headers))
        return b"\r\n".join([first, *lines, b"", self.body])


Doorman = Callable[[bytes, Sequence[Header], float], Refused | None]
"""Told a URL, a head, and for how many seconds they have waited: how to refuse them; None where they pass."""
