"""The page that shows the API, and that it needs no other server."""

import re

import httpx
from anyio import open_file  # noqa: F401 - imported late, in the server's thread, pytest's rewriting of it can fail


def test_all_that_the_page_loads_comes_from_this_server(client: httpx.Client) -> None:
    page = client.get("/docs")
    assert page.status_code == 200
    loaded = re.findall(r'<(?:script|link)[^>]* (?:src|href)="([^"]+)"', page.text)
    assert {address for address in loaded if ":" in address} == {"data:,"}
    for address in {"openapi.json", *loaded} - {"data:,"}:
        assert not address.startswith("/"), "a proxy may take a prefix off"
        answer = client.get(f"/{address}")
        assert answer.status_code == 200, address
        assert re.match("application/json|text/(css|javascript)", answer.headers["content-type"])
    assert "swagger-ui-bundle" in page.text


def test_the_page_allows_nothing_from_elsewhere(client: httpx.Client) -> None:
    page = client.get("/docs")
    policy = page.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    assert "http" not in policy
    assert "<script>" not in page.text
    assert "validatorUrl: null" in client.get("/docs/start.js").text, "else the document is sent to a service elsewhere"


def test_no_other_page_needs_the_internet(client: httpx.Client) -> None:
    assert client.get("/redoc").status_code == 404
    assert client.get("/docs/static/../../secrets").status_code == 404
    assert client.get("/docs/static/nothing.js").headers["content-type"] == "application/problem+json"
