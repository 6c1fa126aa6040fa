"""The rules that TD-Pipe published, wired as intended: the baseline for what `temporal` sharpens.

Greedy prefill against single predicted lengths at a few future points, decode batches levelled by count, and a switch
by comparing intensities. Times come from the cost model without KV reads, in one unit. Where the published rule would
divide by zero, because nothing fits, it stays in decode. (TD-Pipe, arXiv 2506.10470, and its public code.)
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from tdpipe.core.step import Phase
from tdpipe.scheduling.policy import NO_ROWS, Plan, steps_ahead

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tdpipe.core.step import FloatArray, IntArray
    from tdpipe.scheduling.policy import View
    from tdpipe.scheduling.sequence import Sequence

_POINTS = np.array([5, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096], dtype=np.int32)
"""Decode steps ahead at which KV use is forecast."""
_OCCUPANCY = 0.9
"""Part of the KV cache that the forecast may reach."""
_PEAK_ROWS = 192
"""Rows from which a decode batch counts as full; also padded tokens of a prefill batch."""
_PEAK_REFERENCE = 256
"""Tokens at which intensity counts as 1."""


@dataclass(frozen=True, slots=True)
class ReferenceState:
    """The phase, and where in a round of decode batches it is."""

    phase: Phase = Phase.PREFILL
    decode_steps: int = 0
    judged_at: int = -1
    """Decode steps when the switch was last evaluated."""


class ReferencePolicy:
    """See the module."""

    name = "reference"

    def initial(self) -> ReferenceState:
        """Prefill, since nothing runs yet."""
        return ReferenceState()

    def plan(self, view: View, state: ReferenceState) -> tuple[Plan | None, ReferenceState]:
        """See `Policy.plan`."""
        if view.in_flight >= steps_ahead(view):
            return None, state
        if state.phase is Phase.DECODE and self._round_ended(view, state):
            state = replace(state, judged_at=state.decode_steps)
            if worth_switching(view):
                state = ReferenceState()
        if state.phase is Phase.PREFILL:
            rows = tuple(self._prefill(view))
            if rows:
                return Plan(Phase.PREFILL, NO_ROWS, rows), state
            state = ReferenceState(Phase.DECODE)
        batch = self._decode(view, state.decode_steps)
        if not len(batch):
            return None, state
        return Plan(Phase.DECODE, batch), replace(state, decode_steps=state.decode_steps + 1)

    @staticmethod
    def _round_ended(view: View, state: ReferenceState) -> bool:
        """Whether to evaluate the switch: once a round, and whenever nothing decodes."""
        ended = state.decode_steps % view.stages == 0 and state.judged_at != state.decode_steps
        return ended or view.decoding == 0

    @staticmethod
    def _prefill(view: View) -> Iterator[tuple[Sequence, int]]:
        """Whole prompts by arrival until the padded batch is full, while the forecast has room."""
        partial = view.partial()
        if partial is not None:
            yield partial, view.unscheduled(partial)
            return
        usage = _running_usage(view)
        free, slots, longest = view.free_blocks, view.free_slots, 0
        alone = view.decoding == 0
        for count, sequence in enumerate(view.waiting(), start=1):
            blocks = -(-sequence.length // view.block_size)
            full = usage.max() >= _OCCUPANCY * view.capacity
            if slots == 0 or blocks > free or (full and not alone):
                return
            yield sequence, sequence.length
            usage, free, slots = usage + _usage_of(view, sequence), free - blocks, slots - 1
            longest, alone = max(longest, sequence.length), False
            if count * longest >= _PEAK_ROWS:
                return

    @staticmethod
    def _decode(view: View, decode_steps: int) -> IntArray:
        """B // stages of the ready by arrival, one more in the first B mod stages batches of a round."""
        ready, running = view.by_arrival(view.ready), view.decoding
        share = running // view.stages + (decode_steps % view.stages < running % view.stages)
        return ready if len(ready) - share <= view.stages else ready[:share]


def worth_switching(view: View) -> bool:
    """The published rule: whether decode batches are less intense than a prefill phase with its bubble."""
    running, stages = view.decoding, view.stages
    rows = running // stages
    if running == 0:
        return view.waiting_count > 0
    if not view.waiting_count or rows > _PEAK_ROWS or not view.free_slots:
        return False
    spatial = 1.0
    if 0 < rows < _PEAK_ROWS:
        spatial = (rows / _whole(view, rows)) / (_PEAK_REFERENCE / _whole(view, _PEAK_REFERENCE))
    elif rows == 0:
        spatial = 0.0
    usage = _running_usage(view)
    times, admitted = [], 0
    for sequence in view.waiting():
        if usage.max() >= view.capacity:
            break
        usage = usage + _usage_of(view, sequence)
        times.append(_whole(view, sequence.length))
        admitted += 1
    if not times:
        return False
    phase = sum(times) / stages + (stages - 1) / stages * max(times)
    decode = _whole(view, max(1, (running + admitted) // stages))
    bubble = (max(times) - decode) / stages * (stages - 1)
    return spatial < (phase - bubble) / phase


def _whole(view: View, tokens: int) -> float:
    """Seconds of the whole model for so many tokens, KV reads left out."""
    return view.stages * view.cost.step_time(tokens, 0.0)


def _usage_of(view: View, sequence: Sequence) -> FloatArray:
    """[points] blocks that a waiting sequence will hold, by its mean predicted length."""
    left = sequence.expected_left
    blocks = -(-(sequence.length + _POINTS) // view.block_size)
    return np.where(left >= _POINTS, blocks, 0).astype(np.float64)


def _running_usage(view: View) -> FloatArray:
    """[points] blocks that the running sequences will hold; who outlived its prediction counts for nothing."""
    length, left = view.running_lengths()
    blocks = -(-(length[:, None] + _POINTS) // view.block_size)
    usage: FloatArray = np.where(left[:, None] >= _POINTS, blocks, 0).sum(axis=0).astype(np.float64)
    return usage
