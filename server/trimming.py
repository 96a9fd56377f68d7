"""A picture's file without what its pixels do not need: texts, profiles, thumbnails, later frames.

Pillow's readers walk a file's parts in Python, the interpreter's lock held, and look into many of them: ten megabytes
of empty parts stop the server for seconds, of compressed profiles for half a minute. Here only the parts' outlines are
walked, MOST_PARTS of them in about five milliseconds, and a reader is given a few parts whatever was sent.

What MOST_PARTS leaves room for in 10 MB:
JPEG  segments before the first scan, up to 64 kB each: photographs have dozens, and 153 are 10 MB.
PNG   chunks: most encoders cut the pixels every 8 kB, which makes 1,250; 10,000 are 1 kB each.
GIF   blocks before the first frame, up to 255 bytes each: 2.5 MB of profile, or 0.8 MB of XMP, whose letters are taken
      for the blocks' lengths.
WebP  chunks up to the EXIF block, which comes after all frames: 10,000 frames are 1 kB each.
"""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from server.errors import TooLarge

MOST_PARTS = 10_000
MOST_JUNK = 64 * 1024  # bytes between parts, passed over as other decoders do; a few are seen in the wild
MOST_SCANS = 50  # each costs a pass over all pixels and may be a few bytes; progressive files have about ten
MOST_TABLES = 64 * 1024  # bytes of a JPEG before its first scan, without metadata; all tables there can be are 2.7 kB


class Trimmed(NamedTuple):
    """What a reader needs, the content of the first EXIF block, if any, and a JPEG's scans: passes over its pixels."""

    body: bytes
    exif: bytes
    scans: int = 1


_JPEG_MARKER = re.compile(rb"\xff[\xc0-\xfe]")
_JPEG_SCAN, _JPEG_JFIF, _JPEG_EXIF, _JPEG_ADOBE = 0xDA, 0xE0, 0xE1, 0xEE
_JPEG_TABLES = frozenset({*range(0xC0, 0xD0), 0xDB, 0xDD, 0xDE, 0xDF})  # the frame's header is one of them
"""Of each libjpeg reads as many bytes as it says to have, or refuses the file: so it sees those that are seen here."""
_JPEG_SEQUENTIAL = frozenset({0xC0, 0xC1})
_JPEG_BARE = range(0xD0, 0xDA)  # without content
_JFIF = b"\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00"


def jpeg(body: bytes) -> Trimmed:
    """Keeps what tells the colour space, the tables, and everything from the first scan on.

    Raises TooLarge past MOST_PARTS, MOST_SCANS or MOST_TABLES.
    """
    jfif, adobe, exif, tables, scans = b"", b"", b"", [], len(body)
    for marker, start, stop in _jpeg_segments(body):
        if marker == _JPEG_SCAN:
            scans = start
        elif marker in _JPEG_TABLES:
            if stop < start + 4:  # not even its length: libjpeg would read that out of the next one
                break
            tables.append(body[start:stop])
        elif marker == _JPEG_JFIF and body.startswith(b"JFIF\x00", start + 4):
            jfif = _JFIF
        elif marker == _JPEG_ADOBE and body.startswith(b"Adobe", start + 4) and stop - start >= 16:
            adobe = b"\xff\xee\x00\x0e" + body[start + 4 : start + 16]
        elif marker == _JPEG_EXIF and not exif and body.startswith(b"Exif\x00\x00", start + 4):
            exif = body[start + 4 : stop]
    if sum(map(len, tables)) > MOST_TABLES:
        raise TooLarge(f"the JPEG image has more than {MOST_TABLES} bytes of tables before its first scan")
    # Where a sequential file's first scan has all components, libjpeg refuses another, and megabytes need no counting.
    components = next((table[9:10] for table in tables if table[1] in _JPEG_SEQUENTIAL), None)
    passes = 1 if components == body[scans + 4 : scans + 5] else body.count(b"\xff\xda\x00")
    if passes > MOST_SCANS:
        raise TooLarge(f"the JPEG image has more than {MOST_SCANS} scans")
    return Trimmed(b"".join((body[:2], jfif, adobe, *tables, memoryview(body)[scans:])), exif, passes)


def _jpeg_segments(body: bytes) -> Iterator[tuple[int, int, int]]:
    """(marker, start, stop) of each segment up to the first scan, markers included."""
    at, junk = 2, MOST_JUNK
    for _ in range(MOST_PARTS):
        found = _JPEG_MARKER.search(body, at, at + junk)
        if found is None:
            return
        junk -= found.start() - at
        start, at = found.span()
        marker = body[start + 1]
        if marker not in _JPEG_BARE:
            at += int.from_bytes(body[at : at + 2])
            yield marker, start, at
        if marker == _JPEG_SCAN:
            return
    raise _too_many("JPEG", "segments before its first scan")


def png(body: bytes) -> Trimmed:
    """Keeps the header, the palette and the first row of pixel chunks: of an animation what still readers show.

    Raises TooLarge past MOST_PARTS.
    """
    first: dict[bytes, bytes] = {}
    pixels = ended = 0
    for kind, start, stop in _png_chunks(body):
        if kind == b"IDAT" and ended in {0, start}:
            pixels, ended = pixels or start, stop + 4
        elif kind == b"eXIf" or (kind in {b"IHDR", b"PLTE"} and not ended):
            first.setdefault(kind, body[start : stop + 4])
    header, palette, exif = (first.get(kind, b"") for kind in (b"IHDR", b"PLTE", b"eXIf"))
    return Trimmed(b"".join((body[:8], header, palette, memoryview(body)[pixels:ended])), exif[8:-4])


