"""Chunked prefill and decode in one token budget, as Sarathi-Serve and most engines do.

The baseline to beat: with the budget on the right tile edge it has hardly any bubbles.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tdpipe.scheduling.balance import next_decode_batch
from tdpipe.scheduling.policy import Plan, keeps_reserve, prefill_rows, steps_ahead

if TYPE_CHECKING:
    from tdpipe.scheduling.policy import View


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
        waiting = view.waiting() if keeps_reserve(view) else iter(())
        rows = tuple(prefill_rows(view, waiting, self._budget - len(decode)))
        return Plan.of(decode, rows), state
