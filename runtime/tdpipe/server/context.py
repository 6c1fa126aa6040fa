"""What every endpoint gets with its request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from tdpipe.server.serving import Serving


@dataclass(frozen=True, slots=True)
class RequestContext:
    """A request, its id and arrival, and what it is answered from."""

    request: Request
    serving: Serving
    request_id: str
    arrived: float
    """On the monotonic clock."""


def _context(request: Request) -> RequestContext:
    state = request.state
    return RequestContext(request, request.app.state.serving, state.request_id, state.arrived)


Context = Annotated[RequestContext, Depends(_context)]
