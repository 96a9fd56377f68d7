"""A front end as the engine's process sees it, in one that has none."""

import json
import time
from typing import Any

from server.channel import STARTED, Channel, Kind, paired, parted
from server.connection import CAME
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


def head(**told: Any) -> bytes:
    usual: dict[str, Any] = {
        "method": "POST",
        "path": "/classify",
        "scheme": "http",
        "http_version": "1.1",
        "client": ["1.2.3.4", 5],
    }
    usual |= {"server": ["5.6.7.8", 9], "raw_path": "/classify", "query_string": "budget=1", "asks": False}
    return json.dumps(usual | {"headers": [["x-request-id", "mine"]], CAME: time.monotonic() - 1.0} | told).encode()


def answered(said: bytes) -> tuple[int, list[Header], bytes]:
    """Status, headers and body of what was told."""
    status, size = STARTED.unpack_from(said)
    head, body = said[STARTED.size :][:size], said[STARTED.size + size :]
    return status, paired(parted(head)), body
