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
"""Rows and tokens of the decode that tells what reading KV costs, where there is time and room for so many."""
_FIRST_NUMBER = 2**31 - 1


class WarmUp:
    """Runs and measures synthetic steps; the scheduler goes on counting steps at `next_step`.

    Args:
        pipeline: started, without steps in flight.
        token_budget: the largest prefill step that will be issued.
        seconds: after which no further shape is begun, but for the few that the cost model cannot do without.
    """

    def __init__(self, pipeline: Pipeline, token_budget: int, seconds: float) -> None:
        self.next_step = 0
        self.observations: list[Observation] = []
        self._pipeline = pipeline
        self._seconds = seconds
        room = pipeline.capacity
        self._rows = min(room.slots, room.blocks)
        self._longest = min(room.max_context - 1, room.blocks * room.block_size, token_budget)

    def run(self) -> None:
        """Execute the shapes.

        Raises:
            PipelineError: the pipeline failed.
        """
        end = time.monotonic() + self._seconds
        # A single token, the whole budget and the two context shapes say the most; the others refine the table.
        self._measure(1, 1, end)
        began = time.monotonic()
        self._measure(1, self._longest, end)
        self._measure_context((time.monotonic() - began) / self._longest, end)
        shapes = [(rows, 1) for rows in _doubling(1, self._rows)[1:]]
        shapes += [(1, tokens) for tokens in _doubling(_SHORTEST, self._longest)[:-1]]
        for rows, tokens in sorted(shapes, key=lambda shape: shape[0] * shape[1]):
            if time.monotonic() > end:
                break
            self._measure(rows, tokens, end)

    def _measure(self, rows: int, tokens: int, end: float) -> None:
        """Observe a prefill of `rows` sequences a few times, or once when time is up."""
        times = [self._begin(rows, tokens, tokens)]
        while len(times) <= _REPEATS and time.monotonic() < end:
            times.append(self._begin(rows, tokens, tokens))
        for busy in times[1:] or times:  # the first pays for what is made only once
            self.observations.append(Observation(rows * tokens, 0, busy))

    def _measure_context(self, seconds_per_token: float, end: float) -> None:
        """Observe the same few rows without and over a longer context, which tells what reading KV costs."""
        room = self._pipeline.capacity
        reach = min(_CONTEXT, self._longest, room.max_context - _REPEATS - 2)
        row_blocks = -(-(reach + _REPEATS + 1) // room.block_size)
        affordable = (
            int((end - time.monotonic()) / 2 / (reach * seconds_per_token)) if reach > 0 else 0
        )
        rows = min(_ROWS, room.slots, room.blocks // row_blocks, max(1, affordable))
        if reach < 1 or rows < 1:
            return
        self._measure(rows, 1, end)
        for row in range(rows):
            self._begin(1, reach, reach + _REPEATS + 1, slot=row, block=row * row_blocks)
        for position in range(reach, reach + _REPEATS + 1):
            busy = self._continue(rows, position)
            if position > reach:
                self.observations.append(Observation(rows, rows * position, busy))

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
