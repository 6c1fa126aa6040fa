"""Inter-batch work stealing: which of the ready sequences make the next decode micro-batch (TD-Pipe, arXiv 2506.10470).

A full pipeline runs at mean(batch time) / max(batch time), so micro-batches are balanced by predicted time, not by
count. No micro-batch owns a sequence: each gives up what exceeds the mean to the next one and is topped up with waiting
sequences where it is short. Those that have waited longest come first, so all stay within one turn of each other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from tdpipe.core.step import IntArray
    from tdpipe.scheduling.view import View

_TIME_TOLERANCE = 1e-9
"""Relative difference up to which two times count as equal."""


def next_decode_batch(view: View, *, on_tile_edge: bool = False) -> IntArray:
    """Return the longest-waiting ready slots whose predicted time is nearest to the mean of the micro-batches.

    Args:
        view: view of the scheduler.
        on_tile_edge: whether to take fewer rows than the mean, but at least half as many, where a row is cheapest then:
            one row beyond the edge of a tile costs a whole tile. The edge is that of the mean for all micro-batches:
            if some went on to the next edge with rows that others had left, all would wait for these. Rows are counted
            here, not their time: more are ready than the stages take, so none waits for a long micro-batch, and a step
            with fewer rows takes nearly as long.
    """
    ready = view.ready
    decoding = view.decoding
    batches = min(view.stages, decoding)
    if len(ready) <= 1 or (batches <= 1 and not on_tile_edge):
        return ready
    mean_rows = -(-decoding // batches)
    if on_tile_edge and (edge := _cheapest_count(view, mean_rows)) < mean_rows:
        return ready[:edge]
    return ready if batches <= 1 else ready[: _balanced_count(view, ready, mean_rows)]


def _cheapest_count(view: View, max_rows: int) -> int:
    """Return the number of rows, from half of `max_rows` up to it, at which a row is cheapest; the largest if equal.

    Each row counts with the mean context: its KV is read some time anyway, so a row with a short context saves nothing.
    """
    counts = np.arange(max_rows, max_rows // 2, -1, dtype=np.int32)
    contexts = np.asarray(counts * (view.context / view.decoding), dtype=np.float64)
    times = view.cost.step_seconds(counts, contexts)
    return int(counts[np.argmax(counts / times)])


def _balanced_count(view: View, ready: IntArray, mean_rows: int) -> int:
    """Return how many of the ready rows take as long as the mean micro-batch, which has `mean_rows` rows.

    Where more rows were measured to take less time, fewer rows count as no faster; otherwise half the mean number could
    seem to take as long as the mean.
    """
    counts = np.arange(1, max(len(ready), mean_rows) + 1, dtype=np.int32)
    ready_counts = counts[: len(ready)]
    reads = view.context_of(ready).cumsum(dtype=np.int32)
    times = np.maximum.accumulate(view.cost.step_seconds(ready_counts, reads))
    mean_context = view.context / view.decoding
    if (
        view.cost.ascends
    ):  # the time of the largest number of rows is the longest, so one lookup finds it
        target = view.cost.step_time(mean_rows, mean_rows * mean_context)
    else:
        contexts = np.asarray(counts[:mean_rows] * mean_context, dtype=np.float64)
        target = float(view.cost.step_seconds(counts[:mean_rows], contexts).max())
    min_count = int(times.searchsorted(target * (1 - _TIME_TOLERANCE), side="left")) + 1
    max_count = int(times.searchsorted(target * (1 + _TIME_TOLERANCE), side="right"))
    if min_count > max_count:  # no count takes exactly the target: the nearer of the two around it
        above = min(min_count, len(times))
        below_is_nearer = (
            max_count > 0 and target - times[max_count - 1] <= times[above - 1] - target
        )
        return max_count if below_is_nearer else above
    return min(
        max(mean_rows, min_count), max_count
    )  # several counts take the target: nearest to the mean
