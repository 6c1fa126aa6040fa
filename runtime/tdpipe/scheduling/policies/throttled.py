"""gLLM's token throttling: prefill in proportion to what waits and to the KV that is free, decode in equal parts.

A baseline (gLLM, arXiv 2504.14775): a prefill budget that follows the load keeps consecutive micro-batches alike
without a cost model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tdpipe.scheduling.policy import Plan, prefill_rows, steps_ahead

if TYPE_CHECKING:
    from tdpipe.scheduling.policy import View

_ROUNDS = 8
"""Micro-batches over which the waiting prompt tokens are spread."""
_LEAST = 32
"""Prefill tokens of a micro-batch at least, while KV is free."""
_KEPT_FREE = 0.05
"""Part of the KV cache below which nothing is prefilled."""


class ThrottledPolicy:
    """Decodes of running / stages, with a throttled prefill.

    Args:
        token_budget: prefill tokens of a micro-batch at most.
    """

    name = "throttled"

    def __init__(self, token_budget: int) -> None:
        self._most = token_budget

    def initial(self) -> None:
        """It has no state."""

    def plan(self, view: View, state: None) -> tuple[Plan | None, None]:
        """See `Policy.plan`."""
        if view.in_flight >= steps_ahead(view):
            return None, state
        decode = view.ready[: -(-view.decoding // view.stages)]
        alone = view.decoding == 0
        free = 1.0 if alone else view.free_blocks / view.capacity
        waiting = view.waiting() if free > _KEPT_FREE else iter(())
        throttle = self._most * (free - _KEPT_FREE) / (1.0 - _KEPT_FREE)
        budget = max(min(view.load.tokens / _ROUNDS, throttle), _LEAST)
        rows = tuple(prefill_rows(view, waiting, int(budget)))
        return Plan.of(decode, rows), state
