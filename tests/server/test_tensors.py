"""Requests and answers of the Open Inference Protocol as bytes."""

import base64
import json
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.errors import BadRequest
from server.tensors import MOST_JSON, Output, header_length, read, write

SIZE = 4
VALUES = 3 * SIZE * SIZE


def request(**tensor: object) -> bytes:
    return json.dumps({"inputs": [tensor]}).encode()


def binary(tail: bytes, name: str = "image", shape: object = (1,), datatype: str = "BYTES") -> tuple[bytes, int]:
    parameters = {"binary_data_size": len(tail)}
    head = request(name=name, shape=shape, datatype=datatype, parameters=parameters)
    return head + tail, len(head)


def element(content: bytes) -> bytes:
    return struct.pack("<I", len(content)) + content


def refused(body: bytes, length: int | None = None) -> str:
    with pytest.raises(BadRequest) as refusal:
        read(body, length, SIZE)
    return refusal.value.detail


def pixels(count: int, kind: str) -> np.ndarray[Any, Any]:
    return (np.arange(count * VALUES) % 251).reshape(count, 3, SIZE, SIZE).astype(kind)


@pytest.mark.parametrize("shape", [[2], [2, 1]])
def test_files_come_in_binary_and_in_base64(shape: list[int]) -> None:
    body, length = binary(element(b"first") + element(b"\x00\xff"), shape=shape)
    assert read(body, length, SIZE).images == [b"first", b"\x00\xff"]
    data: list[object] = [base64.b64encode(file).decode() for file in (b"first", b"\x00\xff")]
    data = data if len(shape) == 1 else [[text] for text in data]
    assert read(request(name="image", shape=shape, datatype="BYTES", data=data), None, SIZE).images == [
        b"first",
        b"\x00\xff",
    ]


@pytest.mark.parametrize(("name", "datatype", "kind"), [("pixels", "UINT8", "u1"), ("normalised", "FP32", "<f4")])
def test_pixels_come_in_binary_flat_and_nested(name: str, datatype: str, kind: str) -> None:
    values = pixels(2, kind)
    body, length = binary(values.tobytes(), name, values.shape, datatype)
    flat = request(name=name, shape=values.shape, datatype=datatype, data=values.flatten().tolist())
    nested = request(name=name, shape=values.shape, datatype=datatype, data=values.tolist())
    for images in (read(body, length, SIZE).images, read(flat, None, SIZE).images, read(nested, None, SIZE).images):
        assert [image.dtype for image in images if isinstance(image, np.ndarray)] == [values.dtype] * 2
        assert np.array_equal(np.stack(images), values)