def _png_chunks(body: bytes) -> Iterator[tuple[bytes, int, int]]:
    """(kind, start of its outline, end of its content) of each chunk before the last."""
    at = 8
    for _ in range(MOST_PARTS):
        start, kind = at, body[at + 4 : at + 8]
        if len(kind) < 4 or kind == b"IEND":
            return
        stop = start + 8 + int.from_bytes(body[start : start + 4])
        yield kind, start, stop
        at = stop + 4
    raise _too_many("PNG", "chunks")


_GIF_BLOCK = re.compile(rb"[!,;]")
_GIF_IMAGE, _GIF_END = b",", b";"
_GIF_CONTROL = re.compile(rb"!\xf9[\x04-\xff]...(.)", re.DOTALL)


def gif(body: bytes) -> Trimmed:
    """Keeps the header, which colour of the first frame is transparent, and everything from that frame on.

    Raises TooLarge past MOST_PARTS.
    """
    palette = 3 << (body[10] & 7) + 1 if body[10] & 0x80 else 0
    control, frames = b"", len(body)
    for block, start in _gif_blocks(body, 13 + palette):
        if block == _GIF_IMAGE:
            frames = start
        elif (found := _GIF_CONTROL.match(body, start)) and body[start + 3] & 1:
            control = b"!\xf9\x04\x01\x00\x00" + found[1] + b"\x00"
    return Trimmed(b"".join((body[: 13 + palette], control, memoryview(body)[frames:])), b"")


def _gif_blocks(body: bytes, at: int) -> Iterator[tuple[bytes, int]]:
    """(kind, start) of each block up to the first frame."""
    left, junk = MOST_PARTS, MOST_JUNK
    while left > 0:
        found = _GIF_BLOCK.search(body, at, at + junk)
        if found is None or found[0] == _GIF_END:
            return
        junk -= found.start() - at
        yield found[0], found.start()
        if found[0] == _GIF_IMAGE:
            return
        at = found.end() + 1
        while left > 0 and at < len(body) and body[at]:
            at, left = at + 1 + body[at], left - 1
        at, left = at + 1, left - 1
    raise _too_many("GIF", "blocks before its first frame")


_WEBP_HAS_EXIF, _WEBP_SHOWN = 0x08, 0x12  # flags of the extended header; the latter are animation and alpha
_WEBP_PICTURE = frozenset({b"VP8 ", b"VP8L"})
_WEBP_FRAME = b"ANMF"
_WEBP_FRAME_HEADER = 24  # bytes, its chunk's outline included


def webp(body: bytes) -> Trimmed:
    """Keeps the size and the first picture, with its alpha channel; of an animation the first frame.

    Raises TooLarge past MOST_PARTS.
    """
    chunks, extended = _webp_chunks(body, 12, len(body)), body[12:16] == b"VP8X"
    flags = int.from_bytes(body[20:21]) if extended else 0
    kept: list[bytes | memoryview] = [b"VP8X\x0a\x00\x00\x00", bytes([flags & _WEBP_SHOWN]), body[21:30]]
    kept = kept if extended else []
    for kind, start, stop in chunks:
        if kind in _WEBP_PICTURE or kind in {b"ANIM", b"ALPH"}:
            kept.append(memoryview(body)[start:stop])
        elif kind == _WEBP_FRAME:
            kept += _webp_frame(body, start, stop)
        if kind in _WEBP_PICTURE or kind == _WEBP_FRAME:
            break
    exifs = (body[start + 8 : stop] for kind, start, stop in chunks if kind == b"EXIF")
    exif = next(exifs, b"") if flags & _WEBP_HAS_EXIF else b""
    return Trimmed(b"".join((b"RIFF", _size(kept, 4), b"WEBP", *kept)), exif)


def _webp_frame(body: bytes, start: int, stop: int) -> list[bytes | memoryview]:
    """The pieces of a frame's chunk with nothing but its picture in it."""
    inside = start + _WEBP_FRAME_HEADER
    kinds = _WEBP_PICTURE | {b"ALPH"}
    picture = [memoryview(body)[at:end] for kind, at, end in _webp_chunks(body, inside, stop) if kind in kinds]
    return [_WEBP_FRAME, _size(picture, 16), body[start + 8 : inside], *picture]


def _size(pieces: Sequence[bytes | memoryview], more: int) -> bytes:
    return (sum(map(len, pieces)) + more).to_bytes(4, "little")


def _webp_chunks(body: bytes, at: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """(kind, start, stop) of each chunk, its outline and its padding included."""
    for _ in range(MOST_PARTS):
        if at + 8 > end:
            return
        start, size = at, int.from_bytes(body[at + 4 : at + 8], "little")
        at += 8 + size + (size & 1)
        yield body[start : start + 4], start, min(at, end)
    raise _too_many("WebP", "chunks")


def _too_many(kind: str, parts: str) -> TooLarge:
    return TooLarge(f"the {kind} image has more than {MOST_PARTS} {parts}")
