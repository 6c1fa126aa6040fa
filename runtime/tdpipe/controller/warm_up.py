"""A few synthetic steps through the pipeline before the first request.

They touch every kernel once, so that no user pays for it, and their times are what the cost model is fitted from where
no measured profile is given.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from tdpipe.controller.synthetic_steps import Rows, SyntheticSteps
from tdpipe.scheduling.cost_fit import Observation
from tdpipe.scheduling.cost_model import CHUNK_TILE, kv_reads

if TYPE_CHECKING:
    from tdpipe.pipeline.base import Pipeline

_REPEATS = 6
_SHORTEST = 16
"""Tokens of the shortest prefill."""
_SHARE = 0.05
"""Of the time for all: how long one shape is measured again and again."""
_ROWS = 16
_CONTEXT = 256
"""Rows and tokens of the decode that tells what reading KV costs, where there is time and room for so many."""


class WarmUp:
    """Runs and measures synthetic steps; the scheduler goes on counting steps at `next_step`.

    Args:
        pipeline: started, without steps in flight.
        token_budget: the largest prefill step that will be issued.
        seconds: after which no further shape is begun, but for the few that the cost model cannot do without.
    """

    def __init__(self, pipeline: Pipeline, token_budget: int, seconds: float) -> None:
        self.observations: list[Observation] = []
        self._steps = SyntheticSteps(pipeline)
        self._room = room = pipeline.capacity
        self._seconds = seconds
        self._rows = min(room.slots, room.blocks)
        self._longest = min(room.max_context - 1, room.blocks * room.block_size, token_budget)

    @property
    def next_step(self) -> int:
        """Number of the next step."""
        return self._steps.next_step

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
        shapes = [(rows, 1) for rows in doubling(1, self._rows)[1:]]
        shapes += [(1, tokens) for tokens in doubling(_SHORTEST, self._longest)[:-1]]
        for rows, tokens in _coarse_first(sorted(shapes, key=lambda shape: shape[0] * shape[1])):
            if time.monotonic() > end:
                break
            self._measure(rows, tokens, end)

    def _measure(self, rows: int, tokens: int, end: float) -> None:
        """Observe a prefill of `rows` sequences a few times, fewer where it is slow, or once when time is up."""
        prefill = self._steps.begin(range(rows), tokens)
        first = self._steps.run(prefill)
        times = [first.busy]
        share = time.monotonic() + _SHARE * self._seconds
        while len(times) <= _REPEATS and time.monotonic() < (share if len(times) > 1 else end):
            times.append(self._steps.run(prefill).busy)
        own = int(kv_reads(first.step.first, first.step.counts, CHUNK_TILE))
        for busy in times[1:] or times:  # the first pays for what is made only once
            self.observations.append(Observation(rows * tokens, own, rows, busy))

    def _measure_context(self, seconds_per_token: float, end: float) -> None:
        """Observe the same few rows without and over a longer context, which tells what reading KV costs."""
        room = self._room
        reach = min(_CONTEXT, self._longest, room.max_context - _REPEATS - 2)
        length = reach + _REPEATS + 1
        row_blocks = -(-length // room.block_size)
        affordable = (
            int((end - time.monotonic()) / 2 / (reach * seconds_per_token)) if reach > 0 else 0
        )
        rows = min(_ROWS, room.slots, room.blocks // row_blocks, max(1, affordable))
        if reach < 1 or rows < 1:
            return
        self._measure(rows, 1, end)
        for row in range(rows):
            self._steps.run(
                self._steps.begin(
                    range(row, row + 1), reach, first_block=row * row_blocks, length=length
                )
            )
        for position in range(reach, length):
            busy = self._steps.run(Rows(range(rows), position, 1)).busy
            if position > reach:
                self.observations.append(Observation(rows, rows * position, rows, busy))


def _coarse_first(shapes: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The middle, then the quarters, and so on, so that wherever time ends no size is far from a measured one."""
    numbers = sorted(range(1, len(shapes) + 1), key=lambda number: -(number & -number))
    return [shapes[number - 1] for number in numbers]


def doubling(least: int, most: int) -> list[int]:
    """Powers of two times `least` below `most`, and `most`."""
    sizes = []
    while least < most:
        sizes.append(least)
        least *= 2
    return [*sizes, most]
