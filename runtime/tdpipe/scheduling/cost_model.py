"""What a step costs, in seconds of each stage.

A stage's time is a table over batch tokens (matrix products grow in steps, not linearly), plus a price for each KV
token read and for each token sampled, which the last stage pays for its head. Everything that compares times uses this
model, so that all times are comparable.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from tdpipe.core.profile import Profile
    from tdpipe.core.step import BoolArray, FloatArray, IntArray, Step


CHUNK_TILE = 128
"""Number of tokens of a chunk that together read the earlier KV once, where that was not measured."""
_MAX_TABULATED_TOKENS = 4096
"""Number of batch tokens up to which times are looked up instead of interpolated."""


@dataclass(frozen=True, slots=True)
class StageCost:
    """The time that one stage takes.

    Between the points of the table the time is interpolated; beyond the last one it grows at the seconds per token of
    that point.
    """

    table_tokens: IntArray
    """[points] batch tokens, ascending."""
    table_seconds: FloatArray
    """[points] seconds for so many batch tokens."""
    per_context: float = 0.0
    """Seconds per KV token read."""
    per_sampled: float = 0.0
    """Seconds per token sampled."""

    def seconds(
        self, tokens: FloatArray, context: FloatArray, sampled: FloatArray | IntArray | float = 0.0
    ) -> FloatArray:
        """Return [n] seconds of n batches, given their [n] tokens, KV tokens read and tokens sampled."""
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
        """Return whether every step takes at least as long as on `other`."""
        if self.per_context < other.per_context or self.per_sampled < other.per_sampled:
            return False
        # Both are linear between these points, and proportional to the tokens beyond their last one.
        points = np.union1d(self.table_tokens, other.table_tokens).astype(np.float64)
        no_context = np.zeros_like(points)
        return bool((self.seconds(points, no_context) >= other.seconds(points, no_context)).all())


@dataclass(frozen=True, slots=True)
class MixingCost:
    """What a micro-batch costs in addition if it holds both prefill and decode; by default nothing."""

    seconds: float = 0.0
    """Seconds that each stage takes longer: a CUDA graph is not replayed, a second attention kernel runs."""
    decode_context: float = 1.0
    """Factor on the time for reading KV, which mixed attention kernels read more slowly."""


class CostModel:
    """The costs of all stages; a step takes as long as its slowest stage.

    Args:
        stages: cost of each stage, first to last.
        mixing: what is added where prefill and decode share a step.
        chunk_tile: number of tokens of a prefill chunk that together read the sequence's earlier KV once (see
            `kv_reads`).
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
        # Policies ask for hundreds of batch sizes per step, so these are looked up instead of interpolated.
        counts = np.arange(_MAX_TABULATED_TOKENS + 1, dtype=np.float64)
        self._slowest_stages = _find_slowest_stages(stages)
        slowest = self._slowest_stages.values()
        self._by_stage = [s.seconds(counts, np.zeros_like(counts)) for s in stages]
        self._table = np.stack([self._by_stage[number] for number in self._slowest_stages])
        self._per_context = np.array([[s.per_context] for s in slowest])
        self._per_sampled = np.array([[s.per_sampled] for s in slowest])
        self._table_sampled = self._table + self._per_sampled * counts
        self.ascends = all(each.ascends for each in slowest)
        """Whether more tokens never take less time, if no fewer are sampled and no less KV is read."""

    def step_seconds(
        self,
        tokens: IntArray,
        context: IntArray | FloatArray,
        mixed: BoolArray | None = None,
        sampled: IntArray | FloatArray | None = None,
    ) -> FloatArray:
        """Return [n] seconds of the slowest stage for n batches of `tokens` tokens that read `context` KV tokens.

        Args:
            tokens: [n] batch tokens.
            context: [n] KV tokens read.
            mixed: [n] whether prefill and decode share the batch; None if no batch is mixed.
            sampled: [n] tokens sampled; None if every token is, as in decode.
        """
        table = self._table_seconds(tokens, sampled)
        if mixed is None:
            times = table + self._per_context * context
        else:
            factor = np.where(mixed, self.mixing.decode_context, 1.0)
            times = table + self._per_context * context * factor + mixed * self.mixing.seconds
        longest: FloatArray = times[0] if len(times) == 1 else times.max(axis=0)
        return longest

    def stage_seconds(self, step: Step) -> tuple[float, ...]:
        """Return [stages] seconds of a step, from its rows."""
        tokens, sampled = step.tokens, int(np.count_nonzero(step.sample))
        context, extra = kv_reads(step.first, step.counts, self.chunk_tile), 0.0
        prefills = tokens > sampled
        if prefills and ((step.counts == 1) & step.sample).any():
            context *= self.mixing.decode_context
            extra = self.mixing.seconds
        return tuple(
            self._stage_table_seconds(stage, tokens)
            + cost.per_context * context
            + cost.per_sampled * sampled
            + extra
            for stage, cost in enumerate(self.stages)
        )

    def step_time(self, tokens: int, context: float, sampled: int | None = None) -> float:
        """Return the seconds of the slowest stage for one batch that is not mixed.

        Args:
            tokens: number of batch tokens.
            context: number of KV tokens read.
            sampled: number of tokens sampled; None if every token is, as in decode.
        """
        sampled = tokens if sampled is None else sampled
        return max(
            self._stage_table_seconds(stage, tokens)
            + cost.per_context * context
            + cost.per_sampled * sampled
            for stage, cost in self._slowest_stages.items()
        )

    def _table_seconds(self, tokens: IntArray, sampled: IntArray | FloatArray | None) -> FloatArray:
        """Return [stages that may be the slowest, n] seconds without the reading of KV."""
        try:
            if sampled is None:
                return self._table_sampled.take(tokens, axis=1)
            table: FloatArray = self._table.take(tokens, axis=1) + self._per_sampled * sampled
        except IndexError:  # above `_MAX_TABULATED_TOKENS`
            counts = tokens.astype(np.float64)
            many = counts if sampled is None else sampled
            return np.stack(
                [
                    s.seconds(counts, np.zeros_like(counts), many)
                    for s in self._slowest_stages.values()
                ]
            )
        return table

    def _stage_table_seconds(self, stage: int, tokens: int) -> float:
        if tokens <= _MAX_TABULATED_TOKENS:
            return float(self._by_stage[stage][tokens])
        return float(self.stages[stage].seconds(np.array([tokens]), np.zeros(1))[0])


