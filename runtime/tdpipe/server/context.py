"""Context of an HTTP request, which an endpoint gets besides the body: ids, arrival time and the `Serving`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from tdpipe.server.serving import Serving


@dataclass(frozen=True, slots=True)
class RequestContext:
    """A request with its id and arrival time, and the state that it is answered from."""

    request: Request
    serving: Serving
    request_id: str
    client_id: str | None
    """The `x-request-id` that the client sent."""
    arrived: float
    """Arrival time in seconds of the monotonic clock."""


def _context(request: Request) -> RequestContext:
    state = request.state
    return RequestContext(
        request, request.app.state.serving, state.request_id, state.client_id, state.arrived
    )


Context = Annotated[RequestContext, Depends(_context)]
"""Parameter type of an endpoint that needs the request's context."""
