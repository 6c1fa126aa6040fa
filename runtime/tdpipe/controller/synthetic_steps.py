"""Steps without requests, for warming up and measuring a pipeline.

Sequences may start with all their tokens known. A decode step then does not wait for a sampled token, and can be
repeated at the same position.
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

_MAX_SEQUENCE_NUMBER = 2**31 - 1
_TOKEN = 1
"""The token that all sequences consist of."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of a step that have the same first position and the same number of tokens."""

    slots: range
    first: int
    count: int
    starts: tuple[SequenceStart, ...] = ()
    blocks: IntArray = field(default_factory=lambda: np.zeros(0, dtype=np.int32))
    """KV blocks of all slots, the same number for each."""


@dataclass(frozen=True, slots=True)
class ExecutedStep:
    """A step and the times of its execution."""

    step: Step
    busy: tuple[float, ...]
    """[stages] seconds of computing."""
    submitted: float
    """Seconds of the controller's clock at which the step was submitted."""
    done: float
    """Seconds of the controller's clock at which its result came."""


class SyntheticSteps:
    """Executes steps that are numbered from 0; the scheduler continues at `next_step`.

    Args:
        pipeline: A started pipeline without steps in flight.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self.next_step = 0
        self.capacity = pipeline.capacity
        self._pipeline = pipeline

    def prefill(
        self,
        slots: range,
        count: int,
        *,
        first_block: int = 0,
        max_length: int | None = None,
        known_tokens: int | None = None,
    ) -> Rows:
        """Return the rows that prefill new sequences.

        Args:
            slots: The slots of the sequences.
            count: The number of tokens of each sequence to compute.
            first_block: The first KV block; the sequences take as many as they need from there on.
            max_length: The number of tokens that each sequence may grow to; `count` by default.
            known_tokens: The number of tokens of each sequence that are known from the start; `max_length` by default.
        """
        max_length = count if max_length is None else max_length
        sequence_blocks = -(-max_length // self.capacity.block_size)
        known_tokens = max_length if known_tokens is None else known_tokens
        tokens = np.full(known_tokens, _TOKEN, dtype=np.int32)
        starts = tuple(
            SequenceStart(slot, _MAX_SEQUENCE_NUMBER - slot, tokens, count, SamplingParams())
            for slot in slots
        )
        blocks = np.arange(first_block, first_block + len(slots) * sequence_blocks, dtype=np.int32)
        return Rows(slots, 0, count, starts, blocks)

    def run(self, *rows: Rows) -> ExecutedStep:
        """Execute one step with no other step in flight."""
        return next(self.stream([rows], ahead=1))

    def stream(self, steps: Iterable[tuple[Rows, ...]], ahead: int) -> Iterator[ExecutedStep]:
        """Execute steps and yield each as it completes.

        Args:
            steps: The rows of each step.
            ahead: The number of steps in flight.

        Raises:
            PipelineError: The pipeline failed.
        """
        in_flight: deque[tuple[Step, float]] = deque()
        for rows in steps:
            while len(in_flight) >= ahead:
                yield from self._results(in_flight)
            step = self._step(rows)
            in_flight.append((step, time.monotonic()))
            self._pipeline.submit(step)
        while in_flight:
            yield from self._results(in_flight)

    def _results(self, in_flight: deque[tuple[Step, float]]) -> Iterator[ExecutedStep]:
        results: list[StepResult] = self._pipeline.poll(None)
        now = time.monotonic()
        for result in results:
            step, submitted = in_flight.popleft()
            yield ExecutedStep(step, result.busy, submitted, now)

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
