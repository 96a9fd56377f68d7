"""Tensors as the Open Inference Protocol v2 has them: in JSON, and after it in Triton's binary form.

https://github.com/kserve/open-inference-protocol and, for the binary form,
https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md
"""

import base64
import json
import math
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from server.errors import BadRequest
from server.form import MOST_IMAGES

# What JSON may hold: reading it holds up everybody, for some 60 ms with these. Binary tensors hold up nobody.
MOST_JSON = 4 * 1024 * 1024  # bytes
MOST_VALUES = 500_000
MOST_LISTS = 20_000  # and objects, which cost far more than values
BINARY = "binary_data_size"
InputName = Literal["image", "pixels", "normalised"]
OutputName = Literal["indices", "probabilities", "labels", "stitch", "reason"]
Datatype = Literal["BYTES", "UINT8", "FP32", "INT64"]
INPUTS: Mapping[InputName, Datatype] = {"image": "BYTES", "pixels": "UINT8", "normalised": "FP32"}
OUTPUTS: Mapping[OutputName, Datatype] = {
    "indices": "INT64",
    "probabilities": "FP32",
    "labels": "BYTES",
    "stitch": "INT64",
    "reason": "BYTES",
}
CLASSIFIED = "probabilities"
"""The output that can be asked for as classes: `probability:index:label`."""

_TYPES: Mapping[str, np.dtype[Any]] = {"UINT8": np.dtype("<u1"), "FP32": np.dtype("<f4"), "INT64": np.dtype("<i8")}
_SHORT = Field(max_length=1000)

