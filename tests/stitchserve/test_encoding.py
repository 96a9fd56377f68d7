"""Whatever holds an image arrives as it is."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from stitchserve.images import encoded

RANDOM = np.random.default_rng(5)


def decoded(file: bytes) -> Any:
    return np.asarray(Image.open(io.BytesIO(file)))


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 3), (5, 7, 4), (1, 1, 3)])
def test_arrays_lose_nothing(shape: tuple[int, ...]) -> None:
    array = RANDOM.integers(0, 256, shape, dtype=np.uint8)
    assert np.array_equal(decoded(encoded(array)), array)
    assert np.array_equal(decoded(encoded(array[:, ::-1])), array[:, ::-1]), "also where memory is not in order"


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr"])
def test_pillow_images_lose_nothing(mode: str) -> None:
    picture = Image.fromarray(RANDOM.integers(0, 256, (5, 7, 3), dtype=np.uint8)).convert(mode)
    expected = picture if mode not in {"CMYK", "YCbCr"} else picture.convert("RGB")
    assert np.array_equal(decoded(encoded(picture)), np.asarray(expected))


def test_a_turned_photograph_is_turned_as_the_server_turns_its_file() -> None:
    file = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera lay on its side
    Image.new("RGB", (8, 4)).save(file, "JPEG", exif=exif)
    assert decoded(encoded(Image.open(file))).shape == (8, 4, 3)


def test_files_are_sent_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "cat.webp"
    path.write_bytes(b"whatever")
    everything = (path, str(path), b"whatever", bytearray(b"whatever"), memoryview(b"whatever"))
    assert {encoded(each) for each in everything} == {b"whatever"}
    with pytest.raises(FileNotFoundError):
        encoded("nowhere.jpg")


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (np.zeros((4, 4, 3), np.float32), "uint8"),
        (np.zeros((1, 4, 4, 3), np.uint8), "shape"),
        (np.zeros((4, 4, 2), np.uint8), "shape"),
        (np.zeros((0, 4), np.uint8), "shape"),
    ],
)
def test_what_is_no_image_is_named(wrong: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        encoded(wrong)
    with pytest.raises(TypeError, match="list"):
        encoded([1, 2])  # type: ignore[arg-type]
