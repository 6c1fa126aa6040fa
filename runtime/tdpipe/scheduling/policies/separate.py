"""Prefill first, as in vLLM's first scheduler: whatever waits and fits is prefilled before decode goes on.

This is a baseline. Prefill and decode never share a micro-batch, but every arrival and every end can change the phase.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tdpipe.core.step import Phase
from tdpipe.scheduling.policy import NO_ROWS, Plan, max_steps_in_flight, prefill_rows
from tdpipe.scheduling.work_stealing import next_decode_batch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tdpipe.scheduling.sequence import Sequence
    from tdpipe.scheduling.view import View

_WATERMARK = 0.01
"""Share of the KV blocks that stays free at admission."""


class SeparatePolicy:
    """Prefill whenever something fits, otherwise decode.

    Args:
        token_budget: batch tokens of a prefill micro-batch.
    """

    name = "separate"

    def __init__(self, token_budget: int) -> None:
        self._budget = token_budget

    def reset(self) -> None:
        """See `Policy.reset`; this policy has no state."""

    def plan(self, view: View) -> Plan | None:
        """See `Policy.plan`."""
        if view.in_flight >= max_steps_in_flight(view):
            return None
        rows = tuple(prefill_rows(view, _fitting(view), self._budget))
        if rows:
            return Plan(Phase.PREFILL, NO_ROWS, rows)
        batch = next_decode_batch(view)
        return Plan(Phase.DECODE, batch) if len(batch) else None


def _fitting(view: View) -> Iterator[Sequence]:
    """Yield waiting sequences whose whole prompt leaves the watermark free.

    The watermark does not apply while nothing decodes.
    """
    free = view.free_blocks
    min_free = _WATERMARK * view.capacity if view.decoding else 0.0
    for sequence in view.waiting():
        free -= -(-sequence.length // view.block_size)
        if free < min_free:
            return
        yield sequence
