"""What a step costs, in seconds of each stage.

Stage time = a table over batch tokens (matrix products go in steps, not in a line) + KV tokens read + tokens sampled,
which cost the last stage its head. A row reads what its sequence had before the step, and a long one its own earlier
tokens, too. Everything that compares times uses this, so that all of it is in one unit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from tdpipe.core.step import BoolArray, FloatArray, IntArray, Step


CHUNK_TILE = 128
"""Tokens of a chunk that read earlier KV once, where that was not measured."""
_DENSE = 4096
"""Batch tokens up to which times are looked up."""


@dataclass(frozen=True, slots=True)
class StageCost:
    """One stage's time.

    `table_tokens` ascends; between its points the time is interpolated, beyond the last one it grows at the last
    point's seconds per token.
    """

    table_tokens: IntArray
    table_seconds: FloatArray
    per_context: float = 0.0
    """Seconds per KV token read."""
    per_sampled: float = 0.0
    """Seconds per token sampled."""

    def seconds(
        self, tokens: FloatArray, context: FloatArray, sampled: FloatArray | IntArray | float = 0.0
    ) -> FloatArray:
        """[n] seconds for [n] batches of `tokens` that read `context` KV tokens and sample `sampled` tokens."""
        inside = np.interp(tokens, self.table_tokens, self.table_seconds)
        last = float(self.table_tokens[-1])
        rate = float(self.table_seconds[-1]) / last
        beyond = np.maximum(tokens - last, 0.0) * rate
        variable = self.per_context * context + self.per_sampled * sampled
        return np.asarray(inside + beyond + variable, dtype=np.float64)

    @property
    def ascends(self) -> bool:
        """Whether more tokens never take less time, if no fewer are sampled and no less KV is read."""
        prices = min(self.per_context, self.per_sampled)
        return prices >= 0.0 and bool((np.diff(self.table_seconds) >= 0.0).all())

    def never_faster(self, other: StageCost) -> bool:
        """Whether every step takes at least as long as on `other`."""
        if self.per_context < other.per_context or self.per_sampled < other.per_sampled:
            return False
        # Both are straight between these points; beyond, each grows from 0 through the last one.
        points = np.union1d(self.table_tokens, other.table_tokens).astype(np.float64)
        nothing = np.zeros_like(points)
        return bool((self.seconds(points, nothing) >= other.seconds(points, nothing)).all())


@dataclass(frozen=True, slots=True)
class MixingCost:
    """What a micro-batch pays for holding both prefill and decode. The default is nothing."""

    seconds: float = 0.0
    """Of each stage: a CUDA graph that is not replayed, a second attention kernel."""
    decode_context: float = 1.0
    """Factor on the reading of KV: mixed attention kernels read it more slowly."""


class CostModel:
    """The stages' costs; a step takes as long as the slowest stage.

    Args:
        stages: their costs, first to last.
        mixing: what is added where prefill and decode share a step.
        chunk_tile: tokens of a prefill chunk that read the sequence's earlier KV once (see `kv_reads`).
    """

    def __init__(
        self,
        stages: tuple[StageCost, ...],
        mixing: MixingCost | None = None,
        chunk_tile: int = CHUNK_TILE,
    ) -> None:
        self.stages = stages
        self.mixing = mixing or MixingCost()
        self.chunk_tile = chunk_tile
        # Policies ask for hundreds of batch sizes a step: look these up instead of interpolating.
        known = np.arange(_DENSE + 1, dtype=np.float64)
        self._deciding = _ever_slowest(stages)
        slow = self._deciding.values()
        self._by_stage = [s.seconds(known, np.zeros_like(known)) for s in stages]
        self._dense = np.stack([self._by_stage[each] for each in self._deciding])
        self._per_context = np.array([[s.per_context] for s in slow])
        self._per_sampled = np.array([[s.per_sampled] for s in slow])
        self._dense_sampled = self._dense + self._per_sampled * known
        self.ascends = all(each.ascends for each in slow)
        """Whether more tokens never take less time, if no fewer are sampled and no less KV is read."""

    def step_seconds(
        self,
        tokens: IntArray,
        context: IntArray | FloatArray,
        mixed: BoolArray | None = None,
        sampled: IntArray | FloatArray | None = None,
    ) -> FloatArray:
        """[n] seconds of the slowest stage for [n] batches of `tokens` that read `context` KV tokens.

        Args:
            tokens: [n] batch tokens.
            context: [n] KV tokens read.
            mixed: [n] whether prefill and decode share the batch; None is nowhere.
            sampled: [n] tokens sampled; None is all of them, as in decode.
        """
        table = self._tables(tokens, sampled)
        if mixed is None:
            times = table + self._per_context * context
        else:
            factor = np.where(mixed, self.mixing.decode_context, 1.0)
            times = table + self._per_context * context * factor + mixed * self.mixing.seconds
        slowest: FloatArray = times[0] if len(times) == 1 else times.max(axis=0)
        return slowest

    def stage_seconds(self, step: Step) -> tuple[float, ...]:
        """[stages] seconds of a step, from its rows."""
        tokens, sampled = step.tokens, int(np.count_nonzero(step.sample))
        context, extra = kv_reads(step.first, step.counts, self.chunk_tile), 0.0
        prefills = tokens > sampled
        if prefills and ((step.counts == 1) & step.sample).any():
            context *= self.mixing.decode_context
            extra = self.mixing.seconds
        return tuple(
            self._table(stage, tokens)
            + cost.per_context * context
            + cost.per_sampled * sampled
            + extra
            for stage, cost in enumerate(self.stages)
        )

    def step_time(self, tokens: int, context: float, sampled: int | None = None) -> float:
        """Seconds of the slowest stage for one batch of one kind; without `sampled` every token is, as in decode."""
        sampled = tokens if sampled is None else sampled
        return max(
            self._table(stage, tokens) + cost.per_context * context + cost.per_sampled * sampled
            for stage, cost in self._deciding.items()
        )

    def _tables(self, tokens: IntArray, sampled: IntArray | FloatArray | None) -> FloatArray:
        """[n] seconds without context of each stage that may be the slowest."""
        try:
            if sampled is None:
                return self._dense_sampled.take(tokens, axis=1)
            table: FloatArray = self._dense.take(tokens, axis=1) + self._per_sampled * sampled
        except IndexError:  # over `_DENSE`
            counts = tokens.astype(np.float64)
            many = counts if sampled is None else sampled
            return np.stack(
                [s.seconds(counts, np.zeros_like(counts), many) for s in self._deciding.values()]
            )
        return table

    def _table(self, stage: int, tokens: int) -> float:
        if tokens <= _DENSE:
            return float(self._by_stage[stage][tokens])
        return float(self.stages[stage].seconds(np.array([tokens]), np.zeros(1))[0])


def _ever_slowest(stages: tuple[StageCost, ...]) -> dict[int, StageCost]:
    """The stages by number, but for those that another one is never faster than: one of these decides each step."""
    kept: dict[int, StageCost] = {}
    for number, each in enumerate(stages):
        if not any(other.never_faster(each) for other in kept.values()):
            kept = {at: other for at, other in kept.items() if not each.never_faster(other)}
            kept[number] = each
    return kept


def kv_reads(first: IntArray, counts: IntArray, tile: int) -> float:
    """KV tokens that all of a step's rows read (see `row_kv_reads`)."""
    if (counts <= tile).all():
        return float(first.sum())
    return float(row_kv_reads(first, counts, tile).sum())


def row_kv_reads(first: IntArray, counts: IntArray, tile: int) -> FloatArray:
    """[rows] KV tokens that rows read: for each tile of a row, all that its sequence has before that tile.

    Args:
        first: [rows] position of each row's first token.
        counts: [rows] tokens.
        tile: tokens that an attention kernel takes at once.
    """
    tiles = -(-counts.astype(np.float64) // tile)
    reads: FloatArray = tiles * first + tile * tiles * (tiles - 1.0) / 2.0
    return reads


def proportional_cost(stages: int, fixed: float = 1e-3, per_token: float = 1e-5) -> CostModel:
    """A cost model of a fixed time and a time per token, where nothing was measured."""
    points = np.array([1, 1024], dtype=np.int32)
    stage = StageCost(points, fixed + per_token * points.astype(np.float64), per_token / 100)
    return CostModel((stage,) * stages)
