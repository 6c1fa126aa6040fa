"""Warm-up: a few synthetic steps run through the pipeline before the first request.

They run every kernel once, so that no request waits for its first use. Without a measured profile, the cost model is
fitted to their times.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from tdpipe.controller.synthetic_steps import Rows, SyntheticSteps
from tdpipe.scheduling.cost_fit import Observation
from tdpipe.scheduling.cost_model import CHUNK_TILE, kv_reads

if TYPE_CHECKING:
    from tdpipe.pipeline.base import Pipeline

_MAX_REPEATS = 6
_MIN_PREFILL_TOKENS = 16
"""Number of tokens of the shortest prefill that is measured, apart from a single token."""
_REPEAT_TIME_SHARE = 0.05
"""Share of the warm-up time for which one shape is repeated."""
_MAX_CONTEXT_ROWS = 16
"""Largest number of decode rows that measure how long reading KV takes."""
_MAX_CONTEXT_TOKENS = 256
"""Largest context of these rows."""


class WarmUp:
    """Runs and measures synthetic steps; the scheduler continues to number steps at `next_step`.

    Args:
        pipeline: A started pipeline without steps in flight.
        token_budget: The number of tokens of the largest prefill step.
        seconds: The time after which no further shape is measured, except the few that the cost model requires.
    """

    def __init__(self, pipeline: Pipeline, token_budget: int, seconds: float) -> None:
        self.observations: list[Observation] = []
        self._steps = SyntheticSteps(pipeline)
        self._capacity = capacity = pipeline.capacity
        self._seconds = seconds
        self._max_rows = min(capacity.slots, capacity.blocks)
        self._max_tokens = min(capacity.max_context - 1, capacity.kv_tokens, token_budget)

    @property
    def next_step(self) -> int:
        """Number of the next step."""
        return self._steps.next_step

    def run(self) -> None:
        """Execute and measure all shapes.

        Raises:
            PipelineError: The pipeline failed.
        """
        end = time.monotonic() + self._seconds
        # A single token, the whole budget and the two context shapes matter most; the other shapes refine the table.
        self._measure(1, 1, end)
        began = time.monotonic()
        self._measure(1, self._max_tokens, end)
        self._measure_context((time.monotonic() - began) / self._max_tokens, end)
        shapes = [(rows, 1) for rows in doubling(1, self._max_rows)[1:]]
        shapes += [(1, tokens) for tokens in doubling(_MIN_PREFILL_TOKENS, self._max_tokens)[:-1]]
        for rows, tokens in _coarse_first(sorted(shapes, key=lambda shape: shape[0] * shape[1])):
            if time.monotonic() > end:
                break
            self._measure(rows, tokens, end)

    def _measure(self, rows: int, tokens: int, end: float) -> None:
        """Observe a prefill of `rows` sequences several times, less often if it is slow, or once if time is up."""
        prefill = self._steps.prefill(range(rows), tokens)
        first = self._steps.run(prefill)
        times = [first.busy]
        repeat_end = time.monotonic() + _REPEAT_TIME_SHARE * self._seconds
        while len(times) <= _MAX_REPEATS:
            if time.monotonic() >= (repeat_end if len(times) > 1 else end):
                break
            times.append(self._steps.run(prefill).busy)
        context = int(kv_reads(first.step.first, first.step.counts, CHUNK_TILE))
        for busy in times[1:] or times:  # the first one includes one-time costs
            self.observations.append(Observation(rows * tokens, context, rows, busy))

    def _measure_context(self, seconds_per_token: float, end: float) -> None:
        """Observe the same few rows with and without a longer context, which shows how long reading KV takes."""
        capacity = self._capacity
        context = min(
            _MAX_CONTEXT_TOKENS, self._max_tokens, capacity.max_context - _MAX_REPEATS - 2
        )
        length = context + _MAX_REPEATS + 1
        row_blocks = -(-length // capacity.block_size)
        affordable = (
            int((end - time.monotonic()) / 2 / (context * seconds_per_token)) if context > 0 else 0
        )
        rows = min(
            _MAX_CONTEXT_ROWS, capacity.slots, capacity.blocks // row_blocks, max(1, affordable)
        )
        if context < 1 or rows < 1:
            return
        self._measure(rows, 1, end)
        for row in range(rows):
            self._steps.run(
                self._steps.prefill(
                    range(row, row + 1), context, first_block=row * row_blocks, max_length=length
                )
            )
        for position in range(context, length):
            busy = self._steps.run(Rows(range(rows), position, 1)).busy
            if position > context:
                self.observations.append(Observation(rows, rows * position, rows, busy))


def _coarse_first(shapes: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Order shapes from the middle to the quarters and so on.

    No shape is then far from a measured one, however many are measured before time is up.
    """
    numbers = sorted(range(1, len(shapes) + 1), key=lambda number: -(number & -number))
    return [shapes[number - 1] for number in numbers]


def doubling(minimum: int, maximum: int) -> list[int]:
    """Return `minimum` times the powers of two that are below `maximum`, and `maximum`."""
    sizes = []
    while minimum < maximum:
        sizes.append(minimum)
        minimum *= 2
    return [*sizes, maximum]
