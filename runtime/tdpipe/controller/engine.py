"""The engine: one thread owns scheduler and pipeline, everyone else talks to it by commands.

Nothing else touches either, so neither needs a lock. The thread issues steps until the scheduler wants a result, then
waits for the pipeline; a command wakes it. If the pipeline fails, every stream fails with the reason.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import threading
import time
from collections import deque
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from tdpipe.controller.length_revision import LengthRevision
from tdpipe.controller.snapshot import FIRST_PHASE, EngineSnapshot
from tdpipe.controller.stage_clock import StageClock
from tdpipe.controller.stream import RequestStream, TokenDelta
from tdpipe.core.errors import PipelineError
from tdpipe.core.request import FinishReason, Request
from tdpipe.core.step import Step
from tdpipe.prediction.features import PromptFeatures
from tdpipe.scheduling.answers import Idle, WaitUntil

if TYPE_CHECKING:
    from collections.abc import Callable

    from tdpipe.core.sampling import SamplingParams
    from tdpipe.pipeline.base import Pipeline, StepResult
    from tdpipe.prediction.base import LengthPredictor
    from tdpipe.scheduling.scheduler import Scheduler

_log = logging.getLogger(__name__)
_JOIN_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class EngineHealth:
    """Whether requests are served, and if not, why."""

    ready: bool
    error: str | None


@dataclass(slots=True)
class _Listener:
    loop: asyncio.AbstractEventLoop
    stream: RequestStream
    request: Request
    features: PromptFeatures
    received: int = 0

    def fail(self, error: str) -> None:
        _call(self.loop, partial(self.stream.fail, error))


class Engine:
    """A running engine over a pipeline that it closes at its end.

    Args:
        pipeline: what executes steps.
        scheduler: what decides them.
        predictor: what predicts output lengths.
        vocab_size: tokens that the model knows.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        scheduler: Scheduler[Any],
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
        """Queue a request; call it from the event loop that reads the stream.

        `features` are for the length predictor; None knows nothing beyond the other arguments.

        Raises:
            RequestError: the request is empty or can never fit.
            PipelineError: the engine has ended.
        """
        self.capacity.check(len(prompt), max_tokens)
        if features is None:
            can_stop = bool(stop_token_ids)
            features = PromptFeatures(len(prompt), max_tokens, sampling, can_stop=can_stop)
        lengths = self._predictor.predict(features)
        request = Request(request_id, prompt, max_tokens, lengths, sampling, stop_token_ids)
        stream = RequestStream(
            abort=lambda: self._command(lambda: self._end(listener)),
            finish=lambda length: self._command(lambda: self._end(listener, length)),
        )
        listener = _Listener(asyncio.get_running_loop(), stream, request, features)
        if not self._command(lambda: self._add(listener)):
            raise PipelineError(self._error or "the engine is closed")
        return stream

    def health(self) -> EngineHealth:
        """Whether requests are served; callable from any thread."""
        return EngineHealth(self._error is None and not self._closing, self._error)

    def snapshot(self) -> EngineSnapshot:
        """Figures of this moment, each right by itself; callable from any thread."""
        state = self._scheduler.state
        return EngineSnapshot(
            waiting=len(state.waiting),
            running=len(state.slots.sequences) - len(state.slots.free),
            kv_blocks=state.pool.blocks,
            kv_blocks_used=state.pool.used,
            phase=self._phase,
            phase_switches=state.phase_switches,
            preemptions=state.preemptions,
            stage_busy=self._clock.busy,
            stage_bubble=self._clock.bubble,
        )

    def close(self) -> None:
        """End the thread and the pipeline; streams that are still read fail. Idempotent."""
        with self._lock:
            self._closing = True
        self._pipeline.wake()
        self._predictor.close()
        self._thread.join(_JOIN_SECONDS)
        self._pipeline.close()

    def _command(self, command: Callable[[], None]) -> bool:
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
                for result in self._pipeline.poll(self._patience(step)):
                    self._book(result)
        except PipelineError as error:
            _log.error("the pipeline failed: %s", error)
            self._fail(str(error))
        except Exception as error:
            _log.exception("the engine failed")
            self._fail(f"the engine failed: {error!r}")
        else:
            self._fail("the engine was closed")

    def _patience(self, step: Step | WaitUntil | Idle) -> float | None:
        """Seconds to wait for a result before the scheduler is asked again; None waits for an event."""
        if isinstance(step, Step):
            return 0.0
        if isinstance(step, Idle):
            return None
        if not math.isinf(step.time):
            return max(0.0, step.time - time.monotonic())
        if not self._scheduler.state.in_flight:
            raise RuntimeError("the scheduler waits for a result, but none is to come")
        return None

    def _issue(self, step: Step) -> None:
        self._phase = step.phase
        self._clock.started(time.monotonic())
        self._pipeline.submit(step)

    def _book(self, result: StepResult) -> None:
        now = time.monotonic()
        output = result.output
        emission = self._scheduler.on_result(output.step, output.tokens, result.busy, now)
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
                self._forget(name, listener.received, complete=finish is FinishReason.STOP)
        for loop, deltas in pushes.items():
            _call(loop, partial(_push, deltas))
        self._revision.advance(
            lambda: ((each.request.id, each.features) for each in self._listeners.values())
        )

    def _add(self, listener: _Listener) -> None:
        name = listener.request.id
        if self._error is not None:
            listener.fail(self._error)
        elif name in self._listeners:
            listener.fail(f"request id {name} is in use; choose another")
        else:
            self._listeners[name] = listener
            self._scheduler.add(listener.request, time.monotonic())

    def _end(self, listener: _Listener, length: int | None = None) -> None:
        """Let go of a request that is complete after `length` output tokens, or aborted."""
        name = listener.request.id
        if self._listeners.get(name) is listener:
            now = time.monotonic()
            if length is None:
                self._scheduler.abort(name, now)
            else:
                self._scheduler.finish(name, length, now)
            seen = listener.received if length is None else length
            self._forget(name, seen, complete=length is not None)

    def _forget(self, request_id: str, output_tokens: int, *, complete: bool) -> None:
        features = self._listeners.pop(request_id).features
        self._predictor.observe(features, output_tokens, complete=complete)

    def _fail(self, reason: str) -> None:
        with self._lock:
            self._error = reason
            commands, self._commands = self._commands, deque()
        for listener in self._listeners.values():
            listener.fail(reason)
        self._listeners.clear()
        # A request that was accepted meanwhile must hear of it too; nothing else is left to do for any command.
        for command in commands:
            command()


def _push(deltas: list[tuple[RequestStream, TokenDelta]]) -> None:
    for stream, delta in deltas:
        stream.push(delta)


def _call(loop: asyncio.AbstractEventLoop, action: Callable[[], object]) -> None:
    with contextlib.suppress(RuntimeError):  # a closed loop has nobody who reads
        loop.call_soon_threadsafe(action)
