"""A trained model: trees for the expected length, and how lengths spread around it.

Sums over many requests are what the KV forecast needs, so the trees give means, and the spread is measured on requests
that the trees had not seen: apart for short and long expectations, as multiples of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tdpipe.core.lengths import LengthDistribution

if TYPE_CHECKING:
    from tdpipe.core.step import FloatArray
    from tdpipe.prediction.input_vector import InputVector
    from tdpipe.prediction.training_rows import LengthArray
    from tdpipe.prediction.tree_ensemble import FloatRows, TreeEnsemble

OutcomeRows = np.ndarray[tuple[int, int], np.dtype[np.int64]]


@dataclass(frozen=True, slots=True, eq=False)
class LengthModel:
    """See the module."""

    trees: TreeEnsemble
    """Give the square root of the expected length in tokens, on which scale errors are about equally large."""
    levels: FloatArray
    """[shapes - 1] expected lengths that separate those with different spreads, ascending."""
    shapes: FloatRows
    """[shapes, OUTCOMES] equally likely multiples of the expected length, ascending; infinite where none was seen to
    end."""

    def expect(self, rows: FloatRows) -> FloatArray:
        """[n] expected lengths in tokens, before their spread corrects them, for input vectors [n, inputs]."""
        return np.maximum(self.trees.evaluate(rows), 1.0) ** 2

    def outcomes(self, rows: FloatRows, bounds: LengthArray) -> OutcomeRows:
        """[n, OUTCOMES] equally likely lengths, ascending, for input vectors [n, inputs] and `max_tokens` [n]."""
        expected = self.expect(rows)
        shapes = self.shapes[np.searchsorted(self.levels, expected)]
        return bounded(expected[:, None] * shapes, bounds)

    def predict(self, vector: InputVector, bound: int) -> LengthDistribution:
        """The length of one request's output."""
        outcomes = self.outcomes(vector[None], np.array([bound]))
        return LengthDistribution(tuple(outcomes[0].tolist()))


def bounded(lengths: np.ndarray, bounds: LengthArray) -> OutcomeRows:
    """[n, outcomes] lengths in whole tokens, at least 1 and none above its request's `max_tokens`."""
    within: OutcomeRows = np.clip(np.rint(lengths), 1, bounds[:, None]).astype(np.int64)
    return within
