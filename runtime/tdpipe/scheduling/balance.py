"""Inter-batch work stealing: which of the idle sequences make the next decode micro-batch.

A closed pipeline runs at mean(batch time) / max(batch time), so batches are levelled by predicted time, not by
count. No batch owns a sequence: what is over the mean waits for the next batch, what is under is topped up from those
that wait. Taking those that waited longest keeps all sequences within one turn of each other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from tdpipe.core.step import IntArray
    from tdpipe.scheduling.policy import View

_TIE = 1e-9
"""Relative difference below which two times are the same."""


def next_decode_batch(view: View) -> IntArray:
    """The longest-waiting ready slots whose predicted time is nearest to the mean of the micro-batches."""
    ready = view.ready
    decoding = view.decoding
    batches = min(view.stages, decoding)
    if len(ready) <= 1 or batches <= 1:
        return ready
    share = -(-decoding // batches)
    target = view.cost.step_time(share, view.context / batches)
    counts = np.arange(1, len(ready) + 1, dtype=np.int32)
    times = view.cost.step_seconds(counts, np.cumsum(view.context_of(ready), dtype=np.int32))
    least = int(np.searchsorted(times, target * (1 - _TIE), side="left")) + 1
    most = int(np.searchsorted(times, target * (1 + _TIE), side="right"))
    if least > most:  # no count takes just the mean: the nearer of the two around it
        over = min(least, len(ready))
        nearer_below = most > 0 and target - times[most - 1] <= times[over - 1] - target
        return ready[: most if nearer_below else over]
    return ready[: min(max(share, least), most)]  # on a flat step of the table, by count


def on_tile_edge(view: View, batch: IntArray) -> IntArray:
    """The leading rows of a decode batch at which a token is cheapest: one row over a tile's edge costs a whole tile.

    The others wait for the next batch, in which they come first.
    """
    if len(batch) <= 1:
        return batch
    counts = np.arange(1, len(batch) + 1, dtype=np.int32)
    context = np.cumsum(view.context_of(batch), dtype=np.int32)
    rates = counts / view.cost.step_seconds(counts, context)
    # Of equally cheap numbers the largest.
    return batch[: len(batch) - int(np.argmax(rates[::-1]))]
