"""A request's body, bounded in bytes and time, and the image in it: raw, or the one file of a multipart form."""

import asyncio
from collections.abc import AsyncIterator

from fastapi import Request
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from server.errors import BadRequest, ClientGone, SlowBody, TooLarge
from server.images import check_type

FORM = "multipart/form-data"
FORM_OVERHEAD = 64 * 1024  # bytes of boundaries and part headers beside the file


async def read_image(request: Request, max_bytes: int, timeout: float) -> bytes:
    """The image's bytes.

    Raises TooLarge past `max_bytes`, by the Content-Length header before anything is read; SlowBody after `timeout`
    seconds; UnsupportedType for a declared type that is no image; BadRequest for a form without exactly one file.
    """
    declared = request.headers.get("content-type")
    form = (declared or "").partition(";")[0].strip().lower() == FORM
    if not form:
        check_type(declared)
    body = await _read(request, max_bytes + (FORM_OVERHEAD if form else 0), timeout)
    image = await _only_file(request.headers, body) if form else body
    _check_size(len(image), max_bytes)
    return image


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


async def _only_file(headers: Headers, body: bytes) -> bytes:
    parser = MultiPartParser(headers, _once(body), max_files=1, max_fields=8)
    parser.spool_max_size = len(body) + 1  # in memory, where it already is: the disk may be read-only
    try:
        form = await parser.parse()
    except (MultiPartException, KeyError, ValueError) as error:
        raise BadRequest(f"the multipart body cannot be read: {str(error)[:200] or 'no boundary'}") from error
    async with form:
        files = [part for part in form.values() if isinstance(part, UploadFile)]
        if len(files) != 1:
            raise BadRequest("the multipart body has no file field; send one image, as in: curl -F image=@cat.jpg")
        if files[0].content_type:
            check_type(files[0].content_type)
        return await files[0].read()


async def _once(body: bytes) -> AsyncIterator[bytes]:
    yield body
