"""The loop of a stage: receive a step and its inputs, compute, send the outputs, report.

This is the only place that knows the order in which a stage does things. Two rules keep the pipeline free of
deadlocks: sending never waits for an earlier stage, and stage 0 waits for sampled tokens only if the step needs them.
While a device computes, the next steps and their activations are received, so that they do not delay these steps.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Protocol

from tdpipe.core.errors import PipelineError
from tdpipe.core.step import StageReport

if TYPE_CHECKING:
    from torch import Tensor

    from tdpipe.core.attempt import Attempt
    from tdpipe.core.step import Step, StepOutput, TokenFeedback
    from tdpipe.stage.channels import ActivationChannel, ControlChannel, FeedbackChannel


MAX_PENDING_STEPS = 2
"""Number of steps that are received while another computes: the next one, and the one after it, whose activations may
arrive while the next one computes."""


class Executor(Protocol):
    """What the loop needs of a stage's executor."""

    def apply(self, step: Step) -> None:
        """Store the step's new sequences and blocks."""

    def lacks_tokens(self, step: Step) -> bool:
        """Return whether a row needs a sampled token that has not come back yet. Only the first stage is asked."""

    def store_tokens(self, feedback: TokenFeedback) -> None:
        """Store sampled tokens on the first stage."""

    def forward(self, step: Step, hidden: Tensor | None) -> Tensor:
        """Start to compute the [T, hidden_size] output of this stage, which may not be complete when this returns.

        Args:
            step: a step that has been applied.
            hidden: [T, hidden_size] from the previous stage; None on the first stage, which has token ids.
        """

    def synchronise(self) -> float:
        """Wait until the step is computed.

        Returns:
            Seconds of computing that the step has taken, without waiting for messages, activations or tokens.
        """

    def sample(self, step: Step, hidden: Tensor) -> tuple[StepOutput, TokenFeedback]:
        """Draw the tokens that the step samples. Only the last stage samples."""


class StageLoop:
    """The loop of one stage over its executor and channels.

    Args:
        executor: computes the steps.
        stage: number of this stage, from 0.
        attempt: start of the pipeline that the stage belongs to.
        control: receives steps and sends reports.
        upstream: activations from the previous stage; None on the first.
        downstream: activations to the next stage; None on the last.
        feedback: sampled tokens, which the last stage sends and the first receives; None on the stages
            between them, and where one stage is both.
    """

    def __init__(
        self,
        executor: Executor,
        stage: int,
        attempt: Attempt,
        control: ControlChannel,
        upstream: ActivationChannel | None,
        downstream: ActivationChannel | None,
        feedback: FeedbackChannel | None,
    ) -> None:
        self._executor = executor
        self._stage = stage
        self._attempt = attempt
        self._control = control
        self._upstream = upstream
        self._downstream = downstream
        self._feedback = feedback
        self._next_step = 0
        self._pending: deque[Step] = deque()

    def run(self) -> None:
        """Execute steps until the control channel ends.

        Raises:
            PipelineError: a step was lost between controller and stage.
        """
        while (step := self._receive_step()) is not None:
            if step.id != self._next_step:
                raise PipelineError(f"received step {step.id}, but step {self._next_step} is next")
            self._next_step += 1
            self._execute(step)

    def _receive_step(self) -> Step | None:
        return self._pending.popleft() if self._pending else self._control.receive()

    def _receive_pending(self) -> None:
        while (
            len(self._pending) < MAX_PENDING_STEPS
            and (step := self._control.receive_ready()) is not None
        ):
            self._pending.append(step)
            if self._upstream is not None:
                self._upstream.expect(step.tokens)

    def _execute(self, step: Step) -> None:
        self._executor.apply(step)
        hidden = self._executor.forward(step, self._input(step))
        self._receive_pending()
        if self._downstream is not None:
            busy = self._executor.synchronise()
            self._downstream.send(hidden)
            self._control.report(StageReport(self._attempt, step.id, self._stage, busy))
            return
        output, feedback = self._executor.sample(step, hidden)
        busy = self._executor.synchronise()
        # Stage 0 may be waiting for these tokens, so they go before the report.
        if self._upstream is None:
            self._executor.store_tokens(feedback)
        elif self._feedback is not None:
            self._feedback.send(feedback)
        self._control.report(StageReport(self._attempt, step.id, self._stage, busy, output))

    def _input(self, step: Step) -> Tensor | None:
        if self._upstream is not None:
            return self._upstream.receive(step.tokens)
        if self._feedback is not None:
            while (feedback := self._feedback.receive_ready()) is not None:
                self._executor.store_tokens(feedback)
            while self._executor.lacks_tokens(step):
                self._executor.store_tokens(self._feedback.receive())
        return None
