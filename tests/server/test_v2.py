"""Open Inference Protocol v2 over real HTTP, mostly as Triton's own client speaks it."""

import asyncio
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from conftest import Running
from over_v2 import FILES, NORMALISED, PIXELS, SIZE, files, given
from tritonclient.utils import InferenceServerException


@pytest.fixture
def client_of_triton(running: Running) -> Iterator[triton.InferenceServerClient]:
    client = triton.InferenceServerClient(running.url.removeprefix("http://"))
    yield client
    client.close()


def classified(client: httpx.Client, file: bytes, query: str) -> dict[str, Any]:
    content: dict[str, Any] = client.post(f"/classify?top_k=100&{query}", content=file).json()
    return content


def test_the_server_and_its_models_are_described(
    client_of_triton: triton.InferenceServerClient, client: httpx.Client
) -> None:
    assert client_of_triton.is_server_live()
    assert client_of_triton.is_server_ready()
    assert client_of_triton.is_model_ready("auto")
    assert client_of_triton.is_model_ready("auto@78%", "1")
    assert not client_of_triton.is_model_ready("auto@999")
    assert not client_of_triton.is_model_ready("auto", "2")
    server = client_of_triton.get_server_metadata()
    assert server["name"] == "stitchserve"
    assert "binary_tensor_data" in server["extensions"]
    stitches = client.get("/stitches?frontier=true").json()["stitches"]
    frontier = [f"auto@{stitch['id']}" for stitch in sorted(stitches, key=lambda stitch: stitch["flops"])]
    index = client_of_triton.get_model_repository_index()
    assert [(one["name"], one["state"]) for one in index] == [(name, "READY") for name in ("auto", *frontier)]
    for name in ("auto", frontier[-1], "auto@20MFLOPs,40s", "auto@3"):
        metadata = client_of_triton.get_model_metadata(name)
        assert (metadata["name"], metadata["versions"]) == (name, ["1"])
        assert metadata == client_of_triton.get_model_metadata(name, "1") == client.get(f"/v2/models/{name}").json()


def test_the_metadata_tells_tensors_and_normalisation(client_of_triton: triton.InferenceServerClient) -> None:
    metadata = client_of_triton.get_model_metadata("auto@20MFLOPs")
    assert [(one["name"], one["datatype"], one["shape"]) for one in metadata["inputs"]] == [
        ("image", "BYTES", [-1, 1]),
        ("pixels", "UINT8", [-1, 3, SIZE, SIZE]),
        ("normalised", "FP32", [-1, 3, SIZE, SIZE]),
    ]
    assert metadata["inputs"][2]["parameters"]["mean"] == [0.5, 0.5, 0.5]
    assert [(one["name"], one["datatype"], one["shape"]) for one in metadata["outputs"]] == [
        ("indices", "INT64", [-1, 100]),
        ("probabilities", "FP32", [-1, 100]),
        ("labels", "BYTES", [-1, 100]),
        ("stitch", "INT64", [-1]),
        ("reason", "BYTES", [-1]),
    ]
    assert metadata["parameters"]["dearest"]["flops"] <= 20e6
    config = client_of_triton.get_model_config("auto@20MFLOPs")
    assert config["max_batch_size"] == 64
    assert [(one["name"], one["data_type"], one["dims"]) for one in config["input"]] == [
        ("image", "TYPE_STRING", [1]),
        ("pixels", "TYPE_UINT8", [3, SIZE, SIZE]),
        ("normalised", "TYPE_FP32", [3, SIZE, SIZE]),
    ]


@pytest.mark.parametrize("binary", [True, False])
def test_files_pixels_and_normalised_pixels_give_the_answers_of_classify(
    client_of_triton: triton.InferenceServerClient, client: httpx.Client, binary: bool
) -> None:
    expected = [classified(client, file, "stitch=5") for file in FILES]
    inputs = [given("pixels", PIXELS, "UINT8", binary=binary), given("normalised", NORMALISED, "FP32", binary=binary)]
    column = given("image", np.array(FILES, dtype=object).reshape(3, 1), "BYTES")
    for tensors in (files(), column, *inputs):
        result = client_of_triton.infer("auto@5", tensors, request_id="mine")
        assert result.get_response()["id"] == "mine"
        assert result.as_numpy("stitch").tolist() == [5] * 3
        assert result.as_numpy("reason").tolist() == [b"stitch 5 as asked"] * 3
        for row, answer in enumerate(expected):
            predictions = answer["predictions"]
            assert result.as_numpy("indices")[row][:3].tolist() == [one["index"] for one in predictions[:3]]
            assert result.as_numpy("labels")[row][0].decode() == predictions[0]["label"]
            assert result.as_numpy("probabilities")[row] == pytest.approx(
                [one["probability"] for one in predictions], abs=1e-5
            )


