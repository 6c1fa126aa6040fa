"""Turns every error into OpenAI's shape, with the status, `param` and `code` that clients branch on."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from tdpipe.core.errors import (
    NonFiniteLogitsError,
    PipelineError,
    RequestError,
    ShutdownError,
    TDPipeError,
    one_line,
)
from tdpipe.server.disconnect import ClientGoneError
from tdpipe.server.middleware import InternalErrors

_log = logging.getLogger(__name__)
_CLIENT_CLOSED_REQUEST = 499  # nginx's status; only logs could show it, because the client is gone


class ApiError(TDPipeError):
    """An error with an HTTP status.

    Args:
        status: HTTP status.
        message: what is wrong and the remedy.
        param: the field at fault, if it is one field.
        code: word that clients can test for, such as `model_not_found`.
        retry_after: seconds after which a client may try again, for status 503.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str,
        retry_after: int = 1,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.param = param
        self.code = code
        self.retry_after = retry_after


def to_api_error(error: Exception) -> ApiError:
    """Convert any error to the one that the client gets. A bug is logged, and the client gets no details."""
    match error:
        case ApiError():
            return error
        case RequestError():
            return ApiError(400, str(error), param=error.param, code="invalid_value")
        case ShutdownError():
            return ApiError(503, str(error), code="shutting_down")
        case PipelineError():
            # The engine has already logged it, and every open request ends here.
            _log.debug("the engine failed: %s", one_line(error))
            return ApiError(503, f"the engine failed: {one_line(error)}", code="engine_failed")
        case NonFiniteLogitsError():
            _log.error("%s", error)
            return ApiError(500, str(error), code="non_finite_logits")
        case HTTPException(status_code=404):
            return ApiError(
                404, "no such route; see /openapi.json for the routes", code="not_found"
            )
        case HTTPException(status_code=405):
            return ApiError(
                405,
                "this route does not support this method; see /openapi.json",
                code="method_not_allowed",
            )
        case HTTPException():
            return ApiError(error.status_code, str(error.detail), code="http_error")
        case _:
            _log.error("a request failed", exc_info=error)
            return ApiError(
                500, "internal error; see the server's log for details", code="internal_error"
            )


def error_body(error: ApiError) -> dict[str, Any]:
    """Build the JSON of an error response, or of an error event in a stream."""
    kind = "invalid_request_error" if error.status < 500 else "server_error"
    fields = {"message": str(error), "type": kind, "param": error.param, "code": error.code}
    return {"error": fields}


def install_error_handlers(app: FastAPI, count: Callable[[str], None]) -> None:
    """Answer every failure of `app`, including unknown routes, in OpenAI's shape.

    Args:
        app: the application.
        count: called with the `code` of each error response.
    """

    async def answer(_: Request, error: Exception) -> Response:
        api_error = to_api_error(error)
        count(api_error.code)
        headers = dict(error.headers or {}) if isinstance(error, HTTPException) else {}
        if api_error.status == 503:
            headers["retry-after"] = str(api_error.retry_after)
        return JSONResponse(error_body(api_error), api_error.status, headers)

    async def answer_nobody(_: Request, __: Exception) -> Response:
        return Response(status_code=_CLIENT_CLOSED_REQUEST)

    app.add_exception_handler(ClientGoneError, answer_nobody)
    for kind in (TDPipeError, HTTPException):
        app.add_exception_handler(kind, answer)
    app.add_middleware(InternalErrors, respond=answer)
