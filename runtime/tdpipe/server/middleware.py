"""What surrounds every request: its ids and arrival time, and an answer where the application has a bug.

These are plain ASGI middleware, since Starlette's base class for middleware would hide disconnects from streams.
"""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Awaitable, Callable

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_CLIENT_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")
"""What a client may choose as its request id; anything else is replaced."""


class RequestIds:
    """Gives each request an id of its own, and its response the `x-request-id` header.

    The header carries the client's own id where it sent one, so that its logs and the server's can be joined; the
    request's own id stays unique, because the engine keeps requests apart by it.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run as an ASGI application."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = uuid.uuid4().hex
        given = Headers(scope=scope).get("x-request-id", "")
        client_id = given if _CLIENT_ID.fullmatch(given) else None
        scope.setdefault("state", {}).update(
            request_id=request_id, client_id=client_id, arrived=time.monotonic()
        )

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                header = (b"x-request-id", (client_id or request_id).encode())
                message["headers"] = [*message["headers"], header]
            await send(message)

        await self._app(scope, receive, send_with_id)


class CallsInWork:
    """Counts the generation requests whose response is not complete, so that a server can wait for them.

    Args:
        app: the application.
        count: called with 1 when a call begins, and with -1 when it ends.
    """

    def __init__(self, app: ASGIApp, count: Callable[[int], None]) -> None:
        self._app = app
        self._count = count

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run as an ASGI application."""
        if scope["type"] != "http" or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        self._count(1)
        try:
            await self._app(scope, receive, send)
        finally:
            self._count(-1)


class InternalErrors:
    """Answers a request in which the application has raised an error that no handler knows.

    Starlette's own handler would raise it again behind the response: it would be logged twice, and the connection
    closed although the response promised to keep it.

    Args:
        app: the application.
        respond: makes the response.
    """

    def __init__(
        self, app: ASGIApp, respond: Callable[[Request, Exception], Awaitable[Response]]
    ) -> None:
        self._app = app
        self._respond = respond

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run as an ASGI application."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def watch(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, watch)
        except Exception as error:
            if started:  # half a response can only be broken off
                raise
            response = await self._respond(Request(scope, receive), error)
            await response(scope, receive, send)
