"""Chunked prefill and decode in one token budget, as Sarathi-Serve and most engines do.

The baseline of the temporal policy, and the proof that the seam holds more than one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tdpipe.core.step import Phase
from tdpipe.scheduling.balance import next_decode_batch
from tdpipe.scheduling.policy import Plan, prefill_rows, steps_ahead

if TYPE_CHECKING:
    from tdpipe.scheduling.policy import View

_RESERVE = 0.5
"""Blocks per decoding sequence that stay free at admission. Without them a preempted sequence comes back at once and is
preempted again by the next block that decoding needs: with a full cache that doubled the tokens that were prefilled."""


class HybridPolicy:
    """Decodes of one micro-batch, topped up with prefill to the budget.

    Args:
        token_budget: batch tokens of a micro-batch.
    """

    name = "hybrid"

    def __init__(self, token_budget: int) -> None:
        self._budget = token_budget

    def initial(self) -> None:
        """It has no state."""

    def plan(self, view: View, state: None) -> tuple[Plan | None, None]:
        """See `Policy.plan`."""
        if view.in_flight >= steps_ahead(view):
            return None, state
        decode = next_decode_batch(view)[: self._budget]
        waiting = view.waiting() if view.free_blocks >= _RESERVE * view.decoding else iter(())
        rows = tuple(prefill_rows(view, waiting, self._budget - len(decode)))
        if not rows and not len(decode):
            return None, state
        phase = Phase.MIXED if rows and len(decode) else Phase.PREFILL if rows else Phase.DECODE
        return Plan(phase, decode, rows), state
