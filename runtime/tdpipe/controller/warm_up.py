"""A few synthetic steps through the pipeline before the first request.

They touch every kernel once, so that no user pays for it, and their times are what the cost model is fitted from where
no measured profile is given.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np

from tdpipe.core.sampling import SamplingParams
from tdpipe.core.step import Phase, SequenceStart, Step
from tdpipe.scheduling.cost_model import Observation

if TYPE_CHECKING:
    from tdpipe.core.step import IntArray
    from tdpipe.pipeline.base import Pipeline

_REPEATS = 3
_SHORTEST = 16
"""Tokens of the shortest prefill."""
_ROWS = 16
_CONTEXT = 256
"""Rows and tokens of the decode that tells what reading KV costs."""
_FIRST_NUMBER = 2**31 - 1


class WarmUp:
    """Runs and measures synthetic steps; the scheduler goes on counting steps at `next_step`.

    Args:
        pipeline: started, without steps in flight.
        token_budget: the largest prefill step that will be issued.
        seconds: after which no further shape is begun; small shapes come first.
    """

    def __init__(self, pipeline: Pipeline, token_budget: int, seconds: float) -> None:
        self.next_step = 0
        self.observations: list[Observation] = []
        self._pipeline = pipeline
        self._token_budget = token_budget
        self._seconds = seconds

    def run(self) -> None:
        """Execute the shapes.

        Raises:
            PipelineError: the pipeline failed.
        """
        end = time.monotonic() + self._seconds
        room = self._pipeline.capacity
        most = min(room.slots, room.blocks)
        longest = min(room.max_context - 1, room.blocks * room.block_size, self._token_budget)
        shapes = [(rows, 1) for rows in _doubling(1, most)]
        shapes += [(1, tokens) for tokens in _doubling(_SHORTEST, longest)]
        for rows, tokens in sorted(shapes, key=lambda shape: shape[0] * shape[1]):
            for repeat in range(_REPEATS + 1):
                busy = self._begin(rows, tokens, tokens)
                if repeat:  # the first pays for what is made only once
                    self._observe(rows, tokens, tokens, busy)
            if time.monotonic() > end:
                break
        self._decode_with_context(longest)

    def _decode_with_context(self, longest: int) -> None:
        """Decode a few rows over a longer context, which tells what reading KV costs."""
        room = self._pipeline.capacity
        reach = min(_CONTEXT, longest, room.max_context - _REPEATS - 2)
        row_blocks = -(-(reach + _REPEATS + 1) // room.block_size)
        rows = min(_ROWS, room.slots, room.blocks // row_blocks)
        if reach < 1 or rows < 1:
            return
        for row in range(rows):
            self._begin(1, reach, reach + _REPEATS + 1, slot=row, block=row * row_blocks)
        for position in range(reach, reach + _REPEATS + 1):
            busy = self._continue(rows, position)
            if position > reach:
                self._observe(rows, 1, position + 1, busy)

    def _observe(self, rows: int, count: int, context: int, busy: tuple[float, ...]) -> None:
        self.observations.append(Observation(rows * count, rows * context, busy))

    def _begin(
        self, rows: int, tokens: int, room: int, slot: int = 0, block: int = 0
    ) -> tuple[float, ...]:
        """Prefill `rows` new sequences of `tokens`, with blocks for `room` tokens each."""
        per_row = -(-room // self._pipeline.capacity.block_size)
        slots = np.arange(slot, slot + rows, dtype=np.int32)
        return self._execute(
            tuple(_start(int(each), tokens) for each in slots),
            slots,
            first=0,
            count=tokens,
            blocks=np.arange(block, block + rows * per_row, dtype=np.int32),
        )

    def _continue(self, rows: int, position: int) -> tuple[float, ...]:
        slots = np.arange(rows, dtype=np.int32)
        return self._execute((), slots, first=position, count=1, blocks=slots[:0])

    def _execute(
        self,
        starts: tuple[SequenceStart, ...],
        slots: IntArray,
        first: int,
        count: int,
        blocks: IntArray,
    ) -> tuple[float, ...]:
        rows = len(slots)
        step = Step(
            self.next_step,
            Phase.PREFILL if count > 1 else Phase.DECODE,
            starts,
            slots,
            np.full(rows, first, dtype=np.int32),
            np.full(rows, count, dtype=np.int32),
            np.ones(rows, dtype=np.bool_),
            np.repeat(slots, len(blocks) // rows).astype(np.int32),
            blocks,
        )
        self.next_step += 1
        self._pipeline.submit(step)
        while True:
            results = self._pipeline.poll(None)
            if results:
                return results[0].busy


def _doubling(least: int, most: int) -> list[int]:
    """Powers of two times `least` below `most`, and `most`."""
    sizes = []
    while least < most:
        sizes.append(least)
        least *= 2
    return [*sizes, most]


def _start(slot: int, tokens: int) -> SequenceStart:
    ids: IntArray = np.ones(tokens, dtype=np.int32)
    return SequenceStart(slot, _FIRST_NUMBER - slot, ids, tokens, SamplingParams())
