"""JPEGs that leave nothing to a decoder's discretion: what a decoder is given that nobody has seen the source of.

libjpeg mends or refuses what is odd about a file. Another decoder may do otherwise: take a size from a second header,
read past a table, fill what is missing with gray and call it a picture. So it is given plain baseline files alone, as
cameras and encoders write them: in YCbCr or gray, one scan, no part twice that may be there once. All others are
libjpeg's, whose word then counts.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from server.jpeg import Header

_TABLE, _HUFFMAN, _FRAME, _SCAN, _RESTARTS, _JFIF, _ADOBE = 0xDB, 0xC4, 0xC0, 0xDA, 0xDD, 0xE0, 0xEE
_END = 0xD9
_MOST_SEGMENTS = 32  # four tables of numbers, four of codes, and a few more
_MARKER = re.compile(rb"\xff[^\x00]")
_NO_RESTART = re.compile(rb"\xff[^\x00\xd0-\xd7]")
_RESTART = re.compile(rb"\xff([\xd0-\xd7])")
_IN_TURN = bytes(range(0xD0, 0xD8))
_SIDES = {(1, 1), (2, 1), (1, 2), (2, 2)}
_VALUES = {  # bits of a difference; zeros and bits of a coefficient, an end, 16 zeros: 8-bit pixels have no more
    0: frozenset(range(12)),
    1: frozenset({0, 0xF0} | {16 * zeros + bits for zeros in range(16) for bits in range(1, 11)}),
}
_YCBCR = 1
LEAST_BITS = 2
"""That a block takes: of a difference, and of an end."""


class _Component(NamedTuple):
    name: int
    across: int
    down: int
    table: int


class _Odd(Exception):  # noqa: N818 - no error: only not for this decoder
    pass


def plain(body: bytes, header: Header) -> bytearray | None:
    """A trimmed JPEG up to its end's marker, without what may follow; None where it is not plain, or not of `header`.

    Of the coded pixels it is known that they end with that marker, not in the middle of the file, and that restarts
    come in turn and as many as there must be. That they decode to all of the picture only decoding tells: of a file
    that was cut short and closed again Pillow makes a picture with a gray rest, and so may others.
    """
    try:
        return _plain(body, header)
    except (_Odd, IndexError):
        return None


def _plain(body: bytes, header: Header) -> bytearray:
    frame: list[_Component] = []
    numbers: set[int] = set()
    codes: set[tuple[int, int]] = set()
    interval = adobe = None
    for marker, start, stop in _segments(body):
        content = body[start:stop]
        if marker == _TABLE:
            numbers.update(_tables(content))
        elif marker == _HUFFMAN:
            codes.update(_codes(content))
        elif marker == _FRAME:
            _check(not frame)
            frame = _frame(content, header)
        elif marker == _RESTARTS:
            _check(len(content) == 2 and interval is None)
            interval = int.from_bytes(content)
        elif marker == _ADOBE:
            adobe = content[11]  # the trimmer leaves one
        elif marker == _SCAN:
            _check_scan(content, frame, numbers, codes)
            _check(len(frame) == 1 or adobe in {None, _YCBCR})
            units, blocks = _units(header.size, frame), sum(part.across * part.down for part in frame)
            end = _end(body, stop, interval or 0, units)
            # Or it would be gray from somewhere on, however large it says that it is.
            _check(8 * (end - 2 - stop) >= LEAST_BITS * blocks * units)
            return bytearray(memoryview(body)[:end])
        else:
            _check(marker == _JFIF)
    raise _Odd


def _check(expected: bool) -> None:
    if not expected:
        raise _Odd


def _segments(body: bytes) -> Iterator[tuple[int, int, int]]:
    """(marker, start, stop) of the content of each segment, one right after the other."""
    at = 2
    for _ in range(_MOST_SEGMENTS):
        _check(body[at] == 0xFF)
        stop = at + 2 + int.from_bytes(body[at + 2 : at + 4])
        _check(at + 4 <= stop <= len(body))
        yield body[at + 1], at + 4, stop
        at = stop


def _tables(content: bytes) -> Iterator[int]:
    """The number of each table of a segment, 8 bits an entry, none of them zero."""
    _check(len(content) > 0 and len(content) % 65 == 0)
    for at in range(0, len(content), 65):
        _check(content[at] < 4 and 0 not in content[at + 1 : at + 65])
        yield content[at]


def _codes(content: bytes) -> Iterator[tuple[int, int]]:
    """(kind, number) of each table of codes: a prefix code, whose longest word is not all ones, for what may come."""
    at = 0
    _check(len(content) > 0)
    while at < len(content):
        kind, number = divmod(content[at], 16)
        lengths = content[at + 1 : at + 17]
        _check(number < 2 and len(lengths) == 16 and sum(lengths) > 0)
        word = 0
        for length, count in enumerate(lengths, 1):
            word += count
            _check(word < 1 << length)
            word <<= 1
        values = content[at + 17 : at + 17 + sum(lengths)]
        _check(len(values) == sum(lengths) == len(set(values)))
        _check(_VALUES.get(kind, frozenset()).issuperset(values))
        yield kind, number
        at += 17 + len(values)


def _frame(content: bytes, header: Header) -> list[_Component]:
    """The components of a picture of this size and these colours, 8 bits each."""
    width, height = int.from_bytes(content[3:5]), int.from_bytes(content[1:3])
    count = 1 if header.colours == "GRAY" else 3
    _check(content[0] == 8 and (width, height) == header.size and content[5] == count)
    _check(len(content) == 6 + 3 * count)
    parts = [
        _Component(content[at], content[at + 1] >> 4, content[at + 1] & 15, content[at + 2])
        for at in (6, 9, 12)[:count]
    ]
    luma, *chroma = parts
    _check((luma.across, luma.down) in (_SIDES if chroma else {(1, 1)}))
    _check(all((part.across, part.down) == (1, 1) for part in chroma))
    _check(not chroma or [part.name for part in parts] == [1, 2, 3])
    return parts


def _check_scan(content: bytes, frame: list[_Component], numbers: set[int], codes: set[tuple[int, int]]) -> None:
    """One scan of all components, whole, by tables that are there."""
    count = len(frame)
    _check(count > 0 and len(content) == 4 + 2 * count and content[0] == count)
    for part, at in zip(frame, range(1, 1 + 2 * count, 2), strict=True):
        direct, rest = divmod(content[at + 1], 16)
        _check(content[at] == part.name and part.table in numbers and {(0, direct), (1, rest)} <= codes)
    _check(content[-3:] == b"\x00\x3f\x00")


def _units(size: tuple[int, int], frame: list[_Component]) -> int:
    """How many groups of blocks the picture is coded in."""
    across, down = 8 * frame[0].across, 8 * frame[0].down
    return -(-size[0] // across) * -(-size[1] // down)


def _end(body: bytes, start: int, interval: int, units: int) -> int:
    """Where the coded pixels have ended, the end's marker included: there is no other marker but restarts."""
    found = (_NO_RESTART if interval else _MARKER).search(body, start)
    if found is None or body[found.start() + 1] != _END:
        raise _Odd
    if interval:
        restarts = b"".join(_RESTART.findall(body, start, found.start()))
        expected = -(-units // interval) - 1
        _check(restarts == (_IN_TURN * (expected // 8 + 1))[:expected])
    return found.end()
