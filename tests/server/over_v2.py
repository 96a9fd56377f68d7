"""What tests of the Open Inference Protocol send, and how they read a refusal."""

import io
from typing import Any

import httpx
import numpy as np
import tritonclient.http as triton
from conftest import SAMPLES
from PIL import Image

SIZE = 64
FILES = [path.read_bytes() for path in sorted(SAMPLES.glob("*.jpg"))[:3]]


def decoded(file: bytes) -> np.ndarray[Any, Any]:
    picture = Image.open(io.BytesIO(file)).convert("RGB")
    assert picture.size == (SIZE, SIZE), "the samples need no resizing"
    return np.asarray(picture).transpose(2, 0, 1)


PIXELS = np.stack([decoded(file) for file in FILES])
NORMALISED = ((PIXELS / 255 - 0.5) / 0.5).astype(np.float32)


def given(name: str, values: np.ndarray[Any, Any], datatype: str, *, binary: bool = True) -> list[triton.InferInput]:
    tensor = triton.InferInput(name, list(values.shape), datatype)
    tensor.set_data_from_numpy(values, binary_data=binary)
    return [tensor]


def files(*bodies: bytes) -> list[triton.InferInput]:
    return given("image", np.array(bodies or FILES, dtype=object), "BYTES")


def error(response: httpx.Response, status: int) -> str:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    content = response.json()
    assert content["status"] == status
    text: str = content["error"]
    return text
