"""The requests that have not ended, and the streams that their tokens go to.

Streams belong to event loops, so tokens are handed over by callbacks: one per loop and step, however many requests have
got a token.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from tdpipe.controller.stream import RequestStream, TokenDelta
from tdpipe.core.errors import NonFiniteLogitsError
from tdpipe.core.request import FinishReason, Request

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterable, Iterator

    from tdpipe.core.errors import TDPipeError
    from tdpipe.core.step import StepOutput
    from tdpipe.prediction.features import PromptFeatures
    from tdpipe.prediction.length_predictor import LengthPredictor
    from tdpipe.scheduling.scheduler import Emission


@dataclass(slots=True, eq=False)
class Listener:
    """A request that has not ended, and the stream that its tokens go to."""

    loop: asyncio.AbstractEventLoop
    stream: RequestStream
    request: Request
    features: PromptFeatures
    received: int = 0
    """Number of output tokens so far."""

    def fail(self, error: TDPipeError) -> None:
        """End the stream with an error."""
        _call(self.loop, partial(self.stream.fail, error))


class Listeners:
    """All listeners, by request id.

    Args:
        predictor: The predictor that learns from the lengths of ended requests.
    """

    def __init__(self, predictor: LengthPredictor) -> None:
        self._predictor = predictor
        self._by_id: dict[str, Listener] = {}

    def __len__(self) -> int:
        return len(self._by_id)

    def __contains__(self, request_id: str) -> bool:
        return request_id in self._by_id

    def add(self, listener: Listener) -> None:
        """Add a listener, whose request id is not in use."""
        self._by_id[listener.request.id] = listener

    def has(self, listener: Listener) -> bool:
        """Return whether the listener's request has not ended."""
        return self._by_id.get(listener.request.id) is listener

    def unfinished(self) -> Iterator[tuple[str, PromptFeatures]]:
        """Return the ids and features of all requests, oldest first."""
        return ((each.request.id, each.features) for each in self._by_id.values())

    def deliver(self, emission: Emission, output: StepOutput) -> bool:
        """Send the tokens of a step to their streams, and return whether there were any.

        Tokens of requests without a listener are dropped.
        """
        pushes: dict[asyncio.AbstractEventLoop, list[tuple[RequestStream, TokenDelta]]] = {}
        for name, token, row in zip(
            emission.request_ids, emission.tokens, emission.rows, strict=True
        ):
            listener = self._by_id.get(name)
            if listener is None:
                continue
            listener.received += 1
            finish = emission.finished.get(name)
            logprobs = output.logprobs[row] if output.logprobs else None
            delta = TokenDelta((token,), (logprobs,), finish)
            pushes.setdefault(listener.loop, []).append((listener.stream, delta))
            if finish is not None:
                self.remove(name, listener.received, complete=finish is FinishReason.STOP)
        self.fail(emission.failed, NonFiniteLogitsError())
        for loop, deltas in pushes.items():
            _call(loop, partial(_push, deltas))
        return bool(pushes)

    def fail(self, request_ids: Iterable[str], error: TDPipeError) -> None:
        """End requests with an error."""
        for name in request_ids:
            if (listener := self._by_id.get(name)) is not None:
                listener.fail(error)
                self.remove(name, listener.received, complete=False)

    def fail_all(self, error: TDPipeError) -> None:
        """End all requests with an error, from which the predictor learns nothing."""
        for listener in self._by_id.values():
            listener.fail(error)
        self._by_id.clear()

    def remove(self, request_id: str, output_tokens: int, *, complete: bool) -> None:
        """Forget a request that has ended.

        Args:
            request_id: The id of the request.
            output_tokens: The number of output tokens that it had.
            complete: Whether the model ended the output, and not a limit or the caller.
        """
        features = self._by_id.pop(request_id).features
        self._predictor.observe(features, output_tokens, complete=complete)


def _push(deltas: list[tuple[RequestStream, TokenDelta]]) -> None:
    for stream, delta in deltas:
        stream.push(delta)


def _call(loop: asyncio.AbstractEventLoop, action: Callable[[], object]) -> None:
    with contextlib.suppress(RuntimeError):  # the loop is closed, so nobody reads the stream
        loop.call_soon_threadsafe(action)
