"""How good predicted lengths are, judged as the KV forecast uses them: summed over many requests."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from tdpipe.prediction.length_model import OutcomeRows
    from tdpipe.prediction.training_rows import LengthArray


@dataclass(frozen=True, slots=True)
class Score:
    """Of predictions for requests whose lengths are known."""

    pinball: float
    """Mean pinball loss over the outcomes' levels, in tokens: how far the distributions are off, less is better."""
    bias: float
    """Mean of actual minus expected length, in tokens."""
    deviation: float
    """Standard deviation of that difference, in tokens."""
    mean_length: float
    """Of the requests, in tokens."""

    def sum_error(self, requests: int) -> float:
        """Expected error (root of the mean square) of the summed length of so many requests, as a share of the sum."""
        return math.hypot(self.bias, self.deviation / math.sqrt(requests)) / self.mean_length


def score(outcomes: OutcomeRows, lengths: LengthArray) -> Score:
    """Judge [n, outcomes] equally likely lengths by the [n] lengths that came."""
    levels = (np.arange(outcomes.shape[1]) + 0.5) / outcomes.shape[1]
    off = lengths[:, None] - outcomes
    pinball = np.maximum(levels * off, (levels - 1.0) * off)
    rest = lengths - outcomes.mean(axis=1)
    return Score(
        float(pinball.mean()), float(rest.mean()), float(rest.std()), float(lengths.mean())
    )
