"""Evaluation of length predictions on requests whose lengths are known.

The KV forecast sums predictions over many requests, so the error of sums is reported next to the loss of the
distributions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from tdpipe.prediction.length_model import LengthModel, OutcomeRows
    from tdpipe.prediction.training_rows import LengthArray

Choice = Literal["candidate", "incumbent", "mean"]
"""Source of predictions: the new model, the model in use, or one distribution for all requests."""
_REPORTED_SUM = 128
"""Number of requests for which the error of the summed length is reported."""


@dataclass(frozen=True, slots=True)
class Score:
    """Errors of predictions for requests whose lengths are known."""

    pinball: float
    """Mean pinball loss over the quantile levels of the outcomes, in tokens; lower is better."""
    bias: float
    """Mean of actual minus expected length, in tokens."""
    deviation: float
    """Standard deviation of actual minus expected length, in tokens."""
    mean_length: float
    """Mean actual length, in tokens."""

    def sum_error(self, requests: int) -> float:
        """Return the root mean square error of the summed length of `requests` requests, as a share of the sum."""
        return math.hypot(self.bias, self.deviation / math.sqrt(requests)) / self.mean_length


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Comparison of a new model with the alternatives on the same held-out requests."""

    choice: Choice
    """Predictions that should be used from now on."""
    candidate: LengthModel
    """Model that was trained."""
    scores: dict[Choice, Score]
    """Score of each alternative."""
    training_rows: int
    """Number of rows on which the candidate was trained."""
    held_out_rows: int
    """Number of rows on which all alternatives were evaluated."""

    def __str__(self) -> str:
        scores = ", ".join(
            f"{name} {score.pinball:.1f} tokens ({score.sum_error(_REPORTED_SUM):.1%})"
            for name, score in self.scores.items()
        )
        return (
            f"trained on {self.training_rows} requests, evaluated on the next {self.held_out_rows}; pinball loss "
            f"(error of the summed length of {_REPORTED_SUM} requests): {scores}; using the {self.choice}"
        )


def score_outcomes(outcomes: OutcomeRows, lengths: LengthArray) -> Score:
    """Compare predicted with actual lengths.

    Args:
        outcomes: [n, outcomes] equally likely lengths that were predicted, ascending.
        lengths: [n] actual lengths.
    """
    levels = (np.arange(outcomes.shape[1]) + 0.5) / outcomes.shape[1]
    errors = lengths[:, None] - outcomes
    pinball = np.maximum(levels * errors, (levels - 1.0) * errors)
    residuals = lengths - outcomes.mean(axis=1)
    return Score(
        float(pinball.mean()),
        float(residuals.mean()),
        float(residuals.std()),
        float(lengths.mean()),
    )
