"""Lengths from what the finished requests survived, with `max_tokens` as the bound.

A request that its bound cut off says only that its length is more (Kaplan and Meier, 1958). The honest fallback where
nothing of the prompt is known: sums over many requests are what the forecast needs, and means give those.
"""

from __future__ import annotations

import numpy as np

from tdpipe.core.lengths import LengthDistribution

_OUTCOMES = 32
_FIRST_LESSON = 8


class SurvivalPredictor:
    """The distribution of recent output lengths.

    Args:
        memory: finished requests that are remembered.
    """

    def __init__(self, memory: int = 2048) -> None:
        self._lengths = np.zeros(memory, dtype=np.int64)
        self._complete = np.zeros(memory, dtype=np.bool_)
        self._seen = 0
        self._next_lesson = _FIRST_LESSON
        self._version = 0
        self._quantiles: tuple[int | None, ...] = (None,) * _OUTCOMES

    @property
    def version(self) -> int:
        """Grows at each doubling of what was seen until the memory is full, then once a memory."""
        return self._version

    def predict(self, prompt_tokens: int, max_tokens: int) -> LengthDistribution:  # noqa: ARG002
        """Quantiles of the learned distribution; `max_tokens` where it says nothing."""
        bounded = (max_tokens if q is None else min(q, max_tokens) for q in self._quantiles)
        return LengthDistribution(tuple(bounded))

    def observe(self, output_tokens: int, *, complete: bool) -> None:
        """See `LengthPredictor.observe`; nothing is learned from an empty output."""
        if output_tokens < 1:
            return
        at = self._seen % len(self._lengths)
        self._lengths[at], self._complete[at] = output_tokens, complete
        self._seen += 1
        if self._seen >= self._next_lesson:
            self._quantiles = self._learn()
            self._version += 1
            self._next_lesson += min(self._seen, len(self._lengths))

    def _learn(self) -> tuple[int | None, ...]:
        count = min(self._seen, len(self._lengths))
        lengths, complete = self._lengths[:count], self._complete[:count]
        ends = np.unique(lengths[complete])
        at_risk = np.array([(lengths >= end).sum() for end in ends])
        died = np.array([((lengths == end) & complete).sum() for end in ends])
        survival = np.cumprod(1.0 - died / np.maximum(at_risk, 1))
        ranks = (np.arange(_OUTCOMES) + 0.5) / _OUTCOMES
        picks = np.searchsorted(-survival, -(1.0 - ranks) - 1e-12)
        return tuple(int(ends[i]) if i < len(ends) else None for i in picks)
