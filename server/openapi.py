"""What the OpenAPI document says of bodies and refusals, where the routes' types cannot."""

from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from server.images import ACCEPTED
from server.schemas import DeadlineProblem, Problem, RequestProblem, TooLargeProblem, UnsupportedProblem

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
                        "image": {"type": "array", "items": _BYTES},
                        "budget": {"type": "array", "items": {"type": "string"}},
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
_SECONDS = {"type": "integer", "minimum": 1}
_RETRY_AFTER = {"Retry-After": {"description": "seconds", "required": True, "schema": _SECONDS}}
_NAMED = "#/components/schemas/{model}"


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What a route may refuse with: `application/problem+json`, with the members of each status."""
    return {status: _refusal(status) for status in statuses}


def _refusal(status: int) -> dict[str, Any]:
    text, problem = _TEXTS[status]
    schema = {"$ref": _NAMED.format(model=problem.__name__)}
    described = {"description": text, "content": {"application/problem+json": {"schema": schema}}}
    return described | ({"headers": _RETRY_AFTER} if status in _LATER else {})


def define_problems(app: FastAPI) -> None:
    """The models that `refusals` names, for FastAPI defines only those of answers and of `application/json`."""
    models: list[tuple[type[BaseModel], JsonSchemaMode]] = [(named, "serialization") for _, named in _TEXTS.values()]
    definitions = models_json_schema(models, ref_template=_NAMED)[1]["$defs"]
    app.openapi()["components"]["schemas"] |= definitions


ANYWHERE = refusals(400, 408, 414, 431, 500, 503)
"""What every route may meet, most of it before the request is looked at."""
