"""What the OpenAPI document says of bodies and refusals, where the routes' types cannot."""

from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from server.form import MOST_IMAGES
from server.images import ACCEPTED
from server.refused import PROBLEM
from server.schemas import (
    DeadlineProblem,
    Problem,
    ProtocolError,
    RequestProblem,
    TooLargeProblem,
    UnsupportedProblem,
)
from server.tensors import InferRequest

_NAMED = "#/components/schemas/{model}"
_BYTES = {"type": "string", "format": "binary"}

IMAGE_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "the image: JPEG, PNG, WebP, BMP or GIF, raw or as the one file of a form",
        "content": {kind: {"schema": _BYTES} for kind in (*ACCEPTED, "application/octet-stream")}
        | {
            "multipart/form-data": {
                "schema": {"type": "object", "required": ["image"], "properties": {"image": _BYTES}},
            }
        },
    }
}

FORM_OF_IMAGES: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "images as the files of a form; optionally as many `budget` fields, one for each",
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["image"],
                    "properties": {
                        "image": {"type": "array", "items": _BYTES, "minItems": 1, "maxItems": MOST_IMAGES},
                        "budget": {"type": "array", "items": {"type": "string"}, "maxItems": MOST_IMAGES},
                    },
                }
            }
        },
    }
}

_TEXTS: dict[int, tuple[str, type[Problem]]] = {
    400: ("the request cannot be read, or holds no image that can", Problem),
    401: ("an API key that is not known", Problem),
    403: ("not to be had from this server, as it was started", Problem),
    404: ("no model has this name", Problem),
    408: ("the header or the body took too long to arrive", Problem),
    413: ("too many bytes, pixels or decoding steps", TooLargeProblem),
    414: ("the URL is too long", Problem),
    415: ("not an accepted type", UnsupportedProblem),
    422: ("a parameter that is none or does not parse, an unknown stitch, or what cannot be met", RequestProblem),
    429: ("more requests than this client may send", Problem),
    431: ("the header is too long", Problem),
    500: ("running the request failed", Problem),
    503: ("overloaded, not well or stopping", Problem),
    504: ("the deadline passed before the image could be run", DeadlineProblem),
}
_LATER = {HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE}
_OF_HEADERS = (414, 431)
_UNROUTED = (400, 408, 503, *_OF_HEADERS)
"""Refused with before there is a route, so that it is as RFC 9457 has it, whatever the route's protocol."""

INFERENCE: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "the JSON of Open Inference Protocol v2, alone or with binary tensors after it",
        "content": {
            "application/json": {"schema": {"$ref": _NAMED.format(model=InferRequest.__name__)}},
            "application/octet-stream": {"schema": _BYTES},
        },
    },
    "parameters": [
        {
            "name": "Inference-Header-Content-Length",
            "in": "header",
            "description": "how many bytes of the body are JSON, where binary tensors follow it",
            "schema": {"type": "integer", "minimum": 0},
        }
    ],
}
_SECONDS = {"type": "integer", "minimum": 1}
_RETRY_AFTER = {"Retry-After": {"description": "seconds", "required": True, "schema": _SECONDS}}


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What a route may refuse with: `application/problem+json`, with the members of each status."""
    return {status: _refusal(status) for status in statuses}


def _refusal(status: int) -> dict[str, Any]:
    text, problem = _TEXTS[status]
    schema = {"$ref": _NAMED.format(model=problem.__name__)}
    described = {"description": text, "content": {PROBLEM: {"schema": schema}}}
    return described | ({"headers": _RETRY_AFTER} if status in _LATER else {})


def _refusal_v2(status: int) -> dict[str, Any]:
    described = _refusal(status)
    error = {"application/json": {"schema": {"$ref": _NAMED.format(model=ProtocolError.__name__)}}}
    unrouted = described["content"] if status in _UNROUTED else {}
    return described | {"content": unrouted | ({} if status in _OF_HEADERS else error)}


def define_schemas(app: FastAPI) -> None:
    """The models that are named here, once the document is asked for: FastAPI defines only those of routes' types."""
    make = app.openapi

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            make()["components"]["schemas"] |= _definitions()
        return make()

    app.openapi = document  # type: ignore[method-assign]


def _definitions() -> dict[str, Any]:
    models: list[tuple[type[BaseModel], JsonSchemaMode]] = [(named, "serialization") for _, named in _TEXTS.values()]
    models += [(ProtocolError, "serialization"), (InferRequest, "validation")]
    definitions: dict[str, Any] = models_json_schema(models, ref_template=_NAMED)[1]["$defs"]
    return definitions


ANYWHERE = refusals(400, 408, 414, 431, 500, 503)
"""What every route may meet, most of it before the request is looked at."""

REFUSALS_V2: dict[int | str, dict[str, Any]] = {
    status: _refusal_v2(status) for status in (400, 401, 404, 408, 413, 414, 415, 422, 429, 431, 500, 503, 504)
}
"""What a route of the Open Inference Protocol may refuse with."""
