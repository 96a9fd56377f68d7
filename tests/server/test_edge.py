"""What stands between the server and the world, over real HTTP: rates, origins, proxies, TLS."""

import base64
import logging
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

import httpx
import pytest
from conftest import Running, run, settings

from server.serve import check_certificate
from server.service import build
from server.settings import Settings
from stitchserve import Client, RateLimited

SLOW = 1e-6  # requests/s: no token comes back during a test
PAGE = "https://shop.example"


@contextmanager
def served(cache: Path, **changes: object) -> Iterator[Running]:
    yield from run(build(settings(cache, **changes)))


@pytest.fixture(scope="module")
def limited(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server with rates, that trusts its proxy and one origin."""
    tenants = tmp_path_factory.mktemp("tenants") / "tenants.toml"
    bursts = {"four": 4, "three": 3, "two": 2}
    listed = {name: f"rate = {SLOW}\nburst = {burst}" for name, burst in bursts.items()} | {"free": ""}
    tenants.write_text(
        "\n".join(
            f'[[tenants]]\nname = "{name}"\nkey_sha256 = "{sha256(name.encode()).hexdigest()}"\n{rate}'
            for name, rate in listed.items()
        )
    )
    with served(
        cache, tenants=tenants, anonymous_rate=SLOW, anonymous_burst=1, forwarded_allow_ips="127.0.0.1",
        cors_origin=PAGE,
    ) as running:  # fmt: skip
        yield running


def explain(running: Running, **headers: str) -> httpx.Response:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.get(f"{running.url}/explain", headers=sent)


def test_a_key_has_a_rate(limited: Running, sample: bytes) -> None:
    first, second, third = (explain(limited, x_api_key="two") for _ in range(3))
    assert [first.status_code, second.status_code, third.status_code] == [200, 200, 429]
    assert [answer.headers["x-ratelimit-remaining"] for answer in (first, second, third)] == ["1", "0", "0"]
    assert third.headers["x-ratelimit-limit"] == "2"
    assert int(third.headers["retry-after"]) > 1000
    assert third.json()["type"] == "/problems/rate-limited"
    with Client(limited.url, api_key="two") as client, pytest.raises(RateLimited):
        client.classify(sample)


def test_others_are_not_limited_by_it(limited: Running) -> None:
    answers = [explain(limited, x_api_key="free") for _ in range(5)]
    assert {answer.status_code for answer in answers} == {200}
    assert "x-ratelimit-limit" not in answers[0].headers
    assert httpx.get(f"{limited.url}/metrics").status_code == 200


def test_a_form_of_images_costs_as_many_requests(limited: Running, sample: bytes) -> None:
    with Client(limited.url, api_key="four") as client:
        assert len(client.classify_batch([sample] * 4)) == 4
        with pytest.raises(RateLimited):
            client.explain()


def test_so_do_tensors_of_images(limited: Running, sample: bytes) -> None:
    data = [base64.b64encode(sample).decode()] * 3
    tensor = {"name": "image", "shape": [3], "datatype": "BYTES", "data": data}
    with httpx.Client(base_url=limited.url, headers={"x-api-key": "three"}, timeout=60) as client:
        inferred, refused = (client.post("/v2/models/auto/infer", json={"inputs": [tensor]}) for _ in range(2))
    assert (inferred.status_code, inferred.headers["x-ratelimit-remaining"]) == (200, "0"), inferred.text
    assert (refused.status_code, "requests/s" in refused.json()["error"]) == (429, True)


def test_who_sends_no_key_is_known_by_the_address_that_the_proxy_tells(limited: Running) -> None:
    def status(address: str) -> int:
        return explain(limited, x_forwarded_for=address).status_code

    assert [status("10.0.0.1"), status("10.0.0.1"), status("10.0.0.2")] == [200, 429, 200]
    assert [status("2001:db8::1"), status("2001:db8::2"), status("2001:db8:0:1::1")] == [200, 429, 200]


def test_an_untrusted_proxy_tells_nothing(cache: Path) -> None:
    with served(cache, anonymous_rate=SLOW, anonymous_burst=1) as running:
        statuses = [explain(running, x_forwarded_for=f"10.0.0.{i}").status_code for i in range(2)]
    assert statuses == [200, 429]


def preflight(running: Running, origin: str, method: str = "POST") -> httpx.Response:
    headers = {
        "Origin": origin, "Access-Control-Request-Method": method,
        "Access-Control-Request-Headers": "content-type,x-api-key",
    }  # fmt: skip
    return httpx.options(f"{running.url}/classify", headers=headers)


def test_pages_of_an_allowed_origin_may_ask(limited: Running) -> None:
    assert preflight(limited, PAGE).headers["access-control-allow-origin"] == PAGE
    assert preflight(limited, PAGE, "PUT").status_code == 400
    assert "access-control-allow-origin" not in preflight(limited, "https://evil.example").headers
    answer = explain(limited, origin=PAGE, x_api_key="wrong")
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (401, PAGE)
    assert "X-RateLimit-Remaining" in answer.headers["access-control-expose-headers"]
    assert "access-control-allow-credentials" not in answer.headers


def test_by_default_no_page_may(running: Running) -> None:
    refused = preflight(running, PAGE)
    assert refused.status_code == 405
    answered = explain(running, origin=PAGE)
    assert not [name for name in (*refused.headers, *answered.headers) if name.startswith("access-control")]


def test_it_speaks_tls(
    cache: Path, certificate: tuple[Path, Path], sample: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    cert, key = certificate
    trusting = ssl.create_default_context(cafile=cert)
    with served(cache, tls_cert=cert, tls_key=key) as running:
        url = running.url.replace("http:", "https:")
        with Client(url, verify=trusting) as client:
            assert client.classify(sample, stitch=2).stitch.id == 2
        with httpx.Client(base_url=url, verify=trusting, timeout=60) as client:
            # Refused before all of it has come: TLS has no half-closed connection to say so with.
            refused = client.post("/classify", content=bytes(11_000_000), headers={"content-type": "image/jpeg"})
            assert refused.status_code == 413
            assert client.get("/livez").status_code == 200
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_a_certificate_that_will_not_do_is_named_at_once(certificate: tuple[Path, Path], tmp_path: Path) -> None:
    cert, key = certificate
    for wrong in ({"tls_cert": key, "tls_key": cert}, {"tls_cert": tmp_path / "nowhere.pem", "tls_key": key}):
        with pytest.raises(ValueError, match=r"--tls-cert .* give a PEM certificate"):
            check_certificate(Settings.model_validate(wrong))
    check_certificate(Settings(tls_cert=cert, tls_key=key))
    check_certificate(Settings())
