"""A predicted output length as plain data.

Predictors make these, the scheduler's KV forecast reads them, and neither knows the other.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LengthDistribution:
    """Equally likely output lengths, in tokens, ascending and at least 1.

    `(7,)` says that the output is certainly 7 tokens long; `(10, 20, 40, 80)` gives each a quarter. A sequence that
    has outlived some outcomes is judged by those that remain.
    """

    outcomes: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.outcomes or self.outcomes[0] < 1:
            raise ValueError("outcomes must be one or more lengths of at least 1 token")
        if any(a > b for a, b in zip(self.outcomes, self.outcomes[1:], strict=False)):
            raise ValueError("outcomes must ascend")
