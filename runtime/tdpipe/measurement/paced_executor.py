"""Executor of a paced stage, which waits as long as another device would compute.

It keeps a stage's state, checks each step and returns tokens, so that everything around it is the real engine; only the
layers are missing. A node of GPUs thus runs in real time on a few cores. The stage keeps its own time, since delays of
this machine, in waking up and in carrying activations, must not count as delays of the engine.
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
"""Numbers per token that stand in for activations: the time at which the previous stage ended the step. The loopback
interface of one machine could not carry the activations of four GPUs."""
DTYPE = torch.float64
OUTPUT, END = 0, 1
"""Tokens that are sampled: the last one of a request is `END`, all others are `OUTPUT`."""
_BUSY_WAIT_SECONDS = 60e-6
"""Seconds at the end of a wait that are spent in a busy loop: about as much as a sleep ends late. More would take cores
from the threads that carry messages, as the stages of a balanced pipeline all wait for the same moment."""
_TIMER_SLACK = Path("/proc/self/timerslack_ns")


class PacedExecutor:
    """The `Executor` of a stage that takes as long as a cost model says.

    The first token of a prompt is the number of output tokens of the request.

    Args:
        cost: The cost of steps.
        stage: The number of this stage.
        latencies: The latencies of messages. Only those of activations delay a step; they overlap with computing.
        slots: The number of sequences that may hold KV at once.
        max_context: The limit of tokens of a sequence.
        blocks: The number of KV blocks.
        block_size: The number of tokens in a block.
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
        self._is_first = stage == 0
        self._is_last = stage == len(cost.stages) - 1
        self._slots = SlotTable(
            slots=slots, max_context=max_context, blocks=blocks, block_size=block_size
        )
        self._tokens = TokenTable(slots=slots, max_context=max_context, vocab_size=max_context + 1)
        self._ends = np.zeros(slots, dtype=np.int32)
        """[slots] position of the end token."""
        self._apply_seconds = self._seconds = 0.0
        self._end = self._woken = self._ready = time.monotonic()
        self._waits_for_token = False
        # Linux extends sleeps by up to 50 us unless a thread reduces its timer slack. Other systems lack the file.
        with contextlib.suppress(OSError):
            _TIMER_SLACK.write_text("1")

    def apply(self, step: Step) -> None:
        """Apply the step's starts and new blocks.

        Raises:
            PipelineError: The step is impossible.
        """
        began = time.monotonic()
        self._slots.apply(step)
        if self._is_first or self._is_last:
            self._tokens.apply(step)
        for start in step.starts:
            self._ends[start.slot] = start.prompt_length + int(start.tokens[0]) - 1
        self._apply_seconds = time.monotonic() - began
        # Waking up late is this machine's delay; the loop's work since then and the wait for the step are the engine's.
        self._ready = self._end + (began - self._woken) + self._apply_seconds

    def lacks_tokens(self, step: Step) -> bool:
        """Return whether a row needs a sampled token that has not come back yet. Only the first stage is asked."""
        self._waits_for_token = self._tokens.lacks_tokens(step)
        return self._waits_for_token

    def store_tokens(self, feedback: TokenFeedback) -> None:
        """Store sampled tokens on the first stage, except those of sequences that have left their slot."""
        current = self._slots.sequences[feedback.slots] == feedback.sequences
        self._tokens.extend(
            feedback.slots[current], feedback.positions[current], feedback.tokens[current]
        )
        if self._waits_for_token:
            self._ready = time.monotonic()

    def forward(self, step: Step, hidden: Tensor | None) -> Tensor:
        """Begin the step; `synchronise` waits until its layers would be computed.

        Args:
            step: A step that was applied.
            hidden: [tokens, 1] float64 from the previous stage; None on the first stage.

        Returns:
            [tokens, 1] float64.

        Raises:
            PipelineError: The step is impossible.
        """
        begin = self._ready
        if hidden is not None:
            sent = float(hidden[0, 0])
            begin = max(
                begin,
                sent + self._latencies.activations + self._latencies.activation_token * step.tokens,
            )
        self._slots.check_rows(step)
        if self._is_first and self.lacks_tokens(step):
            raise PipelineError(f"step {step.id} computes tokens that have not been sampled")
        self._seconds = self._cost.stage_seconds(step)[self._stage]
        self._end = begin + self._seconds - self._apply_seconds
        self._slots.advance(step)
        return torch.full((step.tokens, HIDDEN_SIZE), self._end, dtype=DTYPE)

    def synchronise(self) -> float:
        """Wait until the step would be computed.

        Returns:
            Seconds of computing that the cost model gives the step.
        """
        while (remaining := self._end - time.monotonic()) > 0.0:
            if remaining > _BUSY_WAIT_SECONDS:
                time.sleep(remaining - _BUSY_WAIT_SECONDS)
        self._woken = time.monotonic()
        return self._seconds

    def sample(self, step: Step, _hidden: Tensor) -> tuple[StepOutput, TokenFeedback]:
        """Return a token for each row whose `sample` is set, on the last stage: `END` at its end, else `OUTPUT`."""
        slots = step.slots[step.sample]
        positions = (step.first + step.counts)[step.sample]
        tokens = np.where(positions >= self._ends[slots], END, OUTPUT).astype(np.int32)
        self._tokens.extend(slots, positions, tokens)
        feedback = TokenFeedback(step.id, slots, self._slots.sequences[slots], positions, tokens)
        return StepOutput(step.id, tokens), feedback
