"""Chunked prefill and decode in one token budget, as in Sarathi-Serve and most engines.

This is the strongest baseline: with the budget on the right tile edge it has hardly any bubbles.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tdpipe.scheduling.policy import Plan, has_kv_reserve, max_steps_in_flight, prefill_rows
from tdpipe.scheduling.work_stealing import next_decode_batch

if TYPE_CHECKING:
    from tdpipe.scheduling.view import View


class HybridPolicy:
    """Decode rows of one micro-batch, topped up with prefill to the budget.

    Args:
        token_budget: batch tokens of a micro-batch.
    """

    name = "hybrid"

    def __init__(self, token_budget: int) -> None:
        self._budget = token_budget

    def reset(self) -> None:
        """See `Policy.reset`; this policy has no state."""

    def plan(self, view: View) -> Plan | None:
        """See `Policy.plan`."""
        if view.in_flight >= max_steps_in_flight(view):
            return None
        decode = next_decode_batch(view)[: self._budget]
        waiting = view.waiting() if has_kv_reserve(view) else iter(())
        rows = tuple(prefill_rows(view, waiting, self._budget - len(decode)))
        return Plan.of(decode, rows)