def test_parameters_and_outputs_are_read() -> None:
    tensor = {"name": "image", "shape": [1], "datatype": "BYTES", "data": [""], "parameters": {"content_type": "x"}}
    wanted = [{"name": "probabilities", "parameters": {"classification": 3, "binary_data": False}}, {"name": "stitch"}]
    parameters = {"timeout": 15_000, "priority": 2, "budget": "78%", "stitch": 4, "binary_data_output": True}
    body = {"id": "mine", "inputs": [tensor], "outputs": wanted, "parameters": parameters}
    asked = read(json.dumps(body).encode(), None, SIZE)
    assert asked.id == "mine"
    assert asked.parameters.model_dump() == parameters
    assert [(one.name, one.parameters.classification, one.parameters.binary_data) for one in asked.outputs] == [
        ("probabilities", 3, False),
        ("stitch", 0, None),
    ]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "body: Invalid JSON"),
        (b"[]", "body: Input should be an object"),
        (b"\xff\xfe", "Invalid JSON"),
        (b"[" * 10_000, "Invalid JSON"),
        (b"{}", "inputs: Field required"),
        (b'{"inputs":[]}', "there are 0; send one of image"),
        (json.dumps({"inputs": [{"name": "image", "shape": [1], "datatype": "BYTES"}] * 2}).encode(), "there are 2"),
        (json.dumps({"inputs": [{"name": "image", "shape": [1], "datatype": "BYTES"}] * 9}).encode(), "at most 8"),
        (request(name="other", shape=[1], datatype="BYTES", data=[""]), "inputs.0.name: Input should be 'image'"),
        (request(name="image", shape=[1], datatype="UINT8", data=[1]), "its datatype is BYTES; send one of image"),
        (request(name="image", shape=["1"], datatype="BYTES", data=[""]), "inputs.0.shape.0"),
        (request(name="image", shape=[-1], datatype="BYTES", data=[""]), "inputs.0.shape.0"),
        (request(name="image", shape=[], datatype="BYTES", data=[""]), "the shape [] does not do"),
        (request(name="image", shape=[0], datatype="BYTES", data=[]), "send 1 to 64"),
        (request(name="image", shape=[65], datatype="BYTES", data=[""] * 65), "send 1 to 64"),
        (request(name="image", shape=[2], datatype="BYTES", data=[""]), "1 elements, and 2 by its shape"),
        (request(name="image", shape=[1], datatype="BYTES", data=["not base64!"]), "in base64"),
        (request(name="image", shape=[1], datatype="BYTES", data=[7]), "are strings"),
        (request(name="image", shape=[1], datatype="BYTES"), "either data or binary_data_size"),
        (
            request(name="image", shape=[1], datatype="BYTES", parameters={"shared_memory_region": "mine"}),
            "there is no shared memory",
        ),
        (
            request(name="image", shape=[1], datatype="BYTES", data=[""], parameters={"binary_data_size": 4}),
            "either data or binary_data_size",
        ),
        (request(name="pixels", shape=[1, 3, 4, 5], datatype="UINT8", data=[0]), "pixels UINT8 [N,3,4,4]"),
        (request(name="pixels", shape=[2**31 - 1, 3, 4, 4], datatype="UINT8", data=[0]), "send 1 to 64"),
        (request(name="pixels", shape=[1, 3, 4, 4], datatype="UINT8", data=[0] * 47), "47 values, and 48"),
        (request(name="pixels", shape=[1, 3, 4, 4], datatype="UINT8", data=[256] + [0] * 47), "not all in 0 to 255"),
        (request(name="pixels", shape=[1, 3, 4, 4], datatype="UINT8", data=[-1] + [0] * 47), "not all in 0 to 255"),
        (request(name="pixels", shape=[1, 3, 4, 4], datatype="UINT8", data=[1.5] + [0] * 47), "are not UINT8"),
        (request(name="pixels", shape=[1, 3, 4, 4], datatype="UINT8", data=[2**70] + [0] * 47), "not all in 0 to 255"),
        (request(name="pixels", shape=[1, 3, 4, 4], datatype="UINT8", data=[True] * 48), "are not UINT8"),
        (request(name="normalised", shape=[1, 3, 4, 4], datatype="FP32", data=["1"] * 48), "are not FP32"),
        (request(name="normalised", shape=[1, 3, 4, 4], datatype="FP32", data=[[[], []]]), "nested as its shape"),
        (request(name="normalised", shape=[1, 3, 4, 4], datatype="FP32", data=[[1], [1, 2]]), "2 values, and 48"),
        (request(name="normalised", shape=[1, 3, 4, 4], datatype="FP32", data=[10**400] * 48), "are not FP32"),
        (request(name="normalised", shape=[1, 3, 4, 4], datatype="FP32", data=[[]] * 48), "are not FP32"),
        (json.dumps({"inputs": [], "parameters": {"timeot": 3}}).encode(), "parameters.timeot"),
        (json.dumps({"inputs": [], "parameters": {"sequence_id": 3}}).encode(), "parameters.sequence_id"),
        (b" " * (MOST_JSON + 1), f"more than {MOST_JSON} bytes; send tensors in binary form"),
        (b"0," * 500_001, "more than 500000 values"),
        (b"[" * 20_001, "more than 20000 lists"),
        (b'{"":' * 20_001, "more than 20000 lists"),
    ],
)
def test_what_cannot_be_read_is_named(body: bytes, says: str) -> None:
    assert says in refused(body)


@pytest.mark.parametrize(
    ("tail", "shape", "says"),
    [
        (element(b"x")[:-1], [1], "the element at byte 0 ends after the tensor"),
        (b"\xff\xff\xff\xff", [1], "the element at byte 0 ends after the tensor"),
        (b"\x00\x00", [1], "the element at byte 0 ends after the tensor"),
        (element(b"x"), [2], "the element at byte 5 ends after the tensor"),
        (element(b"x") * 2, [1], "5 bytes follow its last element"),
    ],
)
def test_broken_files_in_binary_are_named(tail: bytes, shape: list[int], says: str) -> None:
    assert says in refused(*binary(tail, shape=shape))


