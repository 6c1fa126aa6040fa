"""The rules that TD-Pipe published (arXiv 2506.10470 and its public code): the baseline for `temporal`.

Prefill is greedy against single predicted lengths at a few future steps, decode micro-batches are balanced by count,
and the switch compares intensities. Times come from the cost model without KV reads. Where the published rule would
divide by zero, because nothing fits, the policy stays in decode.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tdpipe.core.step import Phase
from tdpipe.scheduling.policy import NO_ROWS, Plan, max_steps_in_flight

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tdpipe.core.step import FloatArray, IntArray
    from tdpipe.scheduling.sequence import Sequence
    from tdpipe.scheduling.view import View

_FORECAST_STEPS = np.array([5, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096], dtype=np.int32)
"""[points] numbers of decode steps ahead at which KV use is forecast."""
_MAX_FORECAST_KV_SHARE = 0.9
"""Share of the KV cache that the forecast may reach."""
_FULL_DECODE_ROWS = 192
"""Number of rows from which a decode micro-batch counts as full."""
_FULL_PREFILL_TOKENS = 192
"""Number of padded tokens from which a prefill micro-batch counts as full."""
_UNIT_INTENSITY_TOKENS = 256
"""Number of tokens at which intensity counts as 1."""


@dataclass(slots=True)
class _ReferenceState:
    phase: Phase = Phase.PREFILL
    decode_steps: int = 0
    """Number of steps in this decode phase."""
    evaluated_at: int = -1
    """Number of these steps when the switch rule was last evaluated."""


class ReferencePolicy:
    """Prefill and decode in phases, by the published rules."""

    name = "reference"

    def __init__(self) -> None:
        self._state = _ReferenceState()

    def reset(self) -> None:
        """See `Policy.reset`; the first phase is prefill, because nothing runs yet."""
        self._state = _ReferenceState()

    def plan(self, view: View) -> Plan | None:
        """See `Policy.plan`."""
        if view.in_flight >= max_steps_in_flight(view):
            return None
        if self._state.phase is Phase.DECODE and self._needs_evaluation(view):
            self._state.evaluated_at = self._state.decode_steps
            if worth_switching(view):
                self._state = _ReferenceState()
        if self._state.phase is Phase.PREFILL:
            rows = tuple(self._prefill(view))
            if rows:
                return Plan(Phase.PREFILL, NO_ROWS, rows)
            self._state = _ReferenceState(Phase.DECODE)
        batch = self._decode(view)
        if not len(batch):
            return None
        self._state.decode_steps += 1
        return Plan(Phase.DECODE, batch)

    def _needs_evaluation(self, view: View) -> bool:
        """Return whether to evaluate the switch rule: once per round, and whenever nothing decodes."""
        steps = self._state.decode_steps
        round_ended = steps % view.stages == 0 and self._state.evaluated_at != steps
        return round_ended or view.decoding == 0

    @staticmethod
    def _prefill(view: View) -> Iterator[tuple[Sequence, int]]:
        """Yield whole prompts by arrival until the padded micro-batch or the forecast is full."""
        partial = view.partial_prefill()
        if partial is not None:
            yield partial, view.unscheduled(partial)
            return
        usage = _running_usage(view)
        free, slots, longest = view.free_blocks, view.free_slots, 0
        alone = view.decoding == 0
        for count, sequence in enumerate(view.waiting(), start=1):
            blocks = -(-sequence.length // view.block_size)
            full = usage.max() >= _MAX_FORECAST_KV_SHARE * view.capacity
            if slots == 0 or blocks > free or (full and not alone):
                return
            yield sequence, sequence.length
            usage, free, slots = usage + _usage_of(view, sequence), free - blocks, slots - 1
            longest, alone = max(longest, sequence.length), False
            if count * longest >= _FULL_PREFILL_TOKENS:
                return

    def _decode(self, view: View) -> IntArray:
        """Return running // stages ready slots by arrival, one more in the first micro-batches of a round.

        These are as many micro-batches as the division leaves over.
        """
        ready, running = view.by_arrival(view.ready), view.decoding
        position = self._state.decode_steps % view.stages
        share = running // view.stages + (position < running % view.stages)
        return ready if len(ready) - share <= view.stages else ready[:share]


def worth_switching(view: View) -> bool:
    """Return whether decode is less intense than a prefill phase with its bubble (the published rule)."""
    running, stages = view.decoding, view.stages
    rows = running // stages
    if running == 0:
        return view.waiting_count > 0
    if not view.waiting_count or rows > _FULL_DECODE_ROWS or not view.free_slots:
        return False
    spatial = 1.0
    if 0 < rows < _FULL_DECODE_ROWS:
        unit = _UNIT_INTENSITY_TOKENS / _model_seconds(view, _UNIT_INTENSITY_TOKENS)
        spatial = (rows / _model_seconds(view, rows)) / unit
    elif rows == 0:
        spatial = 0.0
    usage = _running_usage(view)
    times, admitted = [], 0
    for sequence in view.waiting():
        if usage.max() >= view.capacity:
            break
        usage = usage + _usage_of(view, sequence)
        times.append(_model_seconds(view, sequence.length))
        admitted += 1
    if not times:
        return False
    phase = sum(times) / stages + (stages - 1) / stages * max(times)
    decode = _model_seconds(view, max(1, (running + admitted) // stages))
    bubble = (max(times) - decode) / stages * (stages - 1)
    return spatial < (phase - bubble) / phase


def _model_seconds(view: View, tokens: int) -> float:
    """Return the seconds that the whole model takes for `tokens` tokens, without KV reads."""
    return view.stages * view.cost.step_time(tokens, 0.0)


def _usage_of(view: View, sequence: Sequence) -> FloatArray:
    """Return [points] blocks that a waiting sequence will hold, by its mean predicted length."""
    left = sequence.expected_left
    blocks = -(-(sequence.length + _FORECAST_STEPS) // view.block_size)
    return np.where(left >= _FORECAST_STEPS, blocks, 0).astype(np.float64)


def _running_usage(view: View) -> FloatArray:
    """Return [points] blocks that the running sequences will hold.

    A sequence that has outlived its prediction does not count.
    """
    length, left = view.running_lengths()
    blocks = -(-(length[:, None] + _FORECAST_STEPS) // view.block_size)
    usage: FloatArray = (
        np.where(left[:, None] >= _FORECAST_STEPS, blocks, 0).sum(axis=0).astype(np.float64)
    )
    return usage
