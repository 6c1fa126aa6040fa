"""A stage that waits as long as another device would compute.

It keeps all that a stage keeps, checks each step and gives tokens, so that everything around it is the real engine;
only the layers are left out. Thus a node of GPUs runs in real time on a few cores. What the machine at hand does late,
waking up and carrying activations, is not to be counted as the engine's, so the stage keeps its own time.
"""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from tdpipe.core.errors import PipelineError
from tdpipe.core.step import StepOutput, TokenFeedback
from tdpipe.stage.slots import SlotTable, TokenTable

if TYPE_CHECKING:
    from torch import Tensor

    from tdpipe.core.latencies import Latencies
    from tdpipe.core.step import Step
    from tdpipe.scheduling.cost_model import CostModel

HIDDEN_SIZE = 1
"""Activations are a stand-in of one number a token, the time at which the stage before ended the step: the loopback of
one machine would not carry those of four GPUs."""
DTYPE = torch.float64
OUTPUT, END = 0, 1
"""Tokens that are sampled: any, and the last of a request."""
_SPIN = 60e-6
"""Seconds before the end of a wait that are not slept through: about what a sleep ends late by. Longer ones would keep
cores from the threads that carry messages, as the stages of a balanced pipeline all wait for the same moment."""
_TIMER_SLACK = Path("/proc/self/timerslack_ns")


class PacedExecutor:
    """The `Executor` of a stage that takes its time from a cost model.

    The first token of a prompt says how many output tokens the request is to have.

    Args:
        cost: of the steps.
        stage: number of this stage.
        latencies: of messages. Only those of activations delay a step; they overlap with computing.
        slots: sequences that may hold KV at once.
        max_context: tokens of a sequence at most.
        blocks: KV blocks.
        block_size: tokens in a block.
    """

    def __init__(
        self,
        cost: CostModel,
        stage: int,
        latencies: Latencies,
        *,
        slots: int,
        max_context: int,
        blocks: int,
        block_size: int,
    ) -> None:
        self._cost = cost
        self._stage = stage
        self._latencies = latencies
        self._first = stage == 0
        self._last = stage == len(cost.stages) - 1
        self._slots = SlotTable(
            slots=slots, max_context=max_context, blocks=blocks, block_size=block_size
        )
        self._tokens = TokenTable(slots=slots, max_context=max_context, vocab_size=max_context + 1)
        self._ends = np.zeros(slots, dtype=np.int32)
        """[slots] position of the end token."""
        self._applying = self._seconds = 0.0
        self._end = self._woken = self._ready = time.monotonic()
        self._lacking = False
        # Linux rounds sleeps up by 50 us unless it is asked not to. What else there is rounds as it likes.
        with contextlib.suppress(OSError):
            _TIMER_SLACK.write_text("1")

    def apply(self, step: Step) -> None:
        """Take over the step's starts and new blocks.

        Raises:
            PipelineError: the step is impossible.
        """
        began = time.monotonic()
        self._slots.apply(step)
        if self._first or self._last:
            self._tokens.apply(step)
        for start in step.starts:
            self._ends[start.slot] = start.prompt_length + int(start.tokens[0]) - 1
        self._applying = time.monotonic() - began
        # Waking up late is the machine's fault; what the loop did since, and waiting for the step, is the engine's.
        self._ready = self._end + (began - self._woken) + self._applying

    def wants_tokens(self, step: Step) -> bool:
        """First stage: whether a row needs a token that has not come back yet."""
        self._lacking = self._tokens.lacks(step)
        return self._lacking

    def learn(self, feedback: TokenFeedback) -> None:
        """First stage: store sampled tokens, but for slots that have a new tenant since."""
        current = self._slots.sequences[feedback.slots] == feedback.sequences
        self._tokens.extend(
            feedback.slots[current], feedback.positions[current], feedback.tokens[current]
        )
        if self._lacking:
            self._ready = time.monotonic()

    def forward(self, step: Step, hidden: Tensor | None) -> Tensor:
        """Begin the step; `synchronise` waits until its layers would be computed.

        Args:
            step: already applied.
            hidden: [T, 1] from the stage before; None on the first.

        Returns:
            [T, 1].

        Raises:
            PipelineError: the step is impossible.
        """
        begin = self._ready
        if hidden is not None:
            sent = float(hidden[0, 0])
            begin = max(
                begin,
                sent + self._latencies.activations + self._latencies.activation_token * step.tokens,
            )
        self._slots.check_rows(step)
        if self._first and self.wants_tokens(step):
            raise PipelineError(f"step {step.id} computes tokens that have not been sampled")
        self._seconds = self._cost.stage_seconds(step)[self._stage]
        self._end = begin + self._seconds - self._applying
        self._slots.advance(step)
        return torch.full((step.tokens, HIDDEN_SIZE), self._end, dtype=DTYPE)

    def synchronise(self) -> None:
        """Wait until the step that was begun last would be computed."""
        while (left := self._end - time.monotonic()) > 0.0:
            if left > _SPIN:
                time.sleep(left - _SPIN)
        self._woken = time.monotonic()

    def busy(self, measured: float) -> float:  # noqa: ARG002
        """Seconds that the step would be computed for."""
        return self._seconds

    def sample(self, step: Step, hidden: Tensor) -> tuple[StepOutput, TokenFeedback]:  # noqa: ARG002
        """Last stage: give each row whose `sample` is set any token, or the end token where it is due."""
        slots = step.slots[step.sample]
        positions = (step.first + step.counts)[step.sample]
        tokens = np.where(positions >= self._ends[slots], END, OUTPUT).astype(np.int32)
        self._tokens.extend(slots, positions, tokens)
        feedback = TokenFeedback(step.id, slots, self._slots.sequences[slots], positions, tokens)
        return StepOutput(step.id, tokens), feedback
