"""What is refused over Open Inference Protocol v2, and how that is told."""

import json
from pathlib import Path
from urllib.parse import quote

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
from conftest import Running, run, settings
from hypothesis import HealthCheck
from hypothesis import given as given_any
from hypothesis import settings as fuzzing
from hypothesis import strategies as st
from over_v2 import FILES, NORMALISED, PIXELS, error, files, given
from tritonclient.utils import InferenceServerException

from server.service import build
from server.tenants import digest


def test_what_the_image_is_refused_for_is_told(running: Running, client: httpx.Client) -> None:
    client_of_triton = triton.InferenceServerClient(running.url.removeprefix("http://"))
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
    client_of_triton.close()


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
        assert 'refused_images_total{reason="full",stage="arrival"} 3.0' in httpx.get(f"{running.url}/metrics").text
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
