"""Reads and validates JSON bodies, with errors that name the field and what it accepts."""

from __future__ import annotations

import asyncio
import json
from typing import Any, ClassVar, TypeVar

from fastapi import Request
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import ErrorDetails, PydanticCustomError
from starlette.requests import ClientDisconnect

from tdpipe.server.disconnect import ClientGoneError
from tdpipe.server.errors import ApiError

BodyT = TypeVar("BodyT", bound="Body")
_FIELD_ERROR = "field_error"
_MAX_SHOWN_CHARACTERS = 80
_MAX_BODY_BYTES = 8 * 2**20
_MAX_INLINE_BYTES = 2**16
"""Size up to which a body is validated on the event loop, which takes about a millisecond."""


class Body(BaseModel):
    """A JSON object with known fields and exact types."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        frozen=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )
    unsupported: ClassVar[dict[str, str]] = {}
    """Fields of OpenAI's API that are refused unless they are null, with what to do instead."""

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_fields(cls, value: Any) -> Any:  # noqa: ANN401 - whatever JSON holds
        if not isinstance(value, dict):
            return value
        for name in value:
            if name in cls.unsupported and value[name] is None:
                continue
            if name not in cls.model_fields:
                reason = cls.unsupported.get(name, "unknown field")
                raise field_error(
                    name,
                    f"{reason}; accepted fields are {', '.join(cls.model_fields)}",
                    "unknown_parameter",
                )
        return {name: item for name, item in value.items() if name in cls.model_fields}


def field_error(name: str, problem: str, code: str = "invalid_value") -> PydanticCustomError:
    """Create the error that a validator of a whole body raises about one of its fields."""
    return PydanticCustomError(
        _FIELD_ERROR, "{problem}", {"name": name, "problem": problem, "code": code}
    )


async def read_body(request: Request, schema: type[BodyT]) -> BodyT:
    """Read the request's body and validate it.

    Raises:
        ApiError: 400 for the first problem of the body, or 413 if it is too large.
        ClientGoneError: the client disconnected before the end of the body.
    """
    try:
        raw = await _read(request)
    except ClientDisconnect as error:
        raise ClientGoneError from error
    try:
        if len(raw) <= _MAX_INLINE_BYTES:
            return schema.model_validate_json(raw)
        # The event loop must answer probes and deliver tokens meanwhile.
        return await asyncio.to_thread(schema.model_validate_json, raw)
    except ValidationError as error:
        raise _to_api_error(error.errors(include_url=False)[0], schema) from error


async def _read(request: Request) -> bytes:
    raw = bytearray()
    async for part in request.stream():
        raw += part
        if len(raw) > _MAX_BODY_BYTES:
            raise ApiError(
                413,
                f"the body is larger than {_MAX_BODY_BYTES // 2**20} MiB; split it into several requests",
                code="body_too_large",
            )
    return bytes(raw)


def openapi_body(schema: type[Body]) -> dict[str, Any]:
    """Build a route's `openapi_extra`, because FastAPI does not see bodies that `read_body` reads."""
    # With an id of its own the schema's references to `#/$defs` do not mean the document's.
    described = {"$id": schema.__name__} | schema.model_json_schema()
    content = {"application/json": {"schema": described}}
    return {"requestBody": {"required": True, "content": content}}


def _to_api_error(error: ErrorDetails, schema: type[Body]) -> ApiError:
    kind, context = error["type"], error.get("ctx", {})
    param = _path(error["loc"])
    if kind == "json_invalid":
        return ApiError(400, f"the body is not JSON: {context['error']}", code="invalid_json")
    if not param and kind in {"model_type", "model_attributes_type"}:
        return ApiError(400, "the body must be a JSON object", code="invalid_json")
    if kind == _FIELD_ERROR:
        param = f"{param}.{context['name']}" if param else str(context["name"])
        return ApiError(400, f"{param}: {error['msg']}", param=param, code=str(context["code"]))
    if kind == "missing":
        return ApiError(400, f"{param}: must be given", param=param, code="missing_parameter")
    message = (
        str(context["error"]) if kind == "value_error" else f"{error['msg']}{_got(error['input'])}"
    )
    if kind in {"literal_error", "none_required"} and len(error["loc"]) == 1:
        # pydantic's message says what is accepted; the field's description says why.
        message += f"; {schema.model_fields[str(error['loc'][0])].description}"
    return ApiError(
        400, f"{param}: {message}" if param else message, param=param, code="invalid_value"
    )


def _got(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return f"; got {text if len(text) <= _MAX_SHOWN_CHARACTERS else text[:_MAX_SHOWN_CHARACTERS] + '…'}"


def _path(location: tuple[int | str, ...]) -> str | None:
    path = ""
    for part in location:
        path += f"[{part}]" if isinstance(part, int) else f".{part}"
    return path.removeprefix(".") or None
