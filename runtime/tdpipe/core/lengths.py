"""Predicted output lengths as plain data.

Predictors create these distributions and the scheduler's KV forecast reads them, so neither package depends on the
other.
"""

from __future__ import annotations

from dataclasses import dataclass

OUTCOMES = 32
"""Number of equally likely lengths that a predictor gives for a request and that the KV forecast keeps of it."""


@dataclass(frozen=True, slots=True)
class LengthDistribution:
    """Equally likely output lengths of one request.

    `(7,)` means that the output is certainly 7 tokens long; `(10, 20, 40, 80)` gives each of the four lengths a
    probability of 25%. Once a sequence is longer than some of the outcomes, only the remaining ones count.

    Raises:
        ValueError: There are no outcomes, one is below 1, or they are not in ascending order.
    """

    outcomes: tuple[int, ...]
    """Lengths in tokens, ascending, each at least 1."""

    def __post_init__(self) -> None:
        if not self.outcomes or self.outcomes[0] < 1:
            raise ValueError(
                "outcomes must contain at least one length, and each must be at least 1"
            )
        if any(a > b for a, b in zip(self.outcomes, self.outcomes[1:], strict=False)):
            raise ValueError("outcomes must be in ascending order")