Pixels = NDArray[Any]
"""An image that came decoded, (3, size, size): uint8, or float32 where it is normalised."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Parameters(_Strict):
    """A request's: `timeout` in microseconds, 0 being the server's SLO; `priority` as in `Tenant.asking`."""

    timeout: int = Field(0, ge=0)
    priority: int = Field(0, ge=0)
    budget: str | None = None
    stitch: int | None = Field(None, ge=0)
    binary_data_output: bool = False


class Form(_Strict):
    """How an output is wanted; with `classification` its likeliest classes, so many."""

    binary_data: bool | None = None
    classification: int = Field(0, ge=0)


class Wanted(_Strict):
    """An output that a request asks for."""

    name: OutputName
    parameters: Form = Form()


class _Input(BaseModel):
    model_config = ConfigDict(strict=True)

    name: InputName
    shape: Annotated[list[Annotated[int, Field(ge=0, lt=2**31)]], Field(max_length=8)]
    datatype: str
    parameters: dict[str, Any] = {}
    data: list[Any] | None = None


class InferRequest(_Strict):
    """The JSON of a request."""

    id: Annotated[str, _SHORT] | None = None
    parameters: Parameters = Parameters()
    inputs: Annotated[list[_Input], Field(max_length=8)]
    outputs: Annotated[list[Wanted], Field(max_length=len(OUTPUTS))] = []


@dataclass(frozen=True)
class Inference:
    """What a request asks: images as files or as pixels, and how to answer."""

    id: str | None
    images: Sequence[bytes | Pixels]
    parameters: Parameters
    outputs: Sequence[Wanted]


def header_length(text: str | None) -> int | None:
    """How many bytes of the body are JSON, by the header `Inference-Header-Content-Length`. Raises BadRequest."""
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) <= 10):
        raise BadRequest("Inference-Header-Content-Length: give the number of bytes of the JSON before the tensors")
    return int(text)


def read(body: bytes | memoryview, length: int | None, size: int) -> Inference:
    """A request's body, of which the first `length` bytes, else all, are JSON; images have `size` pixels a side.

    Pixels in binary form are not copied. Raises BadRequest that says what to mend.
    """
    length = len(body) if length is None else length
    if length > len(body):
        raise BadRequest(f"Inference-Header-Content-Length: {length} bytes of JSON are more than the body has")
    text = bytes(body[:length])
    _check_json(text)
    return _inference(lambda: InferRequest.model_validate_json(text), memoryview(body)[length:], size)


def read_fields(fields: Mapping[str, object], raw: bytes, size: int) -> Inference:
    """As `read`, of what came in another encoding than JSON: the fields of the JSON, and its tensor in binary form."""
    return _inference(lambda: InferRequest.model_validate(fields), memoryview(raw), size)


def _inference(parse: Callable[[], InferRequest], tail: memoryview, size: int) -> Inference:
    try:
        request = parse()
    except ValidationError as error:
        raise BadRequest(_fault(error)) from None
    if len(request.inputs) != 1:
        raise BadRequest(f"inputs: there are {len(request.inputs)}; {_choices(size)}")
    return Inference(request.id, _images(request.inputs[0], tail, size), request.parameters, request.outputs)


def _check_json(text: bytes) -> None:
    """Raises BadRequest for JSON that would take long to be read."""
    for what, found, most in (
        ("bytes", len(text), MOST_JSON),
        ("values", text.count(b","), MOST_VALUES),
        ("lists", text.count(b"[") + text.count(b"{"), MOST_LISTS),
    ):
        if found > most:
            raise BadRequest(f"the JSON has more than {most} {what}; send tensors in binary form ({BINARY})")


def _fault(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(map(str, first["loc"]))[:100]
    return f"{place or 'body'}: {first['msg'][:200]}"


def _images(given: _Input, tail: memoryview, size: int) -> Sequence[bytes | Pixels]:
    datatype = INPUTS[given.name]
    if given.datatype != datatype:
        raise BadRequest(f"input {given.name!r}: its datatype is {datatype}; {_choices(size)}")
    count = _count(given, size)
    raw = _raw(given, tail)
    if datatype == "BYTES":
        strings = list(_strings(raw, count)) if raw is not None else _from_base64(given.data or [])
        if len(strings) != count:
            raise BadRequest(f"input {given.name!r}: it has {len(strings)} elements, and {count} by its shape")
        return strings
    values = _binary(given, raw, datatype) if raw is not None else _from_json(given, datatype)
    return list(values.reshape(count, 3, size, size))


def _count(given: _Input, size: int) -> int:
    """How many images the input has by its shape, which has to be one that it can have."""
    count, *rest = given.shape or (0,)
    allowed: Sequence[list[int]] = ([], [1]) if INPUTS[given.name] == "BYTES" else ([3, size, size],)
    if not given.shape or rest not in allowed:
        raise BadRequest(f"input {given.name!r}: the shape {given.shape} does not do; {_choices(size)}")
    if not 1 <= count <= MOST_IMAGES:
        raise BadRequest(f"input {given.name!r}: {count} images; send 1 to {MOST_IMAGES} in a request")
    return count


def _choices(size: int) -> str:
    return f"send one of image BYTES [N], pixels UINT8 [N,3,{size},{size}], normalised FP32 [N,3,{size},{size}]"


def _raw(given: _Input, tail: memoryview) -> memoryview | None:
    """The input's binary data, None where it is in the JSON."""
    announced = given.parameters.get(BINARY)
    if (announced is None) == (given.data is None):
        raise BadRequest(f"input {given.name!r}: give either data or {BINARY}; there is no shared memory")
    if announced is not None and type(announced) is not int:
        raise BadRequest(f"input {given.name!r}: {BINARY} is a number of bytes")
    if len(tail) != (announced or 0):
        raise BadRequest(
            f"{len(tail)} bytes follow the JSON, and {announced or 0} are announced; "
            f"Inference-Header-Content-Length says where the JSON ends, {BINARY} how long the tensor is"
        )
    return None if announced is None else tail


def _strings(raw: memoryview, most: int) -> Iterator[bytes]:
    """Elements of a BYTES tensor: each its length, 4 bytes little-endian, and its bytes. Raises BadRequest."""
    at = 0
    for _ in range(most):
        start = at + 4
        end = start + int.from_bytes(raw[at:start], "little")
        if end > len(raw):
            raise BadRequest(f"input 'image': the element at byte {at} ends after the tensor")
        yield bytes(raw[start:end])
        at = end
    if at < len(raw):
        raise BadRequest(f"input 'image': {len(raw) - at} bytes follow its last element")


