"""Clients that break HTTP, images or their word: each is one connection, or fifty, with its outcome in a word."""

import asyncio
import io
import random
import struct
import zlib
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from PIL import Image

from benchmarks.peers.servers import STITCHSERVE, Kind

PATIENCE = 30.0  # seconds for an answer; the server's own limits for heads and bodies are 10 s
IDLE_SOCKETS = 50
TYPES = ("image/jpeg", "image/png", "image/webp", "image/gif", "image/bmp", "application/octet-stream")


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(width: int, height: int, pixels: bytes) -> bytes:
    """A PNG of gray pixels that says to be this large, whatever its compressed `pixels` are."""
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + _chunk(b"IDAT", pixels) + _chunk(b"IEND", b"")


BOMB = png(60_000, 60_000, zlib.compress(bytes(1_000_000)))
LARGE = png(6_900, 6_900, zlib.compress(bytes(6_900 * 6_901)))  # 46 KB, just within the server's limit of pixels


@dataclass(frozen=True)
class Foe:
    """Where the server is, a good JPEG, the same in other formats, chance, and how that server wants to be asked."""

    port: int
    jpeg: bytes
    images: Mapping[str, bytes]  # by content type
    chance: random.Random
    kind: Kind = STITCHSERVE

    def head(self, content_type: str, length: int | str, path: str = "") -> bytes:
        """A request's head, which asks that the connection be closed after the answer."""
        lines = f"POST {path or self.kind.path} HTTP/1.1\r\nHost: chaos\r\nConnection: close\r\n"
        lines += "".join(f"{name}: {value}\r\n" for name, value in self.kind.headers.items())
        return f"{lines}Content-Type: {content_type}\r\nContent-Length: {length}\r\n\r\n".encode()

    def request(self, image: bytes, content_type: str = "image/jpeg", *, within_ms: int = 0) -> tuple[bytes, bytes]:
        """Head and body that ask for this image, with a deadline where the server knows of any."""
        body = self.kind.wrap(image, content_type)
        late = f"?deadline_ms={within_ms}" if within_ms and self.kind is STITCHSERVE else ""
        return self.head(body.content_type, len(body.content), self.kind.path + late), body.content

    async def send(self, *parts: bytes, pause: float = 0.0) -> str:
        """Send all parts with pauses between them: the answer's status, `problems`, `closed`, or `stuck`."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            with suppress(ConnectionError):
                for part in parts:
                    writer.write(part)
                    await writer.drain()
                    await asyncio.sleep(pause)
            async with asyncio.timeout(PATIENCE):
                line = await reader.readline()
                rest = await reader.read()
            status = line.split()[1].decode() if line.startswith(b"HTTP/") else "closed"
            # /classify/batch answers 200 to a form whose images are all bad, with a problem for each.
            form_of_bad_ones = self.kind is STITCHSERVE and b'"predictions"' not in rest
            return "problems" if status == "200" and form_of_bad_ones else status
        except TimeoutError:
            return "stuck"
        except ConnectionError:
            return "closed"
        finally:
            writer.close()

    async def leave(self, part: bytes, after: float) -> str:
        """Send a part and go after so many seconds: by a close, or by a reset."""
        _, writer = await asyncio.open_connection("127.0.0.1", self.port)
        with suppress(ConnectionError):
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(after)
        if self.chance.random() < 0.5:
            writer.transport.abort()
        writer.close()
        return "left"

    def cut(self, content: bytes) -> bytes:
        """The content without its end."""
        return content[: self.chance.randrange(1, max(2, len(content) * 9 // 10))]


async def leave_mid_head(foe: Foe) -> str:
    head, _ = foe.request(foe.jpeg)
    return await foe.leave(foe.cut(head), foe.chance.uniform(0, 0.5))


async def leave_mid_body(foe: Foe) -> str:
    head, body = foe.request(foe.jpeg)
    return await foe.leave(head + foe.cut(body), foe.chance.uniform(0, 0.5))


async def leave_mid_wait(foe: Foe) -> str:
    return await foe.leave(b"".join(foe.request(foe.jpeg, within_ms=2000)), foe.chance.uniform(0, 0.02))


async def bomb(foe: Foe) -> str:
    return await foe.send(*foe.request(BOMB, "image/png"))


async def large(foe: Foe) -> str:
    return await foe.send(*foe.request(LARGE, "image/png", within_ms=5000))


async def truncated(foe: Foe) -> str:
    content_type, image = foe.chance.choice(list(foe.images.items()))
    return await foe.send(*foe.request(foe.cut(image), content_type))


async def garbage(foe: Foe) -> str:
    content = foe.chance.choice((b"", foe.jpeg[:4])) + foe.chance.randbytes(foe.chance.randrange(0, 50_000))
    return await foe.send(*foe.request(content, foe.chance.choice(TYPES)))


async def form_garbage(foe: Foe) -> str:
    boundary = foe.chance.choice(("", "; boundary=x"))
    part = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a.jpg"\r\n\r\n'
    starts = (b"", b"--x\r\n", part, part * 300, part[:30] * 100)
    body = foe.chance.choice(starts) + foe.chance.randbytes(5_000) + foe.chance.choice((b"", b"\r\n--x--\r\n"))
    path = foe.chance.choice(("/classify", "/classify/batch") if foe.kind is STITCHSERVE else (foe.kind.path,))
    return await foe.send(foe.head(f"multipart/form-data{boundary}", len(body), path), body)


async def wrong_length(foe: Foe) -> str:
    body = foe.kind.wrap(foe.jpeg, "image/jpeg")
    size = len(body.content)
    length = foe.chance.choice((-1, "many", "1, 2", size // 2, size + 1_000, 10**12))
    return await foe.send(foe.head(body.content_type, length), body.content)


async def bad_chunks(foe: Foe) -> str:
    body = foe.kind.wrap(foe.jpeg, "image/jpeg")
    head = foe.head(body.content_type, 0).replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    bodies = (b"zz\r\n" + body.content, b"5\r\n" + body.content + b"\r\n0\r\n\r\n", b"ffffffffffffffffff\r\n")
    return await foe.send(head, foe.chance.choice(bodies))


async def slow_sender(foe: Foe) -> str:
    request = b"".join(foe.request(foe.jpeg))
    pieces = foe.chance.randrange(5, 30)
    step = -(-len(request) // pieces)
    return await foe.send(*(request[at : at + step] for at in range(0, len(request), step)), pause=0.5)


async def idle_sockets(foe: Foe) -> str:
    opened = await asyncio.gather(*(asyncio.open_connection("127.0.0.1", foe.port) for _ in range(IDLE_SOCKETS)))
    await asyncio.sleep(foe.chance.uniform(1, 15))
    for _, writer in opened:
        writer.close()
    return "left"


ATTACKS: Mapping[Callable[[Foe], Awaitable[str]], float] = {
    **{leave_mid_head: 1.0, leave_mid_body: 1.0, leave_mid_wait: 2.0, bomb: 1.0, large: 0.05, truncated: 2.0},
    **{garbage: 1.0, form_garbage: 1.0, wrong_length: 1.0, bad_chunks: 0.5, slow_sender: 0.3, idle_sockets: 0.1},
}
"""What is done, and how often beside the others."""

UNANSWERABLE = {"bomb", "garbage", "form_garbage", "bad_chunks"}
"""Attacks that must not be answered with 200."""
REFUSALS = {"200", "400", "408", "411", "413", "415", "422", "503", "504", "problems", "closed", "left"}


def wrong(name: str, outcome: str) -> bool:
    """Whether the server should not have done this: fail, never answer, or make a class of nothing."""
    return outcome not in REFUSALS or (outcome == "200" and name in UNANSWERABLE)


def other_formats(jpeg: bytes) -> dict[str, bytes]:
    """The image in three formats, by content type, enlarged so that half of a file is not the whole picture."""
    image = Image.open(io.BytesIO(jpeg)).convert("RGB").resize((200, 200))
    found = {}
    for name in ("jpeg", "png", "webp"):
        content = io.BytesIO()
        image.save(content, name.upper())
        found[f"image/{name}"] = content.getvalue()
    return found
