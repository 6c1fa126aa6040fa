"""The order of admission that keeps the end of finite work short.

When nothing is left to admit, batches thin until the longest output ends, and thin batches cost almost as much as full
ones. So a request that would outlast all other work is admitted before its turn: once its expected output is as long as
the rounds to go. Before that, and wherever requests keep coming, the order is that of arrival.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tdpipe.scheduling.policy import View
    from tdpipe.scheduling.sequence import Sequence

_SLACK = 1.2
"""A request counts as critical when its output is this many times shorter than the rounds to go: rounds become shorter
as batches thin."""
_QUIET = 0.25
"""Work counts as finite when nothing has arrived for this share of the time to go."""


def admission_order(view: View) -> Iterator[Sequence]:
    """Waiting sequences: those that would outlast the rest first, then by arrival."""
    running = view.decoding
    longest = next(view.longest_waiting(), None)
    if longest is None or not running:
        return view.waiting()
    reach = longest.expected_left * _SLACK
    output = view.load.output
    if reach < output / running:
        return view.waiting()
    rounds = (output + view.running_left) / running
    if reach < rounds or view.now - view.last_arrival < _QUIET * rounds * _round_seconds(view):
        return view.waiting()
    return _critical_first(view, rounds / _SLACK)


def _critical_first(view: View, least: float) -> Iterator[Sequence]:
    """Those whose expected output is at least so long, the longest first; then the others by arrival."""
    early = set()
    for sequence in view.longest_waiting():
        if sequence.expected_left < least:
            break
        early.add(sequence.number)
        yield sequence
    for sequence in view.waiting():
        if sequence.number not in early:
            yield sequence


def _round_seconds(view: View) -> float:
    """Until every running sequence has its next token."""
    batches = min(view.stages, view.decoding)
    step = view.cost.step_time(-(-view.decoding // batches), view.context / batches)
    return step * view.stages
