"""Sends a call's answer, whole or as events, until it is complete or the client disconnects."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Any, Protocol

from fastapi import Request
from starlette.responses import JSONResponse, Response

from tdpipe.server.call import Call, Output
from tdpipe.server.disconnect import unless_disconnected
from tdpipe.server.sse import EventStream


class Answer(Protocol):
    """Shapes a call's output as its endpoint's JSON."""

    def whole(self, outputs: Sequence[Output]) -> dict[str, Any]:
        """Build the response of a call that is not streamed, without `usage`."""

    def chunks(self, call: Call, *, include_usage: bool) -> AsyncGenerator[dict[str, Any]]:
        """Yield the events of a streamed call."""


async def respond(
    request: Request, call: Call, answer: Answer, *, stream: bool | None, include_usage: bool
) -> Response:
    """Send the answer of `call`, and close the call when the answer is complete or the client is gone.

    Raises:
        ClientGoneError: the client disconnected before the answer was complete.
    """
    if stream:
        return EventStream(answer.chunks(call, include_usage=include_usage), call.close)
    try:
        outputs = await unless_disconnected(request.receive, call.outputs())
    finally:
        call.close()
    return JSONResponse(answer.whole(outputs) | {"usage": call.usage()})
