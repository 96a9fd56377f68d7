"""Open Inference Protocol v2 over real HTTP, mostly as Triton's own client speaks it."""

import asyncio
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from conftest import SAMPLES, Running, run, settings
from hypothesis import HealthCheck
from hypothesis import given as given_any
from hypothesis import settings as fuzzing
from hypothesis import strategies as st
from PIL import Image
from tritonclient.utils import InferenceServerException

from server.service import build
from server.tenants import digest

SIZE = 64
FILES = [path.read_bytes() for path in sorted(SAMPLES.glob("*.jpg"))[:3]]


@pytest.fixture
def client_of_triton(running: Running) -> Iterator[triton.InferenceServerClient]:
    client = triton.InferenceServerClient(running.url.removeprefix("http://"))
    yield client
    client.close()


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


def classified(client: httpx.Client, file: bytes, query: str) -> dict[str, Any]:
    content: dict[str, Any] = client.post(f"/classify?top_k=100&{query}", content=file).json()
    return content


def error(response: httpx.Response, status: int) -> str:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    content = response.json()
    assert content["status"] == status
    text: str = content["error"]
    return text


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


def test_what_the_image_is_refused_for_is_told(
    client_of_triton: triton.InferenceServerClient, client: httpx.Client
) -> None:
    wrong = given("normalised", (PIXELS * 1.0).astype(np.float32), "FP32")
    nothing = given("normalised", np.full_like(NORMALISED, np.nan), "FP32")
    for tensors, status, says in [
        (files(FILES[0], b"not an image at all"), "415", "not accepted"),
        (files(FILES[0][:500]), "400", "truncated"),
        (files(bytes(10_000_001)), "413", "10000001 bytes"),
        (wrong, "400", "subtract"),
        (nothing, "400", "not finite"),
        (files(*FILES * 22), "400", "send 1 to 64"),
    ]:
        with pytest.raises(InferenceServerException, match=says) as refusal:
            client_of_triton.infer("auto@5", tensors)
        assert refusal.value.status() == status
    for algorithm in ("gzip", "deflate"):
        with pytest.raises(InferenceServerException, match="without Content-Encoding") as refusal:
            client_of_triton.infer("auto@5", files(), request_compression_algorithm=algorithm)
        assert refusal.value.status() == "415"
    assert client.get("/status").json()["inside"] == 0


def test_malformed_requests_are_told_what_to_mend(client: httpx.Client) -> None:
    url, length = "/v2/models/auto/infer", "inference-header-content-length"
    tensor = {"name": "image", "shape": [1], "datatype": "BYTES", "data": ["AAAA"]}
    sound = json.dumps({"inputs": [tensor]}).encode()
    assert "Invalid JSON" in error(client.post(url), 400)
    assert "Invalid JSON" in error(client.post(url, content=b"\x00" * 100, headers={length: "50"}), 400)
    assert "give the number of bytes" in error(client.post(url, content=sound, headers={length: "many"}), 400)
    assert "more than the body has" in error(client.post(url, content=sound, headers={length: "9999999999"}), 400)
    assert "takes no query" in error(client.post(f"{url}?budget=20MFLOPs", content=sound), 400)
    assert "too few for an image" in error(client.post(url, content=sound), 400)
    assert error(client.post(url, content=iter([bytes(60_000_000)] * 2)), 413)
    assert error(client.get("/v2/nowhere"), 404)
    assert error(client.get(url), 405)
    assert client.get("/livez").status_code == 200


SOUND = json.dumps(
    {"inputs": [{"name": "image", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": 6}}]}
).encode()


@fuzzing(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given_any(
    st.binary(max_size=60) | st.binary(max_size=12).map(lambda tail: SOUND + tail),
    st.none() | st.just(str(len(SOUND))) | st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=12),
    st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=12).map("auto@".__add__) | st.just("auto"),
)
def test_any_bytes_are_answered_with_what_is_wrong(
    client: httpx.Client, body: bytes, length: str | None, model: str
) -> None:
    headers = {} if length is None else {"inference-header-content-length": length}
    response = client.post(f"/v2/models/{quote(model, safe='')}/infer", content=body, headers=headers)
    assert 400 <= response.status_code < 500, "there is no image in it"
    assert response.json()["error"]


def test_a_full_server_and_one_that_stops_are_told_as_by_classify(cache: Path) -> None:
    for running in run(build(settings(cache, max_queue=1))):
        client = triton.InferenceServerClient(running.url.removeprefix("http://"), concurrency=1)
        limiter = running.service.limiter
        assert client.infer("auto@5", files(FILES[0])).as_numpy("stitch").tolist() == [5]
        assert client.get_model_config("auto")["max_batch_size"] == 1
        with pytest.raises(InferenceServerException, match="3 images; send 1 to 1") as refusal:
            client.infer("auto@5", files())
        assert refusal.value.status() == "400"
        limiter.inside += 1
        response = httpx.post(f"{running.url}/v2/models/auto/infer", content=b"{}")
        assert "which is all it takes" in error(response, 503)
        assert int(response.headers["retry-after"]) >= 1
        limiter.inside -= 1
        running.service.draining = True
        assert not client.is_server_ready()
        assert not client.is_model_ready("auto")
        assert {one["state"] for one in client.get_model_repository_index()} == {"UNAVAILABLE"}
        running.service.refusing = True
        with pytest.raises(InferenceServerException, match="another replica") as refusal:
            client.infer("auto", files())
        assert refusal.value.status() == "503"
        client.close()


def test_images_are_let_in_together_or_not_at_all(cache: Path) -> None:
    for running in run(build(settings(cache, max_queue=3))):
        client = triton.InferenceServerClient(running.url.removeprefix("http://"))
        limiter = running.service.limiter
        assert client.infer("auto@5", files()).as_numpy("stitch").tolist() == [5] * 3
        limiter.inside += 1
        with pytest.raises(InferenceServerException, match="which is all it takes") as refusal:
            client.infer("auto@5", files())
        assert refusal.value.status() == "503"
        assert limiter.inside == 1, "those that were let in have left"
        client.close()


def test_a_fault_is_told_as_by_classify(cache: Path) -> None:
    for running in run(build(settings(cache))):
        limiter = running.service.limiter
        del running.service.limiter  # so that the route fails
        response = httpx.post(f"{running.url}/v2/models/auto/infer", content=b"{}")
        running.service.limiter = limiter
        assert "failed to run" in error(response, 500)
        assert response.headers["connection"] == "close"


def test_a_key_is_asked_for_as_by_classify(cache: Path, tmp_path: Path) -> None:
    tenants = tmp_path / "tenants.toml"
    tenants.write_text(f'[[tenants]]\nname = "us"\nkey_sha256 = "{digest("right")}"\nmin_top1 = 90\n')
    for running in run(build(settings(cache, tenants=tenants))):
        client = triton.InferenceServerClient(running.url.removeprefix("http://"))
        with pytest.raises(InferenceServerException, match="not known") as refusal:
            client.infer("auto", files(), headers={"Authorization": "Bearer wrong"})
        assert refusal.value.status() == "401"
        flops = min(entry.flops for entry in running.service.table.entries)
        assert client.infer(f"auto@{flops}FLOPs", files()).as_numpy("stitch").shape == (3,)
        with pytest.raises(InferenceServerException, match="no stitch meets") as refusal:
            client.infer(f"auto@{flops}FLOPs", files(), headers={"Authorization": "Bearer right"})
        assert refusal.value.status() == "422", "the cheapest stitch is below this tenant's least top-1"
        client.close()


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
