"""A trained length model: trees predict the expected length, and measured spreads turn it into a distribution.

The KV forecast needs sums over many requests, so the trees predict means. How lengths spread around a mean is measured
on requests that the trees were not trained on, separately for short and long expected lengths.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tdpipe.core.lengths import LengthDistribution

if TYPE_CHECKING:
    from tdpipe.core.step import FloatArray
    from tdpipe.prediction.features import FeatureVector
    from tdpipe.prediction.training_rows import LengthArray
    from tdpipe.prediction.tree_ensemble import FloatRows, TreeEnsemble

OutcomeRows = np.ndarray[tuple[int, int], np.dtype[np.int64]]
"""[n, outcomes] equally likely lengths of n requests, in tokens, ascending in each row."""


@dataclass(frozen=True, slots=True, eq=False)
class LengthModel:
    """Predicts distributions of output lengths from feature vectors."""

    trees: TreeEnsemble
    """Trees for the square root of the expected length in tokens, a scale on which errors are about equally large."""
    bucket_edges: FloatArray
    """[buckets - 1] expected lengths that separate the buckets, ascending."""
    bucket_spreads: FloatRows
    """[buckets, OUTCOMES] equally likely ratios of actual to expected length, ascending; infinite for the share of
    outputs that no training row shows to end."""

    def expected_lengths(self, rows: FloatRows) -> FloatArray:
        """Return [n] expected lengths in tokens, before the spread is applied, for feature vectors [n, features]."""
        return np.maximum(self.trees.predict(rows), 1.0) ** 2

    def outcomes(self, rows: FloatRows, max_tokens: LengthArray) -> OutcomeRows:
        """Predict the output lengths of several requests.

        Args:
            rows: [n, features] feature vectors.
            max_tokens: [n] maximum number of output tokens of each request.

        Returns:
            [n, OUTCOMES] equally likely lengths, ascending.
        """
        expected = self.expected_lengths(rows)
        spreads = self.bucket_spreads[np.searchsorted(self.bucket_edges, expected)]
        return clip_lengths(expected[:, None] * spreads, max_tokens)

    def predict(self, vector: FeatureVector, max_tokens: int) -> LengthDistribution:
        """Predict the output length of one request."""
        outcomes = self.outcomes(vector[None], np.array([max_tokens]))
        return LengthDistribution(tuple(outcomes[0].tolist()))


def clip_lengths(lengths: np.ndarray, max_tokens: LengthArray) -> OutcomeRows:
    """Round [n, outcomes] lengths to whole tokens between 1 and each request's `max_tokens`."""
    clipped: OutcomeRows = np.clip(np.rint(lengths), 1, max_tokens[:, None]).astype(np.int64)
    return clipped