def test_binary_tensors_have_the_size_that_is_announced() -> None:
    body, length = binary(element(b"x"))
    assert "4 bytes follow the JSON, and 5 are announced" in refused(body[:-1], length)
    assert "6 bytes follow the JSON" in refused(body + b"x", length)
    assert "more than the body has" in refused(body, len(body) + 1)
    assert "body: Invalid JSON" in refused(body, length - 1)
    assert "body: Invalid JSON" in refused(body, None)
    assert "0 bytes follow the JSON, and 5 are announced" in refused(body[:length], None)
    wrong, length = binary(bytes(47), "pixels", [1, 3, 4, 4], "UINT8")
    assert "47 bytes, and 48 by its shape" in refused(wrong, length)
    odd = request(name="image", shape=[1], datatype="BYTES", parameters={"binary_data_size": True})
    assert "is a number of bytes" in refused(odd)


def test_the_header_that_says_where_the_json_ends_is_a_number() -> None:
    assert (header_length(None), header_length("0"), header_length("0123")) == (None, 0, 123)
    for text in ("", "-1", "+1", "1.0", "1e3", "x", "\u0663", "\xb2", "9" * 11, "1, 1"):
        with pytest.raises(BadRequest, match="Inference-Header-Content-Length"):
            header_length(text)


JSONS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
TENSORS = st.fixed_dictionaries(
    {},
    optional={
        "name": st.sampled_from(["image", "pixels", "normalised"]) | JSONS,
        "shape": st.sampled_from([[1], [2], [1, 1], [1, 3, SIZE, SIZE]]) | JSONS,
        "datatype": st.sampled_from(["BYTES", "UINT8", "FP32"]) | JSONS,
        "data": st.lists(st.integers(0, 255), min_size=VALUES, max_size=VALUES) | JSONS,
        "parameters": st.fixed_dictionaries({"binary_data_size": st.integers(-1, 60) | JSONS}) | JSONS,
    },
)
REQUESTS = st.fixed_dictionaries(
    {"inputs": st.lists(TENSORS, min_size=1, max_size=1) | JSONS},
    optional={"id": JSONS, "parameters": JSONS, "outputs": JSONS},
)


def answered_or_refused(body: bytes, length: int | None) -> None:
    try:
        images = read(body, length, SIZE).images
    except BadRequest:
        return
    assert 1 <= len(images) <= 64
    assert all(isinstance(image, bytes) or image.shape == (3, SIZE, SIZE) for image in images)


@given(st.binary(max_size=200), st.none() | st.integers(0, 250))
def test_any_bytes_are_read_or_refused(body: bytes, length: int | None) -> None:
    answered_or_refused(body, length)


@given(REQUESTS, st.binary(max_size=60), st.booleans(), st.integers(-2, 2))
def test_any_json_and_any_tail_are_read_or_refused(content: dict[str, Any], tail: bytes, said: bool, slip: int) -> None:
    head = json.dumps(content).encode()
    answered_or_refused(head + tail, max(0, len(head) + slip) if said else None)


@given(st.binary(max_size=80), st.integers(1, 4))
def test_any_binary_files_are_read_or_refused(tail: bytes, count: int) -> None:
    answered_or_refused(*binary(tail, shape=[count]))


def test_an_answer_is_json_or_json_with_binary_tensors_after_it() -> None:
    texts = Output("labels", "BYTES", [1, 2], ["ä", ""], binary=False)
    numbers = Output("indices", "INT64", [1, 2], [7, 2**40], binary=False)
    body, length = write({"id": "mine"}, [texts, numbers])
    assert length is None
    assert json.loads(body) == {
        "id": "mine",
        "outputs": [
            {"name": "labels", "datatype": "BYTES", "shape": [1, 2], "data": ["ä", ""]},
            {"name": "indices", "datatype": "INT64", "shape": [1, 2], "data": [7, 2**40]},
        ],
    }
    body, length = write({}, [Output("labels", "BYTES", [2], ["ä", ""], binary=True), numbers])
    described = json.loads(body[:length])["outputs"]
    assert described[0] == {"name": "labels", "datatype": "BYTES", "shape": [2], "parameters": {"binary_data_size": 10}}
    assert described[1]["data"] == [7, 2**40]
    assert body[length:] == element("ä".encode()) + element(b"")
    body, length = write({}, [Output("probabilities", "FP32", [2], [0.5, 0.25], binary=True)])
    assert body[length:] == struct.pack("<2f", 0.5, 0.25)
