"""What a step costs, in seconds of each stage.

Stage time = a table over batch tokens (matrix products go in steps, not in a line) + KV tokens read + tokens sampled,
which cost the last stage its head. A row reads what its sequence had before the step, and a long one its own earlier
tokens, too. Everything that compares times uses this, so that all of it is in one unit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from tdpipe.core.step import BoolArray, FloatArray, IntArray, Step


CHUNK_TILE = 128
"""Tokens of a chunk that read earlier KV once, where that was not measured."""
_ONE_IN_TWENTY = 1.64
"""Standard deviations above the mean that a normal variable exceeds so often."""
_DENSE = 4096
"""Batch tokens up to which times are looked up."""


@dataclass(frozen=True, slots=True)
class Observation:
    """One executed step, as the cost model is fitted from."""

    tokens: int
    """Batch tokens."""
    context: int
    """KV tokens that were read (see `kv_reads`)."""
    sampled: int
    """Tokens that were sampled."""
    seconds: tuple[float, ...]
    """[stages] busy time."""


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
        self._dense = np.stack([s.seconds(known, np.zeros_like(known)) for s in stages])
        self._per_context = np.array([[s.per_context] for s in stages])
        self._per_sampled = np.array([[s.per_sampled] for s in stages])
        self._dense_sampled = self._dense + self._per_sampled * known

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
        slowest: FloatArray = times.max(axis=0)
        return slowest

    def stage_seconds(self, step: Step) -> tuple[float, ...]:
        """[stages] seconds of a step, from its rows."""
        context, extra = kv_reads(step.first, step.counts, self.chunk_tile), 0.0
        decode = (step.counts == 1) & step.sample
        if decode.any() and not decode.all():
            context = self.mixing.decode_context * context
            extra = self.mixing.seconds
        tokens, sampled = step.tokens, int(np.count_nonzero(step.sample))
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
            for stage, cost in enumerate(self.stages)
        )

    def _tables(self, tokens: IntArray, sampled: IntArray | FloatArray | None) -> FloatArray:
        """[stages, n] seconds without context."""
        if len(tokens) and int(tokens.max()) > _DENSE:
            counts = tokens.astype(np.float64)
            many = counts if sampled is None else sampled
            return np.stack([s.seconds(counts, np.zeros_like(counts), many) for s in self.stages])
        if sampled is None:
            known: FloatArray = self._dense_sampled[:, tokens]
            return known
        table: FloatArray = self._dense[:, tokens] + self._per_sampled * sampled
        return table

    def _table(self, stage: int, tokens: int) -> float:
        if tokens <= _DENSE:
            return float(self._dense[stage, tokens])
        return float(self.stages[stage].seconds(np.array([tokens]), np.zeros(1))[0])


def kv_reads(first: IntArray, counts: IntArray, tile: int) -> float:
    """KV tokens that all of a step's rows read (see `row_kv_reads`)."""
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


def fit_cost(observations: list[Observation]) -> CostModel:
    """Fit each stage's table, seconds per KV token and seconds per sampled token to measured steps.

    What a KV token costs is taken from steps that are equal but for the KV they read, what a sampled token costs the
    last stage from steps that are equal but for that and for how many are sampled. Each is 0 where the steps do not
    clearly differ: noise would be multiplied by a long context. Steps whose time depends most on it say most about it.
    The table takes the median time of each token count with both taken off, made to ascend.

    Raises:
        ValueError: there is no observation.
    """
    if not observations:
        raise ValueError("no observation to fit from")
    stages = len(observations[0].seconds)
    last = stages - 1
    return CostModel(
        tuple(_fit_stage(observations, each, samples=each == last) for each in range(stages))
    )


def _fit_stage(observations: list[Observation], stage: int, *, samples: bool) -> StageCost:
    tokens = np.array([o.tokens for o in observations], dtype=np.float64)
    context = np.array([o.context for o in observations], dtype=np.float64)
    sampled = np.array([o.sampled for o in observations], dtype=np.float64)
    seconds = np.array([o.seconds[stage] for o in observations])
    per_context = _price(context, seconds, (tokens, sampled))
    base = seconds - per_context * context
    per_sampled = _price(sampled, base, (tokens,)) if samples else 0.0
    base = base - per_sampled * sampled
    points, counts = np.unique(tokens, return_counts=True)
    usual = [max(1e-7, float(np.median(base[tokens == point]))) for point in points]
    table = _ascending(usual, counts.tolist())
    return StageCost(points.astype(np.int32), table, per_context, per_sampled)


def _ascending(values: list[float], weights: list[int]) -> FloatArray:
    """The nearest values that ascend: where one is above the next, both become their mean, and so on."""
    pools: list[tuple[float, int, int]] = []
    for value, weight in zip(values, weights, strict=True):
        mean, total, count = value, weight, 1
        while pools and pools[-1][0] > mean:
            before, heavy, several = pools.pop()
            mean = (mean * total + before * heavy) / (total + heavy)
            total, count = total + heavy, count + several
        pools.append((mean, total, count))
    return np.repeat([mean for mean, _, _ in pools], [count for _, _, count in pools])


def _deviation(pairs: IntArray) -> float:
    """Standard deviation of the share of [n, 2] pairs of steps whose first one is the slower, if that is chance.

    Mann and Whitney's, for two groups that make so many pairs. Pairs within several token counts are taken for those of
    one comparison: a machine that drifts slows steps of all counts alike, so each tells less than if it were alone.
    """
    first, second = (len(np.unique(side)) for side in pairs.T)
    ratio = math.sqrt(first / second)
    groups = math.sqrt(len(pairs)) * (ratio + 1.0 / ratio)
    return math.sqrt((groups + 1.0) / (12.0 * len(pairs)))


def _price(amount: FloatArray, seconds: FloatArray, alike: tuple[FloatArray, ...]) -> float:
    """Seconds that each unit of `amount` costs, from steps that agree in all of `alike`.

    Each pair of a step with much and one with little of it gives a slope; of those in which it weighs most beside the
    time, the median bears steps that were held up. 0 unless more of these are above it than chance would lift there in
    one of twenty cases (the rank-sum test): a price out of noise would be multiplied by a long context.
    """
    slopes, weights, pairs = [np.zeros(0)], [np.zeros(0)], [np.zeros((0, 2), dtype=np.int32)]
    keys = np.stack(alike, axis=1)
    for key in np.unique(keys, axis=0):
        steps = np.flatnonzero((keys == key).all(axis=1))
        here, times = amount[steps], seconds[steps]
        much = here > here.max() / 2
        reach = here[much][:, None] - here[~much]
        slopes.append(((times[much][:, None] - times[~much]) / reach).ravel())
        weights.append((reach / np.median(times)).ravel())
        grid = np.meshgrid(steps[much], steps[~much], indexing="ij")
        pairs.append(np.stack([each.ravel() for each in grid], axis=1).astype(np.int32))
    weight = np.concatenate(weights)
    if not len(weight):
        return 0.0
    tells = weight >= weight.max() / 2
    telling, sides = np.concatenate(slopes)[tells], np.concatenate(pairs)[tells]
    slower = np.count_nonzero(telling > 0.0) / len(telling)
    clear = slower >= 0.5 + _ONE_IN_TWENTY * _deviation(sides)
    return float(np.median(telling)) if clear else 0.0
