"""A server that answers as it is told, reply after reply, and remembers what it was asked."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

ANSWER = {
    "predictions": [{"label": "17", "index": 17, "probability": 0.9}, {"label": "12", "index": 12, "probability": 0.1}],
    "stitch": {"id": 1, "name": "digits_m[0:8]", "flops": 18481584, "top1": 84.75},
    "reason": "best stitch",
    "budget": {"max_flops": None, "deadline_ms": 50.0, "min_top1": None, "met": True},
    "timing_ms": {"decode": 1.5, "queue": 0.1, "compute": 7.6, "total": 9.7},
    "model": "digits",
    "request_id": "1ab1",
}


@dataclass(frozen=True)
class Reply:
    status: int = 200
    content: Any = field(default_factory=lambda: ANSWER)
    headers: dict[str, str] = field(default_factory=dict)


HANG_UP = Reply(0)


def busy(retry_after: str | None = "0", kind: str = "overloaded") -> Reply:
    problem = {"type": f"/problems/{kind}", "title": kind.title(), "status": 503, "detail": "come back later"}
    return Reply(503, problem, {} if retry_after is None else {"Retry-After": retry_after})


@dataclass
class Asked:
    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: bytes
    peer: tuple[str, int]


@contextmanager
def scripted(*replies: Reply) -> Iterator[tuple[str, list[Asked]]]:
    """The server's address, and what it was asked; the last reply is repeated."""
    asked: list[Asked] = []
    left = list(replies)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            url = urlsplit(self.path)
            headers = {name.lower(): value for name, value in self.headers.items()}
            body = self.rfile.read(int(headers.get("content-length", 0)))
            asked.append(Asked(self.command, url.path, parse_qs(url.query), headers, body, self.client_address))
            reply = left.pop(0) if len(left) > 1 else left[0]
            if reply is HANG_UP:
                self.close_connection = True
                return
            content = reply.content if isinstance(reply.content, bytes) else json.dumps(reply.content).encode()
            kind = "application/json" if reply.status < 400 else "application/problem+json"
            self.send_response(reply.status)
            for name, value in ({"Content-Type": kind, "Content-Length": str(len(content))} | reply.headers).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = answer  # noqa: N815 - http.server's names

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=[0.01])
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
