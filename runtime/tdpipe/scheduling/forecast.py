"""Forecasts how many KV blocks sequences will need at each future decode step.

TD-Pipe's greedy prefill admits against this forecast. Output lengths are distributions, so the forecast has a mean and
a variance. A sequence that has outlived all its predicted lengths is expected to generate half as much again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from tdpipe.core.step import FloatArray, IntArray
    from tdpipe.scheduling.sequence import Sequence

FloatGrid = np.ndarray[tuple[int, int], np.dtype[np.float64]]

_CONSECUTIVE_POINTS = 64
"""Number of steps ahead up to which each step is a point of the grid."""
_GRID_GROWTH = 1.08
"""Ratio of two neighbouring points beyond these."""


@dataclass(frozen=True, slots=True)
class Demand:
    """[points] number of blocks needed at each point of the forecast's grid."""

    mean: FloatArray
    variance: FloatArray


@dataclass(frozen=True, slots=True)
class Demands:
    """[n, points] demands of n sequences or sets of sequences, one row each."""

    mean: FloatGrid
    variance: FloatGrid

    def after(self, demand: Demand) -> Demands:
        """Return the sums of `demand` and the first i + 1 rows, for each row i."""
        return Demands(
            np.cumsum(self.mean, axis=0) + demand.mean,
            np.cumsum(self.variance, axis=0) + demand.variance,
        )

    def peaks(self, margin: float) -> FloatArray:
        """Return [n] the maximum over all points of the mean plus `margin` standard deviations."""
        highest: FloatArray = (self.mean + margin * np.sqrt(self.variance)).max(axis=1)
        return highest

    def at(self, row: int) -> Demand:
        """Return one row."""
        return Demand(self.mean[row], self.variance[row])

    def total(self) -> Demand:
        """Return the sum of all rows."""
        return Demand(self.mean.sum(axis=0), self.variance.sum(axis=0))


def _grid(horizon: int) -> IntArray:
    points = list(range(min(_CONSECUTIVE_POINTS, horizon + 1)))
    while points[-1] < horizon:
        points.append(min(horizon, int(points[-1] * _GRID_GROWTH) + 1))
    return np.array(points, dtype=np.int32)


class KVForecast:
    """Forecasts the demand of sequences over the decode steps from now.

    Args:
        horizon: number of steps ahead, at most the longest context.
        block_size: number of tokens in a block.
        skew: number of steps by which sequences may be ahead of or behind each other, so that a lock-step forecast
            stays an upper bound in a pipeline.
    """

    def __init__(self, horizon: int, block_size: int, skew: int = 2) -> None:
        self.steps = _grid(horizon)
        self._block_size = block_size
        self._skew = skew
        ahead = np.arange(horizon + 1, dtype=np.int32)
        self._end = np.searchsorted(self.steps, ahead + skew, side="right")
        """[horizon + 1] first point at which a sequence that ends that many steps ahead holds no KV."""

    def nothing(self) -> Demand:
        """Return a demand of zero."""
        return Demand(np.zeros(len(self.steps)), np.zeros(len(self.steps)))

    def of_waiting(self, sequences: list[Sequence]) -> Demands:
        """Return the demand of each sequence if it were prefilled now."""
        length = np.array([s.length + 1 for s in sequences], dtype=np.int32)
        generated = np.array([len(s.generated) + 1 for s in sequences], dtype=np.int32)
        max_tokens = np.array([s.request.max_tokens for s in sequences], dtype=np.int32)
        return self._each(length, generated, max_tokens, np.stack([s.outcomes for s in sequences]))

    def of_running(
        self, length: IntArray, generated: IntArray, max_tokens: IntArray, outcomes: IntArray
    ) -> Demand:
        """Return the summed demand of n running sequences.

        Args:
            length: [n] known tokens of prompt and output.
            generated: [n] output tokens.
            max_tokens: [n] largest number of output tokens.
            outcomes: [n, outcomes] equally likely output lengths.
        """
        if not len(length):
            return self.nothing()
        return self._each(length, generated, max_tokens, outcomes).total()

    def _each(
        self, length: IntArray, generated: IntArray, max_tokens: IntArray, outcomes: IntArray
    ) -> Demands:
        points = len(self.steps)
        left = outcomes - generated[:, None]
        possible: np.ndarray[tuple[int, int], np.dtype[np.bool_]] = np.asarray(left >= 0)
        outlived = np.logical_not(possible.any(axis=1))
        if outlived.any():
            more = np.minimum(generated // 2 + 1, max_tokens - generated)
            left = np.where(outlived[:, None], np.maximum(more, 0)[:, None], left)
            possible = possible | outlived[:, None]
        weights = possible / possible.sum(axis=1, keepdims=True)
        ends = self._end.take(left, mode="clip")
        rows = np.arange(len(length))[:, None] * (points + 1)
        ending = np.bincount(
            (rows + ends).ravel(), weights=weights.ravel(), minlength=len(length) * (points + 1)
        ).reshape(len(length), points + 1)
        # The rest is computed in place, because a new array of this size costs more than the computation.
        ended: FloatGrid = np.asarray(ending[:, :points], dtype=np.float64)
        np.cumsum(ended, axis=1, out=ended)
        np.minimum(ended, 1.0, out=ended)
        max_length = length + max_tokens - generated
        blocks = length[:, None] + (self.steps + (self._skew - 1))
        np.minimum(blocks, max_length[:, None], out=blocks)
        blocks += self._block_size - 1
        blocks //= self._block_size
        mean: FloatGrid = (1.0 - ended) * blocks
        ended *= mean
        ended *= blocks
        return Demands(mean, ended)
