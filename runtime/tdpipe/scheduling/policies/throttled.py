"""gLLM's token throttling (arXiv 2504.14775): prefill in proportion to the waiting tokens and the free KV.

This is a baseline: a prefill budget that follows the load, with decode in equal parts, keeps consecutive micro-batches
alike without a cost model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tdpipe.scheduling.policy import Plan, max_steps_in_flight, prefill_rows

if TYPE_CHECKING:
    from tdpipe.scheduling.view import View

_PREFILL_MICRO_BATCHES = 8
"""Number of micro-batches over which the waiting prompt tokens are spread."""
_MIN_PREFILL_TOKENS = 32
"""Smallest number of prefill tokens of a micro-batch while enough KV is free."""
_MIN_FREE_KV_SHARE = 0.05
"""Share of the KV cache that must be free for prefill."""


class ThrottledPolicy:
    """Decode rows of running / stages sequences, with a throttled prefill.

    Args:
        token_budget: largest number of prefill tokens of a micro-batch.
    """

    name = "throttled"

    def __init__(self, token_budget: int) -> None:
        self._max_prefill = token_budget

    def reset(self) -> None:
        """See `Policy.reset`; this policy has no state."""

    def plan(self, view: View) -> Plan | None:
        """See `Policy.plan`."""
        if view.in_flight >= max_steps_in_flight(view):
            return None
        decode = view.ready[: -(-view.decoding // view.stages)]
        alone = view.decoding == 0
        free = 1.0 if alone else view.free_blocks / view.capacity
        waiting = view.waiting() if free > _MIN_FREE_KV_SHARE else iter(())
        throttle = self._max_prefill * (free - _MIN_FREE_KV_SHARE) / (1.0 - _MIN_FREE_KV_SHARE)
        budget = max(min(view.load.tokens / _PREFILL_MICRO_BATCHES, throttle), _MIN_PREFILL_TOKENS)
        rows = tuple(prefill_rows(view, waiting, int(budget)))
        return Plan.of(decode, rows)
