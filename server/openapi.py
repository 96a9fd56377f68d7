"""What the OpenAPI document says of bodies and refusals, where the routes' types cannot."""

from typing import Any

from server.images import ACCEPTED
from server.schemas import Problem, ProtocolError
from server.tensors import InferRequest

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

REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"description": text, "content": {"application/problem+json": {"schema": Problem.model_json_schema()}}}
    for status, text in {
        400: "not an image, truncated or unreadable",
        401: "an API key that is not known",
        403: "not to be had from this server, as it was started",
        408: "the body took too long",
        413: "too many bytes or pixels",
        415: "not an accepted type",
        422: "a bad budget, an unknown stitch, or a budget no stitch can meet",
        503: "overloaded or stopping; see Retry-After",
        504: "the deadline passed before the image could be run",
    }.items()
}

REFUSALS_V2: dict[int | str, dict[str, Any]] = {
    status: {
        "description": REFUSALS[status]["description"] if status in REFUSALS else "no model has this name",
        "content": {"application/json": {"schema": ProtocolError.model_json_schema()}},
    }
    for status in (400, 401, 404, 408, 413, 415, 422, 503, 504)
}

INFERENCE: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "the JSON of Open Inference Protocol v2, alone or with binary tensors after it",
        "content": {
            "application/json": {"schema": InferRequest.model_json_schema()},
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