def _from_base64(data: Sequence[object]) -> list[bytes]:
    texts: list[Any] = [row[0] if isinstance(row, list) and len(row) == 1 else row for row in data[: MOST_IMAGES + 1]]
    if not all(isinstance(text, str) for text in texts):
        raise BadRequest("input 'image': its data are strings")
    try:
        return [base64.b64decode(text, validate=True) for text in texts]
    except ValueError:
        raise BadRequest("input 'image': in JSON, give each image in base64; or send them in binary form") from None


def _binary(given: _Input, raw: memoryview, datatype: str) -> Pixels:
    kind = _TYPES[datatype]
    expected = math.prod(given.shape) * kind.itemsize
    if len(raw) != expected:
        raise BadRequest(f"input {given.name!r}: {len(raw)} bytes, and {expected} by its shape and datatype")
    return np.frombuffer(raw, kind)


def _from_json(given: _Input, datatype: str) -> Pixels:
    """JSON numbers, flat or nested."""
    numbers = _flat(given)
    if not set(map(type, numbers)) <= ({int} if datatype == "UINT8" else {int, float}):
        raise BadRequest(f"input {given.name!r}: its data are not {datatype}")
    if datatype == "UINT8" and not (min(numbers) >= 0 and max(numbers) <= 255):
        raise BadRequest(f"input {given.name!r}: its values are not all in 0 to 255")
    try:
        with np.errstate(over="ignore"):  # what is infinite then is refused with the pixels
            return np.array(numbers, np.float64).astype(_TYPES[datatype])
    except OverflowError:
        raise BadRequest(f"input {given.name!r}: its data are not {datatype}") from None


def _flat(given: _Input) -> list[Any]:
    """The data without their nesting, which has to be that of the shape where there is any."""
    rows: list[Any] = given.data or []
    total = math.prod(given.shape)
    if len(rows) == given.shape[0] != total:
        for side in given.shape[1:]:
            if not all(type(row) is list and len(row) == side for row in rows):
                raise BadRequest(f"input {given.name!r}: its data are not nested as its shape {given.shape} says")
            rows = list(chain.from_iterable(rows))
    if len(rows) != total:
        raise BadRequest(f"input {given.name!r}: {len(rows)} values, and {total} by its shape")
    return rows


@dataclass(frozen=True)
class Output:
    """One tensor of an answer: `values` flat, numbers or texts; whether it goes after the JSON."""

    name: str
    datatype: Datatype
    shape: Sequence[int]
    values: Sequence[float] | Sequence[str]
    binary: bool


def write(head: Mapping[str, object], outputs: Sequence[Output]) -> tuple[bytes, int | None]:
    """The body of an answer, and how many of its bytes are JSON where tensors follow."""
    described, tail = [], []
    for output in outputs:
        tensor: dict[str, object] = {"name": output.name, "datatype": output.datatype, "shape": output.shape}
        if output.binary:
            tail.append(encode(output))
            tensor["parameters"] = {BINARY: len(tail[-1])}
        else:
            tensor["data"] = output.values
        described.append(tensor)
    text = json.dumps({**head, "outputs": described}, separators=(",", ":")).encode()
    return b"".join((text, *tail)), len(text) if tail else None


def encode(output: Output) -> bytes:
    """Its values in binary form."""
    if output.datatype != "BYTES":
        return np.array(output.values, _TYPES[output.datatype]).tobytes()
    return framed(str(value).encode() for value in output.values)


def framed(elements: Iterable[bytes]) -> bytes:
    """A BYTES tensor in binary form: each element's length, 4 bytes little-endian, and its bytes."""
    return b"".join(part for element in elements for part in (struct.pack("<I", len(element)), element))
