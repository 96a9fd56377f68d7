"""The servers that benchmarks compare: how each is started, asked and read."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from server.replay.client import Body

HERE = Path(__file__).resolve().parent
HEADER = 200  # bytes: the JSON is padded, so that its length is the same for every image
BOUNDARY = "of-an-image"

Answer = Mapping[str, float]  # probability by label


@dataclass(frozen=True)
class Kind:
    """One kind of server. `program` is what an interpreter runs; `--port` and the server's own options follow.

    `ready` and `path` are where it says whether it is ready, and where images are POSTed to; `wrap` makes a request's
    body of a file and its type; `read` raises ValueError, LookupError or TypeError for what is no answer.
    """

    program: tuple[str, ...]
    ready: str
    path: str
    wrap: Callable[[bytes, str], Body]
    read: Callable[[bytes], Answer]
    headers: Mapping[str, str] = field(default_factory=dict)


def _form(image: bytes, content_type: str) -> Body:
    disposition = 'Content-Disposition: form-data; name="image"; filename="image"'
    head = f"--{BOUNDARY}\r\n{disposition}\r\nContent-Type: {content_type}\r\n\r\n".encode()
    return Body(head + image + f"\r\n--{BOUNDARY}--\r\n".encode(), f"multipart/form-data; boundary={BOUNDARY}")


def _tensor(image: bytes, _: str) -> Body:
    size = {"binary_data_size": len(image) + 4}
    told = {"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1, 1], "parameters": size}]}
    header = json.dumps(told).encode().ljust(HEADER)
    return Body(header + len(image).to_bytes(4, "little") + image, "application/octet-stream")


def _read_stitchserve(content: bytes) -> Answer:
    return {each["label"]: each["probability"] for each in json.loads(content)["predictions"]}


def _read_best(content: bytes) -> Answer:
    told = json.loads(content)
    told = told[0] if isinstance(told, list) else told
    return {told["label"]: told["probability"]}


def _read_triton(content: bytes) -> Answer:
    outputs = {each["name"]: each["data"] for each in json.loads(content)["outputs"]}
    return dict(zip(outputs["label"], outputs["probability"], strict=True))


STITCHSERVE = Kind(("-m", "server", "serve"), "/readyz", "/classify", Body, _read_stitchserve)
KINDS: Mapping[str, Kind] = {
    "stitchserve": STITCHSERVE,
    "fastapi": Kind((str(HERE / "by_fastapi.py"),), "/ready", "/classify", Body, _read_best),
    "litserve": Kind((str(HERE / "by_litserve.py"),), "/health", "/predict", _form, _read_best),
    "mosec": Kind((str(HERE / "by_mosec.py"),), "/", "/inference", Body, _read_best),
    "bentoml": Kind((str(HERE / "by_bentoml.py"),), "/readyz", "/classify", _form, _read_best),
    "ray": Kind((str(HERE / "by_ray.py"),), "/-/healthz", "/classify", Body, _read_best),
    "triton": Kind(
        (str(HERE / "by_triton.py"),),
        "/v2/health/ready",
        "/v2/models/classifier/infer",
        _tensor,
        _read_triton,
        {"Inference-Header-Content-Length": str(HEADER)},
    ),
}
"""By name; ours answers nothing where PEER_WORK is `noop` by by_stitchserve.py alone."""
