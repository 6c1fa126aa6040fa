"""Latency targets (TTFT and TPOT), which bound the choice of micro-batches where they are set.

A TPOT is a round, one step per stage, so its target bounds a micro-batch's time by the budget and by the number of
running sequences. The TTFT target gives prefill everything that this leaves once it is at risk; decode then pauses
unless it has a target as well. Prefill does not hurry when KV is scarce, because prompts that are prefilled faster than
they are decoded fill the cache, nor when the queue is far too long for the target, because throughput shortens it
soonest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from tdpipe.core.step import IntArray
    from tdpipe.scheduling.view import View

_MAX_WAIT_SHARE = 0.5
"""Share of the TTFT target that waiting may take before prefill takes precedence."""
_MAX_QUEUE_RATIO = 2.0
"""Ratio of the queue's time to the TTFT target above which prefill does not hurry."""
_MIN_FREE_KV_SHARE = 0.2
"""Share of the KV cache that must be free for prefill to hurry."""


@dataclass(frozen=True, slots=True)
class LatencyTargets:
    """Latency targets in seconds; None is no target."""

    ttft: float | None = None
    """Time from a request's arrival to its first token."""
    tpot: float | None = None
    """Time between two tokens of a request."""

    def allowed(self, view: View, budgets: IntArray, context: float) -> IntArray:
        """Return the budgets of micro-batches that keep a round short enough, or the smallest budget if there are none.

        Args:
            view: view of the scheduler.
            budgets: budgets to choose from, ascending.
            context: number of KV tokens that a micro-batch reads.
        """
        if self.tpot is None:
            return budgets
        contexts = np.full(len(budgets), context)
        mixed = np.ones(len(budgets), dtype=np.bool_)
        rows = np.full(len(budgets), view.decoding / view.stages)
        rounds = view.stages * view.cost.step_seconds(budgets, contexts, mixed, rows)
        kept = budgets[rounds <= self.tpot]
        return kept if len(kept) else budgets[:1]

    def fill(
        self, view: View, chosen: int, budgets: IntArray, decode: IntArray
    ) -> tuple[int, IntArray]:
        """Return the batch tokens of the next micro-batch and the slots of its decode rows.

        Args:
            view: view of the scheduler, in which something may be prefilled.
            chosen: budget that is best for throughput.
            budgets: budgets to choose from, ascending.
            decode: slots that would decode next.
        """
        hurries = self._hurries(view, chosen)
        if self.tpot is None:
            if not hurries:
                return chosen, decode
            decode = decode[:0]
        context = float(view.context_of(decode).sum())
        partial = view.partial_prefill()
        if partial is not None:
            tiles = -(-(chosen - len(decode)) // view.cost.chunk_tile)
            context += max(0, tiles) * (partial.length - view.unscheduled(partial))
        fits = self.allowed(view, budgets if hurries else budgets[budgets <= chosen], context)
        if not hurries and fits[-1] == chosen:
            return chosen, decode
        mixed = np.full(len(fits), len(decode) > 0)
        seconds = view.cost.step_seconds(fits, np.full(len(fits), context), mixed)
        fastest = int(np.argmax((fits - len(decode)) / seconds))  # most prefill tokens per second
        return int(fits[fastest]), decode

    def may_admit(self, view: View) -> bool:
        """Return whether a round of decode steps is short enough with one more running sequence."""
        if self.tpot is None or view.decoding < view.stages:
            return True
        rows = -(-(view.decoding + 1) // view.stages)
        return view.stages * view.cost.step_time(rows, view.context / view.stages) <= self.tpot

    def _hurries(self, view: View, chosen: int) -> bool:
        """Return whether first tokens would come too late and enough KV is free for more prefill."""
        if self.ttft is None or view.free_blocks < _MIN_FREE_KV_SHARE * view.capacity:
            return False
        head = next(view.waiting(), None)
        if head is None:
            return False
        prefill = max(1.0, chosen - view.decoding / view.stages)
        step = view.cost.step_time(chosen, view.context / view.stages)
        queue = view.load.tokens / prefill * step
        longest = max(queue, view.now - head.arrival)
        return longest > _MAX_WAIT_SHARE * self.ttft and queue <= _MAX_QUEUE_RATIO * self.ttft
