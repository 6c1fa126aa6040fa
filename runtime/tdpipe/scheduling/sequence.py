"""A request on its way through the engine.

Only what outlives a preemption is here; what changes every step while it holds KV is in the `SlotTable`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from tdpipe.core.lengths import OUTCOMES

if TYPE_CHECKING:
    from tdpipe.core.lengths import LengthDistribution
    from tdpipe.core.request import Request
    from tdpipe.core.step import IntArray


@dataclass(slots=True, eq=False)
class Sequence:
    """A request with what it has generated."""

    number: int
    """Ascending in the order of arrival, never used again."""
    request: Request
    generated: list[int] = field(default_factory=list)
    outcomes: IntArray = field(default_factory=lambda: np.ones(OUTCOMES, dtype=np.int32))
    """[OUTCOMES] possible output lengths, ascending."""
    slot: int = -1
    """Where its KV is, or -1."""
    arrival: float = 0.0
    """Seconds of the caller's clock."""

    @property
    def length(self) -> int:
        """Known tokens of prompt and output."""
        return len(self.request.prompt) + len(self.generated)

    @property
    def left(self) -> IntArray:
        """[n] output tokens that may be to come, equally likely: of the lengths that it has not outlived."""
        left = self.outcomes - len(self.generated)
        left = left[left > 0]
        return left if len(left) else np.ones(1, dtype=np.int32)

    @property
    def expected_left(self) -> float:
        """Output tokens to come, in expectation."""
        return float(self.left.mean())


def outcomes_of(lengths: LengthDistribution, bound: int) -> IntArray:
    """[OUTCOMES] lengths of the distribution, none over `bound`."""
    given = np.asarray(lengths.outcomes, dtype=np.int32)
    picks = (np.arange(OUTCOMES) * 2 + 1) * len(given) // (2 * OUTCOMES)
    return np.minimum(given[picks], bound).astype(np.int32)
