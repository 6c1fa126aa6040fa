"""Prefill first, as vLLM's first scheduler did: whoever waits and fits is prefilled before anyone decodes on.

A baseline. Prefill and decode never share a micro-batch, but phases are as short as arrivals and ends make them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tdpipe.core.step import Phase
from tdpipe.scheduling.balance import next_decode_batch
from tdpipe.scheduling.policy import NO_ROWS, Plan, prefill_rows, steps_ahead

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tdpipe.scheduling.policy import View
    from tdpipe.scheduling.sequence import Sequence

_WATERMARK = 0.01
"""Part of the KV blocks that stays free at admission."""


class SeparatePolicy:
    """Prefill whenever something fits, else decode.

    Args:
        token_budget: batch tokens of a prefill micro-batch.
    """

    name = "separate"

    def __init__(self, token_budget: int) -> None:
        self._budget = token_budget

    def initial(self) -> None:
        """It has no state."""

    def plan(self, view: View, state: None) -> tuple[Plan | None, None]:
        """See `Policy.plan`."""
        if view.in_flight >= steps_ahead(view):
            return None, state
        rows = tuple(prefill_rows(view, _fitting(view), self._budget))
        if rows:
            return Plan(Phase.PREFILL, NO_ROWS, rows), state
        batch = next_decode_batch(view)
        return (Plan(Phase.DECODE, batch) if len(batch) else None), state


def _fitting(view: View) -> Iterator[Sequence]:
    """Waiting sequences whose whole prompt leaves the watermark free; any, while nothing else holds KV."""
    free = view.free_blocks
    least = _WATERMARK * view.capacity if view.decoding else 0.0
    for sequence in view.waiting():
        free -= -(-sequence.length // view.block_size)
        if free < least:
            return
        yield sequence
