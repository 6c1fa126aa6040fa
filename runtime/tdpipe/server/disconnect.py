"""Cancels work whose client has disconnected, so that no stage computes what nobody reads."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from starlette.types import Receive

T = TypeVar("T")


class ClientGoneError(Exception):
    """The client closed its connection before its request or the answer was complete."""


async def unless_disconnected(receive: Receive, work: Awaitable[T]) -> T:
    """Return the result of `work`, which is cancelled at once if the client disconnects.

    The request's body must have been read before, so that the next message of `receive` is the disconnect.

    Raises:
        ClientGoneError: the client disconnected first.
    """
    working = asyncio.ensure_future(work)
    watching = asyncio.ensure_future(_disconnected(receive))
    try:
        await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientGoneError
        return working.result()
    finally:
        working.cancel()
        watching.cancel()
        await asyncio.gather(working, watching, return_exceptions=True)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
