"""The description of the API, for clients that are generated from it.

Bodies are read by the routes themselves, so FastAPI does not see them: their schemas go into the document's components
here, where references between them can be resolved.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from tdpipe.server.schemas.body import Body
from tdpipe.server.schemas.chat import ChatBody
from tdpipe.server.schemas.completions import CompletionBody

_REFERENCE = "#/components/schemas/{model}"
_BODIES: Mapping[str, type[Body]] = {
    "/v1/completions": CompletionBody,
    "/v1/chat/completions": ChatBody,
}
_ERROR_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string", "description": "What is wrong, and the remedy."},
                "type": {"type": "string", "enum": ["invalid_request_error", "server_error"]},
                "param": {
                    "anyOf": [{"type": "string"}, {"type": "null"}],
                    "description": "The field at fault, if it is one field.",
                },
                "code": {"type": "string", "description": "A word that clients can test for."},
            },
        }
    },
}
_ERRORS: Mapping[str, str] = {
    "400": "The request cannot be served as asked.",
    "404": "The model does not exist.",
    "408": "The body did not come in time.",
    "413": "The body is too large.",
    "500": "The server has a fault.",
    "503": "The server is not ready.",
}
_MODEL_ERRORS = ("404", "503")


def describe_bodies(app: FastAPI) -> None:
    """Let `app` describe the bodies and errors of its routes, besides what FastAPI knows of them."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = get_openapi(title=app.title, version=app.version, routes=app.routes)
            _complete(document)
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign] # FastAPI's documented way


def _complete(document: dict[str, Any]) -> None:
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    schemas["ErrorResponse"] = _ERROR_SCHEMA
    for path, body in _BODIES.items():
        schema = body.model_json_schema(ref_template=_REFERENCE)
        schemas |= schema.pop("$defs", {})
        schemas[body.__name__] = schema
        route = document["paths"][path]["post"]
        route["requestBody"] = {"required": True, "content": _json(body.__name__)}
        route["responses"]["200"] = {
            "description": "The answer, as JSON or, with `stream`, as server-sent events.",
            "content": {
                "application/json": {"schema": {"type": "object"}},
                "text/event-stream": {"schema": {"type": "string"}},
            },
        }
        route["responses"] |= {status: _error(status) for status in _ERRORS}
    for path in ("/v1/models", "/v1/models/{name}"):
        route = document["paths"][path]["get"]
        # FastAPI would announce its own validation errors, which no route here gives.
        route["responses"].pop("422", None)
        route["responses"] |= {status: _error(status) for status in _MODEL_ERRORS}


def _json(schema: str) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": _REFERENCE.format(model=schema)}}}


def _error(status: str) -> dict[str, Any]:
    return {"description": _ERRORS[status], "content": _json("ErrorResponse")}
