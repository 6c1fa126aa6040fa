"""The engine: one thread owns the scheduler and the pipeline, and other threads send it commands.

No other thread touches either, so neither needs a lock. The thread issues steps until the scheduler needs a result, and
then waits for the pipeline; a command wakes it up. If the pipeline fails, requests wait for the next one and go on with
the tokens that they have; if there will be none, every stream fails with the reason.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from typing import TYPE_CHECKING

from tdpipe.controller.length_revision import LengthRevision
from tdpipe.controller.readiness import PROBE, Readiness
from tdpipe.controller.requests import Listener, Requests
from tdpipe.controller.snapshot import FIRST_PHASE, EngineSnapshot, StageClock
from tdpipe.controller.stream import RequestStream
from tdpipe.core.errors import PipelineError, ShutdownError, TDPipeError
from tdpipe.core.request import Request
from tdpipe.core.step import Step
from tdpipe.prediction.features import PromptFeatures
from tdpipe.scheduling.scheduler import Wait

if TYPE_CHECKING:
    from collections.abc import Callable

    from tdpipe.controller.pipeline_starter import StartedPipeline
    from tdpipe.controller.readiness import EngineHealth
    from tdpipe.controller.recovery import Recovery
    from tdpipe.core.capacity import Capacity
    from tdpipe.core.sampling import SamplingParams
    from tdpipe.pipeline.base import Pipeline, StepResult
    from tdpipe.prediction.length_predictor import LengthPredictor
    from tdpipe.scheduling.scheduler import Scheduler

_log = logging.getLogger(__name__)
_JOIN_TIMEOUT_SECONDS = 5.0
_TURN_SECONDS = 5.0
"""Longest wait of the loop, so that it can be seen to turn."""


class Engine:
    """A running engine.

    Args:
        pipeline: The pipeline that executes steps; `close` closes it as well.
        scheduler: The scheduler that decides on steps.
        predictor: The predictor of output lengths.
        vocab_size: The size of the model's vocabulary.
        recovery: Replaces failed pipelines; `close` closes it as well. None lets the first failure end the engine.
        readiness: Judges whether requests can be taken. None takes them from the start.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        scheduler: Scheduler,
        predictor: LengthPredictor,
        vocab_size: int,
        recovery: Recovery | None = None,
        readiness: Readiness | None = None,
    ) -> None:
        self.vocab_size = vocab_size
        self._pipeline: Pipeline | None = pipeline
        self._scheduler = scheduler
        self._predictor = predictor
        self._recovery = recovery
        self._readiness = readiness or Readiness()
        self._revision = LengthRevision(predictor, scheduler)
        self._clock = StageClock(pipeline.stages)
        self._commands: deque[Callable[[], None]] = deque()
        self._requests = Requests(scheduler, predictor)
        self._phase = FIRST_PHASE
        self._restarts = 0
        self._error: TDPipeError | None = None
        self._closing = False
        self._lock = threading.Lock()
        self._woken = threading.Event()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        if not self._readiness.proven:
            self._probe()
        self._thread.start()

    @property
    def capacity(self) -> Capacity:
        """What the pipeline holds. A restart may change it."""
        return self._scheduler.capacity

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
            ShutdownError: The engine was closed.
        """
        self.capacity.check(len(prompt), max_tokens)
        if features is None:
            can_stop = bool(stop_token_ids)
            features = PromptFeatures(len(prompt), max_tokens, sampling, can_stop=can_stop)
        lengths = self._predictor.predict(features)
        request = Request(request_id, prompt, max_tokens, lengths, sampling, stop_token_ids)
        stream = RequestStream(
            abort=lambda: self._send(lambda: self._requests.end(listener)),
            finish=lambda length: self._send(lambda: self._requests.end(listener, length)),
        )
        listener = Listener(asyncio.get_running_loop(), stream, request, features)
        if not self._send(lambda: self._add(listener)):
            raise self._error or _closed()
        return stream

    def health(self) -> EngineHealth:
        """Return whether the engine serves requests; may be called from any thread."""
        error = self._error
        if error is None and self._recovery is not None:
            error = self._recovery.failure()
        if error is None and self._closing:
            error = _closed()
        step = self._recovery.step if self._recovery is not None else ""
        return self._readiness.health(error, len(self._requests), step, time.monotonic())

    def await_ready(self) -> None:
        """Wait until a generation has passed.

        Raises:
            TDPipeError: The engine has failed.
        """
        self._readiness.await_proof()
        if self._error is not None:
            raise self._error

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
            non_finite_logits=self._requests.non_finite_logits,
            restarts=self._restarts,
            stage_busy=self._clock.busy,
            stage_bubble=self._clock.bubble,
        )

    def close(self) -> None:
        """End the thread and the pipeline; unfinished streams fail. Idempotent."""
        with self._lock:
            self._closing = True
        self._wake()
        self._predictor.close()
        self._thread.join(_JOIN_TIMEOUT_SECONDS)
        if self._pipeline is not None:
            self._pipeline.close()
        if self._recovery is not None:
            self._recovery.close(_JOIN_TIMEOUT_SECONDS)

    def _send(self, command: Callable[[], None]) -> bool:
        with self._lock:
            if self._closing or self._error is not None:
                return False
            self._commands.append(command)
        self._wake()
        return True

    def _wake(self) -> None:
        self._woken.set()
        if (pipeline := self._pipeline) is not None:
            pipeline.wake()

    def _run(self) -> None:
        error: TDPipeError
        try:
            while not self._closing:
                self._readiness.turned(time.monotonic())
                self._woken.clear()
                while self._commands:
                    self._commands.popleft()()
                if self._pipeline is None:
                    self._await_pipeline()
                else:
                    self._advance(self._pipeline)
        except TDPipeError as failure:
            _log.error("the engine ends: %s", failure)
            error = failure
        except Exception as failure:
            _log.exception("the engine failed")
            error = PipelineError(f"the engine failed: {failure!r}")
        else:
            error = _closed()
        self._fail(error)

    def _advance(self, pipeline: Pipeline) -> None:
        step = self._scheduler.next_step(time.monotonic())
        if step is Wait.FOR_RESULT and not self._scheduler.state.in_flight:
            raise RuntimeError("the scheduler waits for a result, but no step is in flight")
        try:
            if isinstance(step, Step):
                self._issue(pipeline, step)
            for result in pipeline.poll(0.0 if isinstance(step, Step) else _TURN_SECONDS):
                self._complete(result)
        except PipelineError as error:
            if self._recovery is None or self._closing:
                raise
            self._recover(pipeline, error, self._recovery)

    def _issue(self, pipeline: Pipeline, step: Step) -> None:
        self._phase = step.phase
        self._clock.started(time.monotonic())
        pipeline.submit(step)

    def _complete(self, result: StepResult) -> None:
        now = time.monotonic()
        emission = self._requests.book(result.output)
        self._clock.completed(result.busy, len(self._scheduler.state.in_flight), now)
        if (emission.tokens or emission.failed) and not self._readiness.proven:
            self._readiness.prove()
        if self._recovery is not None and any(name != PROBE.id for name in emission.request_ids):
            self._recovery.served()
        self._revision.advance(self._requests.unfinished)

    def _recover(self, pipeline: Pipeline, error: PipelineError, recovery: Recovery) -> None:
        _log.error("the pipeline of attempt %s failed: %s", pipeline.attempt, error)
        self._pipeline = None
        self._clock.stopped(time.monotonic())
        self._readiness.doubt(time.monotonic())
        recovery.begin(pipeline, error, self._wake)

    def _await_pipeline(self) -> None:
        assert self._recovery is not None
        started = self._recovery.take_outcome()
        if started is None:
            self._woken.wait(_TURN_SECONDS)
        else:
            self._resume(started)

    def _resume(self, started: StartedPipeline) -> None:
        """Go on with a new pipeline: all requests start again with the tokens that they have."""
        pipeline = started.pipeline
        self._requests.move_to(started)
        self._restarts += 1
        self._pipeline = pipeline
        _log.info(
            "attempt %s goes on with %d requests",
            pipeline.attempt,
            len(self._scheduler.state.sequences),
        )
        if not self._scheduler.state.sequences:
            self._probe()

    def _probe(self) -> None:
        self._scheduler.add(PROBE, time.monotonic())

    def _add(self, listener: Listener) -> None:
        if self._error is not None:
            listener.fail(self._error)
        else:
            self._requests.add(listener, time.monotonic())

    def _fail(self, error: TDPipeError) -> None:
        with self._lock:
            self._error = error
            commands, self._commands = self._commands, deque()
        self._requests.fail_all(error)
        # A request that was accepted in the meantime must fail as well; the other commands have no effect any more.
        for command in commands:
            command()
        self._readiness.prove()


def _closed() -> ShutdownError:
    return ShutdownError(
        "the server is shutting down; send the request to another one, or again later"
    )
