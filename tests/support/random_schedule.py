"""A scheduler without sense: any legal step, chosen at random.

Chunks of any length, prefill beside decode, decode rows before their token has come back,
preemptions at any moment, slots and blocks reused at once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from tdpipe.core.sampling import SamplingParams
from tdpipe.core.step import SequenceStart
from tests.support.step_driver import row_step

if TYPE_CHECKING:
    from random import Random

    from tdpipe.core.capacity import Capacity
    from tdpipe.core.step import Step, StepOutput
    from tests.support.stage_chain import StageChain


@dataclass
class _Sequence:
    number: int
    prompt: list[int]
    target: int
    sampling: SamplingParams
    output: list[int] = field(default_factory=list)
    slot: int = -1
    blocks: list[int] = field(default_factory=list)
    scheduled: int = 0
    sampled: int = 0
    """Output tokens issued, whether they have come back or not."""

    @property
    def in_flight(self) -> int:
        return self.sampled - len(self.output)


class RandomSchedule:
    """Drives a chain of stages until every prompt has its tokens."""

    def __init__(
        self, chain: StageChain, capacity: Capacity, random: Random, in_flight: int = 4
    ) -> None:
        self._chain = chain
        self._capacity = capacity
        self._random = random
        self._in_flight = in_flight
        self._slots = list(range(capacity.slots))
        self._blocks = list(range(capacity.blocks))
        self._steps: dict[int, list[_Sequence]] = {}
        self._next_step = 0
        self.outputs: list[StepOutput] = []
        self.preemptions = 0

    def generate(
        self, prompts: list[list[int]], count: int, sampling: list[SamplingParams] | None = None
    ) -> list[list[int]]:
        """`count` tokens for each prompt."""
        params = sampling or [SamplingParams()] * len(prompts)
        sequences = [
            _Sequence(number, prompt, count, params[number])
            for number, prompt in enumerate(prompts)
        ]
        while any(len(each.output) < count for each in sequences):
            if self._chain.unfinished < self._in_flight and self._random.random() < 0.7:
                step = self._next(sequences)
                if step is not None:
                    self._chain.submit(step)
            if self._chain.unfinished:
                self._land(self._chain.run_one())
        return [each.output for each in sequences]

    def _land(self, output: StepOutput | None) -> None:
        if output is None:
            return
        self.outputs.append(output)
        for sequence, token in zip(
            self._steps.pop(output.step), output.tokens.tolist(), strict=True
        ):
            sequence.output.append(token)
            if len(sequence.output) == sequence.target:
                self._release(sequence)

    def _release(self, sequence: _Sequence) -> None:
        if sequence.slot >= 0:
            self._slots.append(sequence.slot)
            self._blocks += sequence.blocks
            sequence.slot, sequence.blocks = -1, []

    def _next(self, sequences: list[_Sequence]) -> Step | None:
        random = self._random
        for sequence in sequences:
            if sequence.slot >= 0 and random.random() < 0.05:
                self._release(sequence)
                self.preemptions += 1
        rows: list[tuple[int, int, int, bool]] = []
        starts: list[SequenceStart] = []
        blocks: list[tuple[int, int]] = []
        sampled: list[_Sequence] = []
        for sequence in random.sample(sequences, random.randint(1, len(sequences))):
            row = self._row(sequence, starts, blocks)
            if row is None:
                continue
            rows.append(row)
            if row[3]:
                sequence.sampled += 1
                sampled.append(sequence)
        if not rows:
            return None
        step = row_step(self._next_step, rows, tuple(starts), blocks)
        self._steps[step.id] = sampled
        self._next_step += 1
        return step

    def _row(
        self, sequence: _Sequence, starts: list[SequenceStart], blocks: list[tuple[int, int]]
    ) -> tuple[int, int, int, bool] | None:
        """Some of the sequence's next tokens, if there are any and there is room for them."""
        if sequence.sampled == sequence.target:
            return None
        begun = sequence.slot >= 0
        # A start carries all tokens, so those in flight must have come back.
        if not begun and (sequence.in_flight or not self._slots):
            return None
        first = sequence.scheduled if begun else 0
        length = len(sequence.prompt) + sequence.sampled
        count = self._random.randint(1, length - first)
        need = -(-(first + count) // self._capacity.block_size) - len(sequence.blocks)
        if need > len(self._blocks):
            return None
        if not begun:
            sequence.slot = self._slots.pop(self._random.randrange(len(self._slots)))
            starts.append(self._start(sequence))
        for _ in range(need):
            sequence.blocks.append(self._blocks.pop(self._random.randrange(len(self._blocks))))
            blocks.append((sequence.slot, sequence.blocks[-1]))
        sequence.scheduled = first + count
        return sequence.slot, first, count, sequence.scheduled == length

    @staticmethod
    def _start(sequence: _Sequence) -> SequenceStart:
        return SequenceStart(
            sequence.slot,
            sequence.number,
            np.asarray(sequence.prompt + sequence.output, np.int32),
            len(sequence.prompt),
            sequence.sampling,
        )
