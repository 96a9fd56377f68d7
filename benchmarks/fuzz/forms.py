"""Fuzz target: multipart forms, after a first line with the type that the header declares."""

import random

from benchmarks.fuzz.target import Target
from server.errors import BadRequest, ServeError, TooLarge, UnsupportedType
from server.form import Form, FormReader

LONGEST_IMAGE = 1000  # bytes
MOST_FILES = 4
TYPE = b"multipart/form-data; boundary="
FILE = b'Content-Disposition: form-data; name="image"; filename="a.jpg"\r\n'
BUDGET = b'Content-Disposition: form-data; name="budget"\r\n\r\n'


def form(*parts: bytes, boundary: bytes = b"b0", quoted: bool = False) -> bytes:
    """The type's line and the body."""
    body = b"".join(b"--" + boundary + b"\r\n" + part + b"\r\n" for part in parts)
    return TYPE + (b'"%s"' % boundary if quoted else boundary) + b"\n" + body + b"--" + boundary + b"--\r\n"


SEEDS = (
    form(FILE + b"Content-Type: image/jpeg\r\n\r\n\xff\xd8\xff data", BUDGET + b"15ms"),
    form(FILE + b"Content-Type: text/plain\r\n\r\nno image", FILE + b"\r\n" + bytes(LONGEST_IMAGE + 1)),
    form(FILE + b"\r\n\r\n--b\r\n--", BUDGET, BUDGET + "78%, ü".encode(), quoted=True),
    form(b'content-disposition: form-data; name=other; x="a\\"b"\r\n\r\nvalue', boundary=b"----WebKit7MA4YWxk"),
    form(FILE.replace(b"\r\n", b" \r\n") + b"\r\n" + b"-" * 70, boundary=b"-" * 70),
    form(FILE + b"\r\nend").replace(b"\n", b"\na preamble\r\n", 1) + b"after the end",
    form(*[FILE + b"\r\n"] * (MOST_FILES + 1)),
    form(*[BUDGET] * 65),
)


def read(data: bytes) -> Form:
    """Reads the form at once and in pieces, and asserts that both come to the same."""
    declared, _, body = data.partition(b"\n")
    content_type = declared.decode("latin-1")
    cuts = random.Random(len(data))
    pieces, at = [], 0
    while at < len(body):
        end = at + cuts.choice((1, 2, 7, 64, 4000))
        pieces.append(body[at:end])
        at = end
    whole, pieced = outcome(content_type, [body]), outcome(content_type, pieces)
    assert described(whole) == described(pieced), (described(whole), described(pieced))
    if isinstance(whole, BadRequest):
        raise whole
    return whole


def outcome(content_type: str, pieces: list[bytes]) -> Form | BadRequest:
    """The form, or why it is refused."""
    try:
        reader = FormReader(content_type, LONGEST_IMAGE, MOST_FILES)
        for piece in pieces:
            reader.feed(piece)
        return reader.finish()
    except BadRequest as refusal:
        return refusal


def described(result: Form | BadRequest) -> object:
    """What can be compared; which of a refused form's faults is met first may depend on the pieces."""
    if isinstance(result, BadRequest):
        return BadRequest
    for image in result.images:
        assert not isinstance(image, ServeError) or type(image) in {TooLarge, UnsupportedType}, image
        assert not isinstance(image, bytes) or len(image) <= LONGEST_IMAGE, len(image)
    return [image.detail if isinstance(image, ServeError) else image for image in result.images], result.budgets


TARGET = Target(read, (BadRequest,), SEEDS)
