"""A request on its way through the engine.

Only what outlives a preemption is here. What changes at every step while the request holds KV is in
`RunningSequences`.
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
    """Number that ascends in the order of arrival and is never used again."""
    request: Request
    generated: list[int] = field(default_factory=list)
    outcomes: IntArray = field(default_factory=lambda: np.ones(OUTCOMES, dtype=np.int32))
    """[OUTCOMES] possible output lengths, ascending."""
    slot: int = -1
    """Slot that holds its KV, or -1."""
    arrival: float = 0.0
    """Time of arrival in seconds of the caller's clock."""

    @property
    def length(self) -> int:
        """Number of known tokens of prompt and output."""
        return len(self.request.prompt) + len(self.generated)

    @property
    def left(self) -> IntArray:
        """[n] equally likely numbers of output tokens to come, from the lengths that it has not outlived."""
        left = self.outcomes - len(self.generated)
        left = left[left > 0]
        return left if len(left) else np.ones(1, dtype=np.int32)

    @property
    def expected_left(self) -> float:
        """Expected number of output tokens to come."""
        return float(self.left.mean())


def outcomes_of(lengths: LengthDistribution, max_tokens: int) -> IntArray:
    """Return [OUTCOMES] equally likely lengths of the distribution, none above `max_tokens`."""
    given = np.asarray(lengths.outcomes, dtype=np.int32)
    picks = (np.arange(OUTCOMES) * 2 + 1) * len(given) // (2 * OUTCOMES)
    return np.minimum(given[picks], max_tokens).astype(np.int32)
