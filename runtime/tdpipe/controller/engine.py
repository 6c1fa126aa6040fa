"""The engine: one thread owns the scheduler and the pipeline, and other threads send it commands.

No other thread touches either, so neither needs a lock. The thread issues steps until the scheduler needs a result, and
then waits for the pipeline; a command wakes it up. If the pipeline fails, every stream fails with the reason.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections import deque
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from tdpipe.controller.length_revision import LengthRevision
from tdpipe.controller.snapshot import FIRST_PHASE, EngineSnapshot, StageClock
from tdpipe.controller.stream import RequestStream, TokenDelta
from tdpipe.core.errors import NonFiniteLogitsError, PipelineError, TDPipeError
from tdpipe.core.request import FinishReason, Request
from tdpipe.core.step import Step
from tdpipe.prediction.features import PromptFeatures
from tdpipe.scheduling.scheduler import Wait

if TYPE_CHECKING:
    from collections.abc import Callable

    from tdpipe.core.sampling import SamplingParams
    from tdpipe.pipeline.base import Pipeline, StepResult
    from tdpipe.prediction.length_predictor import LengthPredictor
    from tdpipe.scheduling.scheduler import Scheduler

_log = logging.getLogger(__name__)
_JOIN_TIMEOUT_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class EngineHealth:
    """Whether the engine serves requests, and the error if it does not."""

    ready: bool
    error: str | None


@dataclass(slots=True)
class _Listener:
    """A request that has not ended, and the stream that its tokens go to."""

    loop: asyncio.AbstractEventLoop
    stream: RequestStream
    request: Request
    features: PromptFeatures
    received: int = 0

    def fail(self, error: TDPipeError) -> None:
        _call(self.loop, partial(self.stream.fail, error))


class Engine:
    """A running engine.

    Args:
        pipeline: The pipeline that executes steps; `close` closes it as well.
        scheduler: The scheduler that decides on steps.
        predictor: The predictor of output lengths.
        vocab_size: The size of the model's vocabulary.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        scheduler: Scheduler,
        predictor: LengthPredictor,
        vocab_size: int,
    ) -> None:
        self.capacity = pipeline.capacity
        self.vocab_size = vocab_size
        self._pipeline = pipeline
        self._scheduler = scheduler
        self._predictor = predictor
        self._revision = LengthRevision(predictor, scheduler)
        self._clock = StageClock(pipeline.stages)
        self._commands: deque[Callable[[], None]] = deque()
        self._listeners: dict[str, _Listener] = {}
        self._phase = FIRST_PHASE
        self._non_finite_logits = 0
        self._error: str | None = None
        self._closing = False
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    def submit(
        self,
        prompt: tuple[int, ...],
        max_tokens: int,
        sampling: SamplingParams,
        stop_token_ids: frozenset[int],
        request_id: str,
        features: PromptFeatures | None = None,
    ) -> RequestStream:
        """Queue a request. Must be called in the event loop that reads the stream.

        Args:
            prompt: The tokens of the prompt.
            max_tokens: The limit of output tokens.
            sampling: The sampling parameters.
            stop_token_ids: The tokens that end the output.
            request_id: The id, which no unfinished request has.
            features: The input of the length predictor; None takes what the other arguments say.

        Raises:
            RequestError: The request is empty or can never fit.
            PipelineError: The engine has ended.
        """
        self.capacity.check(len(prompt), max_tokens)
        if features is None:
            can_stop = bool(stop_token_ids)
            features = PromptFeatures(len(prompt), max_tokens, sampling, can_stop=can_stop)
        lengths = self._predictor.predict(features)
        request = Request(request_id, prompt, max_tokens, lengths, sampling, stop_token_ids)
        stream = RequestStream(
            abort=lambda: self._send(lambda: self._end_request(listener)),
            finish=lambda length: self._send(lambda: self._end_request(listener, length)),
        )
        listener = _Listener(asyncio.get_running_loop(), stream, request, features)
        if not self._send(lambda: self._add(listener)):
            raise PipelineError(self._error or "the engine is closed")
        return stream

    def health(self) -> EngineHealth:
        """Return whether the engine serves requests; may be called from any thread."""
        return EngineHealth(self._error is None and not self._closing, self._error)

    def snapshot(self) -> EngineSnapshot:
        """Return the current state; may be called from any thread.

        Each value is right by itself, but they may be from slightly different moments.
        """
        state = self._scheduler.state
        return EngineSnapshot(
            waiting=len(state.waiting),
            running=len(state.slots.sequences) - len(state.slots.free),
            kv_blocks=state.pool.blocks,
            kv_blocks_used=state.pool.used,
            phase=self._phase,
            phase_switches=state.phase_switches,
            preemptions=state.preemptions,
            non_finite_logits=self._non_finite_logits,
            stage_busy=self._clock.busy,
            stage_bubble=self._clock.bubble,
        )

    def close(self) -> None:
        """End the thread and the pipeline; unfinished streams fail. Idempotent."""
        with self._lock:
            self._closing = True
        self._pipeline.wake()
        self._predictor.close()
        self._thread.join(_JOIN_TIMEOUT_SECONDS)
        self._pipeline.close()

    def _send(self, command: Callable[[], None]) -> bool:
        with self._lock:
            if self._closing or self._error is not None:
                return False
            self._commands.append(command)
        self._pipeline.wake()
        return True

    def _run(self) -> None:
        try:
            while not self._closing:
                while self._commands:
                    self._commands.popleft()()
                step = self._scheduler.next_step(time.monotonic())
                if isinstance(step, Step):
                    self._issue(step)
                elif step is Wait.FOR_RESULT and not self._scheduler.state.in_flight:
                    raise RuntimeError("the scheduler waits for a result, but no step is in flight")
                timeout = 0.0 if isinstance(step, Step) else None  # None waits for any event
                for result in self._pipeline.poll(timeout):
                    self._complete(result)
        except PipelineError as error:
            _log.error("the pipeline failed: %s", error)
            self._fail(str(error))
        except Exception as error:
            _log.exception("the engine failed")
            self._fail(f"the engine failed: {error!r}")
        else:
            self._fail("the engine was closed")

    def _issue(self, step: Step) -> None:
        self._phase = step.phase
        self._clock.started(time.monotonic())
        self._pipeline.submit(step)

    def _complete(self, result: StepResult) -> None:
        now = time.monotonic()
        output = result.output
        emission = self._scheduler.on_result(output.step, output.tokens)
        self._clock.completed(result.busy, len(self._scheduler.state.in_flight), now)
        pushes: dict[asyncio.AbstractEventLoop, list[tuple[RequestStream, TokenDelta]]] = {}
        for name, token, row in zip(
            emission.request_ids, emission.tokens, emission.rows, strict=True
        ):
            listener = self._listeners[name]
            listener.received += 1
            finish = emission.finished.get(name)
            logprobs = output.logprobs[row] if output.logprobs else None
            delta = TokenDelta((token,), (logprobs,), finish)
            pushes.setdefault(listener.loop, []).append((listener.stream, delta))
            if finish is not None:
                self._remove(name, listener.received, complete=finish is FinishReason.STOP)
        for name in emission.failed:
            listener = self._listeners[name]
            listener.fail(NonFiniteLogitsError())
            self._non_finite_logits += 1
            self._remove(name, listener.received, complete=False)
        for loop, deltas in pushes.items():
            _call(loop, partial(_push, deltas))
        self._revision.advance(
            lambda: ((each.request.id, each.features) for each in self._listeners.values())
        )

    def _add(self, listener: _Listener) -> None:
        name = listener.request.id
        if self._error is not None:
            listener.fail(PipelineError(self._error))
        elif name in self._listeners:
            listener.fail(PipelineError(f"request id {name} is in use; choose another"))
        else:
            self._listeners[name] = listener
            self._scheduler.add(listener.request, time.monotonic())

    def _end_request(self, listener: _Listener, length: int | None = None) -> None:
        """End a request that is complete after `length` output tokens; None aborts it."""
        name = listener.request.id
        if self._listeners.get(name) is listener:
            if length is None:
                self._scheduler.abort(name)
            else:
                self._scheduler.finish(name, length)
            output_tokens = listener.received if length is None else length
            self._remove(name, output_tokens, complete=length is not None)

    def _remove(self, request_id: str, output_tokens: int, *, complete: bool) -> None:
        features = self._listeners.pop(request_id).features
        self._predictor.observe(features, output_tokens, complete=complete)

    def _fail(self, reason: str) -> None:
        with self._lock:
            self._error = reason
            commands, self._commands = self._commands, deque()
        for listener in self._listeners.values():
            listener.fail(PipelineError(reason))
        self._listeners.clear()
        # A request that was accepted in the meantime must fail as well; the other commands have no effect any more.
        for command in commands:
            command()


def _push(deltas: list[tuple[RequestStream, TokenDelta]]) -> None:
    for stream, delta in deltas:
        stream.push(delta)


def _call(loop: asyncio.AbstractEventLoop, action: Callable[[], object]) -> None:
    with contextlib.suppress(RuntimeError):  # the loop is closed, so nobody reads the stream
        loop.call_soon_threadsafe(action)
