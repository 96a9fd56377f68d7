"""The console's page and its files: what may be loaded, from where, and how it is cached."""

import re
import tomllib
from pathlib import Path

import httpx
import pytest
from conftest import SAMPLES, Running

from server.console import TYPES, Console, samples

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "server" / "page"
LOADED = re.compile(r'(?:src|href)="([^"#]+)"')
IMPORTED = re.compile(r'from "\./([^"]+)"')


def test_the_page_allows_nothing_from_elsewhere_and_nothing_inline(client: httpx.Client) -> None:
    page = client.get("/")
    assert page.status_code == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    policy = page.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    assert "http" not in policy
    assert not re.search(r"<script(?![^>]* src=)|<style|\sstyle=|\son\w+=", page.text)


def test_all_that_it_loads_is_there_under_any_prefix(client: httpx.Client) -> None:
    for address in LOADED.findall(client.get("/").text):
        assert not address.startswith(("/", "http")), "a proxy may take a prefix off"
        answer = client.get(f"/{address}")
        assert answer.status_code == 200, address
        for name in IMPORTED.findall(answer.text) if address.endswith(".js") else ():
            assert client.get(f"/console/{name}").headers["content-type"] == TYPES[".js"], name


@pytest.mark.parametrize("path", sorted(PAGE.iterdir()), ids=lambda path: path.name)
def test_no_file_speaks_of_another_host_or_writes_markup(path: Path) -> None:
    text = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|localStorage|cookie", text)
    assert not re.search(r"[\"'(]https?://\w", text)
    assert len(text.splitlines()) < 300


def test_a_client_that_has_a_file_is_told_so(client: httpx.Client) -> None:
    for address in ("/", "/console/app.js", "/console/samples/17.jpg"):
        first = client.get(address)
        assert first.headers["cache-control"] == "no-cache"
        assert first.headers["x-content-type-options"] == "nosniff"
        again = client.get(address, headers={"if-none-match": first.headers["etag"]})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", first.headers["etag"])
        assert client.get(address, headers={"if-none-match": '"another"'}).status_code == 200


def test_head_is_as_get_without_the_body(client: httpx.Client) -> None:
    for address in ("/", "/console/base.css", "/console/samples", "/events"):
        answer = client.head(address)
        assert (answer.status_code, answer.content) == (200, b""), address
    assert client.head("/events").headers["content-type"].startswith("text/event-stream")


def test_samples_are_those_that_ship(client: httpx.Client) -> None:
    names = client.get("/console/samples").json()
    assert names == sorted(path.name for path in SAMPLES.glob("*.jpg"))
    shown = client.get(f"/console/samples/{names[0]}")
    assert shown.headers["content-type"] == "image/jpeg"
    assert shown.content == (SAMPLES / names[0]).read_bytes()


def test_a_family_without_shipped_weights_has_no_samples() -> None:
    assert samples("deit_ti_s_b") == []
    assert samples("my_family.toml") == []
    assert Console("swin_ti_s_b").samples == {}


@pytest.mark.parametrize("path", ["/console/none.js", "/console/samples/99.jpg", "/console/..%2fapp.py", "/console/"])
def test_what_there_is_not_is_404(client: httpx.Client, path: str) -> None:
    missing = client.get(path)
    assert missing.status_code == 404
    assert missing.headers["content-type"] == "application/problem+json"


def test_other_methods_are_refused(client: httpx.Client) -> None:
    assert client.post("/").status_code == 405
    assert client.put("/events").status_code == 405


def test_its_routes_are_counted_and_do_not_make_series_by_name(client: httpx.Client, running: Running) -> None:
    for path in ("/", "/console/app.js", "/console/dom.js", "/console/samples", "/console/samples/17.jpg", "/anchors"):
        client.get(path)
    text = client.get("/metrics").text
    counted = set(re.findall(r'stitchserve_requests_total\{route="([^"]*)"', text))
    assert {"/", "/console/{name}", "/console/samples", "/console/samples/{name}", "/anchors"} <= counted
    assert not any(".js" in route or ".jpg" in route for route in counted)
    families = [line for line in text.splitlines() if 'route="/console' in line or 'route="/"' in line]
    assert len(families) < 100


def test_the_wheel_has_the_page() -> None:
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert "server" in wheel["packages"], "with all files that git does not ignore, whatever their ending"
    assert not set(wheel) - {"packages", "force-include"}, "nothing is left out again"
    ignored = [line.strip() for line in (ROOT / ".gitignore").read_text().splitlines()]
    assert not [pattern for pattern in ignored if re.search(r"page|\*\.(js|css|html|svg)", pattern)]
    assert {path.suffix for path in PAGE.iterdir()} <= TYPES.keys()
