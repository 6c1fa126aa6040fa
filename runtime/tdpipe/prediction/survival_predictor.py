"""Prediction of output lengths from the lengths of earlier outputs, without regard to the prompt.

This is the fallback when no model exists or none is better. It predicts means, because the KV forecast needs sums over
many requests.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from tdpipe.core.lengths import OUTCOMES, LengthDistribution
from tdpipe.prediction.survival_curve import estimate_survival

if TYPE_CHECKING:
    from tdpipe.prediction.features import PromptFeatures

_MIN_OUTPUTS = 8
"""Number of finished requests before the first estimate."""


class SurvivalPredictor:
    """Predicts the distribution of recent output lengths, the same for every request.

    Args:
        capacity: Number of finished requests that are kept.
    """

    def __init__(self, capacity: int = 2048) -> None:
        self._lengths = np.zeros(capacity)
        self._complete = np.zeros(capacity, dtype=np.bool_)
        self._observed = 0
        self._next_estimate = _MIN_OUTPUTS
        self._version = 0
        self._means = [math.inf] * OUTCOMES

    @property
    def version(self) -> int:
        """Number of estimates: one per doubling of the observed requests, then one per `capacity` requests."""
        return self._version

    def predict(self, features: PromptFeatures) -> LengthDistribution:
        """See `LengthPredictor.predict`; the prediction is `max_tokens` where the length is not known."""
        max_tokens = features.max_tokens
        if not features.can_stop:
            return LengthDistribution((max_tokens,))
        clipped = (
            max_tokens if mean >= max_tokens else max(1, round(mean)) for mean in self._means
        )
        return LengthDistribution(tuple(clipped))

    def observe(self, features: PromptFeatures, output_tokens: int, *, complete: bool) -> None:
        """See `LengthPredictor.observe`; empty outputs and requests that cannot stop are ignored."""
        if output_tokens < 1 or not features.can_stop:
            return
        index = self._observed % len(self._lengths)
        self._lengths[index], self._complete[index] = output_tokens, complete
        self._observed += 1
        if self._observed >= self._next_estimate:
            count = min(self._observed, len(self._lengths))
            curve = estimate_survival(self._lengths[:count], self._complete[:count])
            self._means = curve.quantile_means(OUTCOMES).tolist()
            self._version += 1
            self._next_estimate += count

    def close(self) -> None:
        """Do nothing: no background work exists."""
