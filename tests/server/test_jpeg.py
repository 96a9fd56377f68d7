"""Which JPEGs are quick."""

import io

from PIL import Image

from server.images import is_quick


def encoded(side: int, kind: str = "JPEG", **options: bool) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (side, side), "teal").save(file, kind, **options)
    return file.getvalue()


def test_only_a_small_jpeg_of_few_scans_is_read_without_asking_a_thread() -> None:
    assert is_quick(encoded(64))
    assert not is_quick(encoded(256)), "its pixels"
    assert not is_quick(encoded(64) + bytes(10_000)), "its bytes"
    assert not is_quick(encoded(64, progressive=True)), "its scans"
    assert not is_quick(encoded(64)[:2] + b"\xff\xfe\x00\x02" * 100 + encoded(64)[2:]), "its parts"
    assert not is_quick(encoded(64, "PNG"))
    assert not is_quick(encoded(64)[:20])
    assert not is_quick(b"")
