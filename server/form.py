"""Multipart forms (RFC 7578), read piece by piece as they arrive: every byte is looked at a bounded number of times."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO

from server.errors import BadRequest, ServeError, TooLarge, UnsupportedType
from server.images import check_type

MOST_IMAGES = 64
_MOST_FIELDS = 64
_LONGEST_BUDGET = 1000  # bytes
_LONGEST_HEAD = 4096  # bytes of one part's headers
_LONGEST_BOUNDARY = 200  # bytes; 70 by RFC 2046
_LONGEST_PADDING = 64  # blanks that may follow a boundary

_PARAMETER = re.compile(rb';[ \t]*([^\s=;"]+)[ \t]*=[ \t]*(?:"((?:[^"\\]++|\\.)*+)"|([^\s;"]*))', re.DOTALL)


@dataclass(frozen=True)
class Form:
    """A form's files, or why one is refused, and its `budget` fields, both in order."""

    images: tuple[bytes | ServeError, ...]
    budgets: tuple[str, ...]


class FormReader:
    """Takes a form's bytes as they come, keeps what is asked for, and lets go of the rest.

    A file of more than `max_bytes`, or of a type that is no image, is refused alone. The form is refused with
    BadRequest for more than `most_files` files, for parts without a name, and where a part contains the boundary,
    which RFC 2046 forbids and which would make reading slow.
    """

    def __init__(self, content_type: str, max_bytes: int, most_files: int) -> None:
        boundary = _parameters(content_type.encode("latin-1", "replace")).get(b"boundary", b"")
        if not 0 < len(boundary) <= _LONGEST_BOUNDARY:
            raise _unreadable("it has no readable boundary")
        self._delimiter = b"\r\n--" + boundary
        self._max_bytes, self._most_files = max_bytes, most_files
        self._buffer = bytearray(b"\r\n")  # of the first boundary, which the body leaves out
        # Not bound to itself: such a cycle, and all images in it, would stay until garbage is collected.
        self._step: Callable[[FormReader], bool] = FormReader._in_content
        self._images: list[bytes | ServeError] = []
        self._budgets: list[str] = []
        self._fields = 0
        self._content = BytesIO()
        self._longest = 0
        """How much of the part at hand is kept."""
        self._kind: str | None = None
        """What the part at hand is: `image`, `budget`, or None for what nobody asked for."""

    def feed(self, piece: bytes) -> None:
        """The next bytes. Raises BadRequest as soon as they are no form."""
        self._buffer += piece
        while self._step(self):
            pass

    def finish(self) -> Form:
        """The form, after the last bytes. Raises BadRequest when it is not complete."""
        if self._step != FormReader._after_end:
            raise _unreadable("it ends before its last boundary")
        return Form(tuple(self._images), tuple(self._budgets))

    def _in_content(self) -> bool:
        """Keep what comes before the next boundary. Like every step: whether another one can follow."""
        found = self._buffer.find(self._delimiter)
        self._keep(found if found >= 0 else max(0, len(self._buffer) - len(self._delimiter) + 1))
        if found >= 0:
            self._step = FormReader._at_boundary
        return found >= 0

    def _at_boundary(self) -> bool:
        start = len(self._delimiter)
        rest = bytes(self._buffer[start : start + _LONGEST_PADDING])
        blanks, ended, _ = rest.partition(b"\r\n")
        if rest.startswith(b"--"):
            self._end_part()
            self._step = FormReader._after_end
        elif ended and not blanks.strip(b" \t"):
            self._end_part()
            del self._buffer[: start + len(blanks)]
            self._step = FormReader._in_head
        elif len(rest) < _LONGEST_PADDING and (b"--".startswith(rest) or not rest.strip(b" \t\r")):
            return False
        else:
            raise _unreadable("a part contains its boundary")
        return True

    def _in_head(self) -> bool:
        end = self._buffer.find(b"\r\n\r\n", 0, _LONGEST_HEAD)
        if end < 0 and len(self._buffer) >= _LONGEST_HEAD:
            raise _unreadable(f"a part's headers have more than {_LONGEST_HEAD} bytes")
        if end >= 0:
            self._begin_part(bytes(self._buffer[:end]))
            del self._buffer[: end + 4]
            self._step = FormReader._in_content
        return end >= 0

    def _after_end(self) -> bool:
        self._buffer.clear()
        return False

    def _begin_part(self, head: bytes) -> None:
        lines = (line.partition(b":") for line in head.split(b"\r\n"))
        headers = {name.strip().lower(): value.strip() for name, _, value in lines}
        options = _parameters(headers.get(b"content-disposition", b""))
        if b"name" not in options:
            raise _unreadable("a part's Content-Disposition has no name")
        if b"filename" in options:
            self._begin_image(headers.get(b"content-type", b"").decode("latin-1"))
        else:
            self._begin_field(options[b"name"])

    def _begin_image(self, content_type: str) -> None:
        if len(self._images) == self._most_files:
            raise BadRequest(f"the form has more than {self._most_files} file{'s' * (self._most_files > 1)}")
        self._kind, self._longest = "image", self._max_bytes
        try:
            check_type(content_type or None)
        except UnsupportedType as refusal:
            self._kind, self._longest = None, 0
            self._images.append(refusal)

    def _begin_field(self, name: bytes) -> None:
        self._fields += 1
        if self._fields > _MOST_FIELDS:
            raise BadRequest(f"the form has more than {_MOST_FIELDS} fields")
        self._kind, self._longest = ("budget", _LONGEST_BUDGET) if name == b"budget" else (None, 0)

    def _keep(self, count: int) -> None:
        if self._kind:
            self._content.write(self._buffer[:count])
        del self._buffer[:count]
        if self._content.tell() > self._longest:
            self._refuse_content()

    def _refuse_content(self) -> None:
        if self._kind == "budget":
            raise BadRequest(f"a budget field has more than {_LONGEST_BUDGET} bytes")
        self._images.append(TooLarge(f"the image has more than {self._max_bytes} bytes", max_bytes=self._max_bytes))
        self._kind, self._content = None, BytesIO()

    def _end_part(self) -> None:
        if self._kind == "image":
            self._images.append(self._content.getvalue())
        elif self._kind == "budget":
            self._budgets.append(self._content.getvalue().decode("utf-8", "replace"))
        self._kind, self._content = None, BytesIO()


def _parameters(value: bytes) -> dict[bytes, bytes]:
    """The parameters of a header such as `form-data; name="image"; filename="cat.jpg"`."""
    return {name.lower(): quoted or plain for name, quoted, plain in _PARAMETER.findall(value)}


def _unreadable(why: str) -> BadRequest:
    return BadRequest(f"the multipart body cannot be read: {why}")
