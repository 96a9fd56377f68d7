"""Fuzz target: requests of the Open Inference Protocol, after a line with the length of their JSON or nothing."""

import json
import random
import re
from typing import Any

import numpy as np

from benchmarks.fuzz.images import SMALL
from benchmarks.fuzz.target import Target
from server.errors import BadImage, BadRequest
from server.pixels import from_pixels
from server.tensors import MOST_IMAGES, Inference, header_length, read

SIZE = 4  # pixels a side
SHAPE = [2, 3, SIZE, SIZE]
COUNT = 2 * 3 * SIZE * SIZE


def request(tail: bytes = b"", length: bool = True, **given: Any) -> bytes:
    """The length's line, the JSON of one input and the tensor after it."""
    members = {key: given.pop(key) for key in ("id", "parameters", "outputs") if key in given}
    tensor = given | ({"parameters": {"binary_data_size": len(tail)}} if tail else {})
    text = json.dumps({**members, "inputs": [tensor]}).encode()
    return (b"%d" % len(text) if length else b"") + b"\n" + text + tail


PIXELS = {"name": "pixels", "shape": SHAPE, "datatype": "UINT8"}
FLOATS = {"name": "normalised", "shape": SHAPE, "datatype": "FP32"}
IMAGES = {"name": "image", "shape": [2], "datatype": "BYTES"}
OUTPUTS = [
    {"name": "probabilities", "parameters": {"binary_data": True, "classification": 3}},
    {"name": "labels"},
]
ASKED = {"timeout": 50_000, "priority": 1, "budget": "2GFLOPs,78%", "stitch": 3, "binary_data_output": True}
SEEDS = (
    request(bytes(COUNT), **PIXELS),
    request(bytes(4 * COUNT), id="one", parameters=ASKED, outputs=OUTPUTS, **FLOATS),
    request(b"\x03\x00\x00\x00abc\x00\x00\x00\x00", **IMAGES),
    request(length=False, data=[7] * COUNT, **PIXELS),
    request(length=False, data=np.full(SHAPE, 0.5).tolist(), **FLOATS),
    request(length=False, data=[1e400, -1e39, *[0] * (COUNT - 2)], **FLOATS),
    request(length=False, data=["YWJj", ""], **IMAGES),
    request(data=[["YWJj"], ["YQ=="]], **(IMAGES | {"shape": [2, 1]})),
    request(length=False, data=[10**400] * COUNT, **FLOATS),
    b"\n" + b'{"inputs":' + b"[" * 300 + b"]" * 300 + b"}",
)
_SIZE = re.compile(rb'("binary_data_size": ?)\d+')


def run(data: bytes) -> Inference:
    """Reads a request, then its pixels; asserts that there are as many images as one may send."""
    line, _, body = data.partition(b"\n")
    inference = read(body, header_length(line.decode("latin-1") or None), SIZE)
    assert 1 <= len(inference.images) <= MOST_IMAGES, len(inference.images)
    for image in inference.images:
        if not isinstance(image, bytes):
            assert image.shape == (3, SIZE, SIZE), image.shape
            from_pixels(image, SMALL)
    return inference


def agreed(data: bytes, chance: random.Random) -> bytes:
    """Mostly, both lengths right again: tensors follow the last brace, for the seeds have none in them."""
    line, _, body = data.partition(b"\n")
    if not line or chance.random() < 0.2:
        return data
    end = body.rfind(b"}") + 1
    text = _SIZE.sub(b"\\g<1>%d" % (len(body) - end), body[:end])
    return b"%d\n" % len(text) + text + body[end:]


TARGET = Target(run, (BadRequest, BadImage), SEEDS, agreed)
