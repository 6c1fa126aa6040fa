"""Bounds on how long a user waits, which throughput has to respect where they are set.

A token's time is a round: one step per stage. So the target for it bounds a micro-batch's time, by its budget and by
how many sequences run. The target for the first token lets prefill have all that this leaves once the first in the
queue has waited for half of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from tdpipe.core.step import IntArray
    from tdpipe.scheduling.policy import View

_PATIENCE = 0.5
"""Part of the target for the first token after which a waiting request takes precedence."""


@dataclass(frozen=True, slots=True)
class LatencyTargets:
    """Seconds; None is no bound."""

    ttft: float | None = None
    """From a request's arrival to its first token."""
    tpot: float | None = None
    """Between two tokens of a request."""

    def allowed(self, view: View, budgets: IntArray) -> IntArray:
        """Budgets of micro-batches, beside the decode rows at hand, that keep a round short enough; one at least."""
        if self.tpot is None:
            return budgets
        context = np.full(len(budgets), view.context / view.stages)
        mixed = np.ones(len(budgets), dtype=np.bool_)
        rounds = view.stages * view.cost.step_seconds(budgets, context, mixed)
        kept = budgets[rounds <= self.tpot]
        return kept if len(kept) else budgets[:1]

    def may_admit(self, view: View) -> bool:
        """Whether one more running sequence keeps a round of decode steps short enough."""
        if self.tpot is None or view.decoding < view.stages:
            return True
        rows = -(-(view.decoding + 1) // view.stages)
        return view.stages * view.cost.step_time(rows, view.context / view.stages) <= self.tpot

    def overdue(self, view: View) -> bool:
        """Whether the first in the queue has waited too long."""
        if self.ttft is None:
            return False
        head = next(view.waiting(), None)
        return head is not None and view.now - head.arrival > _PATIENCE * self.ttft
