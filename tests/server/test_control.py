"""Keys over HTTP: what the admin may change while the server runs, and what a tenant is promised."""

from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import httpx
import pytest
from conftest import Running, run, settings

from server.service import build

ADMIN, SHOP = {"Authorization": "Bearer boss"}, {"X-API-Key": "shopkey"}


def hashed(key: str) -> str:
    return sha256(key.encode()).hexdigest()


@pytest.fixture(scope="module")
def guarded(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    tenants = tmp_path_factory.mktemp("keys") / "tenants.toml"
    tenants.write_text(f'[[tenants]]\nname = "shop"\nkey_sha256 = "{hashed("shopkey")}"\nweight = 2\nmin_top1 = 90\n')
    yield from run(build(settings(cache, tenants=tenants, admin_key_sha256=hashed("boss"))))


@pytest.fixture
def client(guarded: Running) -> Iterator[httpx.Client]:
    with guarded.client() as opened:
        yield opened


def test_the_policy_and_the_slo_change_while_the_server_runs(client: httpx.Client, sample: bytes) -> None:
    before = client.get("/status").json()
    changed = client.put("/control", json={"policy": "fixed:1", "slo_ms": 30_000}, headers=ADMIN)
    assert changed.status_code == 200
    assert (changed.json()["policy"], changed.json()["slo_ms"]) == ("fixed:1", 30_000)
    answer = client.post("/classify", content=sample).json()
    assert answer["stitch"]["id"] == 1
    assert answer["budget"]["deadline_ms"] == 30_000
    restored = client.put("/control", json={"policy": before["policy"], "slo_ms": before["slo_ms"]}, headers=ADMIN)
    assert client.post("/classify", content=sample).json()["stitch"]["id"] == 2
    assert restored.json()["slo_ms"] == before["slo_ms"]


@pytest.mark.parametrize("headers", [{}, SHOP, {"Authorization": "Bearer bosS"}, {"Authorization": "Basic boss"}])
def test_nobody_else_changes_anything(client: httpx.Client, headers: dict[str, str]) -> None:
    refused = client.put("/control", json={"policy": "cheapest"}, headers=headers)
    assert refused.status_code == 401
    assert "admin key" in refused.json()["detail"]
    assert client.get("/status").json()["policy"] == "pace"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"policy": "greedy"}, "slackfit"),
        ({"slo_ms": 0}, "slo_ms"),
        ({"slo_ms": 1e-300}, "slo_ms"),
        ({"slo_ms": True}, "slo_ms"),
        ({"slo": 5}, "slo"),
        ({"policy": "fixed:99"}, "99"),
    ],
)
def test_a_change_that_cannot_be_says_why(client: httpx.Client, change: dict[str, object], says: str) -> None:
    refused = client.put("/control", json=change, headers=ADMIN)
    assert refused.status_code == 422
    assert says in refused.json()["detail"]


def test_a_change_that_is_no_json_says_how_to_send_it(client: httpx.Client) -> None:
    refused = client.put("/control", data={"policy": "cheapest"}, headers=ADMIN)
    assert refused.status_code == 422
    assert "Content-Type: application/json" in refused.json()["detail"]


@pytest.mark.parametrize("body", ["{", "[" * 100_000, "nothing"])
def test_a_change_that_is_broken_json_names_the_body(client: httpx.Client, body: str) -> None:
    refused = client.put("/control", content=body, headers=ADMIN | {"Content-Type": "application/json"})
    assert refused.status_code in {400, 422}
    assert "body" in refused.json()["detail"]
    assert "no such route" not in refused.json()["detail"]


def test_without_an_admin_key_the_route_is_closed(running: Running) -> None:
    with running.client() as client:
        refused = client.put("/control", json={"policy": "cheapest"}, headers=ADMIN)
    assert refused.status_code == 403
    assert "--admin-key-sha256" in refused.json()["detail"]


def test_a_tenants_least_top1_holds_whatever_the_policy(client: httpx.Client, sample: bytes) -> None:
    client.put("/control", json={"policy": "cheapest"}, headers=ADMIN)
    try:
        promised = client.post("/classify", content=sample, headers=SHOP).json()
        anyone = client.post("/classify", content=sample).json()
    finally:
        client.put("/control", json={"policy": "pace"}, headers=ADMIN)
    assert promised["stitch"]["top1"] >= 90
    assert anyone["stitch"]["top1"] < 90


@pytest.mark.parametrize("query", ["budget=6MFLOPs", "stitch=0"])
def test_a_tenants_least_top1_and_what_excludes_it_are_refused(client: httpx.Client, sample: bytes, query: str) -> None:
    refused = client.post(f"/classify?{query}", content=sample, headers=SHOP)
    assert refused.status_code == 422
    assert "90% is the least that this API key, 'shop', is to have" in refused.json()["detail"]
    assert client.get(f"/explain?{query}", headers=SHOP).json()["detail"] == refused.json()["detail"]
    assert client.post(f"/classify?{query}", content=sample).status_code == 200, "who has no least top-1 may"


def test_a_wrong_key_is_refused(client: httpx.Client, sample: bytes) -> None:
    refused = client.post("/classify", content=sample, headers={"X-API-Key": "nonsense"})
    assert refused.status_code == 401
    assert refused.headers["content-type"] == "application/problem+json"
