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

_DENSE = 128
_GROWTH = 1.06


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
        ends = np.searchsorted(self.steps, left + self._skew, side="right")
        rows = np.arange(len(length))[:, None] * (points + 1)
        ending = np.bincount(
            (rows + ends).ravel(), weights=share.ravel(), minlength=len(length) * (points + 1)
        ).reshape(len(length), points + 1)
        alive = np.clip(1.0 - np.cumsum(ending[:, :points], axis=1), 0.0, 1.0)
        tokens = length[:, None] - 1 + self._skew + self.steps[None, :]
        most = length + bound - generated
        blocks = -(-np.minimum(tokens, most[:, None]) // self._block_size)
        mean = alive * blocks
        return Demands(mean, mean * (1.0 - alive) * blocks)
