"""A stage's endless loop: take a step, take its input, compute, pass on, report.

It is the only place that knows in which order a stage does things. Two rules make the pipeline free
of deadlocks: sends never wait for a stage further up, and stage 0 waits for sampled tokens only if
the step cannot do without them. While a device computes, the next step and its activations are
taken in, so that they do not come between two steps.
"""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Protocol

from tdpipe.core.errors import PipelineError
from tdpipe.core.step import StageReport

if TYPE_CHECKING:
    from torch import Tensor

    from tdpipe.core.step import Step, StepOutput, TokenFeedback
    from tdpipe.stage.channels import ActivationChannel, ControlChannel, FeedbackChannel


LOOK_AHEAD = 2
"""Steps that are taken in early: the next, and the one whose activations may come while the next computes."""


class Executor(Protocol):
    """What the loop asks of a stage's executor."""

    def apply(self, step: Step) -> None:
        """Take over the step's starts and new blocks."""

    def wants_tokens(self, step: Step) -> bool:
        """First stage: whether a row needs a token that has not come back yet."""

    def learn(self, feedback: TokenFeedback) -> None:
        """First stage: store sampled tokens."""

    def forward(self, step: Step, hidden: Tensor | None) -> Tensor:
        """[tokens, hidden] of this stage, from [tokens, hidden] of the one before or, on the first,
        from token ids. It may still be computed when this returns.
        """

    def synchronise(self) -> None:
        """Wait until what was begun is computed, and activations that were received are there."""

    def busy(self, measured: float) -> float:
        """Seconds of computing of the step that was synchronised last, which took `measured` by the loop's clock.

        They differ only where a stage stands in for another device.
        """

    def sample(self, step: Step, hidden: Tensor) -> tuple[StepOutput, TokenFeedback]:
        """Last stage: draw the tokens that the step asks for."""


class StageLoop:
    """One stage's loop over its executor and channels.

    Args:
        executor: computes; has no transport.
        stage: number of this stage, from 0.
        control: steps in, reports out.
        upstream: activations of the stage before; None on the first.
        downstream: activations to the stage after; None on the last.
        feedback: sampled tokens, sent by the last stage and received by the first; None between
            them and where one stage is both.
    """

    def __init__(
        self,
        executor: Executor,
        stage: int,
        control: ControlChannel,
        upstream: ActivationChannel | None,
        downstream: ActivationChannel | None,
        feedback: FeedbackChannel | None,
    ) -> None:
        self._executor = executor
        self._stage = stage
        self._control = control
        self._upstream = upstream
        self._downstream = downstream
        self._feedback = feedback
        self._next_step = 0
        self._ahead: deque[Step] = deque()

    def run(self) -> None:
        """Execute steps until the control channel ends.

        Raises:
            PipelineError: a step was lost on the way.
        """
        while (step := self._take()) is not None:
            if step.id != self._next_step:
                raise PipelineError(f"step {step.id} came where {self._next_step} was due")
            self._next_step += 1
            self._execute(step)

    def _take(self) -> Step | None:
        return self._ahead.popleft() if self._ahead else self._control.receive()

    def _look_ahead(self) -> None:
        while len(self._ahead) < LOOK_AHEAD and (step := self._control.receive_ready()) is not None:
            self._ahead.append(step)
            if self._upstream is not None:
                self._upstream.expect(step.tokens)

    def _execute(self, step: Step) -> None:
        started = time.perf_counter()
        self._executor.apply(step)
        busy = time.perf_counter() - started

        hidden = self._input(step)

        started = time.perf_counter()
        hidden = self._executor.forward(step, hidden)
        self._look_ahead()
        if self._downstream is not None:
            self._executor.synchronise()
            busy = self._executor.busy(busy + time.perf_counter() - started)
            self._downstream.send(hidden)
            self._control.report(StageReport(step.id, self._stage, busy))
            return
        output, feedback = self._executor.sample(step, hidden)
        self._executor.synchronise()
        busy = self._executor.busy(busy + time.perf_counter() - started)
        # Stage 0 may be waiting for these tokens; nobody waits for the report as urgently.
        if self._upstream is None:
            self._executor.learn(feedback)
        elif self._feedback is not None:
            self._feedback.send(feedback)
        self._control.report(StageReport(step.id, self._stage, busy, output))

    def _input(self, step: Step) -> Tensor | None:
        if self._upstream is not None:
            hidden = self._upstream.receive(step.tokens)
            self._executor.synchronise()
            return hidden
        if self._feedback is not None:
            while (feedback := self._feedback.receive_ready()) is not None:
                self._executor.learn(feedback)
            while self._executor.wants_tokens(step):
                self._executor.learn(self._feedback.receive())
        return None
