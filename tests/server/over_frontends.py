"""What front ends and one process are both asked."""

import json
import os
from collections.abc import Iterator
from io import BytesIO
from typing import Any

from over_v2 import FILES
from PIL import Image


class InParts:
    """A body of unknown length, each time that it is sent."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    def __iter__(self) -> Iterator[bytes]:
        yield self._body[:99]
        yield self._body[99:]


def picture(kind: str, size: tuple[int, int] = (700, 500), **options: Any) -> bytes:
    file = BytesIO()
    Image.linear_gradient("L").resize(size).convert("RGB").save(file, kind, **options)
    return file.getvalue()


def turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return picture("JPEG", exif=exif)


def form(*images: bytes) -> dict[str, Any]:
    return {"files": [("image", (f"{number}", image, "image/jpeg")) for number, image in enumerate(images)]}


LARGE = os.urandom(3_000_000)
JPEG = {"Content-Type": "image/jpeg"}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
V2 = json.dumps(
    {"inputs": [{"name": "pixels", "shape": [1, 3, 64, 64], "datatype": "UINT8", "data": [7] * 12288}]}
).encode()

REQUESTS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "jpeg": ("POST", "/classify?stitch=46", {"content": FILES[0]}),
    "gray and turned": ("POST", "/classify?stitch=46", {"content": turned()}),
    "large jpeg": ("POST", "/classify?stitch=3", {"content": picture("JPEG", (3000, 2000))}),
    "long jpeg": ("POST", "/classify?stitch=3", {"content": picture("JPEG", (1200, 100))}),
    "said to be a jpeg": ("POST", "/classify?stitch=46", {"content": FILES[0], "headers": JPEG}),
    "in chunks": ("POST", "/classify?stitch=46", {"content": InParts(FILES[0]), "headers": JPEG}),
    "zipped": ("POST", "/classify", {"content": FILES[0], "headers": JPEG | {"Content-Encoding": "gzip"}}),
    "as curl says it": ("POST", "/classify?stitch=46", {"content": FILES[0], "headers": FORM}),
    "empty": ("POST", "/classify", {"content": b"", "headers": JPEG}),
    "no jpeg": ("POST", "/classify", {"content": LARGE, "headers": JPEG}),
    "a jpeg to the wrong route": ("POST", "/classify/batch", {"content": FILES[0], "headers": JPEG}),
    "png": ("POST", "/classify?stitch=20", {"content": picture("PNG")}),
    "form": ("POST", "/classify?stitch=20", form(FILES[1])),
    "batch": ("POST", "/classify/batch?stitch=9", form(*FILES, b"no image at all")),
    "tensor": ("POST", "/v2/models/auto@5/infer", {"content": V2}),
    "tensor, said to be a jpeg": ("POST", "/v2/models/auto@5/infer", {"content": V2, "headers": JPEG}),
    "not an image": ("POST", "/classify", {"content": LARGE}),
    "cut off": ("POST", "/classify", {"content": FILES[0][:-200]}),
    "wrong type": ("POST", "/classify", {"content": b"x", "headers": {"Content-Type": "text/plain"}}),
    "wrong budget": ("POST", "/classify?budget=lots", {"content": FILES[0]}),
    "no route": ("GET", "/nowhere%20at/all?x=%FF", {}),
    "wrong method": ("DELETE", "/classify", {}),
    "head": ("HEAD", "/stitches", {}),
    "table": ("GET", "/stitches", {}),
    "page": ("GET", "/", {}),
}
