"""Bounds on how long a user waits, which throughput has to respect where they are set.

A token's time is a round: one step per stage. So the target for it bounds a micro-batch's time, by its budget and by
how many sequences run. The target for the first token lets prefill have all that this leaves once it is at risk: when
the first in the queue has waited for half of it, or the queue will take as long. Decode then pauses, unless it has a
target, too. But not when KV is scarce: what is prefilled faster than it can be decoded fills the cache, and then
everybody waits. Nor when the queue is far too long for the target: throughput ends it soonest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from tdpipe.core.step import IntArray
    from tdpipe.scheduling.policy import View

_PATIENCE = 0.5
"""Part of the target for the first token that waiting may take before prefill takes precedence."""
_IN_VAIN = 2.0
"""Times the target: a queue that takes longer is not hurried."""
_ROOM = 0.2
"""Part of the KV cache that has to be free for that."""


@dataclass(frozen=True, slots=True)
class LatencyTargets:
    """Seconds; None is no bound."""

    ttft: float | None = None
    """From a request's arrival to its first token."""
    tpot: float | None = None
    """Between two tokens of a request."""

    def allowed(self, view: View, budgets: IntArray, context: float) -> IntArray:
        """Budgets of micro-batches that keep a round short enough; one at least.

        Args:
            view: of the scheduler.
            budgets: ascending.
            context: KV tokens that a micro-batch reads.
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
        """Batch tokens of the next micro-batch and slots of its decode rows.

        Args:
            view: of the scheduler, in which something may be prefilled.
            chosen: the budget that is best for throughput.
            budgets: what may be chosen, ascending.
            decode: slots that are to decode next.
        """
        hurries = self._hurries(view, chosen)
        if self.tpot is None:
            if not hurries:
                return chosen, decode
            decode = decode[:0]
        context = float(view.context_of(decode).sum())
        begun = view.partial()
        if begun is not None:
            tiles = -(-(chosen - len(decode)) // view.cost.chunk_tile)
            context += max(0, tiles) * (begun.length - view.unscheduled(begun))
        fits = self.allowed(view, budgets if hurries else budgets[budgets <= chosen], context)
        if not hurries and fits[-1] == chosen:
            return chosen, decode
        mixed = np.full(len(fits), len(decode) > 0)
        seconds = view.cost.step_seconds(fits, np.full(len(fits), context), mixed)
        soonest = int(np.argmax((fits - len(decode)) / seconds))  # most prefill a second
        return int(fits[soonest]), decode

    def may_admit(self, view: View) -> bool:
        """Whether one more running sequence keeps a round of decode steps short enough."""
        if self.tpot is None or view.decoding < view.stages:
            return True
        rows = -(-(view.decoding + 1) // view.stages)
        return view.stages * view.cost.step_time(rows, view.context / view.stages) <= self.tpot

    def _hurries(self, view: View, chosen: int) -> bool:
        """Whether first tokens would come too late, and there is KV for more prefill."""
        if self.ttft is None or view.free_blocks < _ROOM * view.capacity:
            return False
        head = next(view.waiting(), None)
        if head is None:
            return False
        prefill = max(1.0, chosen - view.decoding / view.stages)
        step = view.cost.step_time(chosen, view.context / view.stages)
        queue = view.load.tokens / prefill * step
        longest = max(queue, view.now - head.arrival)
        return longest > _PATIENCE * self.ttft and queue <= _IN_VAIN * self.ttft