def test_outputs_are_given_as_they_are_wanted(client_of_triton: triton.InferenceServerClient) -> None:
    wanted = [
        triton.InferRequestedOutput("probabilities", binary_data=False, class_count=3),
        triton.InferRequestedOutput("indices", binary_data=False),
        triton.InferRequestedOutput("labels", binary_data=True),
    ]
    result = client_of_triton.infer("auto@5", files(), outputs=wanted)
    assert [one["name"] for one in result.get_response()["outputs"]] == ["probabilities", "indices", "labels"]
    classes = result.as_numpy("probabilities")
    assert classes.shape == (3, 3)
    for row in range(3):
        probability, index, label = classes[row][0].split(":")
        assert 0 < float(probability) <= 1
        assert int(index) == result.as_numpy("indices")[row][0]
        assert label == result.as_numpy("labels")[row][0].decode()
    binary = [triton.InferRequestedOutput("probabilities", class_count=1000)]
    assert client_of_triton.infer("auto@5", files(), outputs=binary).as_numpy("probabilities").shape == (3, 100)
    with pytest.raises(InferenceServerException, match="classification is of 'probabilities'"):
        client_of_triton.infer("auto", files(), outputs=[triton.InferRequestedOutput("labels", class_count=3)])
    shared = triton.InferRequestedOutput("labels")
    shared.set_shared_memory("mine", 100)
    with pytest.raises(InferenceServerException, match="shared_memory_region"):
        client_of_triton.infer("auto", files(), outputs=[shared])


def test_names_and_parameters_are_budgets(client_of_triton: triton.InferenceServerClient, client: httpx.Client) -> None:
    flops = {one["id"]: one["flops"] for one in client.get("/stitches").json()["stitches"]}

    def stitches(model: str, **asked: Any) -> set[int]:
        return set(client_of_triton.infer(model, files(), **asked).as_numpy("stitch").tolist())

    (capped,) = stitches("auto@20MFLOPs")
    assert flops[capped] <= 20e6 < max(flops.values())
    assert stitches("auto", parameters={"budget": "20MFLOPs"}) == {capped}
    assert stitches("auto@40s", parameters={"budget": "20MFLOPs"}) == {capped}
    assert stitches("auto", parameters={"stitch": 7}, priority=3, timeout=40_000_000) == {7}
    refused: list[tuple[str, dict[str, Any], str]] = [
        ("auto@7", {"parameters": {"stitch": 7}}, "both set it"),
        ("auto@40s", {"timeout": 40_000_000}, "both set deadline"),
        ("auto@cheap", {}, "2GFLOPs"),
        ("auto@", {}, "2GFLOPs"),
        ("auto", {"parameters": {"budget": "cheap"}}, "2GFLOPs"),
        ("auto@999", {}, "no stitch 999"),
        ("auto@1kFLOPs", {}, "no stitch meets"),
        ("auto", {"timeout": 10**16}, "is more than 3600s"),
    ]
    for model, asked, says in refused:
        with pytest.raises(InferenceServerException, match=says) as refusal:
            client_of_triton.infer(model, files(), **asked)
        assert refusal.value.status() == "422"
    for model, version in (("resnet", ""), ("auto", "2"), ("automatic", ""), ("", "")):
        with pytest.raises(InferenceServerException) as refusal:
            client_of_triton.infer(model, files(), version)
        assert refusal.value.status() == "404"


def test_a_timeout_is_the_deadline(client_of_triton: triton.InferenceServerClient) -> None:
    with pytest.raises(InferenceServerException) as refusal:
        client_of_triton.infer("auto@5", files(), timeout=1)
    assert refusal.value.status() in {"422", "504"}, "no stitch is that fast, or it has passed already"


def test_the_asyncio_client_is_served_many_at_once(running: Running, client: httpx.Client) -> None:
    expected = {stitch: classified(client, FILES[0], f"stitch={stitch}")["predictions"][0] for stitch in range(4)}

    async def everything() -> None:
        async with triton_aio.InferenceServerClient(running.url.removeprefix("http://")) as asking:
            assert await asking.is_model_ready("auto@78%")
            assert (await asking.get_model_metadata("auto"))["platform"] == "stitchserve"
            results = await asyncio.gather(*(asking.infer(f"auto@{place % 4}", files(FILES[0])) for place in range(40)))
            for place, result in enumerate(results):
                assert result.as_numpy("stitch").tolist() == [place % 4]
                assert result.as_numpy("indices")[0][0] == expected[place % 4]["index"]
            with pytest.raises(InferenceServerException, match="no model 'resnet'"):
                await asking.infer("resnet", files())

    asyncio.run(everything())


def test_the_document_describes_the_routes(client: httpx.Client) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    assert {path for path in paths if path.startswith("/v2")} == {
        "/v2", "/v2/health/live", "/v2/health/ready", "/v2/repository/index", "/v2/models/{name}",
        "/v2/models/{name}/config", "/v2/models/{name}/ready", "/v2/models/{name}/infer",
    }  # fmt: skip
    infer = paths["/v2/models/{name}/infer"]["post"]
    assert set(infer["requestBody"]["content"]) == {"application/json", "application/octet-stream"}
    assert {parameter["name"] for parameter in infer["parameters"]} == {"name", "Inference-Header-Content-Length"}
    assert {"400", "404", "413", "415", "422", "500", "503", "504"} <= set(infer["responses"])
    schemas = client.get("/openapi.json").json()["components"]["schemas"]
    assert {"inputs", "outputs", "parameters"} <= schemas["InferRequest"]["properties"].keys()
    assert schemas["ProtocolError"]["required"] == ["error"]
