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
    rounds = _rounds_to_go(view)
    early = set()
    if rounds is not None:
        least = rounds / _SLACK
        for sequence in view.longest_waiting():
            if sequence.expected_left < least:
                break
            early.add(sequence.number)
            yield sequence
    for sequence in view.waiting():
        if sequence.number not in early:
            yield sequence


def _rounds_to_go(view: View) -> float | None:
    """Until all work is done; None where none that waits would outlast it, or where requests keep coming."""
    running = view.decoding
    longest = next(view.longest_waiting(), None)
    if longest is None or not running:
        return None
    reach = longest.expected_left * _SLACK
    output = view.load.output
    if reach < output / running:  # a bound that costs little
        return None
    rounds = (output + view.running_left) / running
    return None if reach < rounds or requests_keep_coming(view) else rounds


def requests_keep_coming(view: View) -> bool:
    """Whether the latest request is so recent that others are to be expected before all work is done."""
    if not view.decoding:
        return True
    rounds = (view.load.output + view.running_left) / view.decoding
    return view.now - view.last_arrival < _QUIET * rounds * _round_seconds(view)


def _round_seconds(view: View) -> float:
    """Until every running sequence has its next token."""
    batches = min(view.stages, view.decoding)
    step = view.cost.step_time(-(-view.decoding // batches), view.context / batches)
    return step * view.stages
