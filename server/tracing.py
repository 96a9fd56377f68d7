"""OpenTelemetry spans: one for a request, under its `traceparent`, and one for each stage of each image in it.

Loaded only where traces are asked for, so that nobody else needs the packages of the extra `otel`.
"""

import time
from collections.abc import Callable
from itertools import accumulate
from typing import Any

from fastapi import FastAPI
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, StatusCode, Tracer, get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.batcher import Answer
from server.service import Service
from server.stages import Stage, Stages

BEFORE_QUEUE: tuple[Stage, ...] = ("receive", "decode_wait", "decode")
PATIENCE = 2.0  # seconds for a collector to answer; at the end the process waits for it


def exporting(endpoint: str | None) -> TracerProvider:
    """Sends spans over OTLP/HTTP to `endpoint`, as http://collector:4318, else to where OTEL_* variables say."""
    url = None if endpoint is None else f"{endpoint.rstrip('/')}/v1/traces"
    provider = TracerProvider(resource=Resource.create({"service.name": "stitchserve"}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=url, timeout=PATIENCE)))
    return provider


def install(app: FastAPI, endpoint: str | None) -> Callable[[], None]:
    """Trace every request to the application -> what sends the last spans, to be called at the end."""
    provider = exporting(endpoint)
    trace_with(app, provider)
    return provider.shutdown


def trace_with(app: FastAPI, provider: TracerProvider) -> None:
    """Trace every request to the application."""
    tracer = provider.get_tracer("stitchserve")
    service: Service = app.state.service
    service.on_answer = Images(tracer, service.clock)
    app.add_middleware(Requests, tracer=tracer)


class Requests:
    """The span of a request."""

    def __init__(self, app: ASGIApp, tracer: Tracer) -> None:
        self.app, self._tracer = app, tracer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request; the lifespan passes through."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        parent = TraceContextTextMapPropagator().extract(headers)
        method = scope["method"]
        with self._tracer.start_as_current_span(method, parent, SpanKind.SERVER) as span:

            async def tell(message: Message) -> None:
                if message["type"] == "http.response.start":
                    span.set_attribute("http.response.status_code", message["status"])
                    if message["status"] >= 500:
                        span.set_status(StatusCode.ERROR)
                await send(message)

            try:
                await self.app(scope, receive, tell)
            finally:
                route = getattr(scope.get("route"), "path", "unmatched")
                span.update_name(f"{method} {route}")
                span.set_attributes({"http.request.method": method, "http.route": route})
                span.set_attribute("stitchserve.request_id", scope["state"].get("request_id", ""))


class Images:
    """The spans of an image's stages, made when it is answered: all that is known of them is known then."""

    def __init__(self, tracer: Tracer, clock: Callable[[], float]) -> None:
        self._tracer, self._clock = tracer, clock

    def __call__(self, stages: Stages, answer: Answer[Any]) -> None:
        """One answered image, within the span of its request, where that has one."""
        if not get_current_span().is_recording():
            return
        arrived = time.time_ns() - _ns(self._clock() - stages.arrived)
        entry = answer.entry
        stitch: dict[str, str | int] = {
            "stitch.id": entry.stitch,
            "stitch.name": entry.route,
            "stitch.flops": entry.flops,
            "stitch.reason": answer.reason,
        }
        before = [(name, stages.seconds[name]) for name in BEFORE_QUEUE]
        parts = [*before, ("queue", answer.queue), ("compute", answer.compute)]
        ends = accumulate(seconds for _, seconds in parts)
        for (name, seconds), end in zip(parts, ends, strict=True):
            about = stitch if name == "compute" else {}
            span = self._tracer.start_span(name, attributes=about, start_time=arrived + _ns(end - seconds))
            span.end(arrived + _ns(end))


def _ns(seconds: float) -> int:
    return round(seconds * 1e9)
