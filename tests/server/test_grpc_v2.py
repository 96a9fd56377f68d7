"""Open Inference Protocol v2 over gRPC, as Triton's own client speaks it."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from over_grpc import Both, Refusal, both, files, given, grpc, message, pb, triton
from over_v2 import FILES, NORMALISED, PIXELS, SIZE

triton_aio = pytest.importorskip("tritonclient.grpc.aio", reason="gRPC needs the extra grpc")


@pytest.fixture(scope="module")
def served(cache: Path) -> Iterator[Both]:
    with both(cache) as opened:
        yield opened


def test_the_server_and_its_models_are_described_as_over_http(served: Both) -> None:
    client = served.client
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("auto@78%", "1")
    assert not any(client.is_model_ready(*model) for model in [("auto@999",), ("auto", "2"), ("resnet",)])
    with served.running.client() as http:
        assert client.get_server_metadata(as_json=True) == http.get("/v2").json()
        index = client.get_model_repository_index()
        assert [(one.name, one.state) for one in index.models] == [
            (one["name"], one["state"]) for one in http.post("/v2/repository/index").json()
        ]
        metadata, expected = client.get_model_metadata("auto@20MFLOPs"), http.get("/v2/models/auto@20MFLOPs").json()
        assert (metadata.name, list(metadata.versions)) == ("auto@20MFLOPs", ["1"])
        for kind in ("inputs", "outputs"):
            assert [(one.name, one.datatype, list(one.shape)) for one in getattr(metadata, kind)] == [
                (one["name"], one["datatype"], one["shape"]) for one in expected[kind]
            ]
        config = client.get_model_config("auto").config
        assert config.max_batch_size == http.get("/v2/models/auto/config").json()["max_batch_size"]
        assert [one.name for one in config.input] == ["image", "pixels", "normalised"]
    assert served.counted("ModelMetadata", 200) >= 1


def test_files_pixels_and_typed_contents_give_the_answers_of_http(served: Both) -> None:
    with served.running.client() as http:
        expected = [http.post("/classify?stitch=5&top_k=100", content=file).json()["predictions"] for file in FILES]
    column = given("image", np.array(FILES, dtype=object).reshape(3, 1), "BYTES")
    pixels, normalised = given("pixels", PIXELS, "UINT8"), given("normalised", NORMALISED, "FP32")
    for tensors in (files(), column, pixels, normalised):
        result = served.client.infer("auto@5", tensors, request_id="mine")
        assert result.get_response().id == "mine"
        assert result.as_numpy("stitch").tolist() == [5] * 3
        assert result.as_numpy("reason").tolist() == [b"stitch 5 as asked"] * 3
        for row, predictions in enumerate(expected):
            assert result.as_numpy("indices")[row][0] == predictions[0]["index"]
            assert result.as_numpy("labels")[row][0].decode() == predictions[0]["label"]
            assert result.as_numpy("probabilities")[row] == pytest.approx(
                [one["probability"] for one in predictions], abs=1e-5
            )
    shape = {"shape": [1, 3, SIZE, SIZE]}
    first = served.client.infer("auto@5", files(FILES[0])).get_response()
    for asked in (
        message(),
        message(name="pixels", datatype="UINT8", contents={"uint_contents": PIXELS[0].ravel().tolist()}, **shape),
        message(name="normalised", datatype="FP32", contents={"fp32_contents": NORMALISED[0].ravel()}, **shape),
    ):
        answer = pb.ModelInferResponse.FromString(served.raw(asked.SerializeToString()))
        assert answer.id == "mine"
        assert answer.outputs == first.outputs
        assert answer.raw_output_contents == first.raw_output_contents


def test_outputs_are_given_as_they_are_wanted(served: Both) -> None:
    wanted = [triton.InferRequestedOutput("probabilities", class_count=3), triton.InferRequestedOutput("indices")]
    result = served.client.infer("auto@5", files(), outputs=wanted)
    assert [one.name for one in result.get_response().outputs] == ["probabilities", "indices"]
    _, index, _ = result.as_numpy("probabilities")[0][0].decode().split(":")
    assert int(index) == result.as_numpy("indices")[0][0]
    shared = triton.InferRequestedOutput("labels")
    shared.set_shared_memory("mine", 100)
    with pytest.raises(Refusal, match="shared_memory_"):
        served.client.infer("auto", files(), outputs=[shared])


def test_names_and_parameters_are_budgets(served: Both) -> None:
    def stitches(model: str, **asked: Any) -> set[int]:
        return set(served.client.infer(model, files(), **asked).as_numpy("stitch").tolist())

    with served.running.client() as http:
        flops = {one["id"]: one["flops"] for one in http.get("/stitches").json()["stitches"]}
    (capped,) = stitches("auto@20MFLOPs")
    assert flops[capped] <= 20e6 < max(flops.values())
    assert stitches("auto", parameters={"budget": "20MFLOPs"}) == {capped}
    assert stitches("auto", parameters={"stitch": 7}, priority=3, timeout=40_000_000) == {7}
    refused: list[tuple[str, dict[str, Any], str, str]] = [
        ("auto@7", {"parameters": {"stitch": 7}}, "INVALID_ARGUMENT", "both set it"),
        ("auto@cheap", {}, "INVALID_ARGUMENT", "2GFLOPs"),
        ("auto@1kFLOPs", {}, "INVALID_ARGUMENT", "no stitch meets"),
        ("auto", {"parameters": {"cheap": True}}, "INVALID_ARGUMENT", "cheap"),
        ("resnet", {}, "NOT_FOUND", "there is no model 'resnet'"),
        ("auto", {"model_version": "2"}, "NOT_FOUND", "version"),
    ]
    for model, asked, code, says in refused:
        with pytest.raises(Refusal, match=says) as refusal:
            served.client.infer(model, files(), **asked)
        assert refusal.value.status() == f"StatusCode.{code}"


def test_what_is_malformed_is_told_what_to_mend(served: Both) -> None:
    twice = message()
    twice.raw_input_contents.append(FILES[0])
    many = pb.ModelInferRequest(model_name="auto", inputs=[pb.ModelInferRequest.InferInputTensor()] * 2000)
    shared = message(contents=None)
    shared.inputs[0].parameters["shared_memory_region"].string_param = "mine"
    large = message(contents={"bytes_contents": [bytes(5_000_000)]})
    loud = message(name="pixels", datatype="UINT8", shape=[1, 3, SIZE, SIZE], contents={"uint_contents": [256]})
    for body, says in [
        (b"\xff\xff", "not what this method takes"),
        (b"\x3a\x7f" + bytes(3), "not what this method takes"),
        (b"\x3a" + b"\xff" * 11, "not what this method takes"),
        (pb.ModelInferRequest(model_name="auto").SerializeToString(), "inputs: there are 0"),
        (twice.SerializeToString(), "give it once"),
        (many.SerializeToString(), "more than 1000 parts"),
        (shared.SerializeToString(), "no shared memory"),
        (large.SerializeToString(), "send tensors in raw_input_contents"),
        (loud.SerializeToString(), "0 to 255"),
        (message(datatype="FP32").SerializeToString(), "its datatype is BYTES"),
        (message(shape=[2]).SerializeToString(), "the element at byte"),
        (message(contents={"bytes_contents": [FILES[0][:500]]}).SerializeToString(), "truncated"),
    ]:
        refused = served.raw(body, metadata=[("x-request-id", "mine-1")])
        assert refused.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert says in refused.details()
        trailing = dict(refused.trailing_metadata())
        assert trailing["x-request-id"] == "mine-1"
        assert json.loads(trailing["problem"])["detail"] == refused.details()
    with pytest.raises(Refusal, match="disabled") as refusal:
        served.client.infer("auto", files(), compression_algorithm="gzip")
    assert refusal.value.status() == "StatusCode.UNIMPLEMENTED"
    with pytest.raises(Refusal, match="Method not found") as refusal:
        served.client.get_inference_statistics()
    assert served.running.service.bodies.held == 0
    assert served.running.service.limiter.inside == 0


def test_the_asyncio_client_is_served_many_at_once(served: Both) -> None:
    async def everything() -> None:
        async with triton_aio.InferenceServerClient(served.address) as asking:
            assert await asking.is_model_ready("auto@78%")
            results = await asyncio.gather(*(asking.infer(f"auto@{place % 4}", files(FILES[0])) for place in range(40)))
            assert [result.as_numpy("stitch").tolist() for result in results] == [[place % 4] for place in range(40)]
            with pytest.raises(Refusal, match="no model 'resnet'"):
                await asking.infer("resnet", files())

    asyncio.run(everything())
