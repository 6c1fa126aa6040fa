"""Sends a call's answer, whole or as events, until it is complete or the client disconnects."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any, Protocol

from fastapi import Request
from starlette.responses import JSONResponse, Response

from tdpipe.server.call import Call, Output
from tdpipe.server.disconnect import unless_disconnected
from tdpipe.server.schemas.common import GenerationBody
from tdpipe.server.sse import EventStream


class Answer(Protocol):
    """Shapes a call's output as its endpoint's JSON."""

    def whole(self, outputs: Sequence[Output]) -> dict[str, Any]:
        """Build the response of a call that is not streamed, without `usage`."""

    def chunks(self, call: Call) -> AsyncGenerator[dict[str, Any]]:
        """Yield the events of a streamed call, without `usage`."""


async def respond(request: Request, call: Call, answer: Answer, body: GenerationBody) -> Response:
    """Send the answer of `call`, and close the call when the answer is complete or the client is gone.

    Raises:
        ClientGoneError: the client disconnected before the answer was complete.
    """
    if body.stream:
        chunks = answer.chunks(call)
        if body.include_usage:
            chunks = _with_usage(chunks, call, in_every_chunk=body.continuous_usage)
        return EventStream(chunks, call.close)
    try:
        outputs = await unless_disconnected(request.receive, call.outputs())
    finally:
        call.close()
    return JSONResponse(answer.whole(outputs) | {"usage": call.usage()})


async def _with_usage(
    chunks: AsyncGenerator[dict[str, Any]], call: Call, *, in_every_chunk: bool
) -> AsyncGenerator[dict[str, Any]]:
    """Add `usage` to the chunks: null in all of them but a last one without choices, unless asked for in each."""
    chunk: dict[str, Any] = {}
    async with aclosing(chunks):
        async for chunk in chunks:
            yield chunk | {"usage": call.usage() if in_every_chunk else None}
    yield chunk | {"choices": [], "usage": call.usage()}
