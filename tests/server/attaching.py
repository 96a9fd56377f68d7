"""A front end as the engine's process sees it, in one that has none."""

import time

from server.channel import OPENED, STARTED, TO_COME, Channel, Kind, joined, paired, parted
from server.refused import Header


class Told(Channel):
    """Keeps what is sent."""

    def __init__(self) -> None:
        super().__init__(lambda *_: None, lambda: None)
        self.frames: list[tuple[Kind, int]] = []
        self.said: list[bytes] = []

    @property
    def closed(self) -> bool:
        return False

    def send(self, kind: Kind, number: int, *parts: bytes) -> None:
        self.frames.append((kind, number))
        self.said.append(b"".join(parts))


def head(
    method: str = "POST", *, held: int = TO_COME, asks: bool = False, path: str = "/classify", of: str = ""
) -> bytes:
    """What an OPEN says: a request that came a second ago, `of` a client at its port 5."""
    lines = [method, "http", "1.1", of, "5", "5.6.7.8", "9", path, "budget=1", "x-request-id", "mine"]
    return OPENED.pack(time.monotonic() - 1.0, held, asks) + joined(line.encode() for line in lines)


def started(said: bytes) -> tuple[int, list[Header]]:
    """Status and headers of what was told."""
    (status,) = STARTED.unpack_from(said)
    return status, paired(parted(said[STARTED.size :]))
