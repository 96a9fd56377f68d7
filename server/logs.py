"""The server's log on standard error: a line for each event of its life and each failure, as text or as JSON.

What is logged while a request is answered carries its id, whoever logs it. Headers and queries are never logged: there
are keys in them.
"""

import json
import logging
import random
import re
import sys
from collections.abc import Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import IO, Literal

Form = Literal["text", "json"]

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
"""The id of the request that is being answered."""

access = logging.getLogger("server.access")

_ids = random.Random()  # noqa: S311 - ids need to differ, not to be secret; the system's source would be a call to it
_PLAIN = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")  # a client's text must not begin a line of its own


def configure(form: Form, stream: IO[str] | None = None) -> None:
    """Send everything that is logged, also by uvicorn and as Python's warnings, to the stream in this form."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonLines() if form == "json" else TextLines())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.captureWarnings(True)


def begin(sent: str) -> str:
    """The id, as `named` has it, of the request that this task answers from now on.

    Whoever serves runs every request in a task, and so a context, of its own.
    """
    chosen = named(sent)
    request_id.set(chosen)
    return chosen


def named(sent: str) -> str:
    """The id of a request: as `sent` where that is a plain word, else a new one."""
    return sent if _PLAIN.fullmatch(sent) else f"{_ids.getrandbits(128):032x}"


def log_access(asked: str, client: str, status: int, seconds: float) -> None:
    """A line for a request that has ended."""
    access.info("%s", asked, extra=fields(status=status, ms=round(seconds * 1e3, 3), client=client))


def fields(**values: object) -> Mapping[str, object]:
    """For `extra=` of a logging call: members of the JSON object, `name=value` at the end of the text."""
    return {"fields": values}


class TextLines(logging.Formatter):
    """For people: only a traceback takes more than the one line."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """The line, with nothing in it that ends it."""
        said = "".join(f" {name}={value}" for name, value in _fields(record).items())
        return _CONTROL.sub(_escaped, super().formatMessage(record) + said)


class JsonLines(logging.Formatter):
    """For programs: an object a line, the time in UTC, a traceback as its `exception`."""

    def format(self, record: logging.LogRecord) -> str:
        """The object."""
        told: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            told["exception"] = self.formatException(record.exc_info)
        return json.dumps(told | _fields(record), default=str)


def _fields(record: logging.LogRecord) -> dict[str, object]:
    answering = request_id.get()
    return ({"request_id": answering} if answering else {}) | getattr(record, "fields", {})


def _escaped(control: re.Match[str]) -> str:
    return ascii(control[0])[1:-1]
