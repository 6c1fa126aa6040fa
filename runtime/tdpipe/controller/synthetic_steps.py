"""Steps that no request asked for, to warm a pipeline up and to measure it.

Sequences may bring all their tokens along; a decode step then waits for none to come back, and can be repeated at the
same position.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from tdpipe.core.sampling import SamplingParams
from tdpipe.core.step import Phase, SequenceStart, Step

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tdpipe.core.step import IntArray
    from tdpipe.pipeline.base import Pipeline, StepResult

_FIRST_NUMBER = 2**31 - 1
_TOKEN = 1


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of a step, each of the same first position and count."""

    slots: range
    first: int
    count: int
    starts: tuple[SequenceStart, ...] = ()
    blocks: IntArray = field(default_factory=lambda: np.zeros(0, dtype=np.int32))
    """For all slots, the same number each."""


@dataclass(frozen=True, slots=True)
class Executed:
    """A step that ran."""

    step: Step
    busy: tuple[float, ...]
    """[stages] seconds of computing."""
    submitted: float
    done: float
    """When its result came; both in seconds of the controller's clock."""


class SyntheticSteps:
    """Numbers steps from 0 and executes them; whoever issues real ones goes on at `next_step`.

    Args:
        pipeline: started, without steps in flight.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self.next_step = 0
        self.capacity = pipeline.capacity
        self._pipeline = pipeline

    def begin(
        self,
        slots: range,
        count: int,
        *,
        first_block: int = 0,
        length: int | None = None,
        known: int | None = None,
    ) -> Rows:
        """Prefill of new sequences.

        Args:
            slots: one for each.
            count: tokens of each that are computed.
            first_block: of as many as the sequences need, one behind the other.
            length: tokens that each may grow to; `count` if left out.
            known: tokens of each that are there from the start; `length` if left out.
        """
        length = count if length is None else length
        each = -(-length // self.capacity.block_size)
        tokens = np.full(length if known is None else known, _TOKEN, dtype=np.int32)
        starts = tuple(
            SequenceStart(slot, _FIRST_NUMBER - slot, tokens, count, SamplingParams())
            for slot in slots
        )
        blocks = np.arange(first_block, first_block + len(slots) * each, dtype=np.int32)
        return Rows(slots, 0, count, starts, blocks)

    def run(self, *rows: Rows) -> Executed:
        """Execute one step alone."""
        return next(self.stream([rows], ahead=1))

    def stream(self, steps: Iterable[tuple[Rows, ...]], ahead: int) -> Iterator[Executed]:
        """Execute steps with `ahead` of them in flight.

        Raises:
            PipelineError: the pipeline failed.
        """
        flying: deque[tuple[Step, float]] = deque()
        for rows in steps:
            while len(flying) >= ahead:
                yield from self._results(flying)
            step = self._step(rows)
            flying.append((step, time.monotonic()))
            self._pipeline.submit(step)
        while flying:
            yield from self._results(flying)

    def _results(self, flying: deque[tuple[Step, float]]) -> Iterator[Executed]:
        results: list[StepResult] = self._pipeline.poll(None)
        now = time.monotonic()
        for result in results:
            step, submitted = flying.popleft()
            yield Executed(step, result.busy, submitted, now)

    def _step(self, rows: tuple[Rows, ...]) -> Step:
        slots = np.concatenate([np.asarray(each.slots, dtype=np.int32) for each in rows])
        sizes = [len(each.slots) for each in rows]
        counts = np.repeat([each.count for each in rows], sizes).astype(np.int32)
        kinds = {Phase.PREFILL if each.starts else Phase.DECODE for each in rows}
        step = Step(
            self.next_step,
            kinds.pop() if len(kinds) == 1 else Phase.MIXED,
            tuple(start for each in rows for start in each.starts),
            slots,
            np.repeat([each.first for each in rows], sizes).astype(np.int32),
            counts,
            np.ones(len(slots), dtype=np.bool_),
            np.concatenate(
                [
                    np.repeat(each.slots, len(each.blocks) // len(each.slots)).astype(np.int32)
                    for each in rows
                ]
            ),
            np.concatenate([each.blocks for each in rows]),
        )
        self.next_step += 1
        return step
