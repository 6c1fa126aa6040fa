"""Lengths from what the finished requests survived, with `max_tokens` as the bound.

The honest fallback where nothing of the prompt is known: sums over many requests are what the forecast needs, and means
give those.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from tdpipe.core.lengths import OUTCOMES, LengthDistribution
from tdpipe.prediction.survival_curve import survival_curve

if TYPE_CHECKING:
    from tdpipe.prediction.features import PromptFeatures

_FIRST_LESSON = 8


class SurvivalPredictor:
    """The distribution of recent output lengths.

    Args:
        memory: finished requests that are remembered.
    """

    def __init__(self, memory: int = 2048) -> None:
        self._lengths = np.zeros(memory)
        self._complete = np.zeros(memory, dtype=np.bool_)
        self._seen = 0
        self._next_lesson = _FIRST_LESSON
        self._version = 0
        self._means = [math.inf] * OUTCOMES

    @property
    def version(self) -> int:
        """Grows at each doubling of what was seen until the memory is full, then once a memory."""
        return self._version

    def predict(self, features: PromptFeatures) -> LengthDistribution:
        """Means of equal shares of the learned distribution; `max_tokens` where it says nothing."""
        bound = features.max_tokens
        if not features.can_stop:
            return LengthDistribution((bound,))
        bounded = (bound if mean >= bound else max(1, round(mean)) for mean in self._means)
        return LengthDistribution(tuple(bounded))

    def observe(self, features: PromptFeatures, output_tokens: int, *, complete: bool) -> None:
        """See `LengthPredictor.observe`; nothing is learned from an empty output, or one that could not stop."""
        if output_tokens < 1 or not features.can_stop:
            return
        at = self._seen % len(self._lengths)
        self._lengths[at], self._complete[at] = output_tokens, complete
        self._seen += 1
        if self._seen >= self._next_lesson:
            count = min(self._seen, len(self._lengths))
            curve = survival_curve(self._lengths[:count], self._complete[:count])
            self._means = curve.slices(OUTCOMES).tolist()
            self._version += 1
            self._next_lesson += count

    def close(self) -> None:
        """Nothing runs in the background."""
