"""Measures what steps take, with steps on all stages at once, as they will run.

Stages on one host share memory and cores, so a stage that is measured while the others rest is too fast. Steps are
therefore issued ahead of results throughout, in passes of ascending size, so that neighbours in the pipeline are alike.
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

_PASSES, _MOST_PASSES = 3, 9
"""Times that each step is measured: before the table is refined, and as far as time goes."""
_LONGEST = 2_048
"""Batch tokens of the largest step, or the token budget if that is larger."""
_SHORT_PROMPT = 16
"""Tokens of the shortest prompt that is measured beside as many single tokens."""
_PROMPT = 512
"""Tokens of a prompt; a larger prefill step is of several."""
_CONTEXT = 256
"""KV tokens of a decode row that are wanted: rather than having them longer, there are more rows."""
_LONGEST_CONTEXT = 2_048
_TABLE_SHARE, _CONTEXT_SHARE = 0.4, 0.9
"""Of the time, after which the table, and then steps over a context, are done with."""
_FILLING_SHARE = 0.25
"""Of the time that making a context may take."""
_LONGEST_SHARE = 0.01
"""Of the time that the largest step may take, unless it is of the token budget."""


class Kind(StrEnum):
    """What a measured step was."""

    TABLE = "table"
    """Without context: single tokens up to the largest decode batch, prompts beyond."""
    PROMPT = "prompt"
    """A prompt of no more tokens than the largest decode batch has: the same tokens, of which one is sampled."""
    DECODE = "decode"
    CHUNK = "chunk"
    """Prefill of sequences that have a context."""
    MIXED = "mixed"
    """Decode rows and a prompt."""


@dataclass(slots=True)
class Measurements:
    """Everything that was measured."""

    steps: dict[Kind, list[ExecutedStep]] = field(
        default_factory=lambda: {kind: [] for kind in Kind}
    )
    latencies: Latencies = field(default_factory=Latencies)


class Profiling:
    """One profile of a pipeline.

    Args:
        pipeline: started, without steps in flight; no other steps must follow.
        token_budget: batch tokens of a micro-batch with prefill.
        seconds: that measuring takes; a little more on slow pipelines.
        progress: told what is going on, line by line.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        token_budget: int,
        seconds: float,
        progress: Callable[[str], None],
    ) -> None:
        room = pipeline.capacity
        self._room = room
        self._stages = pipeline.stages
        self._steps = SyntheticSteps(pipeline)
        self._budget = token_budget
        self._seconds = seconds
        self._progress = progress
        self._measured = Measurements()
        self._rows = max(1, min(room.slots // pipeline.stages, room.blocks))
        """Of a decode step at most."""
        self._prompt = min(_PROMPT, room.max_context - 1, room.blocks * room.block_size)
        prompts = min(room.slots, room.blocks // -(-self._prompt // room.block_size))
        self._fitting = prompts * self._prompt
        """Batch tokens of a step of prompts at most."""
        self._longest = min(self._fitting, token_budget)

    def run(self) -> Measurements:
        """Measure table, context and latencies, one after the other.

        Raises:
            PipelineError: the pipeline failed.
        """
        began = time.monotonic()
        self._warm_up()
        self._progress("measuring steps without context")
        self._measure_table(began + _TABLE_SHARE * self._seconds)
        self._progress("measuring steps over a context")
        self._measure_context(began + _CONTEXT_SHARE * self._seconds)
        self._progress("measuring messages")
        sizes = [size for size in doubling(1, self._longest)[::2] if size <= self._budget]
        self._measured.latencies = measure_latencies(
            self._steps, self._stages, [self._fresh(size) for size in sizes], began + self._seconds
        )
        return self._measured

    def _warm_up(self) -> None:
        """Let kernels be made or chosen by size, and see how large steps may be."""
        for tokens in (1, self._rows, self._longest):
            self._steps.run(*self._fresh(tokens))
        seconds = max(self._steps.run(*self._fresh(self._longest)).busy)
        if seconds * _LONGEST / self._longest <= _LONGEST_SHARE * self._seconds:
            self._longest = min(self._fitting, max(_LONGEST, self._longest))

    def _measure_table(self, end: float) -> None:
        edges = {p + off for p in doubling(1, self._longest) for off in (-1, 0, 1)}
        table = TableRefinement()
        points = sorted(each for each in edges if 1 <= each <= self._longest)
        prompts = doubling(_SHORT_PROMPT, min(self._rows, self._prompt))
        for number in range(_PASSES):
            limit = end if number else None
            self._pass_over(table, points, limit)
            steps = ((self._steps.prefill(range(1), tokens),) for tokens in prompts)
            list(self._observe(Kind.PROMPT, steps, limit))
        while time.monotonic() < end and (points := table.middles()):
            for _ in range(_PASSES):
                self._pass_over(table, points, end)
        for _ in range(_MOST_PASSES - _PASSES):
            self._pass_over(table, sorted(table.times), end)
        self._progress(f"{len(table.times)} token counts from 1 to {self._longest}")

    def _pass_over(self, table: TableRefinement, points: Sequence[int], end: float | None) -> None:
        """Measure each point's step once, as far as time allows."""
        for each in self._observe(Kind.TABLE, (self._fresh(tokens) for tokens in points), end):
            table.add(each.step.tokens, each.busy)

    def _fresh(self, tokens: int) -> tuple[Rows, ...]:
        """A step of so many tokens of new sequences."""
        if tokens <= self._rows:
            return (self._steps.prefill(range(tokens), 1),)
        whole, rest = divmod(tokens, self._prompt)
        rows = []
        if whole:
            rows.append(self._steps.prefill(range(whole), self._prompt))
        if rest:
            block = whole * -(-self._prompt // self._room.block_size)
            rows.append(self._steps.prefill(range(whole, whole + 1), rest, first_block=block))
        return tuple(rows)

    def _measure_context(self, end: float) -> None:
        grid = self._context_grid()
        if grid is None:
            self._progress("no room for a context")
            return
        reached = 0
        contexts = sorted({max(grid.context // 4, 1), grid.context})
        for number, context in enumerate(contexts):
            # Without an end: rows must have the context that decode steps read.
            filling = self._observe(None, self._fill(grid, reached, context), None)
            self._measured.steps[Kind.CHUNK] += [each for each in filling if each.step.first[0]]
            now = time.monotonic()
            share = now + (end - now) / (len(contexts) - number)
            for again in range(_MOST_PASSES):
                limit = share if again else None
                list(self._observe(Kind.DECODE, self._decode(grid, context), limit))
                list(self._observe(Kind.MIXED, self._mixed(grid, context), limit))
            reached = context
        self._progress(f"decode of up to {grid.rows} rows with {reached} tokens of context each")

    def _context_grid(self) -> _Grid | None:
        room, groups = self._room, self._stages
        prompt_blocks = -(-min(self._budget, self._prompt) // room.block_size)
        blocks = room.blocks - prompt_blocks
        rate = max(each.step.tokens / max(each.busy) for each in self._measured.steps[Kind.TABLE])
        affordable = int(_FILLING_SHARE * self._seconds * rate)
        rows = min(
            self._rows,
            (room.slots - 1) // groups,
            blocks // groups,
            max(1, affordable // groups // _CONTEXT),
        )
        if rows < 1:
            return None
        context = min(
            _LONGEST_CONTEXT,
            room.max_context - 2,
            blocks // (groups * rows) * room.block_size - 1,
            max(room.block_size, affordable // groups // rows),
        )
        return _Grid(groups, rows, context, room.block_size) if context >= 1 else None

    def _fill(self, grid: _Grid, reached: int, context: int) -> Iterator[tuple[Rows, ...]]:
        """Brings all rows' contexts from `reached` to `context` tokens, in steps of about the token budget."""
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
        most = min(self._budget - grid.rows, self._prompt)
        for prompt in sorted({most // 4, most} - {0}):
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
        self, kind: Kind | None, steps: Iterable[tuple[Rows, ...]], end: float | None
    ) -> Iterator[ExecutedStep]:
        """Execute steps with all stages busy, until `end`; what they took is kept under `kind`."""

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
    """Sequences with a context: a group for each micro-batch in flight."""

    groups: int
    rows: int
    """Of each group."""
    context: int
    """KV tokens of each row in the end."""
    block_size: int

    @property
    def row_blocks(self) -> int:
        return -(-(self.context + 1) // self.block_size)

    def decode(self, group: int, rows: int, context: int) -> Rows:
        """A decode step of the first so many rows of a group."""
        first = group * self.rows
        return Rows(range(first, first + rows), context, 1)
