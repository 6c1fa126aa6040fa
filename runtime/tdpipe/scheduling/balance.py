"""Inter-batch work stealing: which of the idle sequences make the next decode micro-batch.

A closed pipeline runs at mean(batch time) / max(batch time), so batches are levelled by predicted time, not by
count. No batch owns a sequence: what is over the mean waits for the next batch, what is under is topped up from those
that wait. Taking those that waited longest keeps all sequences within one turn of each other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    from tdpipe.core.step import IntArray
    from tdpipe.scheduling.policy import View

_TIE = 1e-9
"""Relative difference below which two times are the same."""


class DecodeBatch(Protocol):
    """Chooses the slots of the next decode micro-batch; `next_decode_batch` is one."""

    def __call__(self, view: View, *, on_edge: bool = False) -> IntArray: ...


def next_decode_batch(view: View, *, on_edge: bool = False) -> IntArray:
    """The longest-waiting ready slots whose predicted time is nearest to the mean of the micro-batches.

    Args:
        view: of the scheduler.
        on_edge: where fewer rows than the mean make a token cheapest, take so many, but at least half the mean: one row
            over a tile's edge costs a whole tile. The edge is that of the mean for all batches: where some took what
            others had left over the next edge, all would wait for these. By count, not time: more rows are ready then
            than the stages take, so none waits for a long batch, and a step with fewer rows takes nearly as long.
    """
    ready = view.ready
    decoding = view.decoding
    batches = min(view.stages, decoding)
    if len(ready) <= 1 or (batches <= 1 and not on_edge):
        return ready
    share = -(-decoding // batches)
    if on_edge and (edge := _cheapest(view, share)) < share:
        return ready[:edge]
    return ready if batches <= 1 else ready[: _mean_batch(view, ready, share)]


def _cheapest(view: View, most: int) -> int:
    """How many rows make a row cheapest, from half of `most` to that; of equally cheap numbers the largest.

    Each counts with the mean context: it is read some time anyway, so a row with a short one saves nothing.
    """
    counts = np.arange(most, most // 2, -1, dtype=np.int32)
    contexts = np.asarray(counts * (view.context / view.decoding), dtype=np.float64)
    times = view.cost.step_seconds(counts, contexts)
    return int(counts[np.argmax(counts / times)])


def _mean_batch(view: View, ready: IntArray, share: int) -> int:
    """How many of the ready rows take as long as the mean micro-batch, which has `share` rows.

    Where more rows are measured to take less time, fewer count as no faster: else half the mean would pass for it.
    """
    counts = np.arange(1, max(len(ready), share) + 1, dtype=np.int32)
    ours = counts[: len(ready)]
    reads = view.context_of(ready).cumsum(dtype=np.int32)
    times = np.maximum.accumulate(view.cost.step_seconds(ours, reads))
    of_each = view.context / view.decoding
    if view.cost.ascends:  # the longest is the largest, and one lookup finds it
        target = view.cost.step_time(share, share * of_each)
    else:
        mean = np.asarray(counts[:share] * of_each, dtype=np.float64)
        target = float(view.cost.step_seconds(counts[:share], mean).max())
    least = int(times.searchsorted(target * (1 - _TIE), side="left")) + 1
    most = int(times.searchsorted(target * (1 + _TIE), side="right"))
    if least > most:  # no count takes just the mean: the nearer of the two around it
        over = min(least, len(times))
        nearer_below = most > 0 and target - times[most - 1] <= times[over - 1] - target
        return most if nearer_below else over
    return min(max(share, least), most)  # on a flat step of the table, by count
