"""Forms as clients write them, in pieces of every size, and what is refused of them."""

import sys
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.errors import BadRequest, TooLarge, UnsupportedType
from server.form import MOST_IMAGES, Form, FormReader

B = "multipart/form-data; boundary=b"
FILE = b'--b\r\nContent-Disposition: form-data; name="image"; filename="a.jpg"\r\n\r\n'
FIELD = b'--b\r\nContent-Disposition: form-data; name="%b"\r\n\r\n'


def read(
    content_type: str, body: bytes, *, cuts: Sequence[int] = (), max_bytes: int = 1000, most: int = MOST_IMAGES
) -> Form:
    reader = FormReader(content_type, max_bytes, most)
    places = [0, *sorted(cut % (len(body) + 1) for cut in cuts), len(body)]
    for start, stop in pairwise(places):
        reader.feed(body[start:stop])
    return reader.finish()


contents = st.one_of(st.binary(max_size=200), st.lists(st.sampled_from([b"\r", b"\n", b"-", b"b", b"x"])).map(b"".join))


@settings(max_examples=300, deadline=None)
@given(
    st.lists(contents, max_size=5),
    st.lists(st.text(max_size=20).filter(lambda text: "\r" not in text), max_size=3),
    st.lists(st.integers(0, 5000), max_size=30),
)
def test_what_a_client_encodes_is_read_back_however_it_is_cut(
    images: list[bytes], budgets: list[str], cuts: list[int]
) -> None:
    files = [("image", ('odd "name"; filename=x.jpg', image, "image/jpeg")) for image in images]
    request = httpx.Request("POST", "http://x", files=[*files, ("x", ("empty", b""))], data={"budget": budgets})
    form = read(request.headers["content-type"], request.read(), cuts=cuts)
    assert form.images == (*images, b"")
    assert form.budgets == tuple(budgets)


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        (B, FILE + b"cat\r\n--b--\r\n"),
        (B, b"a preamble\r\n" + FILE + b"cat\r\n--b--\r\nan epilogue\r\n--b\r\n"),
        (B, FILE + b"cat\r\n--b-- \t\r\n"),
        (B, FILE.replace(b"--b\r\n", b"--b \t \r\n") + b"cat\r\n--b--"),
        ('multipart/form-data; charset=utf-8; boundary="b"', FILE + b"cat\r\n--b--"),
        (
            "multipart/form-data;BOUNDARY=b",
            FILE.replace(b"Disp", b"disP") + b"cat\r\n--b--",
        ),
        (B, FILE.replace(b'"a.jpg"', b'""') + b"cat\r\n--b--"),
        (B, FILE.replace(b"; name", b";name").replace(b'"image"', b"image") + b"cat\r\n--b--"),
        (
            B,
            b'--b\r\nContent-Disposition: form-data; name="note"\r\n\r\n'
            + bytes(5000)
            + b"\r\n"
            + FILE
            + b"cat\r\n--b--",
        ),
    ],
)
def test_a_file_is_found_in_every_way_to_write_it(content_type: str, body: bytes) -> None:
    for step in (1, 7, len(body)):
        assert read(content_type, body, cuts=range(0, len(body), step)).images == (b"cat",)


