"""A request's body, bounded in bytes and time, and the images in it: raw, or the files of a multipart form."""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass

from fastapi import Request
from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData, Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from server.errors import BadRequest, ClientGone, SlowBody, TooLarge, UnsupportedType
from server.images import check_type

FORM = "multipart/form-data"
FORM_OVERHEAD = 64 * 1024  # bytes of boundaries and part headers beside the file
MOST_IMAGES = 64
CURL = "curl -F image=@cat.jpg"


@dataclass(frozen=True)
class Form:
    """A form's files, and its `budget` fields, both in order."""

    images: tuple[bytes, ...]
    budgets: tuple[str, ...]


async def read_image(request: Request, max_bytes: int, timeout: float) -> bytes:
    """The image's bytes.

    Raises TooLarge past `max_bytes`, by the Content-Length header before anything is read; SlowBody after `timeout`
    seconds; UnsupportedType for a declared type that is no image; BadRequest for a form without exactly one file.
    """
    if not _is_form(request):
        check_type(request.headers.get("content-type"))
        return await _read(request, max_bytes, timeout)
    form = await _form(request.headers, await _read(request, max_bytes + FORM_OVERHEAD, timeout), most_files=1)
    if len(form.images) != 1:
        raise BadRequest(f"the multipart body has no file field; send one image, as in: {CURL}")
    _check_size(len(form.images[0]), max_bytes)
    return form.images[0]


async def read_images(request: Request, max_bytes: int, timeout: float) -> Form:
    """A form's images and budgets, `max_bytes` in all. Raises as `read_image` does; BadRequest without any file."""
    if not _is_form(request):
        raise UnsupportedType(f"send the images as {FORM}, as in: {CURL} -F image=@dog.jpg", accepted=[FORM])
    form = await _form(request.headers, await _read(request, max_bytes, timeout), most_files=MOST_IMAGES)
    if not form.images:
        raise BadRequest(f"the multipart body has no file field; send images, as in: {CURL} -F image=@dog.jpg")
    return form


def _is_form(request: Request) -> bool:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower() == FORM


async def _read(request: Request, limit: int, timeout: float) -> bytes:
    length = request.headers.get("content-length", "")
    if length.isdecimal():
        _check_size(int(length[:20]), limit)
    body = bytearray()
    try:
        async with asyncio.timeout(timeout):
            async for chunk in request.stream():
                body += chunk
                _check_size(len(body), limit)
    except TimeoutError:
        raise SlowBody(f"the body did not arrive within {timeout:g} s") from None
    except ClientDisconnect:
        raise ClientGone("the client left while sending its body") from None
    return bytes(body)


def _check_size(size: int, limit: int) -> None:
    if size > limit:
        raise TooLarge(f"the body has more than {limit} bytes", max_bytes=limit)


async def _form(headers: Headers, body: bytes, most_files: int) -> Form:
    _, options = parse_options_header(headers.get("content-type", ""))
    charset = options.get(b"charset", b"utf-8").lower()
    if charset not in {b"utf-8", b"us-ascii"}:  # some codecs take minutes for a field of a megabyte
        raise BadRequest("the form's charset must be utf-8")
    parser = MultiPartParser(headers, _once(body), max_files=most_files, max_fields=MOST_IMAGES)
    parser.spool_max_size = len(body) + 1  # in memory, where it already is: the disk may be read-only
    try:
        parts = await parser.parse()
    except (MultiPartException, KeyError, ValueError) as error:
        reason = getattr(error, "message", "it has no readable boundary")
        raise BadRequest(f"the multipart body cannot be read: {reason}") from error
    try:
        return await _contents(parts)
    finally:
        await parts.close()


async def _contents(parts: FormData) -> Form:
    images, budgets = [], []
    for name, part in parts.multi_items():
        if isinstance(part, UploadFile):
            check_type(part.content_type)
            images.append(await part.read())
        elif name == "budget":
            budgets.append(part)
    return Form(tuple(images), tuple(budgets))


async def _once(body: bytes) -> AsyncGenerator[bytes, None]:
    yield body
