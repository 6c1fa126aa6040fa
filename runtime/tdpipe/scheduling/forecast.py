"""How many KV blocks the sequences at hand will need at each future decode step.

The greedy prefill of TD-Pipe admits against this. Lengths are distributions, so the forecast has a mean and, from the
variance of the sum, a margin; a sequence that outlived all its predicted lengths is given half as much again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from tdpipe.core.step import FloatArray, IntArray
    from tdpipe.scheduling.sequence import Sequence

FloatGrid = np.ndarray[tuple[int, int], np.dtype[np.float64]]

_DENSE = 64
_GROWTH = 1.08


@dataclass(frozen=True, slots=True)
class Demand:
    """Blocks wanted at each point of the forecast's grid."""

    mean: FloatArray
    variance: FloatArray


@dataclass(frozen=True, slots=True)
class Demands:
    """[n, points] demands, one row each."""

    mean: FloatGrid
    variance: FloatGrid

    def after(self, demand: Demand) -> Demands:
        """Row i is `demand` and the first i + 1 rows together."""
        return Demands(
            np.cumsum(self.mean, axis=0) + demand.mean,
            np.cumsum(self.variance, axis=0) + demand.variance,
        )

    def peaks(self, margin: float) -> FloatArray:
        """[n] largest mean plus `margin` standard deviations over all points."""
        highest: FloatArray = (self.mean + margin * np.sqrt(self.variance)).max(axis=1)
        return highest

    def at(self, row: int) -> Demand:
        """One row."""
        return Demand(self.mean[row], self.variance[row])

    def total(self) -> Demand:
        """All rows together."""
        return Demand(self.mean.sum(axis=0), self.variance.sum(axis=0))


def _grid(horizon: int) -> IntArray:
    points = list(range(min(_DENSE, horizon + 1)))
    while points[-1] < horizon:
        points.append(min(horizon, int(points[-1] * _GROWTH) + 1))
    return np.array(points, dtype=np.int32)


class KVForecast:
    """Demand of sequences over decode steps from now.

    Args:
        horizon: steps ahead, at most the longest context.
        block_size: tokens in a block.
        skew: steps by which sequences may be ahead of or behind each other, so that a lock-step forecast stays an
            upper bound in a pipeline.
    """

    def __init__(self, horizon: int, block_size: int, skew: int = 2) -> None:
        self.steps = _grid(horizon)
        self._block_size = block_size
        self._skew = skew
        ahead = np.arange(horizon + 1, dtype=np.int32)
        self._end = np.searchsorted(self.steps, ahead + skew, side="right")
        """[horizon + 1] the grid's first point at which a sequence that ends so many steps ahead is over."""

    def nothing(self) -> Demand:
        """No demand."""
        return Demand(np.zeros(len(self.steps)), np.zeros(len(self.steps)))

    def of_waiting(self, sequences: list[Sequence]) -> Demands:
        """Each sequence's demand, were it prefilled now."""
        length = np.array([s.length + 1 for s in sequences], dtype=np.int32)
        generated = np.array([len(s.generated) + 1 for s in sequences], dtype=np.int32)
        bound = np.array([s.request.max_tokens for s in sequences], dtype=np.int32)
        return self._each(length, generated, bound, np.stack([s.outcomes for s in sequences]))

    def of_running(
        self, length: IntArray, generated: IntArray, bound: IntArray, outcomes: IntArray
    ) -> Demand:
        """Summed demand of running sequences: [n] tokens known, generated and bounds, [n, outcomes] lengths."""
        if not len(length):
            return self.nothing()
        return self._each(length, generated, bound, outcomes).total()

    def _each(
        self, length: IntArray, generated: IntArray, bound: IntArray, outcomes: IntArray
    ) -> Demands:
        points = len(self.steps)
        left = outcomes - generated[:, None]
        possible: np.ndarray[tuple[int, int], np.dtype[np.bool_]] = np.asarray(left >= 0)
        outlived = np.logical_not(possible.any(axis=1))
        if outlived.any():
            more = np.minimum(generated // 2 + 1, bound - generated)
            left = np.where(outlived[:, None], np.maximum(more, 0)[:, None], left)
            possible = possible | outlived[:, None]
        share = possible / possible.sum(axis=1, keepdims=True)
        ends = self._end.take(left, mode="clip")
        rows = np.arange(len(length))[:, None] * (points + 1)
        ending = np.bincount(
            (rows + ends).ravel(), weights=share.ravel(), minlength=len(length) * (points + 1)
        ).reshape(len(length), points + 1)
        # In place from here on: a new array of this size costs more than what is computed into it.
        ended: FloatGrid = np.asarray(ending[:, :points], dtype=np.float64)
        np.cumsum(ended, axis=1, out=ended)
        np.minimum(ended, 1.0, out=ended)
        most = length + bound - generated
        blocks = length[:, None] + (self.steps + (self._skew - 1))
        np.minimum(blocks, most[:, None], out=blocks)
        blocks += self._block_size - 1
        blocks //= self._block_size
        mean: FloatGrid = (1.0 - ended) * blocks
        ended *= mean
        ended *= blocks
        return Demands(mean, ended)
