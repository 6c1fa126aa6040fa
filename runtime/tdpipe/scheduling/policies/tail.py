"""The order of admission that keeps the end of finite work short.

When nothing is left to admit, batches shrink until the longest output ends, and small batches cost almost as much as
large ones. So a request that would outlast all other work is admitted before its turn, once its expected output is as
long as the remaining rounds. Before that, and wherever requests keep coming, the order is that of arrival.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tdpipe.scheduling.sequence import Sequence
    from tdpipe.scheduling.view import View

_CRITICAL_ROUNDS_RATIO = 1.2
"""Largest ratio of the remaining rounds to the expected output of a request that is admitted before its turn; it is
above 1 because fewer rounds remain as batches shrink."""
_MIN_QUIET_SHARE = 0.25
"""Share of the remaining time for which nothing must have arrived for the work to count as finite."""


def admission_order(view: View) -> Iterator[Sequence]:
    """Yield the waiting sequences, first those that would outlast the rest, then the others by arrival."""
    rounds = _remaining_rounds(view)
    early = set()
    if rounds is not None:
        min_output = rounds / _CRITICAL_ROUNDS_RATIO
        for sequence in view.longest_waiting():
            if sequence.expected_left < min_output:
                break
            early.add(sequence.number)
            yield sequence
    for sequence in view.waiting():
        if sequence.number not in early:
            yield sequence


def _remaining_rounds(view: View) -> float | None:
    """Return the rounds until all work is done.

    None means that no waiting request would outlast the work, or that requests keep coming.
    """
    running = view.decoding
    longest = next(view.longest_waiting(), None)
    if longest is None or not running:
        return None
    max_rounds = longest.expected_left * _CRITICAL_ROUNDS_RATIO
    output = view.load.output
    if max_rounds < output / running:  # a lower bound of the rounds that is cheap to compute
        return None
    rounds = (output + view.running_left) / running
    return None if max_rounds < rounds or requests_keep_coming(view) else rounds


def requests_keep_coming(view: View) -> bool:
    """Return whether the latest request is so recent that others are expected before all work is done."""
    if not view.decoding:
        return True
    rounds = (view.load.output + view.running_left) / view.decoding
    return view.now - view.last_arrival < _MIN_QUIET_SHARE * rounds * _round_seconds(view)


def _round_seconds(view: View) -> float:
    """Return the seconds until every running sequence has its next token."""
    batches = min(view.stages, view.decoding)
    step = view.cost.step_time(-(-view.decoding // batches), view.context / batches)
    return step * view.stages
