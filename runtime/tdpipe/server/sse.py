"""Streams server-sent events in the form that OpenAI's clients read.

A request may wait for minutes, in the queue or while stages restart. Comments, which clients ignore, then keep proxies
from taking the connection for dead.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

import msgspec
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from tdpipe.server.disconnect import ClientGoneError, unless_disconnected
from tdpipe.server.errors import error_body, to_api_error

_SILENCE_SECONDS = 15.0
"""Time without an event after which a comment is sent."""
_COMMENT = b": waiting\n\n"
DONE = b"data: [DONE]\n\n"
_encode = msgspec.json.Encoder().encode


class EventStream(Response):
    """Sends JSON objects as they arrive, and then `[DONE]`. An error is sent as an object and ends the stream.

    Args:
        events: the objects to send.
        close: called when the stream has ended, which it does at once when the client disconnects.
    """

    media_type = "text/event-stream"

    def __init__(self, events: AsyncGenerator[dict[str, Any]], close: Callable[[], None]) -> None:
        self.status_code = 200
        self.background = None
        # Without these headers proxies such as nginx buffer the events.
        self.init_headers({"cache-control": "no-cache", "x-accel-buffering": "no"})
        self._events = events
        self._close = close

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        """Run as an ASGI application."""
        try:
            await unless_disconnected(receive, self._send(send))
        except ClientGoneError:
            pass
        finally:
            self._close()

    async def _send(self, send: Send) -> None:
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        await send(start)
        try:
            async with aclosing(self._events) as events:
                while (event := await self._next(events, send)) is not None:
                    await send(_body(b"data: " + _encode(event) + b"\n\n"))
            await send(_body(DONE))
        except Exception as error:
            event = error_body(to_api_error(error))
            await send(_body(b"data: " + _encode(event) + b"\n\n"))
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _next(
        self, events: AsyncGenerator[dict[str, Any]], send: Send
    ) -> dict[str, Any] | None:
        """Return the next event, or None after the last one, and send comments until it comes."""
        coming = asyncio.ensure_future(anext(events, None))
        try:
            while not (await asyncio.wait({coming}, timeout=_SILENCE_SECONDS))[0]:
                await send(_body(_COMMENT))
            return coming.result()
        finally:
            # Closing the generator fails while it still runs.
            coming.cancel()
            await asyncio.gather(coming, return_exceptions=True)


def _body(data: bytes) -> dict[str, Any]:
    return {"type": "http.response.body", "body": data, "more_body": True}
