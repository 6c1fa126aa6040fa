"""Stream of one request's output from the engine's thread to an event loop.

The engine pushes and never waits; a slower consumer gets the tokens of several steps in one delta.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from tdpipe.core.errors import TDPipeError
    from tdpipe.core.request import FinishReason
    from tdpipe.core.sampling import TokenLogprobs


@dataclass(frozen=True, slots=True)
class TokenDelta:
    """Output tokens since the last delta."""

    tokens: tuple[int, ...]
    logprobs: tuple[TokenLogprobs | None, ...]
    """One per token; all None if the request asked for none."""
    finish: FinishReason | None
    """Reason for the end of the output; None on all deltas except the last."""


class RequestStream:
    """Async iterator over a request's deltas; iterating raises the error that the engine ended the request with.

    All methods must be called in the thread of the event loop that iterates.

    Args:
        abort: Tells the engine that the caller has gone away.
        finish: Tells the engine how many output tokens count after a stop string was found.
    """

    def __init__(
        self,
        abort: Callable[[], object],
        finish: Callable[[int], object],
    ) -> None:
        self._abort = abort
        self._finish = finish
        self._deltas: list[TokenDelta] = []
        self._error: TDPipeError | None = None
        self._arrived = asyncio.Event()
        self._ended = False
        """Whether the engine has ended the request, or was told to end it."""

    def push(self, delta: TokenDelta) -> None:
        """Append a delta."""
        self._deltas.append(delta)
        self._arrived.set()

    def fail(self, error: TDPipeError) -> None:
        """End the stream with an error, which is raised after the deltas that came before it."""
        self._error = error
        self._ended = True
        self._arrived.set()

    def abort(self) -> None:
        """Abort the request because the caller has gone away. Idempotent."""
        if not self._ended:
            self._ended = True
            self._arrived.set()
            self._abort()

    def finish(self, length: int) -> None:
        """Finish the request at a stop string; only the first `length` output tokens count. Idempotent."""
        if not self._ended:
            self._ended = True
            self._finish(length)

    def __aiter__(self) -> RequestStream:
        return self

    async def __anext__(self) -> TokenDelta:
        while not self._deltas and not self._ended:
            self._arrived.clear()
            await self._arrived.wait()
        if self._deltas:
            return self._merged()
        if self._error is not None:
            raise self._error
        raise StopAsyncIteration

    def _merged(self) -> TokenDelta:
        deltas, self._deltas = self._deltas, []
        finish = deltas[-1].finish
        self._ended = self._ended or finish is not None
        return TokenDelta(
            tuple(token for delta in deltas for token in delta.tokens),
            tuple(each for delta in deltas for each in delta.logprobs),
            finish,
        )