def _find_slowest_stages(stages: tuple[StageCost, ...]) -> dict[int, StageCost]:
    """Return the stages, by number, of which one is the slowest in any step.

    A stage is left out if another one is never faster.
    """
    kept: dict[int, StageCost] = {}
    for number, each in enumerate(stages):
        if not any(other.never_faster(each) for other in kept.values()):
            kept = {at: other for at, other in kept.items() if not each.never_faster(other)}
            kept[number] = each
    return kept


def kv_reads(first: IntArray, counts: IntArray, tile: int) -> float:
    """Return the number of KV tokens that the rows of a step read in all (see `row_kv_reads`)."""
    if (counts <= tile).all():
        return float(first.sum())
    return float(row_kv_reads(first, counts, tile).sum())


def row_kv_reads(first: IntArray, counts: IntArray, tile: int) -> FloatArray:
    """Return [rows] KV tokens that each row reads: for each tile of a row, all that its sequence has before that tile.

    Args:
        first: [rows] position of each row's first token.
        counts: [rows] number of tokens.
        tile: number of tokens that an attention kernel takes at once.
    """
    tiles = -(-counts.astype(np.float64) // tile)
    reads: FloatArray = tiles * first + tile * tiles * (tiles - 1.0) / 2.0
    return reads


def proportional_cost(stages: int, fixed: float = 1e-3, per_token: float = 1e-5) -> CostModel:
    """Return a cost model of a fixed time and a time per token, for where nothing was measured."""
    points = np.array([1, 1024], dtype=np.int32)
    stage = StageCost(points, fixed + per_token * points.astype(np.float64), per_token / 100)
    return CostModel((stage,) * stages)


def profiled_cost(profile: Profile) -> CostModel:
    """Return what steps cost on the pipeline that a profile was measured on."""
    stages = tuple(
        StageCost(
            np.array(stage.tokens, dtype=np.int32),
            np.array(stage.seconds, dtype=np.float64),
            stage.per_kv_token,
            stage.per_sampled_token,
        )
        for stage in profile.stages
    )
    mixing = MixingCost(profile.mixing.seconds, profile.mixing.decode_context)
    return CostModel(stages, mixing, profile.chunk_tile)
