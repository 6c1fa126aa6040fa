"""Reads and validates JSON bodies, with errors that name the field and what it accepts."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from difflib import get_close_matches
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
_MIN_LIKENESS = 0.75
"""Likeness, at most 1, from which an unknown field is taken for a misspelt one."""
_EMPTY: tuple[object, ...] = ([], {}, "")
_MAX_BODY_BYTES = 8 * 2**20
_MAX_INLINE_BYTES = 2**16
"""Size up to which a body is validated on the event loop, which takes about a millisecond."""
_PART_SECONDS = 60.0
"""Seconds that a client may take for each part of its body."""
_validating = ThreadPoolExecutor(1, "validating")
"""Validates large bodies, one at a time: several at once would starve the event loop of the interpreter's lock."""


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
    """Fields of OpenAI's that are refused unless they are null or empty, and why."""
    elsewhere: ClassVar[dict[str, str]] = {}
    """Fields of another endpoint that are refused unless they are null, and what to do instead."""

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_fields(cls, value: Any) -> Any:  # noqa: ANN401 - whatever JSON holds
        if not isinstance(value, dict):
            return value
        for name in value:
            if value[name] is None and name not in cls.model_fields:
                continue
            if name in cls.unsupported and value[name] in _EMPTY:
                continue
            if name not in cls.model_fields:
                reason = cls.elsewhere.get(name) or cls.unsupported.get(name)
                reason = reason or _unknown(name, cls.model_fields)
                raise field_error(_shortened(name), reason, "unknown_parameter")
        return {name: item for name, item in value.items() if name in cls.model_fields}


def _unknown(name: str, known: Iterable[str]) -> str:
    nearest = get_close_matches(name[:_MAX_SHOWN_CHARACTERS], known, n=1, cutoff=_MIN_LIKENESS)
    return (
        f"unknown field; did you mean {nearest[0]}?" if nearest else "unknown field; leave it out"
    )


def check_length(value: object, limit: int, what: str) -> None:
    """Refuse a list or object with too many entries, before any of them is validated and found wrong.

    Raises:
        ValueError: it has more than `limit`.
    """
    if isinstance(value, list | dict) and len(value) > limit:
        raise ValueError(f"has {len(value)} {what}; give at most {limit}")


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
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(_validating, schema.model_validate_json, raw)
    except ValidationError as error:
        raise _to_api_error(error.errors(include_url=False)[0], schema) from error


async def _read(request: Request) -> bytearray:
    raw = bytearray()
    announced = request.headers.get("content-length", "")
    if announced.isdigit() and int(announced) > _MAX_BODY_BYTES:
        raise _too_large()
    parts = request.stream()
    while True:
        try:
            raw += await asyncio.wait_for(anext(parts), _PART_SECONDS)
        except StopAsyncIteration:
            return raw
        except TimeoutError as error:
            raise ApiError(
                408,
                f"no part of the body came for {_PART_SECONDS:g} s; send the request again",
                code="request_timeout",
            ) from error
        if len(raw) > _MAX_BODY_BYTES:
            raise _too_large()


def _too_large() -> ApiError:
    return ApiError(
        413,
        f"the body is larger than {_MAX_BODY_BYTES // 2**20} MiB; split it into several requests",
        code="body_too_large",
    )


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
    """What a refusal shows of a refused value: a scalar or an empty container, since others may be large."""
    if isinstance(value, list | dict) and value:
        return ""
    if isinstance(value, str):
        value = _shortened(value)
    return f"; got {json.dumps(value, ensure_ascii=False)}"


def _shortened(text: str) -> str:
    return text if len(text) <= _MAX_SHOWN_CHARACTERS else f"{text[:_MAX_SHOWN_CHARACTERS]}…"


def _path(location: tuple[int | str, ...]) -> str | None:
    path = ""
    for part in location:
        path += f"[{part}]" if isinstance(part, int) else f".{part}"
    return path.removeprefix(".") or None
