"""The requests that have not ended: what the scheduler knows of each, and the stream that its tokens go to.

The engine's thread keeps both in step here. Streams belong to event loops, so tokens are handed over by callbacks: one
per loop and step, however many requests have got a token.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from tdpipe.controller.stream import RequestStream, TokenDelta
from tdpipe.core.errors import NonFiniteLogitsError, PipelineError, RequestError
from tdpipe.core.request import FinishReason, Request

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterable, Iterator

    from tdpipe.controller.pipeline_starter import StartedPipeline
    from tdpipe.core.errors import TDPipeError
    from tdpipe.core.step import StepOutput
    from tdpipe.prediction.features import PromptFeatures
    from tdpipe.prediction.length_predictor import LengthPredictor
    from tdpipe.scheduling.scheduler import Emission, Scheduler


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


class Requests:
    """All requests that have not ended.

    Args:
        scheduler: The scheduler that they run in.
        predictor: The predictor that learns from the lengths of ended requests.
    """

    def __init__(self, scheduler: Scheduler, predictor: LengthPredictor) -> None:
        self._scheduler = scheduler
        self._predictor = predictor
        self._listeners: dict[str, Listener] = {}
        self.non_finite_logits = 0
        """Number of requests that ended because their logits were not finite."""

    def __len__(self) -> int:
        return len(self._listeners)

    def unfinished(self) -> Iterator[tuple[str, PromptFeatures]]:
        """Return the ids and features of all requests, oldest first."""
        return ((each.request.id, each.features) for each in self._listeners.values())

    def add(self, listener: Listener, now: float) -> None:
        """Queue a request at time `now`; its stream fails if its id is in use or it does not fit any more."""
        name = listener.request.id
        if name in self._listeners:
            listener.fail(PipelineError(f"request id {name} is in use; choose another"))
            return
        try:
            self._scheduler.add(listener.request, now)
        except (
            RequestError
        ) as error:  # a restart has changed the capacity since the request was accepted
            listener.fail(error)
        else:
            self._listeners[name] = listener

    def end(self, listener: Listener, length: int | None = None) -> None:
        """End a request that is complete after `length` output tokens; None aborts it."""
        name = listener.request.id
        if self._listeners.get(name) is not listener:
            return
        if length is None:
            self._scheduler.abort(name)
        else:
            self._scheduler.finish(name, length)
        output_tokens = listener.received if length is None else length
        self._forget(listener, output_tokens, complete=length is not None)

    def book(self, output: StepOutput) -> Emission:
        """Book the tokens of a step, and send them to their streams."""
        emission = self._scheduler.on_result(output.step, output.tokens)
        pushes: dict[asyncio.AbstractEventLoop, list[tuple[RequestStream, TokenDelta]]] = {}
        for name, token, row in zip(
            emission.request_ids, emission.tokens, emission.rows, strict=True
        ):
            listener = self._listeners.get(name)
            if listener is None:  # the engine's own probe
                continue
            listener.received += 1
            finish = emission.finished.get(name)
            logprobs = output.logprobs[row] if output.logprobs else None
            delta = TokenDelta((token,), (logprobs,), finish)
            pushes.setdefault(listener.loop, []).append((listener.stream, delta))
            if finish is not None:
                complete = finish is FinishReason.STOP
                self._forget(listener, listener.received, complete=complete)
        self.non_finite_logits += len(emission.failed)
        self._fail(emission.failed, NonFiniteLogitsError())
        for loop, deltas in pushes.items():
            _call(loop, partial(_push, deltas))
        return emission

    def move_to(self, started: StartedPipeline) -> None:
        """Queue all requests again for a new pipeline; those that do not fit there fail."""
        capacity = started.pipeline.capacity
        oversized = self._scheduler.requeue_all(
            started.pipeline.attempt, capacity, started.cost, started.first_step
        )
        problem = (
            f"the stages were restarted with a smaller KV cache, in which this request does not fit: prompt and "
            f"output together may have {capacity.longest_sequence} tokens; ask for less"
        )
        self._fail(oversized, RequestError(problem))

    def fail_all(self, error: TDPipeError) -> None:
        """End all streams with an error, from which the predictor learns nothing."""
        for listener in self._listeners.values():
            listener.fail(error)
        self._listeners.clear()

    def _fail(self, request_ids: Iterable[str], error: TDPipeError) -> None:
        for name in request_ids:
            if (listener := self._listeners.get(name)) is not None:
                listener.fail(error)
                self._forget(listener, listener.received, complete=False)

    def _forget(self, listener: Listener, output_tokens: int, *, complete: bool) -> None:
        del self._listeners[listener.request.id]
        self._predictor.observe(listener.features, output_tokens, complete=complete)


def _push(deltas: list[tuple[RequestStream, TokenDelta]]) -> None:
    for stream, delta in deltas:
        stream.push(delta)


def _call(loop: asyncio.AbstractEventLoop, action: Callable[[], object]) -> None:
    with contextlib.suppress(RuntimeError):  # the loop is closed, so nobody reads the stream
        loop.call_soon_threadsafe(action)
