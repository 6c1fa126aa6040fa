"""Measurement of step times while all stages compute, as they do when the engine serves.

Stages on one host share memory and cores, so a stage that is measured while the others are idle is too fast. Steps are
therefore always issued ahead of results, in passes of ascending size, so that neighbours in the pipeline are similar.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from tdpipe.controller.synthetic_steps import ExecutedStep, Rows, SyntheticSteps
from tdpipe.controller.warm_up import doubling
from tdpipe.core.latencies import Latencies
from tdpipe.measurement.message_latencies import measure_latencies
from tdpipe.measurement.table_refinement import TableRefinement

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from tdpipe.pipeline.base import Pipeline

_MIN_PASSES, _MAX_PASSES = 3, 9
"""Number of times that each step is measured: before the table is refined, and if time allows."""
_MAX_STEP_TOKENS = 2_048
"""Batch tokens of the largest step, unless the token budget is larger."""
_MIN_PROMPT_TOKENS = 16
"""Tokens of the shortest prompt that is measured in addition to as many single tokens."""
_MAX_PROMPT_TOKENS = 512
"""Tokens of the longest prompt; a larger prefill step has several prompts."""
_TARGET_CONTEXT = 256
"""KV tokens of a decode row that suffice; more rows are preferred to a longer context."""
_MAX_CONTEXT = 2_048
_TABLE_TIME_SHARE, _CONTEXT_TIME_SHARE = 0.4, 0.9
"""Shares of the time after which measuring the table, and then steps with a context, ends."""
_PREFILL_TIME_SHARE = 0.25
"""Share of the time that the prefill of contexts may take."""
_MAX_STEP_TIME_SHARE = 0.01
"""Share of the time that the largest step may take, unless the token budget requires it."""


class StepKind(StrEnum):
    """StepKind of a measured step."""

    TABLE = "table"
    """Prefill without context: single tokens up to the size of the largest decode batch, and longer prompts above."""
    PROMPT = "prompt"
    """A prompt of no more tokens than the largest decode batch; one token is sampled, while a batch samples all."""
    DECODE = "decode"
    CHUNK = "chunk"
    """Prefill of sequences that already have a context."""
    MIXED = "mixed"
    """Decode rows and a prompt."""


@dataclass(slots=True)
class Measurements:
    """The steps and latencies that were measured."""

    steps: dict[StepKind, list[ExecutedStep]] = field(
        default_factory=lambda: {kind: [] for kind in StepKind}
    )
    latencies: Latencies = field(default_factory=Latencies)


class Profiling:
    """Measures one pipeline.

    Args:
        pipeline: A started pipeline without steps in flight; it must not be used for other steps afterwards.
        token_budget: The batch tokens of a micro-batch with prefill.
        seconds: The time that measuring takes; slow pipelines take a little more.
        progress: Called with a line of text for each step of the work.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        token_budget: int,
        seconds: float,
        progress: Callable[[str], None],
    ) -> None:
        capacity = pipeline.capacity
        self._capacity = capacity
        self._stages = pipeline.stages
        self._steps = SyntheticSteps(pipeline)
        self._budget = token_budget
        self._seconds = seconds
        self._progress = progress
        self._measured = Measurements()
        self._max_rows = max(1, min(capacity.slots // pipeline.stages, capacity.blocks))
        """Rows of the largest decode step."""
        self._prompt_tokens = min(_MAX_PROMPT_TOKENS, capacity.max_context - 1, capacity.kv_tokens)
        prompts = min(
            capacity.slots, capacity.blocks // -(-self._prompt_tokens // capacity.block_size)
        )
        self._fitting_tokens = prompts * self._prompt_tokens
        """Batch tokens of the largest step of prompts that fits the KV cache."""
        self._max_tokens = min(self._fitting_tokens, token_budget)

    def run(self) -> Measurements:
        """Measure first the table, then steps with a context, then latencies.

        Raises:
            PipelineError: The pipeline failed.
        """
        began = time.monotonic()
        self._warm_up()
        self._progress("measuring steps without context")
        self._measure_table(began + _TABLE_TIME_SHARE * self._seconds)
        self._progress("measuring steps with a context")
        self._measure_context(began + _CONTEXT_TIME_SHARE * self._seconds)
        self._progress("measuring the latency of messages")
        sizes = [size for size in doubling(1, self._max_tokens)[::2] if size <= self._budget]
        self._measured.latencies = measure_latencies(
            self._steps,
            self._stages,
            [self._new_sequences(size) for size in sizes],
            began + self._seconds,
        )
        return self._measured

    def _warm_up(self) -> None:
        """Run kernels of several sizes once, and choose the size of the largest step."""
        for tokens in (1, self._max_rows, self._max_tokens):
            self._steps.run(*self._new_sequences(tokens))
        seconds = max(self._steps.run(*self._new_sequences(self._max_tokens)).busy)
        if seconds * _MAX_STEP_TOKENS / self._max_tokens <= _MAX_STEP_TIME_SHARE * self._seconds:
            self._max_tokens = min(self._fitting_tokens, max(_MAX_STEP_TOKENS, self._max_tokens))

    def _measure_table(self, end: float) -> None:
        near_powers = {
            power + offset for power in doubling(1, self._max_tokens) for offset in (-1, 0, 1)
        }
        table = TableRefinement()
        points = sorted(each for each in near_powers if 1 <= each <= self._max_tokens)
        prompts = doubling(_MIN_PROMPT_TOKENS, min(self._max_rows, self._prompt_tokens))
        for number in range(_MIN_PASSES):
            limit = end if number else None
            self._measure_points(table, points, limit)
            steps = ((self._steps.prefill(range(1), tokens),) for tokens in prompts)
            list(self._observe(StepKind.PROMPT, steps, limit))
        while time.monotonic() < end and (points := table.middles()):
            for _ in range(_MIN_PASSES):
                self._measure_points(table, points, end)
        for _ in range(_MAX_PASSES - _MIN_PASSES):
            self._measure_points(table, sorted(table.times), end)
        self._progress(f"{len(table.times)} token counts from 1 to {self._max_tokens}")

    def _measure_points(
        self, table: TableRefinement, points: Sequence[int], end: float | None
    ) -> None:
        """Measure the step of each point once, until time is up."""
        for each in self._observe(
            StepKind.TABLE, (self._new_sequences(tokens) for tokens in points), end
        ):
            table.add(each.step.tokens, each.busy)

    def _new_sequences(self, tokens: int) -> tuple[Rows, ...]:
        """Return the rows of a step that computes the given number of tokens of new sequences."""
        if tokens <= self._max_rows:
            return (self._steps.prefill(range(tokens), 1),)
        whole, rest = divmod(tokens, self._prompt_tokens)
        rows = []
        if whole:
            rows.append(self._steps.prefill(range(whole), self._prompt_tokens))
        if rest:
            block = whole * -(-self._prompt_tokens // self._capacity.block_size)
            rows.append(self._steps.prefill(range(whole, whole + 1), rest, first_block=block))
        return tuple(rows)

    def _measure_context(self, end: float) -> None:
        grid = self._context_grid()
        if grid is None:
            self._progress("the KV cache is too small to measure steps with a context")
            return
        reached = 0
        contexts = sorted({max(grid.context // 4, 1), grid.context})
        for number, context in enumerate(contexts):
            # There is no end time, as all rows must get the context that decode steps read.
            prefill = self._observe(None, self._extend_contexts(grid, reached, context), None)
            self._measured.steps[StepKind.CHUNK] += [each for each in prefill if each.step.first[0]]
            now = time.monotonic()
            context_end = now + (end - now) / (len(contexts) - number)
            for repeat in range(_MAX_PASSES):
                limit = context_end if repeat else None
                list(self._observe(StepKind.DECODE, self._decode(grid, context), limit))
                list(self._observe(StepKind.MIXED, self._mixed(grid, context), limit))
            reached = context
        self._progress(f"decode of up to {grid.rows} rows with {reached} tokens of context each")

    def _context_grid(self) -> _Grid | None:
        capacity, groups = self._capacity, self._stages
        prompt_blocks = -(-min(self._budget, self._prompt_tokens) // capacity.block_size)
        blocks = capacity.blocks - prompt_blocks
        rate = max(
            each.step.tokens / max(each.busy) for each in self._measured.steps[StepKind.TABLE]
        )
        affordable = int(_PREFILL_TIME_SHARE * self._seconds * rate)
        rows = min(
            self._max_rows,
            (capacity.slots - 1) // groups,
            blocks // groups,
            max(1, affordable // groups // _TARGET_CONTEXT),
        )
        if rows < 1:
            return None
        context = min(
            _MAX_CONTEXT,
            capacity.max_context - 2,
            blocks // (groups * rows) * capacity.block_size - 1,
            max(capacity.block_size, affordable // groups // rows),
        )
        return _Grid(groups, rows, context, capacity.block_size) if context >= 1 else None

    def _extend_contexts(
        self, grid: _Grid, reached: int, context: int
    ) -> Iterator[tuple[Rows, ...]]:
        """Yield prefill steps of about the token budget that extend all contexts from `reached` to `context` tokens."""
        size = min(context - reached, self._budget)
        rows = max(1, self._budget // size)
        total = grid.groups * grid.rows
        for first in range(0, total, rows):
            slots = range(first, min(first + rows, total))
            for position in range(reached, context, size):
                count = min(size, context - position)
                if position:
                    yield (Rows(slots, position, count),)
                    continue
                block = first * grid.row_blocks
                length = grid.context + 1
                yield (self._steps.prefill(slots, count, first_block=block, max_length=length),)

    def _decode(self, grid: _Grid, context: int) -> Iterator[tuple[Rows, ...]]:
        for rows in doubling(1, grid.rows):
            for group in range(grid.groups):
                yield (grid.decode(group, rows, context),)

    def _mixed(self, grid: _Grid, context: int) -> Iterator[tuple[Rows, ...]]:
        slot = grid.groups * grid.rows
        max_prompt = min(self._budget - grid.rows, self._prompt_tokens)
        for prompt in sorted({max_prompt // 4, max_prompt} - {0}):
            if prompt < 1:
                continue
            for rows in sorted({max(1, grid.rows // 4), grid.rows}):
                for group in range(grid.groups):
                    yield (
                        grid.decode(group, rows, context),
                        self._steps.prefill(
                            range(slot, slot + 1), prompt, first_block=slot * grid.row_blocks
                        ),
                    )

    def _observe(
        self, kind: StepKind | None, steps: Iterable[tuple[Rows, ...]], end: float | None
    ) -> Iterator[ExecutedStep]:
        """Execute steps with all stages busy until `end`, and record them under `kind`."""

        def in_time() -> Iterator[tuple[Rows, ...]]:
            for rows in steps:
                if end is not None and time.monotonic() > end:
                    return
                yield rows

        for each in self._steps.stream(in_time(), ahead=self._stages + 1):
            if kind is not None:
                self._measured.steps[kind].append(each)
            yield each


@dataclass(frozen=True, slots=True)
class _Grid:
    """Sequences with a context, in one group for each micro-batch in flight."""

    groups: int
    rows: int
    """Number of rows of each group."""
    context: int
    """KV tokens of each row after all prefill."""
    block_size: int

    @property
    def row_blocks(self) -> int:
        return -(-(self.context + 1) // self.block_size)

    def decode(self, group: int, rows: int, context: int) -> Rows:
        """Return a decode step of the first rows of a group."""
        first = group * self.rows
        return Rows(range(first, first + rows), context, 1)
