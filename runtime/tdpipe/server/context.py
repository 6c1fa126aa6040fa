"""What the server knows of an HTTP request beyond its body: an id, its arrival time and the `Serving`.

A middleware sets id and arrival time before anything can fail, so that every response, errors included, has
an `x-request-id` header.
"""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tdpipe.server.serving import Serving


@dataclass(frozen=True, slots=True)
class RequestContext:
    """A request with its id and arrival time, and the state that it is answered from."""

    request: Request
    serving: Serving
    request_id: str
    arrived: float
    """Arrival time in seconds of the monotonic clock."""


class RequestIds:
    """ASGI middleware that gives each request its id and arrival time.

    Starlette's `BaseHTTPMiddleware` would hide disconnects from streams.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run as an ASGI application."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = uuid.uuid4().hex
        scope.setdefault("state", {}).update(request_id=request_id, arrived=time.monotonic())

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode())]
            await send(message)

        await self._app(scope, receive, send_with_id)


def _context(request: Request) -> RequestContext:
    state = request.state
    return RequestContext(request, request.app.state.serving, state.request_id, state.arrived)


Context = Annotated[RequestContext, Depends(_context)]
"""Parameter type of an endpoint that needs the request's context."""
