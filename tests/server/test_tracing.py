"""Spans, as the SDK's own exporter in memory gets them."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from conftest import settings
from fastapi import FastAPI
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from starlette.testclient import TestClient

from server.app import application
from server.running import start_traces
from server.service import build
from server.tracing import exporting, trace_with

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
STAGES = ["receive", "decode_wait", "decode", "queue", "compute"]


@pytest.fixture(scope="module")
def traced(cache: Path) -> Iterator[tuple[TestClient, InMemorySpanExporter]]:
    app = application(build(settings(cache)))
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace_with(app, provider)
    with TestClient(app) as client:
        yield client, exporter


def spans(exporter: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    finished = exporter.get_finished_spans()
    exporter.clear()
    return {span.name: span for span in finished}


def ids(span: ReadableSpan) -> tuple[str, str]:
    assert span.context
    return f"{span.context.trace_id:032x}", f"{span.context.span_id:016x}"


def about(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def test_the_stages_of_a_request_are_in_its_callers_trace(traced: Any, sample: bytes) -> None:
    client, exporter = traced
    headers = {"traceparent": f"00-{TRACE}-{PARENT}-01", "x-request-id": "mine-1", "x-api-key": "hunter2"}
    answer = client.post("/classify?stitch=2", content=sample, headers=headers)
    assert answer.status_code == 200
    seen = spans(exporter)
    request = seen.pop("POST /classify")
    assert list(seen) == STAGES
    assert ids(request)[0] == TRACE
    assert request.parent
    assert f"{request.parent.span_id:016x}" == PARENT
    assert {ids(stage)[0] for stage in seen.values()} == {TRACE}
    assert {f"{stage.parent.span_id:016x}" for stage in seen.values() if stage.parent} == {ids(request)[1]}
    assert about(request) == {
        "http.request.method": "POST", "http.route": "/classify", "http.response.status_code": 200,
        "stitchserve.request_id": "mine-1",
    }  # fmt: skip
    assert about(seen["compute"])["stitch.id"] == 2


def test_stages_follow_each_other_and_take_what_the_answer_says(traced: Any, sample: bytes) -> None:
    client, exporter = traced
    timing = client.post("/classify", content=sample).json()["timing_ms"]
    seen = spans(exporter)
    times = [(seen[name].start_time or 0, seen[name].end_time or 0) for name in STAGES]
    assert [end for _, end in times[:-1]] == pytest.approx([start for start, _ in times[1:]], abs=10)
    lengths = {name: (end - start) / 1e6 for name, (start, end) in zip(STAGES, times, strict=True)}
    assert lengths["compute"] == pytest.approx(timing["compute"], abs=0.01)
    assert lengths["decode"] == pytest.approx(timing["decode"], abs=0.01)
    assert lengths["queue"] + lengths["decode_wait"] == pytest.approx(timing["queue"], abs=0.01)


def test_every_image_of_a_form_has_its_stages(traced: Any, sample: bytes) -> None:
    client, exporter = traced
    client.post("/classify/batch", files=[("image", ("a.jpg", sample))] * 3)
    names = [span.name for span in exporter.get_finished_spans()]
    assert names.count("compute") == 3
    seen = spans(exporter)
    assert seen["compute"].parent == seen["POST /classify/batch"].context


def test_refusals_and_bad_parents_are_spans_too(traced: Any) -> None:
    client, exporter = traced
    client.post("/classify", content=b"no image at all, no image", headers={"traceparent": "00-zz-1-01"})
    client.get("/nowhere?key=hunter2")
    seen = spans(exporter)
    assert about(seen["POST /classify"])["http.response.status_code"] == 415
    assert seen["POST /classify"].parent is None
    assert about(seen["GET unmatched"])["http.response.status_code"] == 404
    assert "hunter2" not in str([span.to_json() for span in seen.values()])


def test_nobody_who_does_not_ask_has_traces() -> None:
    app = FastAPI()
    start_traces(app, None, {})()
    start_traces(app, None, {"OTEL_EXPORTER_OTLP_ENDPOINT": ""})()
    assert not app.user_middleware


def test_spans_reach_a_collector() -> None:
    paths: list[str] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            paths.append(self.path)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Collector) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        provider = exporting(f"http://127.0.0.1:{server.server_port}/")
        provider.get_tracer("x").start_span("x").end()
        provider.shutdown()
        thread.join(10)
    assert paths == ["/v1/traces"]
