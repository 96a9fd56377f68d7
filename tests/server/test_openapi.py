"""That real answers are what the OpenAPI document says: each is held against the schema of its route and status."""

import http.client
import json
import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event
from typing import Any

import httpx
import pytest
from conftest import Running, run, settings
from jsonschema import Draft202012Validator

from server.service import Service

JPEG = {"content-type": "image/jpeg"}
PROBLEM = "application/problem+json"
Check = Callable[[httpx.Response], dict[str, Any]]


@pytest.fixture(scope="module")
def document(running: Running) -> dict[str, Any]:
    with running.client() as client:
        content: dict[str, Any] = client.get("/openapi.json").json()
    return content


def resolved(document: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    return document["components"]["schemas"][schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema


@pytest.fixture
def check(document: dict[str, Any]) -> Check:
    """Gives an answer's JSON, after it has been held against the document; it has no member that is not declared."""

    def checked(response: httpx.Response) -> dict[str, Any]:
        route = document["paths"][response.request.url.path][response.request.method.lower()]
        declared = route["responses"][str(response.status_code)]
        schema = declared["content"][response.headers["content-type"]]["schema"]
        content: dict[str, Any] = response.json()
        Draft202012Validator(schema | {"components": document["components"]}).validate(content)
        assert content.keys() <= resolved(document, schema).get("properties", content).keys()
        for name, header in declared.get("headers", {}).items():
            assert name in response.headers or not header["required"]
        return content

    return checked


@pytest.mark.parametrize(
    ("query", "members"),
    [
        ("budget=cheap", {"field", "grammar"}),
        ("stitch=one", {"field", "grammar"}),
        ("stitch=999", {"field"}),
        ("budget=1kFLOPs", {"nearest_stitch", "nearest"}),
        ("top_k=0&on_infeasible=maybe", {"errors"}),
        ("bugdet=1s", {"errors"}),
        ("stitch=1&stitch=2", {"errors"}),
    ],
)
def test_a_refused_query(client: httpx.Client, check: Check, sample: bytes, query: str, members: set[str]) -> None:
    refused = check(client.post(f"/classify?{query}", content=sample, headers=JPEG))
    assert refused.keys() == {"type", "title", "status", "detail"} | members
    assert check(client.get(f"/explain?{query}")).keys() == refused.keys() or "top_k" in query


def test_a_refused_image(client: httpx.Client, check: Check, sample: bytes) -> None:
    huge = b"RIFF" + bytes(4) + b"WEBPVP8X" + bytes(8) + b"\xff" * 6  # pixels each way
    for body, status in ((sample[:99], 400), (bytes(10_000_001), 413), (huge, 413), (b"no image at all", 415)):
        assert check(client.post("/classify", content=body, headers=JPEG))["status"] == status
    assert check(client.post("/classify", content=sample, headers={"content-type": "text/plain"}))["status"] == 415
    assert check(client.post("/classify/batch", content=sample, headers=JPEG))["accepted"] == ["multipart/form-data"]
    assert check(client.post("/classify/batch", files={"image": b""}, params={"top_k": "x"}))["status"] == 422


def test_answers(client: httpx.Client, check: Check, sample: bytes) -> None:
    check(client.post("/classify", content=sample, headers=JPEG))
    parts = [("image", ("a.jpg", sample, "image/jpeg")), ("image", ("b.jpg", b"not an image at all", "image/jpeg"))]
    assert len(check(client.post("/classify/batch", files=parts))["results"]) == 2
    for path in ("/explain", "/stitches?frontier=true", "/status", "/livez", "/readyz"):
        assert check(client.get(path))


def test_what_other_routes_refuse(client: httpx.Client, check: Check) -> None:
    for path in ("/stitches?frontier=perhaps", "/stitches?fronteir=true", "/status?verbose=1"):
        assert check(client.get(path))["errors"]
    assert check(client.put("/control", json={"slo_ms": 5}))["status"] == 403


class Clock:
    """Stands still until told."""

    def __init__(self) -> None:
        self.now, self.read = 1000.0, Event()

    def __call__(self) -> float:
        self.read.set()
        return self.now


def test_refusals_for_time_load_and_faults(running: Running, check: Check, cache: Path, sample: bytes) -> None:
    clock = Clock()
    service = Service(settings(cache, body_timeout_s=0.3), running.service.engine, running.service.table, clock)

    def late() -> Iterator[bytes]:
        yield sample[:9]
        assert clock.read.wait(30)
        clock.now += 100
        yield sample[9:]

    for home in run(service):
        clock.read.clear()
        with home.client() as client:
            passed = check(client.post("/classify", content=late(), headers=JPEG))
            assert (passed["status"], passed["stage"]) == (504, "receive")
            assert passed["receive_ms"] == pytest.approx(100_000, rel=0.01)
            service.batcher.failed_in_a_row, service.batcher.failed_at = 99, clock()
            assert check(client.get("/readyz"))["status"] == 503
            service.refusing = True
            for path in ("/classify", "/classify/batch"):
                assert check(client.post(path, content=sample, headers=JPEG))["title"] == "Draining"
            service.refusing = False
            del service.limiter  # so that the routes fail
            assert check(client.post("/classify", content=sample, headers=JPEG))["status"] == 500
            assert check(client.get("/status"))["status"] == 500


@pytest.mark.parametrize(
    ("path", "head", "status"),
    [
        ("/classify", b"POST /classify HTTP/1.1\r\nContent-Type: image/jpeg\r\nContent-Length: 9\r\n\r\nabc", 408),
        ("/classify", b"POST /classify HTTP/1.1\r\nContent-Le", 408),
        ("/classify", b"POST /classify?" + b"x" * 20_000, 414),
        ("/classify/batch", b"POST /classify/batch HTTP/1.1\r\n" + b"A: b\r\n" * 200, 431),
        ("/status", b"GET /status HTTP/1.1\r\n" + b"A: b\r\n" * 200, 431),
        ("/stitches", b"GET /stitches?\xff HTTP/1.1\r\n\r\n", 400),
    ],
)
def test_refusals_of_the_connection(  # noqa: PLR0917 - pytest passes them by name
    running: Running, check: Check, cache: Path, path: str, head: bytes, status: int
) -> None:
    impatient = settings(cache, body_timeout_s=0.2, header_timeout_s=0.2)
    for home in run(Service(impatient, running.service.engine, running.service.table)):
        with socket.create_connection(("127.0.0.1", int(home.url.rpartition(":")[2])), timeout=60) as client:
            client.sendall(head)
            with client.makefile("rb") as answer:
                line = answer.readline()
                headers = http.client.parse_headers(answer)
                body = answer.read(int(headers["content-length"]))
    request = httpx.Request(head[:4].decode().strip(), home.url + path)
    refused = httpx.Response(int(line.split()[1]), headers=list(headers.items()), content=body, request=request)
    assert check(refused)["status"] == status


def test_every_refusal_is_declared_as_a_problem(document: dict[str, Any]) -> None:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            refused = {status: r["content"] for status, r in operation["responses"].items() if status >= "400"}
            assert {"400", "408", "414", "431", "500", "503"} <= refused.keys(), (method, path)
            for status, content in refused.items():
                # A connection's refusals are problems whatever the protocol of the route; others are as it has them.
                unrouted = status in {"400", "408", "414", "431", "503"}
                own = {"application/json"} if status not in {"414", "431"} else set()
                v2 = own | ({PROBLEM} if unrouted else set())
                assert set(content) == (v2 if path.startswith("/v2") else {PROBLEM}), (method, path, status)
    assert set(document["components"]["schemas"]["DeadlineProblem"]["required"]) >= {"stage", "receive_ms"}
    assert not [name for name in document["components"]["schemas"] if "ValidationError" in name]


def test_every_reference_leads_to_a_schema(document: dict[str, Any]) -> None:
    references = set(re.findall(r'"\$ref": "([^"]*)"', json.dumps(document)))
    assert references == {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}


def test_the_parameters_of_a_budget_have_types_and_forms(document: dict[str, Any]) -> None:
    parameters = document["paths"]["/classify"]["post"]["parameters"]
    schemas = {parameter["name"]: parameter["schema"] for parameter in parameters}
    assert {name: schema.get("type") for name, schema in schemas.items()} == {
        "budget": "array", "max_flops": "number", "deadline_ms": "number", "min_top1": "number",
        "stitch": "integer", "top_k": "integer", "on_infeasible": "string",
    }  # fmt: skip
    budgets = Draft202012Validator(schemas["budget"])
    assert budgets.is_valid(["2GFLOPs", "15 ms, 78%"])
    assert not budgets.is_valid(["cheap"])
    assert all(parameter["description"] for parameter in parameters)
    for schema in schemas.values():
        for example in schema.get("examples", ()):
            Draft202012Validator(schema).validate(example)


def test_only_problems_have_members_that_are_not_told(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    opened = {name for name, schema in schemas.items() if schema.get("additionalProperties") is True}
    assert "RequestProblem" in opened
    assert {name for name in opened if "Problem" not in name} <= {"ProtocolError"}
