"""A driver of a pipeline without a scheduler.

It prefills every prompt and then decodes in round-robin micro-batches, without waiting for the result of each step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tdpipe.core.sampling import SamplingParams
from tdpipe.core.step import Phase, SequenceStart, Step

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tdpipe.pipeline.base import Pipeline, StepResult


def row_step(
    number: int,
    rows: list[tuple[int, int, int, bool]],
    starts: tuple[SequenceStart, ...] = (),
    blocks: list[tuple[int, int]] | None = None,
) -> Step:
    """Create a step from (slot, first, count, sample) rows and (slot, block) pairs of new blocks."""
    slots, first, counts, sample = zip(*rows, strict=True)
    pairs = blocks or []
    return Step(
        id=number,
        phase=Phase.PREFILL if starts else Phase.DECODE,
        starts=starts,
        slots=np.asarray(slots, np.int32),
        first=np.asarray(first, np.int32),
        counts=np.asarray(counts, np.int32),
        sample=np.asarray(sample, np.bool_),
        block_slots=np.asarray([slot for slot, _ in pairs], np.int32),
        blocks=np.asarray([block for _, block in pairs], np.int32),
    )


def start_of(slot: int, sequence: int, tokens: list[int]) -> SequenceStart:
    return SequenceStart(
        slot, sequence, np.asarray(tokens, np.int32), len(tokens), SamplingParams()
    )


class Driver:
    """A driver that generates tokens on a fresh pipeline, with prompt i in slot i."""

    def __init__(self, pipeline: Pipeline, in_flight: int = 3, micro_batches: int = 2) -> None:
        self._pipeline = pipeline
        self._in_flight = in_flight
        self._micro_batches = micro_batches
        self._next_block = 0
        self.results: list[StepResult] = []

    def generate(self, prompts: list[list[int]], count: int) -> list[list[int]]:
        outputs: list[list[int]] = [[] for _ in prompts]
        groups: dict[int, list[int]] = {}
        open_steps = 0
        for number, (group, step) in enumerate(self._steps(prompts, count)):
            assert step.id == number
            groups[number] = group
            while open_steps >= self._in_flight:
                open_steps -= self._collect(groups, outputs)
            self._pipeline.submit(step)
            open_steps += 1
        while open_steps:
            open_steps -= self._collect(groups, outputs)
        return outputs

    def _collect(self, groups: dict[int, list[int]], outputs: list[list[int]]) -> int:
        results = self._pipeline.poll(30.0)
        assert results, "no result within 30 s"
        for result in results:
            group = groups[result.output.step]
            for prompt, token in zip(group, result.output.tokens.tolist(), strict=True):
                outputs[prompt].append(token)
        self.results += results
        return len(results)

    def _steps(self, prompts: list[list[int]], count: int) -> Iterator[tuple[list[int], Step]]:
        groups = [
            group
            for batch in range(self._micro_batches)
            if (group := list(range(batch, len(prompts), self._micro_batches)))
        ]
        number = 0
        for group in groups:
            starts = tuple(start_of(slot, 100 + slot, prompts[slot]) for slot in group)
            rows = [(slot, 0, len(prompts[slot]), True) for slot in group]
            blocks = [pair for slot in group for pair in self._blocks(slot, 0, len(prompts[slot]))]
            yield group, row_step(number, rows, starts, blocks)
            number += 1
        for output in range(1, count):
            for group in groups:
                position = {slot: len(prompts[slot]) + output - 1 for slot in group}
                rows = [(slot, position[slot], 1, True) for slot in group]
                blocks = [pair for slot in group for pair in self._blocks(slot, position[slot], 1)]
                yield group, row_step(number, rows, blocks=blocks)
                number += 1

    def _blocks(self, slot: int, first: int, count: int) -> list[tuple[int, int]]:
        size = self._pipeline.capacity.block_size
        new = -(-(first + count) // size) + -first // size
        numbers = range(self._next_block, self._next_block + new)
        self._next_block += new
        return [(slot, block) for block in numbers]