@pytest.mark.parametrize(
    ("content_type", "body", "says"),
    [
        ("multipart/form-data", b"", "boundary"),
        ("multipart/form-data; boundary=", b"", "boundary"),
        ('multipart/form-data; boundary=""', b"", "boundary"),
        ("multipart/form-data; boundary=" + 201 * "b", b"", "boundary"),
        (B, b"", "ends before"),
        (B, b"no form", "ends before"),
        (B, FILE + b"cat", "ends before"),
        (B, FILE + b"cat\r\n--b", "ends before"),
        (B, FILE + b"cat\r\n--b-", "ends before"),
        (B, FILE + b"cat\r\n--b\r", "ends before"),
        (B, FILE[:20], "ends before"),
        (B, FILE + b"cat\r\n--bX\r\n--b--", "contains its boundary"),
        (B, FILE + b"cat\r\n--b-X\r\n--b--", "contains its boundary"),
        (B, FILE + b"cat\r\n--b" + b" " * 1000 + b"\r\n--b--", "contains its boundary"),
        (B, b"--b\r\n\r\ncat\r\n--b--", "no name"),
        (B, b"--b\r\nContent-Type: image/jpeg\r\n\r\ncat\r\n--b--", "no name"),
        (B, b"--b\r\nA: " + b"x" * 5000 + b"\r\n\r\ncat\r\n--b--", "headers"),
        (B, b"--b\r\nA: " + b"x" * 5000, "headers"),
        (B, (FILE + b"cat\r\n") * (MOST_IMAGES + 1) + b"--b--", "more than 64 files"),
        (B, (FIELD % b"a" + b"\r\n") * 65 + b"--b--", "more than 64 fields"),
        (B, FIELD % b"budget" + b"1" * 1001 + b"\r\n--b--", "budget"),
    ],
)
def test_what_is_no_form_is_refused_with_the_reason(content_type: str, body: bytes, says: str) -> None:
    for step in (1, len(body) + 1):
        with pytest.raises(BadRequest, match=says):
            read(content_type, body, cuts=range(0, len(body), step))


def test_one_file_may_be_all_that_is_taken() -> None:
    with pytest.raises(BadRequest, match=r"more than 1 file$"):
        read(B, FILE + b"cat\r\n" + FILE + b"dog\r\n--b--", most=1)


def test_a_file_too_large_or_of_another_type_is_refused_alone_and_not_kept() -> None:
    text = FILE.replace(b"\r\n\r\n", b"\r\nContent-Type: text/plain\r\n\r\n")
    body = (
        FILE + bytes(1001) + b"\r\n" + FILE + bytes(1000) + b"\r\n" + text + bytes(5000) + b"\r\n" + FILE + b"\r\n--b--"
    )
    large, fitting, other, empty = read(B, body, cuts=range(0, len(body), 100)).images
    assert isinstance(large, TooLarge)
    assert large.extra == {"max_bytes": 1000}
    assert (fitting, empty) == (bytes(1000), b"")
    assert isinstance(other, UnsupportedType)


def test_budgets_in_other_charsets_are_read_as_nonsense_not_refused_as_a_form() -> None:
    body = FIELD % b"budget" + b"\xff5ms\r\n--b--"
    assert read("multipart/form-data; boundary=b; charset=punycode", body).budgets == ("\N{REPLACEMENT CHARACTER}5ms",)


@pytest.mark.parametrize(
    "content",
    [b"\r\n--bX" * 100_000, b"\r\n--" * 150_000, b"\r\n" * 300_000, b"\r\n--b" + b" " * 600_000, bytes(600_000)],
    ids=["false boundaries", "half boundaries", "line ends", "blanks", "nothing odd"],
)
def test_a_file_costs_a_few_calls_a_piece_whatever_is_in_it(content: bytes) -> None:
    body = FILE + content + b"\r\n--b--"
    calls = Counter[str]()
    sys.setprofile(lambda frame, event, argument: calls.update([event]))
    try:
        read(B, body, cuts=range(0, len(body), 65536), max_bytes=len(body))
    except BadRequest:
        pass
    finally:
        sys.setprofile(None)
    assert calls.total() < 1000


@pytest.mark.parametrize("value", [b';"' * 1900, b";a=" * 1300, b';a="\\' * 800, b';a="' + b'\\"' * 1900, b"; " * 1900])
def test_odd_headers_are_read_as_far_as_they_make_sense(value: bytes) -> None:
    part = b"--b\r\nContent-Disposition: form-data; name=image; filename=a" + value + b"\r\n\r\ncat\r\n"
    assert read(B, part * MOST_IMAGES + b"--b--").images == (b"cat",) * MOST_IMAGES
